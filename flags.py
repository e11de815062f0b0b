"""What a flag of main.py is: its group, default, allowed values, roles and help. The flags
themselves are in opts.py."""

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = {
    "files": "files",
    "data": "data",
    "clips": "clips: which frames, and which part of them",
    "model": "model",
    "training": "training",
    "phases": "phases: training and validation by default, --inference on request",
    "machine": "machine",
}


class Role(enum.Flag):
    """What a flag is used for beyond the run that it was given to; `names_with` lists them."""

    NONE = 0
    REQUIRED = enum.auto()  # main.py does not run without it
    ROOTED = enum.auto()  # a path joined with --root_path
    WEIGHTS = enum.auto()  # a checkpoint, or the name of one in models/weights.py
    DATA_PATH = enum.auto()  # saved as an absolute path beside results, so that a report finds it
    ARCHITECTURE = enum.auto()  # an argument of the model families that list it
    STEM = enum.auto()  # architecture that tensor shapes do not reveal: must equal the checkpoint's
    PREPROCESSING = enum.auto()  # adopted from any checkpoint unless given
    CLIP_SHAPE = enum.auto()  # adopted from one that is resumed, used for inference, or hosted
    CLASSIFIER = enum.auto()  # offered by the scripts that load a checkpoint
    WINDOWS = enum.auto()  # offered by the scripts that read the videos of an index
    INFERENCE = enum.auto()  # not adopted from checkpoints: repeated in the suggested command
    PIXELS = enum.auto()  # decides which pixels inference sees
    FIXED = enum.auto()  # a run resumed inside an epoch must have the same value
    GROUPS = enum.auto()  # decides the groups of the optimiser: a resumed one must have the same
    FREE = enum.auto()  # another value in a resumed run is not reported
    LAUNCH = enum.auto()  # of the machines of one run: not repeated with --recipe opts.json

    # Roles that several flags have together.
    CLIP = CLIP_SHAPE | CLASSIFIER | PIXELS | FIXED
    INPUT = PREPROCESSING | CLASSIFIER  # what weights expect of the pixels
    SCORING = INFERENCE | PIXELS


@dataclass(frozen=True)
class Range:
    """The numbers that a flag accepts, both ends included, and how a message puts that."""

    least: float
    most: float
    words: str = ""

    def __str__(self) -> str:
        return self.words or f"from {self.least:,g} to {self.most:,g}".replace(",", "")


# Limits far beyond any sensible value: they catch typing errors.
COUNT = Range(1, 10**6, "from 1 to a million")
COUNT_OR_NONE = Range(0, 10**6, "from 0 to a million")
FRACTION = Range(1e-6, 1, "above 0 and at most 1")
FACTOR = Range(0, 1e30, "from 0 to 1e30")
SHARE = Range(0, 0.999999, "from 0 to less than 1")


@dataclass(frozen=True)
class Flag:
    """The record of one flag of main.py."""

    group: str  # a key of GROUPS
    default: Any  # its type is the flag's; None: an optional path
    allowed: Range | tuple[Any, ...] | None  # numbers in a range, one of several values, or any
    roles: Role
    help: str
    state_name: str | None  # its name in the optimiser's or schedule's state, which resuming keeps

    @property
    def is_path(self) -> bool:
        return self.default is None or isinstance(self.default, Path)

    @property
    def value_type(self) -> Callable[[str], Any]:
        """What converts one word of the command line."""
        if self.is_path:
            return Path
        return type(self.default[0]) if isinstance(self.default, tuple) else type(self.default)

    def fault(self, value: Any) -> str | None:
        """Say why the flag does not accept a value, or return None. NaN is in no range."""
        if isinstance(self.allowed, Range):
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(self.allowed.least <= number <= self.allowed.most for number in numbers):
                return f"must be {self.allowed}"
        elif self.allowed is not None and value not in self.allowed:
            return f"must be one of {', '.join(map(str, self.allowed))}"
        return None


def flag(
    group: str,
    default: Any,
    allowed: Range | tuple[Any, ...] | None = None,
    *,
    roles: Role = Role.NONE,
    help: str,
    state_name: str | None = None,
) -> Any:
    """Return a dataclass field that holds the record of a flag."""
    record = Flag(group, default, allowed, roles, help, state_name)
    return dataclasses.field(default=default, metadata={"flag": record})


def as_text(value: Any) -> str:
    """Write the value of a flag as on a command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def as_words(name: str, value: Any) -> list[str]:
    """Return the words of a flag with its value on a command line."""
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]


def as_json(value: Any) -> Any:
    """Return the value of a flag as JSON has it: paths as text, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
