"""Check options: values outside their range, flags that contradict each other, saved values."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from errors import UserError
from flags import Flag, Role, as_text
from models.catalog import FAMILIES
from opts import FLAGS, Options, names_with
from utils.command_line import path_fault
from utils.reading import shown, shown_name, typed


def refuse(problems: Iterable[str]) -> None:
    """Raise UserError with a line for each problem, if there are any."""
    if lines := list(problems):
        raise UserError("\n".join(lines))


def problems_of(options: Options) -> Iterator[str]:
    """Yield a line for each fault of a command line of main.py.

    What a checkpoint may still change is left to `network_contradictions`.
    """
    yield from _missing(options)
    yield from bad_values(options)
    yield from _machine_contradictions(options)
    yield from _clip_contradictions(options)
    yield from _augmentation_contradictions(options)
    yield from _training_contradictions(options)
    if not options.starts_from_file:
        yield from fresh_start_contradictions(options)
        return
    if {"sample_size", "eval_resize"} <= options.given:
        yield from _size_contradictions(options)
    if "model" in options.given:
        yield from _model_contradictions(options)


def network_contradictions(options: Options) -> Iterator[str]:
    """Yield a line for each fault of the network and the size of its clips."""
    yield from _model_contradictions(options)
    yield from _size_contradictions(options)


def bad_values(options: Options) -> Iterator[str]:
    """Yield a line for each value that its flag does not accept."""
    for name, flag in FLAGS.items():
        value = getattr(options, name)
        if isinstance(value, Path):
            if (fault := path_fault(value)) is not None:
                yield f"--{name} {shown_name(str(value))}: {fault}"
        elif (fault := flag.fault(value)) is not None:
            yield f"--{name} {as_text(value)}: {fault}"


def _missing(options: Options) -> Iterator[str]:
    for name in names_with(Role.REQUIRED):
        if name not in options.given:
            yield f"--{name} is missing"


def _machine_contradictions(options: Options) -> Iterator[str]:
    if options.batchnorm_sync and options.no_cuda:
        yield "--batchnorm_sync cannot be combined with --no_cuda: it needs GPUs"
    if options.world_size > 1 and not options.distributed:
        yield f"--world_size {options.world_size} needs --distributed and a launcher on each node"
    if options.cache_features and options.distributed:
        yield "--cache_features cannot be combined with --distributed: it runs in one process"


def _clip_contradictions(options: Options) -> Iterator[str]:
    if options.input_type == "flow" and options.file_type != "hdf5":
        yield f"--input_type flow needs --file_type hdf5, not {options.file_type}"
    if options.dataset == "activitynet" and options.file_type != "jpg":
        yield f"--dataset activitynet needs --file_type jpg, not {options.file_type}"
    if options.scaled_decode and (options.accimage or options.file_type == "video"):
        other = "--accimage" if options.accimage else "--file_type video"
        yield f"--scaled_decode cannot be combined with {other}"
    if options.inference_crops > 1 and options.inference_crop == "nocrop":
        yield (
            f"--inference_crops {options.inference_crops} cannot be combined with "
            "--inference_crop nocrop: whole frames have no squares"
        )


def _augmentation_contradictions(options: Options) -> Iterator[str]:
    if len(options.rand_augment) != 2:
        given = as_text(options.rand_augment)
        yield f"--rand_augment {given}: needs two numbers, of operations and their magnitude"
    elif options.rand_augment[1] > 30:
        yield f"--rand_augment {as_text(options.rand_augment)}: the magnitude must be from 0 to 30"
    elif options.input_type == "flow" and options.rand_augment[0]:
        yield (
            "--rand_augment cannot be combined with --input_type flow: it would rotate the flow "
            "field but not its vectors"
        )
    if options.input_type == "flow" and options.colorjitter:
        yield "--colorjitter cannot be combined with --input_type flow: flow has no colours"
    if options.cutmix and options.cache_features:
        yield "--cutmix cannot be combined with --cache_features: features have no boxes"


def _training_contradictions(options: Options) -> Iterator[str]:
    if options.nesterov and options.momentum == 0:
        yield "--nesterov needs a --momentum above 0"
    if options.no_train and options.no_val and not options.inference:
        yield "--no_train --no_val without --inference leaves nothing to do"
    if options.lr_scheduler == "plateau" and options.no_val and not options.no_train:
        yield "--lr_scheduler plateau needs the validation loss: leave out --no_val"
    if options.early_stopping and options.no_val and not options.no_train:
        yield "--early_stopping needs the validation accuracy: leave out --no_val"
    if options.warmup_epochs and options.lr_scheduler != "cosine":
        yield "--warmup_epochs needs --lr_scheduler cosine"
    if options.warmup_epochs > options.n_epochs:
        yield f"--warmup_epochs {options.warmup_epochs:g} exceeds --n_epochs {options.n_epochs}"
    for name in ("momentum", "dampening", "nesterov"):
        if options.optimizer != "sgd" and name in options.given - options.from_recipe:
            yield f"--{name} needs --optimizer sgd"
    if options.no_train and options.resume_path is None:
        yield "--no_train needs --resume_path: without it the weights would be random"


def fresh_start_contradictions(options: Options) -> Iterator[str]:
    """Yield a line for each fault of training from random weights."""
    if options.keep_head:
        yield "--keep_head needs --pretrain_path, whose head it keeps"
    if options.ft_begin_module:
        yield (
            f"--ft_begin_module {options.ft_begin_module} needs --pretrain_path or a checkpoint to "
            "resume: the frozen layers would stay random; without a checkpoint leave it out, and "
            "train a small network at a low rate (--model_depth 10 --learning_rate 0.01)"
        )
    if options.freeze_bn:
        source = f" (of --recipe {options.recipe})" if "freeze_bn" in options.from_recipe else ""
        yield (
            f"--freeze_bn{source} needs --pretrain_path or a checkpoint to resume: batch norm "
            "would keep its initial statistics; without a checkpoint leave it out, or take "
            "--recipe scratch or scratch_small"
        )
    yield from network_contradictions(options)


def _size_contradictions(options: Options) -> Iterator[str]:
    size, resize = options.sample_size, options.eval_resize
    if len(resize) > 2 or (len(resize) == 2 and not all(resize)):
        yield f"--eval_resize {as_text(resize)}: needs the shorter side, or height and width"
    elif any(resize) and min(resize) < size:
        larger = as_text(tuple(-(-side * size // min(resize)) for side in resize))
        yield (
            f"--sample_size {size} is larger than --eval_resize {as_text(resize)}; give, for "
            f"example, --eval_resize {larger}"
        )


def _model_contradictions(options: Options) -> Iterator[str]:
    family = FAMILIES[options.model]
    if options.model_depth not in family.depths:
        known = " ".join(map(str, family.depths))
        yield f"--model_depth {options.model_depth}: {options.model} has depths {known}"
    if options.ft_begin_module and options.ft_begin_module not in family.modules:
        yield (
            f"--ft_begin_module {options.ft_begin_module}: the modules of {options.model} are "
            + " ".join(family.modules)
        )
    head = family.head
    if options.cache_features and not (options.ft_begin_module == head and options.freeze_bn):
        yield f"--cache_features needs a frozen trunk: --ft_begin_module {head} --freeze_bn"
    for name in names_with(Role.ARCHITECTURE):
        value = getattr(options, name)
        if name not in family.options and value != FLAGS[name].default:
            yield f"--{name} {value}: {options.model} has no such option"


def check_saved(values: Any, place: str) -> dict[str, Any]:
    """Check the options that a file holds; those that this version does not know are dropped.

    Raises UserError, which begins with `place`, for a value that its flag would not accept.
    """
    values = typed(values, dict[str, Any], f"{place}: options")
    checked = {}
    for name, flag in FLAGS.items():
        if name not in values:
            continue
        where = f"{place}: option {name}"
        checked[name] = value = typed(values[name], _saved_type(flag), where)
        if (fault := flag.fault(value)) is not None:
            raise UserError(f"{where}: {shown(value)} {fault}")
    return checked


def _saved_type(flag: Flag) -> Any:
    """Return the type of an option as Options.as_plain() writes it."""
    if flag.is_path:
        return str | None
    return tuple[int, ...] if isinstance(flag.default, tuple) else type(flag.default)
