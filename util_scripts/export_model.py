"""Export a checkpoint to one file that runs without this program: ONNX, torch.export, or both.

Batch norm is folded into the convolutions, the batch size is free, and mean and std are part of the
model: it maps uint8 pixels to logits. Everything else needed to use it (frames per clip, size,
class names …) is JSON in the file: the entry `preprocessing` of an ONNX file's metadata, the extra
file `preprocessing.json` of a .pt2.

Each file is then run on clips, by onnxruntime or torch.export, and compared with the checkpoint,
all in float32 on the CPU. The clips come from --index and --frames, from --video, or are seeded
noise. The exit status is 1 if any logit differs by --tolerance or more, or any top-1 class differs.
"""

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from predict.arguments import add_classifier_flags, add_clip_flags, classifier_of
from utils.command_line import INPUT, INPUT_VIDEO, OutputPath, Parser, run
from utils.outputs import ONNX, PT2

if TYPE_CHECKING:
    from predict.classifier import Classifier
    from predict.export import Runner
    from predict.export_check import CheckClips


def main(argv: Sequence[str] | None = None) -> int:
    options = _make_parser().parse_args(argv)
    _check_options(options)
    classifier = classifier_of(options)

    from predict.export import Reference
    from predict.export_check import check_export, in_batches

    reference = Reference(classifier)
    clips = _clips_to_compare(classifier, options)
    for reason in clips.skipped:
        print(f"skipped: {reason}")
    expected = in_batches(reference, clips.clips)
    status = 0
    with closing(_export(classifier, options)) as files:
        for path, n_bytes, engine, run_exported in files:
            check = check_export(
                run_exported, reference, clips.clips, expected, takes_floats=options.float_input
            )
            print(f"{path}: {n_bytes / 1e6:.1f} MB")
            for line in check.describe(engine, clips.source):
                print(f"  {line}")
            if not check.parity.holds(options.tolerance):
                print(f"  DISAGREES with {options.checkpoint} (--tolerance {options.tolerance:g})")
                status = 1
    return status


def _export(
    classifier: "Classifier", options: argparse.Namespace
) -> Generator[tuple[Path, int, str, "Runner"], None, None]:
    """Write the requested files; yield each with its size in bytes, the name of its engine and what
    runs it. An earlier file is replaced when the generator goes on."""
    import torch

    from predict import export

    takes_floats = options.float_input
    clips = export.example_clips(classifier)
    model = export.deployed(classifier, takes_floats=takes_floats)
    program = export.traced(model, clips.float() if takes_floats else clips)
    description = export.about(classifier, takes_floats=takes_floats)
    if options.pt2 is not None:
        with export.written_pt2(program, options.pt2, description) as part:
            n_bytes = part.stat().st_size
            yield options.pt2, n_bytes, "torch.export", export.pt2_runner(part)
    if options.onnx is not None:
        with export.written_onnx(program, options.onnx, description) as part:
            n_bytes = part.stat().st_size
            runner = export.onnx_runner(part, torch.get_num_threads())
            yield options.onnx, n_bytes, "onnxruntime", runner


def _clips_to_compare(classifier: "Classifier", options: argparse.Namespace) -> "CheckClips":
    from predict.export import example_clips
    from predict.export_check import CheckClips, clips_of_index, clips_of_videos

    n_clips = options.n_clips
    if options.index is not None:
        frames, subset = options.frames, options.subset
        return clips_of_index(classifier, options.index, frames, subset=subset, n_clips=n_clips)
    if options.video:
        return clips_of_videos(classifier, options.video, n_clips)
    return CheckClips(example_clips(classifier, n_clips), "seeded noise")


def _check_options(options: argparse.Namespace) -> None:
    """Check what can be checked before anything large is loaded. Raises UserError."""
    if options.onnx is None and options.pt2 is None:
        raise UserError("nothing to write: give --onnx FILE.onnx, --pt2 FILE.pt2, or both")
    for name, suffix in (("onnx", ".onnx"), ("pt2", ".pt2")):
        path = getattr(options, name)
        if path is not None and path.suffix != suffix:
            raise UserError(f"--{name} {path}: the file name must end in {suffix}")
    if (options.index is None) != (options.frames is None):
        raise UserError("--index and --frames must be given together")
    if options.index is not None and options.video:
        raise UserError("--video cannot be combined with --index and --frames")
    if options.n_clips < 1:
        raise UserError(f"--n_clips {options.n_clips}: must be at least 1")
    if options.onnx is not None:
        from predict.export import require_onnx

        require_onnx()


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="util_scripts.export_model", description=__doc__)
    add_classifier_flags(parser)
    add = parser.add_argument
    add("--onnx", type=OutputPath(ONNX), metavar="FILE.onnx", help="write ONNX")
    add("--pt2", type=OutputPath(PT2), metavar="FILE.pt2", help="write a torch.export archive")
    add("--float_input", action="store_true", help="the model takes normalised float32 pixels")
    add("--index", type=INPUT, help="index JSON of videos to compare on")
    add("--frames", type=INPUT, help="folder of their frames")
    text = "or video files to compare on"
    add("--video", type=INPUT_VIDEO, nargs="+", default=[], help=text)
    add("--n_clips", type=int, default=16, help="clips to compare on (16)")
    text = "logit difference that is an error (0.001)"
    add("--tolerance", type=float, default=1e-3, help=text)
    add_clip_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
