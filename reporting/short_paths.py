"""Paths of this machine, shortened for a page that may be sent to others."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

NOT_NAMED = "…"


class ShortPaths:
    """Shortens the paths in a text: those beside the results folder to what follows from there, of
    `paths` and their like the last two parts, and those of the user's home to ~."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        beside = folder.absolute().parent
        short = {path.absolute().parent.parent: f"{NOT_NAMED}{os.sep}" for path in paths}
        short |= {Path.home(): f"~{os.sep}", beside: ""}
        self._short = {
            f"{start}{os.sep}": text for start, text in short.items() if start != start.parent
        }
        longest_first = sorted(self._short, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._short[match[0]], text)
