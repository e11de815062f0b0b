"""A checkpoint as one file that runs without this program: ONNX, torch.export's archive, or both.

Batch norm is folded into the convolutions, the batch may have any size, and the mean and std are
part of the model: it takes uint8 pixels and gives logits. What else a user has to know (frames per
clip, size, class names …) is JSON in the file: the entry `preprocessing` of an ONNX file's
metadata, the extra file `preprocessing.json` of a .pt2.

Each file is then run on clips, in onnxruntime or as torch.export loads it, and held against the
checkpoint itself: all in float32 on the CPU. The clips are those of --index and --frames, or of
--video, or else seeded noise. Exit status 1 if any logit differs by --tolerance or more, or another
class comes first anywhere.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from errors import UserError
from evaluation.results import some
from predict.arguments import add_classifier_flags, add_clip_flags, classifier_of, clips_of
from utils.command_line import (
    INPUT,
    INPUT_VIDEO,
    OutputPath,
    Parser,
    run,
)
from utils.outputs import ONNX, PT2

if TYPE_CHECKING:
    from torch import Tensor

    from predict.classifier import Classifier
    from predict.export import Parity, Reference, Runner

BATCH = 4  # clips; the first of those compared is run alone, so that two sizes are tried
ROUNDS = 5  # of timing, after one that does not count


class Exported(NamedTuple):
    """A file, what runs it, and the name of that."""

    path: Path
    engine: str
    run: "Runner"


def export(classifier: "Classifier", options: argparse.Namespace) -> Iterator[Exported]:
    """Write the files asked for. Raises UserError."""
    import torch

    from predict import export as deployment

    takes_floats = options.float_input
    clips = deployment.example_clips(classifier)
    model = deployment.deployed(classifier, takes_floats=takes_floats)
    program = deployment.traced(model, clips.float() if takes_floats else clips)
    description = deployment.about(classifier, takes_floats=takes_floats)
    if options.pt2 is not None:
        deployment.write_pt2(program, options.pt2, description)
        yield Exported(options.pt2, "torch.export", deployment.pt2_runner(options.pt2))
    if options.onnx is not None:
        deployment.write_onnx(program, options.onnx, description)
        run_onnx = deployment.onnx_runner(options.onnx, torch.get_num_threads())
        yield Exported(options.onnx, "onnxruntime", run_onnx)


def clips_to_compare(classifier: "Classifier", options: argparse.Namespace) -> tuple["Tensor", str]:
    """uint8 (N, C, T, H, W), --n_clips of them or as many as there are, and what they are."""
    from predict.export import example_clips

    if options.index is not None:
        return _clips_of_index(classifier, options), f"of {options.index}"
    if options.video:
        return _clips_of_videos(classifier, options), f"of {some(options.video)}"
    return example_clips(classifier, options.n_clips), "of seeded noise"


def _clips_of_index(classifier: "Classifier", options: argparse.Namespace) -> "Tensor":
    """The first window of videos that lie evenly in the index."""
    from datasets.video_dataset import SampleKey, collate

    _, loader = clips_of(classifier, options.index, options.frames, options.subset)
    videos = range(0, len(loader.dataset), -(-len(loader.dataset) // options.n_clips))
    batch = collate([loader.dataset[SampleKey(0, video, (0, 1))] for video in videos])
    for sample in batch.bad:
        print(f"left out: {sample.reason}")
    if not len(batch.labels):
        raise UserError(f"{options.index}: none of the {len(videos)} videos tried can be read")
    return batch.clips


def _clips_of_videos(classifier: "Classifier", options: argparse.Namespace) -> "Tensor":
    """The first windows of each video, the same number of all."""
    import torch

    from media.ffmpeg import Ffmpeg
    from media.sources import find_inputs
    from predict.scoring import FOR_MODEL, FrameReader, NoVideo, windows_of

    if classifier.options.input_type == "flow":
        raise UserError(f"{classifier.path}: takes optical flow, --video gives pictures")
    inputs, clips = find_inputs(options.video), []
    stride = classifier.options.sample_duration
    for source in inputs[: options.n_clips]:
        reader = FrameReader(Ffmpeg(), source, FOR_MODEL)
        windows = windows_of(reader, classifier.options, stride)
        try:
            clips += [w.clip for w in islice(windows, -(-options.n_clips // len(inputs)))]
        except NoVideo as error:
            print(f"left out: {source.name}: {error}")
        finally:
            reader.stop()
    if not clips:
        raise UserError(f"--video {some(options.video)}: no frames in it")
    return torch.stack(clips)


def in_batches(run_batch: "Runner", clips: "Tensor") -> "Tensor":
    """One clip alone, then BATCH at a time. -> logits (N, K)"""
    import torch

    return torch.cat(
        [run_batch(part) for part in (clips[:1], *clips[1:].split(BATCH)) if len(part)]
    )


def seconds_per_clip(runners: "Sequence[Runner]", clips: "Sequence[Tensor]") -> list[float]:
    """The median of each, on its clips; they take turns."""
    taken: list[list[float]] = [[] for _ in runners]
    for _ in range(ROUNDS + 1):
        for seconds, run_batch, batch in zip(taken, runners, clips, strict=True):
            start = perf_counter()
            run_batch(batch)
            seconds.append((perf_counter() - start) / len(batch))
    return [median(seconds[1:]) for seconds in taken]


def check(exported: Exported, options: argparse.Namespace, reference: "Reference",
          clips: "Tensor", expected: "Tensor", source: str) -> bool:  # fmt: skip
    """Tell how the file compares with the checkpoint; whether they agree."""
    import torch

    from predict.export import compare_logits

    inputs = reference.normalized(clips) if options.float_input else clips
    parity = compare_logits(expected, in_batches(exported.run, inputs))
    agrees = parity.holds(options.tolerance)
    print(f"{exported.path}: {exported.path.stat().st_size / 1e6:.1f} MB")
    print(f"  {described(parity, source)}")
    if not agrees:
        print(f"  DISAGREES with {options.checkpoint} (--tolerance {options.tolerance:g})")
    ours = reference.device.scorer(reference.model)
    theirs, own = seconds_per_clip([exported.run, ours], [inputs[:BATCH], clips[:BATCH]])
    print(
        f"  {exported.engine} {theirs * 1000:.1f} ms a clip, this program {own * 1000:.1f} ms "
        f"(batches of {len(clips[:BATCH])}, {torch.get_num_threads()} threads, float32)"
    )
    return agrees


def described(parity: "Parity", source: str) -> str:
    return (
        f"on {parity.n_clips} clips {source}: largest logit difference {parity.difference:.2g} "
        f"(logits up to {parity.largest:.3g}), the same class first in {parity.n_agreeing}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="util_scripts.export_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_classifier_flags(parser)
    parser.add_argument("--onnx", type=OutputPath(ONNX), metavar="FILE.onnx", help="write ONNX")
    parser.add_argument(
        "--pt2", type=OutputPath(PT2), metavar="FILE.pt2", help="write torch.export's archive"
    )
    parser.add_argument(
        "--float_input", action="store_true", help="the model takes float32, normalised already"
    )
    parser.add_argument("--index", type=INPUT, help="index JSON of videos to compare on")
    parser.add_argument("--frames", type=INPUT, help="folder of their frames")
    parser.add_argument(
        "--video", type=INPUT_VIDEO, nargs="+", default=[], help="or video files to compare on"
    )
    parser.add_argument("--n_clips", type=int, default=16, help="clips to compare on (16)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="logit difference that is too much (0.001)"
    )
    add_clip_flags(parser)
    options = parser.parse_args(argv)
    _check_options(options)
    classifier = classifier_of(options)

    from predict.export import Reference

    reference = Reference(classifier)
    clips, source = clips_to_compare(classifier, options)
    expected = in_batches(reference, clips)
    checks = [
        check(exported, options, reference, clips, expected, source)
        for exported in export(classifier, options)
    ]
    return 0 if all(checks) else 1


def _check_options(options: argparse.Namespace) -> None:
    """Before anything heavy is loaded. Raises UserError."""
    if options.onnx is None and options.pt2 is None:
        raise UserError("nothing to write: give --onnx FILE.onnx, --pt2 FILE.pt2, or both")
    for name, suffix in (("onnx", ".onnx"), ("pt2", ".pt2")):
        path = getattr(options, name)
        if path is not None and path.suffix != suffix:
            raise UserError(f"--{name} {path}: its name must end in {suffix}")
    if (options.index is None) != (options.frames is None):
        raise UserError("--index and --frames go together")
    if options.index is not None and options.video:
        raise UserError("clips come from --index and --frames or from --video, not both")
    if options.n_clips < 1:
        raise UserError(f"--n_clips {options.n_clips}: must be at least 1")
    if options.onnx is not None:
        from predict.export import require_onnx

        require_onnx()


if __name__ == "__main__":
    sys.exit(run(main))
