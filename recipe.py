"""Recipes: files of flags of main.py for --recipe.

recipes/ has those that come with the program; a path names a file of the user's own, or the
opts.json of an earlier run.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from errors import UserError
from flags import Role, as_words
from option_checks import check_saved
from opts import FLAGS, GIVEN, Options
from utils.command_line import NEGATIVE_NUMBER, FlagParser, expand_user
from utils.reading import read_json, read_text, shown, shown_name, typed

FOLDER = Path(__file__).parent / "recipes"
# What a run works out unless it is given.
DERIVED = ("frame_rate", "inference_batch_size", "inference_stride", "n_classes")


class Line(NamedTuple):
    """One flag of a recipe and its place for messages, such as "recipes/head.txt: line 3"."""

    place: str
    words: list[str]


def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given by its name or as a path. Raises UserError."""
    if name in recipe_names():
        return FOLDER / f"{name}.txt"
    path = expand_user(name)
    if not os.path.exists(path):  # unlike Path.exists, False for a path that no file can have
        known = " ".join(recipe_names())
        raise UserError(f"--recipe {shown_name(name)}: no such file; the known recipes are {known}")
    return path


def read_recipe(path: Path) -> Iterator[Line]:
    """Yield the flags of a recipe; # starts a comment. Raises UserError."""
    for number, text in enumerate(read_text(path, "recipe").splitlines(), 1):
        place = f"{path}: line {number}"
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None
        if words:
            yield Line(place, words)


def recipe_values(name: str, parser: FlagParser) -> dict[str, Any]:
    """Return the flags that a recipe sets, with values as `parser` reads them. Raises UserError."""
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


def describe_recipe(options: Options) -> str | None:
    """Say what the recipe set, in one line; None without a recipe."""
    if not options.recipe:
        return None
    names = (name for name in FLAGS if name in options.from_recipe)
    words = [word for name in names for word in as_words(name, getattr(options, name))]
    return f"recipe {options.recipe}: {shlex.join(words) or 'sets nothing'}"
