"""Videos of an index as sequences over arrays: half a million Python objects would take half a
gigabyte, and be copied into every loader worker as their reference counts change."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np

SUBSET_NAMES = ("training", "validation", "testing")
NO_SEGMENT = (-1, -1)
NO_PATH = ""
CHUNK = 4096

T = TypeVar("T")


class VideoRecord(NamedTuple):
    """A video whose frames are there: numbers `first` to `last`, both included."""

    video_id: str
    path: Path
    first: int
    last: int
    label: int

    @property
    def n_frames(self) -> int:
        return self.last - self.first + 1


class Entry(NamedTuple):
    """One video of an index. `segment` is None where it says that no frames were found."""

    video_id: str
    subset: str
    label: int
    segment: tuple[int, int] | None
    video_path: str | None


Row = tuple[str, str, tuple[int, ...]]


class _Rows(Sequence[T]):
    """Rows of two texts and `n_numbers` numbers each."""

    n_numbers: int

    def __init__(self, rows: Iterable[Row]) -> None:
        text, lengths, numbers = bytearray(), array("q", [0]), array("i")
        rows = iter(rows)
        while part := list(islice(rows, CHUNK)):
            texts = [f"{row[0]}\0{row[1]}".encode("utf-8", "surrogatepass") for row in part]
            text += b"".join(texts)
            lengths.extend(map(len, texts))
            numbers.extend(chain.from_iterable(row[2] for row in part))
        self._text = bytes(text)
        self._ends = np.cumsum(lengths, dtype=np.int64)  # (N + 1,)
        self._numbers = np.array(numbers, np.int32).reshape(-1, self.n_numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, which: int) -> T: ...
    @overload
    def __getitem__(self, which: slice) -> list[T]: ...
    def __getitem__(self, which: int | slice) -> T | list[T]:
        chosen = np.arange(len(self))[which] if isinstance(which, slice) else [self._place(which)]
        rows = list(self._at(np.asarray(chosen)))
        return rows if isinstance(which, slice) else rows[0]

    def __iter__(self) -> Iterator[T]:
        return self._at(np.arange(len(self)))

    def _place(self, which: int) -> int:
        return range(len(self))[which]  # negative numbers and IndexError, as a list has them

    def _at(self, places: np.ndarray) -> Iterator[T]:
        """The rows at some places, taken from the arrays many at a time."""
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            begins, ends = self._ends[part].tolist(), self._ends[part + 1].tolist()
            for begin, end, numbers in zip(begins, ends, self._numbers[part].tolist(), strict=True):
                text = self._text[begin:end].decode("utf-8", "surrogatepass")
                # From the right: an id may hold anything, even a NUL, and a path can't.
                first, _, second = text.rpartition("\0")
                yield self._row(first, second, numbers)

    def _row(self, first: str, second: str, numbers: Sequence[int]) -> T:
        raise NotImplementedError


class CompactRecords(_Rows[VideoRecord]):
    """A list of records, in arrays."""

    n_numbers = 3

    @classmethod
    def of(cls, records: Iterable[VideoRecord]) -> "CompactRecords":
        return cls((r.video_id, str(r.path), (r.first, r.last, r.label)) for r in records)

    def _row(self, first: str, second: str, numbers: Sequence[int]) -> VideoRecord:
        return VideoRecord(first, Path(second), *numbers)


class CompactEntries(_Rows[Entry]):
    """A list of entries, in arrays."""

    n_numbers = 4

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "CompactEntries":
        return cls(cls._plain(entry) for entry in entries)

    @staticmethod
    def _plain(entry: Entry) -> Row:
        begin, end = NO_SEGMENT if entry.segment is None else entry.segment
        subset = SUBSET_NAMES.index(entry.subset)
        # An empty path means the folder of all frames itself: None can't be mixed up with it.
        path = NO_PATH if entry.video_path is None else entry.video_path or "."
        return entry.video_id, path, (subset, entry.label, begin, end)

    def _row(self, first: str, second: str, numbers: Sequence[int]) -> Entry:
        subset, label, begin, end = numbers
        segment = None if begin < 0 else (begin, end)
        return Entry(first, SUBSET_NAMES[subset], label, segment, second or None)

    def of_subset(self, subset: str) -> Iterator[Entry]:
        """The entries of one subset, in order, without a look at the others."""
        return self._at(np.flatnonzero(self._numbers[:, 0] == SUBSET_NAMES.index(subset)))


def digest_of(records: Iterable[VideoRecord]) -> str:
    """Differs where the training videos, their frames, labels or order do; not with their place."""
    digest = hashlib.blake2b(digest_size=8)
    for r in records:
        line = f"{r.video_id}\0{r.first}\0{r.last}\0{r.label}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
