"""Print what a model costs: parameters, operations and memory per clip, and clips per second.

    python -m util_scripts.model_info --model resnet --model_depth 50
    python -m util_scripts.model_info --model resnet2p1d --sample_duration 32 --speed

Takes the flags of main.py that decide the architecture and the shape of clips. Everything but the
speed follows from shapes alone, without weights. --speed measures this device for some seconds:
the network alone, without loading clips.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from errors import UserError
from flags import Role
from models.catalog import FAMILIES
from opts import names_with
from parsing import add_flags, fill_in, options_of
from utils.command_line import Parser, run
from utils.text import markdown_table

if TYPE_CHECKING:
    from models.facts import ModelFacts
    from opts import Options

FLAGS_OF_MODEL = tuple(
    dict.fromkeys(
        (
            "model",
            "model_depth",
            *names_with(Role.ARCHITECTURE),
            "n_classes",
            "input_type",
            *(name for name in names_with(Role.CLIP_SHAPE) if name != "sample_t_stride"),
        )
    )
)
FLAGS_OF_MACHINE = names_with(Role.CLASSIFIER | Role.INFERENCE)
MAX_CLIPS = 4096
COLUMNS = ("model", "depth", "parameters, M", "G multiply-adds", "inference, MB", "training, MB")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.model_info", description=__doc__)
    add_flags(parser.add_argument_group("model and clips"), FLAGS_OF_MODEL)
    group = parser.add_argument_group("speed")
    group.add_argument("--speed", action="store_true", help="measure clips per second")
    text = "clips per batch that --speed measures (1; on a GPU 16)"
    group.add_argument("--clips", type=int, default=0, help=text)
    add_flags(group, FLAGS_OF_MACHINE)
    text = "print a table of all families and depths, as in docs/models.md"
    parser.add_argument("--markdown", action="store_true", help=text)
    given = parser.parse_args(argv)
    if not 0 <= given.clips <= MAX_CLIPS:
        raise UserError(f"--clips {given.clips}: must be from 1 to {MAX_CLIPS}")
    if given.markdown:
        for line in markdown(_options(given)):
            print(line, flush=True)
        return 0
    options = _options(given)
    side, n_frames = options.sample_size, options.sample_duration
    shape = f"{n_frames} frames of {side} x {side} pixels, {options.n_classes} classes"
    print(f"{options.arch}: clips of {shape}")
    for subject, text in facts_of(options).describe():
        print(f"  {subject:20} {text}")
    if given.speed:
        for subject, text in _speeds(options, given.clips):
            print(f"  {subject:20} {text}", flush=True)
    return 0


def facts_of(options: "Options") -> "ModelFacts":
    """Return the facts of the model that the options describe. Raises UserError where clips of
    their shape are too small for it."""
    import torch

    from model import build_model
    from models.facts import model_facts

    with torch.device("meta"):
        model = build_model(options)
    side = options.sample_size
    return model_facts(model, (options.n_input_channels, options.sample_duration, side, side))


def markdown(options: "Options", families: Sequence[str] = tuple(FAMILIES)) -> Iterator[str]:
    """Yield the lines of a table of model families, for clips of the options' shape."""
    from dataclasses import replace

    def rows() -> Iterator[tuple[str, ...]]:
        for family in families:
            for depth in FAMILIES[family].depths:
                facts = facts_of(replace(options, model=family, model_depth=depth))
                yield (
                    f"`{family}`",
                    str(depth),
                    f"{facts.n_parameters / 1e6:.1f}",
                    f"{facts.flops / 2e9:.1f}",
                    f"{facts.inference_bytes / 1e6:.0f}",
                    f"{facts.training_bytes / 1e6:.0f}",
                )

    return markdown_table(COLUMNS, rows())


def _options(given: argparse.Namespace) -> "Options":
    """Return checked options of the flags. Raises UserError."""
    names = (*FLAGS_OF_MODEL, *FLAGS_OF_MACHINE)
    return fill_in(options_of({n: getattr(given, n) for n in names if hasattr(given, n)}), {})


def _speeds(options: "Options", n_clips: int) -> Iterator[tuple[str, str]]:
    """Yield (subject, text). Raises UserError where the memory is too small."""
    import torch

    from engine.device import explained_out_of_memory, tune_process
    from engine.speed import inference_speed, training_speed
    from model import build_device, build_model

    with explained_out_of_memory("reduce --clips, --sample_size or --sample_duration"):
        device = build_device(options)
        tune_process(device)
        n_clips = n_clips or (16 if device.torch_device.type == "cuda" else 1)
        side = options.sample_size
        shape = (n_clips, options.n_input_channels, options.sample_duration, side, side)
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device.torch_device)
        torch.backends.cudnn.benchmark = True  # as main.py
        where = f"clips/s in batches of {n_clips}, {device}"
        yield "inference", f"{inference_speed(build_model(options), device, clips):.2f} {where}"
        if n_clips == 1:  # of which batch norm may get a single value per channel
            clips = clips.repeat(2, 1, 1, 1, 1)
        where = f"clips/s in batches of {len(clips)}, all layers"
        yield "training", f"{training_speed(build_model(options), device, clips):.2f} {where}"


if __name__ == "__main__":
    sys.exit(run(main))
