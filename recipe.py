"""Find and read recipes: text files with one flag of main.py per line.

recipes/ has those that come with the program; a path names a file of the user's own, or the
opts.json of an earlier run, which `parsing` reads.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from utils.command_line import expand_user
from utils.reading import read_text, shown_name

FOLDER = Path(__file__).parent / "recipes"


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
    path = expand_user(Path(name))
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
