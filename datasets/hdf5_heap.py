"""Read byte strings from the global heap of an HDF5 file without the HDF5 library.

The library hangs, uninterruptibly, on a heap with a hole of zeros, as crashes and failing disks
leave behind. See "Disk Format: Level 1E - Global Heap" in the HDF5 file format specification.
"""

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

REFERENCE = struct.Struct("<IQI")  # length, address of the collection, index of the object
COLLECTION = struct.Struct("<4sB3xQ")  # signature, version, size
OBJECT = struct.Struct("<HH4xQ")  # index, reference count, size; padded to 8 bytes
SIGNATURE = (b"GCOL", 1)
MAX_OBJECTS = 1 << 16  # per collection: an index has 16 bits
FREE_SPACE = 0  # index of the space after the last object


def is_plain(frames: "h5py.Dataset") -> bool:
    """Whether read_strings supports a dataset's storage; true for the defaults of all writers."""
    import h5py

    created = frames.id.get_create_plist()
    return (
        hasattr(os, "pread")  # not on Windows
        and frames.file.id.get_create_plist().get_sizes() == (8, 8)
        and frames.file.userblock_size == 0
        and created.get_nfilters() == 0
        and created.get_layout() in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS)
    )


def read_strings(frames: "h5py.Dataset", numbers: Sequence[int]) -> list[bytes]:
    """Read strings of a one-dimensional dataset by number. Raises ValueError if it is damaged."""
    heap = _Heap(frames.file.id.get_vfd_handle())
    n_per_chunk = frames.chunks[0] if frames.chunks is not None else len(frames)
    chunks = {number // n_per_chunk for number in numbers}
    starts = {chunk: _start(frames, chunk, n_per_chunk) for chunk in chunks}
    return [heap.read(starts[number // n_per_chunk], number % n_per_chunk) for number in numbers]


def _start(frames: "h5py.Dataset", chunk: int, n_per_chunk: int) -> int | None:
    """Return the offset of a chunk's references; None if it was never written."""
    if frames.chunks is None:
        return frames.id.get_offset()
    return frames.id.get_chunk_info_by_coord((chunk * n_per_chunk,)).byte_offset


class _Heap:
    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self._collections: dict[int, dict[int, tuple[int, int]]] = {}

    def bytes_at(self, place: int, n_bytes: int) -> bytes:
        if place + n_bytes > self._size:
            raise ValueError(f"byte {place} is beyond the end of the file")
        return os.pread(self._handle, n_bytes, place)

    def read(self, references: int | None, number: int) -> bytes:
        """Read the string of reference `number` in a chunk."""
        if references is None:
            return b""
        place = references + number * REFERENCE.size
        length, address, index = REFERENCE.unpack(self.bytes_at(place, REFERENCE.size))
        if length == 0:
            return b""
        objects = self._collections.get(address)
        if objects is None:
            objects = self._collections[address] = self._objects(address)
        place, size = objects.get(index, (0, 0))
        if length > size:
            raise ValueError(f"the heap at byte {address} has no object {index} of {length} bytes")
        return self.bytes_at(place, length)

    def _objects(self, address: int) -> dict[int, tuple[int, int]]:
        """Return offset and size of each object of a collection."""
        *signature, n_bytes = COLLECTION.unpack(self.bytes_at(address, COLLECTION.size))
        if tuple(signature) != SIGNATURE:
            raise ValueError(f"no heap at byte {address}")
        objects: dict[int, tuple[int, int]] = {}
        place, end = address + COLLECTION.size, address + n_bytes
        while place + OBJECT.size <= end and len(objects) < MAX_OBJECTS:
            index, _, size = OBJECT.unpack(self.bytes_at(place, OBJECT.size))
            if index == FREE_SPACE or index in objects:
                break
            objects[index] = (place + OBJECT.size, size)
            place += OBJECT.size + -(-size // 8) * 8
        return objects
