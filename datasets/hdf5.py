"""HDF5 files of frames: datasets of JPEG bytes, numbered from 0. The only place that opens HDF5
files. Free of torch."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import hdf5_heap as heap
from errors import UserError

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIX = ".hdf5"
PICTURES = "video"
FLOW = ("video_u", "video_v")
MAX_SPREAD = 8  # a range with more than this many frames per wanted frame is not read as a whole


def require_h5py() -> None:
    """Raise UserError if the package is missing."""
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise UserError("HDF5 files need the package h5py: pip install h5py") from None


@contextmanager
def reading_hdf5(path: Path) -> Iterator["h5py.File"]:
    """Open a file for reading; turn the many kinds of errors h5py raises into UserError."""
    require_h5py()
    import h5py

    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: not a regular file")
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path}: damaged, or too large for this machine's memory") from None
    except Exception as error:
        text = str(error.args[0]) if error.args else ""  # str of a KeyError has quotes
        cause = text.splitlines()[0] if text else type(error).__name__
        raise UserError(f"{path}: can't be read: {cause}") from None


def open_frames(file: "h5py.File", name: str, path: Path) -> "h5py.Dataset":
    """Return a dataset of JPEG bytes. Raises UserError for other data, and data in other files."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise UserError(f"{path}: has no dataset {name!r}")
    if not isinstance(link, h5py.HardLink):
        raise UserError(
            f"{path}: {name!r} is a link, possibly to another file, and is not followed"
        )
    frames = file[name]
    if not isinstance(frames, h5py.Dataset):
        raise UserError(f"{path}: {name!r} is a {type(frames).__name__.lower()}, not a dataset")
    if frames.is_virtual or frames.external:
        raise UserError(f"{path}: {name!r} stores its data in other files, which are not read")
    if frames.ndim != 1 or h5py.check_vlen_dtype(frames.dtype) != np.uint8:
        kind = f"{frames.dtype} of shape {frames.shape}"
        raise UserError(f"{path}: {name!r} holds {kind}, not the bytes of a JPEG per frame")
    if len(frames) > path.stat().st_size:  # each frame needs more than a byte
        raise UserError(f"{path}: damaged: {name!r} has more frames than the file has bytes")
    return frames


def read_jpegs(path: Path, names: Sequence[str], numbers: Sequence[int]) -> list[list[bytes]]:
    """Read frames by number; returns one list per dataset in `names`. Raises UserError."""
    with reading_hdf5(path) as file:
        return [_read_of(open_frames(file, name, path), numbers, path) for name in names]


def _read_of(frames: "h5py.Dataset", numbers: Sequence[int], path: Path) -> list[bytes]:
    n_frames = len(frames)
    wrong = [number for number in numbers if not 0 <= number < n_frames]
    if wrong:
        raise UserError(
            f"{path}: no frame {wrong[0]}, but it is in the index: there are {n_frames}, from 0"
        )
    if heap.is_plain(frames):
        return heap.read_strings(frames, numbers)
    first, end = min(numbers), max(numbers) + 1
    # Reading a range of frames costs as much as reading one frame.
    if end - first <= MAX_SPREAD * len(numbers):
        block = frames[first:end]
        return [block[number - first].tobytes() for number in numbers]
    return [frames[number].tobytes() for number in numbers]


def count_hdf5(path: Path, known: Sequence[str] = (PICTURES, *FLOW)) -> int:
    """Count the frames of a file, in the datasets of these names. Raises UserError."""
    with reading_hdf5(path) as file:
        names = [name for name in known if name in file]
        if not names:
            raise UserError(f"{path}: has no dataset {' or '.join(known)}")
        return min(len(open_frames(file, name, path)) for name in names)


def has_flow(path: Path) -> bool:
    """Whether a file holds optical flow and no pictures. Raises UserError."""
    with reading_hdf5(path) as file:
        return PICTURES not in file and all(name in file for name in FLOW)


def read_attributes(path: Path) -> dict[str, str]:
    """Return the attributes of a file, as text. Raises UserError."""
    with reading_hdf5(path) as file:
        return {name: str(value) for name, value in file.attrs.items()}


class _Disk(io.RawIOBase):
    """The file object that HDF5 writes to. HDF5 crashes (segmentation fault) when it closes a file
    after a failed write, so errors are kept for `check` instead of being raised."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the OSError of the first write that failed."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while len(rest) and self._error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def close(self) -> None:
        self._file.close()
        super().close()


class Hdf5Writer:
    """Writes a new file in a `with` block. Call `check` every few MB: it raises the OSError of a
    failed write, as does the end of the block."""

    def __init__(self, path: Path) -> None:
        require_h5py()
        import h5py

        self._disk = _Disk(path)
        self.file = h5py.File(self._disk, "w")
        self.check = self._disk.check

    def __enter__(self) -> "Hdf5Writer":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.file.close()
        finally:
            self._disk.close()
        self.check()

    def create_frames(self, name: str, n_frames: int, **how: Any) -> "h5py.Dataset":
        """Create a dataset of one byte array per frame; `how` goes to h5py's create_dataset."""
        import h5py

        kind = h5py.vlen_dtype(np.dtype("uint8"))
        return self.file.create_dataset(name, (n_frames,), kind, **how)
