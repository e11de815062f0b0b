"""Divide videos among machines: --shard i/n, or --shard auto."""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from errors import UserError
from utils.launchers import JOB_ARRAY, LAUNCHERS


class Shard(NamedTuple):
    """Part `number` of `total`, counted from 0."""

    number: int
    total: int

    def holds(self, name: str) -> bool:
        """Whether a video is in this part. Depends on its name only, so that adding or removing
        files moves no other."""
        return hash_of(os.fsencode(name)) % self.total == self.number


WHOLE = Shard(0, 1)


def hash_of(data: bytes) -> int:
    """Return a 64-bit hash, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def parse_shard(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """Parse "2/8", the third of eight parts, or "auto". Raises UserError."""
    if text == "auto":
        return _from_launcher(environ)
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise UserError(f"--shard {text}: expected i/n, such as 0/8, or auto") from None
    return _checked(index, count, f"--shard {text}")


def _from_launcher(environ: Mapping[str, str]) -> Shard:
    launchers = [JOB_ARRAY, *((rank, size, "", "") for rank, size, _, _ in LAUNCHERS.values())]
    for index, count, first, step in launchers:
        if index in environ and count in environ:
            place = f"--shard auto: {index}={environ[index]}, {count}={environ[count]}"
            try:
                distance = int(environ[index]) - int(environ.get(first, 0))
                position, rest = divmod(distance, int(environ.get(step, 1)))
                n_shards = int(environ[count])
            except (ValueError, ZeroDivisionError):
                raise UserError(f"{place}: not numbers") from None
            return _checked(-1 if rest else position, n_shards, place)
    names = ", ".join(f"{index}/{count}" for index, count, _, _ in launchers)
    raise UserError(f"--shard auto: no launcher has set {names}; use --shard i/n")


def _checked(index: int, count: int, place: str) -> Shard:
    if count < 1 or not 0 <= index < count:
        raise UserError(f"{place}: n shards are numbered from 0/n to n-1/n")
    return Shard(index, count)
