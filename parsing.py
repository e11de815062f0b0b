"""Parse and check options: those of a command line, and those saved in a file."""

import argparse
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import UserError
from flags import GROUPS, Flag, Role, as_text, as_words
from models.catalog import FAMILIES
from models.weights import find_weights, is_weights_name
from opts import AUTO, FLAGS, GIVEN, Options, names_with
from recipe import Line, find_recipe, read_recipe
from utils.command_line import NEGATIVE_NUMBER, FlagParser, expand_user, path_fault
from utils.reading import read_json, shown, shown_name, typed

# What a run works out unless it is given.
DERIVED = ("frame_rate", "inference_batch_size", "inference_stride", "n_classes")


def parse_opts(argv: Sequence[str] | None = None) -> Options:
    """Parse the command line of main.py, and its recipe, into checked, frozen options.

    Raises UserError with one line for each value out of range and each contradiction.
    """
    parser = _build_parser()
    values = vars(parser.parse_args(argv))
    recipe = _recipe_values(values["recipe"], parser) if values.get("recipe") else {}
    from_recipe = frozenset(recipe) - frozenset(values)
    given = frozenset(values) | from_recipe
    options = _resolve(Options(**recipe | values, given=given, from_recipe=from_recipe))
    problems = [*_missing(options), *_bad_values(options), *_contradictions(options)]
    problems += _augmentation_contradictions(options)
    if {"sample_size", "eval_resize"} <= options.given or not options.starts_from_file:
        problems += _size_contradictions(options)
    if "model" in options.given or not options.starts_from_file:
        problems += _model_contradictions(options)
    return _sound(options, problems)


def options_of(given: Mapping[str, Any]) -> Options:
    """Make options of the values `given` and defaults, for scripts that take only some flags.

    Raises UserError with one line for each value out of range.
    """
    options = _resolve(Options(**given, given=frozenset(given)))
    return _sound(options, _bad_values(options))


def fill_in(options: Options, found: Mapping[str, Any]) -> Options:
    """Replace flags that were not given by values `found` in a checkpoint.

    Raises UserError where those that were given contradict the model found.
    """
    filled = replace(options, **{k: v for k, v in found.items() if k not in options.given})
    return _sound(filled, [*_model_contradictions(filled), *_size_contradictions(filled)])


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


def describe_recipe(options: Options) -> str | None:
    """Say what the recipe set, in one line; None without a recipe."""
    if not options.recipe:
        return None
    names = (name for name in FLAGS if name in options.from_recipe)
    words = [word for name in names for word in as_words(name, getattr(options, name))]
    return f"recipe {options.recipe}: {shlex.join(words) or 'sets nothing'}"


def _recipe_values(name: str, parser: FlagParser) -> dict[str, Any]:
    """Read the flags that a recipe sets. Raises UserError."""
    path = find_recipe(name)
    if path.suffix.lower() == ".json":
        return _values_of_run(path)
    values: dict[str, Any] = {}
    for line in read_recipe(path):
        name, value = _recipe_flag(line, parser)
        if name in values:
            raise UserError(f"{line.place}: --{name} is set twice")
        values[name] = value
    return values


def _values_of_run(path: Path) -> dict[str, Any]:
    """Read from its opts.json what an earlier run was set to: the flags that it was given, and what
    it took from a checkpoint; not what follows from other flags, the index or the machine.

    Raises UserError.
    """
    content = read_json(path, "recipe")
    saved = check_saved(content, str(path))
    if not saved:
        raise UserError(f"{path}: holds no flags of main.py")
    given = set(typed(content.get(GIVEN, []), list[str], f"{path}: {GIVEN}"))
    return {
        name: value
        for name, value in saved.items()
        if _fits_recipe(name)
        and Role.LAUNCH not in FLAGS[name].roles
        and (name in given or (name not in DERIVED and value != FLAGS[name].default))
    }


def _fits_recipe(name: str) -> bool:
    """Return whether a recipe may set a flag: not its paths, nor another recipe."""
    return not FLAGS[name].is_path and name != "recipe"


def _recipe_flag(line: Line, parser: FlagParser) -> tuple[str, Any]:
    """Parse and check one line of a recipe. Raises UserError that names it."""
    place, (first, *others) = line
    name = first.removeprefix("--")
    if name == first or name not in FLAGS:
        raise UserError(f"{place}: {shown(first)} is no flag; write lines such as --ema 0.99")
    if not _fits_recipe(name):
        raise UserError(f"{place}: {first} belongs on the command line, not in a recipe")
    if any(word.startswith("-") and not NEGATIVE_NUMBER.match(word) for word in others):
        raise UserError(f"{place}: write one flag per line")
    try:
        value = getattr(parser.parse_args(line.words), name)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if isinstance(value, list):
        value = tuple(value)
    if (fault := FLAGS[name].fault(value)) is not None:
        raise UserError(f"{place}: {' '.join(line.words)}: {fault}")
    return name, value


