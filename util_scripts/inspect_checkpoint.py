"""Print what a checkpoint holds: model, classes, how it was trained, the flags it needs, and what a
clip of its shape costs in operations and memory."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from errors import UserError
from flags import Role, as_text, as_words
from opts import FLAGS, names_with
from parsing import options_of
from utils.command_line import INPUT, Parser, run
from utils.reading import shown_name
from utils.text import join_few

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint
    from models.arch_detect import Identity

SHOWN_NAMES = 10
# Flags whose values tensor shapes do not show.
IN_OPTIONS = tuple(
    name for role in (Role.STEM, Role.CLIP_SHAPE, Role.PREPROCESSING) for name in names_with(role)
)


def describe(checkpoint: "Checkpoint", *, all_names: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (subject, text) for each thing that a checkpoint says about itself."""
    identity = checkpoint.identity
    n_values = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    yield "tensors", f"{len(checkpoint.state_dict)} with {n_values:,} values"
    if identity is None:
        yield "model", "not of a known family"
    else:
        yield "model", identity.arch
        if checkpoint.naming is not None:
            yield "written as", checkpoint.naming.title
        yield from _details(identity)
    yield "class names", _names(checkpoint.class_names, all_names)
    yield "epoch", _epoch(checkpoint)
    best = checkpoint.best
    if best:
        yield "best epoch", f"{best['epoch']}, video accuracy {best['video_accuracy']:.4f}"
    held = [name for name in ("optimizer", "scheduler") if getattr(checkpoint, name) is not None]
    yield "to resume", " and ".join(held) if held else "weights only"
    if checkpoint.options:
        known = {n: checkpoint.options[n] for n in IN_OPTIONS if n in checkpoint.options}
        yield "trained with", ", ".join(f"{name} {as_text(known[name])}" for name in known)
    else:
        yield "trained with", "not in the file: the original saves no options"
    if checkpoint.extras.versions:
        yield "written by", ", ".join(f"{k} {v}" for k, v in checkpoint.extras.versions.items())
    if identity is not None:
        yield "flags", " ".join(_flags(identity, checkpoint.options))


def costs(checkpoint: "Checkpoint") -> Iterator[tuple[str, str]]:
    """Yield (subject, text) for what its model costs, with clips as in training."""
    identity = checkpoint.identity
    if identity is None:
        return
    try:
        yield from _costs(checkpoint, identity)
    except (UserError, ValueError, RuntimeError, ZeroDivisionError) as error:
        yield "parameters", f"not computed: {str(error).splitlines()[0]}"


def _costs(checkpoint: "Checkpoint", identity: "Identity") -> Iterator[tuple[str, str]]:
    import torch

    from engine.checkpoint import check_fits
    from model import adopt_checkpoint_options, build_model
    from models.facts import model_facts

    channels = {"input_type": "flow"} if identity.n_input_channels == 2 else {}
    options = adopt_checkpoint_options(options_of(channels), checkpoint)
    with torch.device("meta"):
        model = build_model(options)
    check_fits(model, checkpoint)
    side, n_frames = options.sample_size, options.sample_duration
    facts = model_facts(model, (options.n_input_channels, n_frames, side, side))
    yield from facts.describe()
    yield "clips", f"{n_frames} frames of {side} x {side} pixels"


def _details(identity: "Identity") -> Iterator[tuple[str, str]]:
    yield "classes", str(identity.n_classes) if identity.n_classes else "none: it has no head"
    yield "input channels", str(identity.n_input_channels)
    yield from ((name, str(value)) for name, value in identity.options.items())


def _names(names: Sequence[str] | None, all_names: bool) -> str:
    if names is None:
        return "not in the file"
    if all_names or len(names) <= SHOWN_NAMES:
        return ", ".join(map(shown_name, names))
    return f"{join_few(names, SHOWN_NAMES)} (--names)"


def _epoch(checkpoint: "Checkpoint") -> str:
    if checkpoint.epoch is None:
        return "not in the file"
    position = checkpoint.position
    if position is None:
        return str(checkpoint.epoch)
    return f"{checkpoint.epoch}, and {position['batches']} batches of epoch {position['epoch']}"


def _flags(identity: "Identity", saved: dict[str, Any]) -> Iterator[str]:
    """The flags that would build this model without the file."""
    yield f"--model {identity.model} --model_depth {identity.model_depth}"
    if identity.n_input_channels == 2:
        yield "--input_type flow"
    values = identity.options | {name: saved.get(name) for name in IN_OPTIONS}
    for name, value in values.items():
        if value is None or value == FLAGS[name].default:
            continue
        yield " ".join(as_words(name, value))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.inspect_checkpoint", description=__doc__)
    parser.add_argument("checkpoint", type=INPUT, nargs="+")
    parser.add_argument("--names", action="store_true", help="list all class names")
    options = parser.parse_args(argv)

    from engine.checkpoint import load_checkpoint

    for path in options.checkpoint:
        checkpoint = load_checkpoint(path)
        print(f"{path}: {checkpoint.path.stat().st_size / 1e6:.1f} MB")
        for subject, text in (*describe(checkpoint, all_names=options.names), *costs(checkpoint)):
            print(f"  {subject:20} {text}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
