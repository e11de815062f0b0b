"""The videos of an index, and a memory-saving list for half a million of them."""

import hashlib
import marshal
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

SUBSET_NAMES = ("training", "validation", "testing")

T = TypeVar("T")


class VideoRecord(NamedTuple):
    """A video whose frames exist: numbers `first` to `last`, inclusive."""

    video_id: str
    path: Path
    first: int
    last: int
    label: int

    @property
    def n_frames(self) -> int:
        return self.last - self.first + 1


class Entry(NamedTuple):
    """One video of an index. `segment` is [first frame, last frame + 1], None if the index has no
    frame numbers for it."""

    video_id: str
    subset: str
    label: int
    segment: tuple[int, int] | None
    video_path: str | None


class CompactList(Sequence[T]):
    """A read-only list of tuples, kept as bytes in one buffer and rebuilt on access by `make`.

    Half a million Python objects would take half a gigabyte, and every loader worker would end up
    with a copy of its own, because reading an object writes its reference count.
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]], make: Callable[..., T]) -> None:
        data, ends = bytearray(), array("q", [0])
        for row in rows:
            data += marshal.dumps(row)
            ends.append(len(data))
        self._data, self._ends, self._make = bytes(data), ends, make

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return [self[number] for number in range(len(self))[which]]
        number = range(len(self))[which]  # negative numbers and IndexError, like a list
        return self._load(self._ends[number], self._ends[number + 1])

    def __iter__(self) -> Iterator[T]:
        return (self._load(start, end) for start, end in pairwise(self._ends))

    def _load(self, start: int, end: int) -> T:
        return self._make(*marshal.loads(self._data[start:end]))


class CompactEntries(CompactList[Entry]):
    """The entries of an index in file order, with a lookup by subset."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._numbers = {subset: array("i") for subset in SUBSET_NAMES}
        super().__init__(self._rows(entries), Entry)

    def _rows(self, entries: Iterable[Entry]) -> Iterator[tuple[Any, ...]]:
        for number, entry in enumerate(entries):
            self._numbers[entry.subset].append(number)
            yield tuple(entry)

    def of_subset(self, subset: str) -> Iterator[Entry]:
        return (self._load(self._ends[n], self._ends[n + 1]) for n in self._numbers[subset])


def compact_records(records: Iterable[VideoRecord]) -> CompactList[VideoRecord]:
    return CompactList(((r.video_id, str(r.path), *r[2:]) for r in records), make_record)


def make_record(video_id: str, path: str, first: int, last: int, label: int) -> VideoRecord:
    return VideoRecord(video_id, Path(path), first, last, label)


def digest_of(records: Iterable[VideoRecord]) -> str:
    """Hash the videos, their frame numbers, labels and order, but not where the frames lie."""
    digest = hashlib.blake2b(digest_size=8)
    for r in records:
        line = f"{r.video_id}\0{r.first}\0{r.last}\0{r.label}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
