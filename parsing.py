"""Command lines to checked options: `parse_opts` for main.py, `add_flags` and `options_of` for
scripts that take some of its flags, `fill_in` for what a checkpoint adds."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flags import GROUPS, Flag, Role, as_text
from models.weights import find_weights, is_weights_name
from option_checks import bad_values, network_contradictions, problems_of, refuse
from opts import AUTO, FLAGS, Options, names_with
from recipe import recipe_values
from utils.command_line import FlagParser, expand_user


def parse_opts(argv: Sequence[str] | None = None) -> Options:
    """Parse the command line of main.py, and its recipe, into checked, frozen options.

    Raises UserError with one line for each value out of range and each contradiction.
    """
    parser = _build_parser()
    values = vars(parser.parse_args(argv))
    recipe = recipe_values(values["recipe"], parser) if values.get("recipe") else {}
    from_recipe = frozenset(recipe) - frozenset(values)
    given = frozenset(values) | from_recipe
    options = _resolve(Options(**recipe | values, given=given, from_recipe=from_recipe))
    refuse(problems_of(options))
    return options


def options_of(given: Mapping[str, Any]) -> Options:
    """Make options of the values `given` and defaults, for scripts that take only some flags.

    Raises UserError with one line for each value out of range.
    """
    options = _resolve(Options(**given, given=frozenset(given)))
    refuse(bad_values(options))
    return options


def fill_in(options: Options, found: Mapping[str, Any]) -> Options:
    """Replace flags that were not given by values `found` in a checkpoint.

    Raises UserError where those that were given contradict the model found.
    """
    filled = replace(options, **{k: v for k, v in found.items() if k not in options.given})
    refuse(network_contradictions(filled))
    return filled


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