def add_flags(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add some of the flags of main.py to a parser.

    What is not given is absent from the parsed values: `Options` has the defaults, and knows by
    their absence which flags were given.
    """
    for name in names:
        flag = FLAGS[name]
        settings: dict[str, Any] = {"action": "store_true"}
        if not isinstance(flag.default, bool):
            settings = {
                "type": flag.value_type,
                "metavar": _metavar(flag),
                "choices": flag.allowed if isinstance(flag.allowed, tuple) else None,
                "nargs": "+" if isinstance(flag.default, tuple) else None,
            }
        text = flag.help + _default_text(flag)
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=text, **settings)


def _build_parser() -> FlagParser:
    parser = FlagParser(
        prog="main.py",
        description="Train, fine-tune, validate and run 3D ResNets on videos.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=98),
        usage="main.py --video_path DIR --annotation_path JSON --result_path DIR [flags]",
    )
    for group, title in GROUPS.items():
        names = [name for name, flag in FLAGS.items() if flag.group == group]
        add_flags(parser.add_argument_group(title), names)
    return parser


def _metavar(flag: Flag) -> str:
    if flag.is_path:
        return "PATH"
    if isinstance(flag.allowed, tuple):
        return "|".join(map(str, flag.allowed))
    return flag.value_type.__name__.upper()


def _default_text(flag: Flag) -> str:
    says_it = flag.default == "" or "if omitted" in flag.help
    if flag.is_path or isinstance(flag.default, bool) or says_it:
        return ""
    return f" ({as_text(flag.default).replace('%', '%%')})"


def _resolve(options: Options) -> Options:
    """Expand ~, join paths with the root, set the values that follow from others."""
    root = None if options.root_path is None else expand_user(options.root_path)
    changes: dict[str, Any] = {"root_path": root}
    for name, flag in FLAGS.items():
        if isinstance(flag.default, tuple):
            changes[name] = tuple(getattr(options, name))
    for name in names_with(Role.ROOTED):
        path = getattr(options, name)
        if path is None or (name == "resume_path" and path == AUTO):
            continue
        if name in names_with(Role.WEIGHTS) and is_weights_name(path):
            find_weights(path)  # reports an unknown name at once
            continue
        changes[name] = (root or Path()) / expand_user(path)
    if options.nesterov:
        changes["dampening"] = 0.0
    if options.inference_batch_size == 0:
        changes["inference_batch_size"] = max(1, options.batch_size)
    return replace(options, **changes)


def _sound(options: Options, problems: Iterable[str]) -> Options:
    """Return the options if there are no problems; else raise UserError with a line for each."""
    if lines := list(problems):
        raise UserError("\n".join(lines))
    return options


def _missing(options: Options) -> Iterator[str]:
    for name in names_with(Role.REQUIRED):
        if name not in options.given:
            yield f"--{name} is missing"


def _bad_values(options: Options) -> Iterator[str]:
    for name, flag in FLAGS.items():
        value = getattr(options, name)
        if isinstance(value, Path):
            if (fault := path_fault(value)) is not None:
                yield f"--{name} {shown_name(str(value))}: {fault}"
        elif (fault := flag.fault(value)) is not None:
            yield f"--{name} {as_text(value)}: {fault}"


def _saved_type(flag: Flag) -> Any:
    """Return the type of an option as Options.as_plain() writes it."""
    if flag.is_path:
        return str | None
    return tuple[int, ...] if isinstance(flag.default, tuple) else type(flag.default)


def _contradictions(options: Options) -> Iterator[str]:
    if options.batchnorm_sync and options.no_cuda:
        yield "--batchnorm_sync cannot be combined with --no_cuda: it needs GPUs"
    if options.world_size > 1 and not options.distributed:
        yield f"--world_size {options.world_size} needs --distributed and a launcher on each node"
    if options.cache_features and options.distributed:
        yield "--cache_features cannot be combined with --distributed: it runs in one process"
    if options.nesterov and options.momentum == 0:
        yield "--nesterov needs a --momentum above 0"
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
    if options.keep_head and not options.starts_from_file:
        yield "--keep_head needs --pretrain_path, whose head it keeps"
    if options.ft_begin_module and not options.starts_from_file:
        yield (
            f"--ft_begin_module {options.ft_begin_module} needs --pretrain_path or --resume_path: "
            "the frozen layers would stay random; without a checkpoint leave it out, and train a "
            "small network at a low rate (--model_depth 10 --learning_rate 0.01)"
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
