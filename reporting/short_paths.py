"""Shorten paths of this machine, for a page that may be shared."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

ELLIPSIS = "…"


class ShortPaths:
    """Shortens the paths in a text.

    Paths next to the results folder become relative to its parent, those next to one of `paths`
    keep their last two parts, and the user's home becomes ~.
    """

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        parent = folder.absolute().parent
        short = {path.absolute().parent.parent: f"{ELLIPSIS}{os.sep}" for path in paths}
        short |= {Path.home(): f"~{os.sep}", parent: ""}
        self._short = {
            f"{start}{os.sep}": text for start, text in short.items() if start != start.parent
        }
        longest_first = sorted(self._short, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._short[match[0]], text)
