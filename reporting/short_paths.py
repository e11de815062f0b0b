"""Shorten paths of this machine, for a page that may be shared."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

ELLIPSIS = "…"
MOST_PRIVATE = 3  # parts of a folder such as /home/NAME, the root counted


class ShortPaths:
    """Shortens the paths in a text.

    Paths next to the results folder become relative to its parent, those next to one of `paths`
    keep their last two parts, and the user's home becomes ~. Of a path of fewer than four folders,
    such as /home/NAME/FILE, only the last part is kept.
    """

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        parent = folder.absolute().parent
        folders = [path.absolute().parent for path in paths]
        kept = [folder.parent if len(folder.parts) > MOST_PRIVATE else folder for folder in folders]
        short = dict.fromkeys(kept, f"{ELLIPSIS}{os.sep}")
        short |= {Path.home(): f"~{os.sep}", parent: ""}
        self._short = {
            f"{start}{os.sep}": text for start, text in short.items() if start != start.parent
        }
        longest_first = sorted(self._short, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._short[match[0]], text)
