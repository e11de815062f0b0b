"""The plan of a run in its folder, and how far it has come."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import UserError
from own_videos.plan import Plan
from utils.files import write_json
from utils.locks import locked
from utils.reading import read_json

PLAN, FLAG = "plan.json", "--out"
OF_A_RUN = re.compile(
    r"results(_fold\d+)?|index(_fold\d+)?\.json|commands\.sh|videos\.csv|plan\.json"
)


@dataclass(frozen=True)
class SavedRun:
    """`asked` is what the plan was made for; `n_done` of its commands have ended."""

    asked: Mapping[str, Any]
    plan: Plan
    n_done: int = 0
    seconds: float = 0.0  # that the commands took so far

    def save(self, folder: Path) -> None:
        """Write RUN/plan.json. Raises UserError."""
        content = {"asked": dict(self.asked), "plan": self.plan.as_plain()}
        write_json(folder / PLAN, content | {"n_done": self.n_done, "seconds": self.seconds})

    def after_step(self, seconds: float) -> "SavedRun":
        return replace(self, n_done=self.n_done + 1, seconds=self.seconds + seconds)

    def interrupted(self, seconds: float) -> "SavedRun":
        return replace(self, seconds=self.seconds + seconds)


def read_saved_run(folder: Path) -> SavedRun | None:
    """Read RUN/plan.json; None if there is none, or one of another version or damaged."""
    if not (folder / PLAN).exists():
        return None
    try:
        content = read_json(folder / PLAN, "plan")
        plan = Plan.from_plain(content["plan"])
        return SavedRun(content["asked"], plan, content["n_done"], content["seconds"])
    except UserError as error:
        print(f"{error}; a new plan is made")
        return None
    except (KeyError, TypeError):
        return None


def digest_of(lines: Iterable[str]) -> str:
    """Hash what a plan depends on."""
    digest = hashlib.blake2b(digest_size=8)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder of a run and keep other runs out of it inside the block; a new folder that
    stays empty is removed.

    Raises UserError if another run is there, or the folder can't be made.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be written: {error.strerror}") from None
    try:
        with locked(folder, flag=FLAG):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def refuse_to_move(folder: Path, files: Mapping[str, str | None]) -> None:
    """Raise UserError if one of the files that a run reads, {flag: absolute path}, is what
    `move_aside` moves."""
    for flag, name in files.items():
        if name is None or not os.path.isabs(name):
            continue
        below = os.path.relpath(os.path.realpath(name), os.path.realpath(folder))
        if OF_A_RUN.fullmatch(Path(below).parts[0]):
            raise UserError(
                f"{flag} {name}: belongs to the run in {folder}, which a new run there would move "
                "away; choose another --out"
            )


def move_aside(folder: Path) -> Path | None:
    """Move what another plan made, except the frames, to earlier-1, earlier-2 … below it.

    Returns the new folder, or None if there was nothing. Raises UserError for files of such names
    that no plan made, and if something still trains there: main.py outlives a train_videos that is
    killed.
    """
    found = [path for path in folder.iterdir() if OF_A_RUN.fullmatch(path.name)]
    if not found:
        return None
    # The plan last: without it, the rest would be taken for the user's if this is interrupted.
    found.sort(key=lambda path: (path.name == PLAN, path.name))
    if not (folder / PLAN).exists():
        raise UserError(
            f"{folder}: holds files that this command did not write ({found[0].name}); choose "
            "another --out"
        )
    for results in filter(Path.is_dir, found):
        with locked(results, flag=FLAG):
            pass
    numbers = [path.name.removeprefix("earlier-") for path in folder.glob("earlier-*")]
    last = max((int(n) for n in numbers if n.isascii() and n.isdigit()), default=0)
    aside = folder / f"earlier-{last + 1}"
    try:
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
    except OSError as error:
        raise UserError(f"{aside}: can't be written: {error.strerror}") from None
    return aside
