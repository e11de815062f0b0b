"""Which part of the videos one of several machines takes: --shard i/n, or --shard auto."""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from errors import UserError

LAUNCHERS = (  # index, count, first index, step; the first one that is set counts
    (
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    ),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
    ("RANK", "WORLD_SIZE", "", ""),
)


class Shard(NamedTuple):
    """Part `number` of `total`, from 0."""

    number: int
    total: int

    def holds(self, name: str) -> bool:
        """A name's part hangs on the name alone: files that come or go move no other."""
        return hash_of(os.fsencode(name)) % self.total == self.number


WHOLE = Shard(0, 1)


def hash_of(data: bytes) -> int:
    """64 bits, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def parse_shard(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """ "2/8" is the third of eight; "auto" asks the launcher's variables. Raises UserError."""
    if text == "auto":
        return _of_launcher(environ)
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise UserError(f"--shard {text}: give i/n, such as 0/8, or auto") from None
    return _checked(index, count, f"--shard {text}")


def _of_launcher(environ: Mapping[str, str]) -> Shard:
    for index, count, first, step in LAUNCHERS:
        if index in environ and count in environ:
            told = f"--shard auto: {index}={environ[index]}, {count}={environ[count]}"
            try:
                distance = int(environ[index]) - int(environ.get(first, 0))
                position, rest = divmod(distance, int(environ.get(step, 1)))
                n_shards = int(environ[count])
            except (ValueError, ZeroDivisionError):
                raise UserError(f"{told}: not numbers") from None
            return _checked(-1 if rest else position, n_shards, told)
    names = ", ".join(f"{index}/{count}" for index, count, _, _ in LAUNCHERS)
    raise UserError(f"--shard auto: no launcher has set {names}; give --shard i/n")


def _checked(index: int, count: int, told: str) -> Shard:
    if count < 1 or not 0 <= index < count:
        raise UserError(f"{told}: the shards of n are numbered 0/n to n-1/n")
    return Shard(index, count)
