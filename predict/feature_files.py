"""Write feature vectors to .npz or .hdf5 files."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datasets.hdf5 import Hdf5Writer
from datasets.video_dataset import ClipLoader
from inference import WindowValues
from utils.files import atomic_write

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]  # shape and type of each column
Row = tuple[np.ndarray, str, int, tuple[int, int]]  # in the order of the columns


def write_features(
    path: Path,
    rows: Iterator[WindowValues],
    loader: ClipLoader,
    *,
    max_rows: int,
    extra: Mapping[str, Any],
) -> tuple[int, int]:
    """Write a row per vector, in the format that the suffix names, and the `extra` arrays.

    Returns the number of rows and their width, (0, 0) without writing if there are no rows.
    Raises UserError if the file can't be written.
    """
    first = next(rows, None)
    if first is None:
        return 0, 0
    width = len(first.values)
    write = _write_npz if path.suffix == ".npz" else _write_hdf5
    with atomic_write(path) as part:
        count = write(part, _shapes(max_rows, width), _rows(chain([first], rows), loader), extra)
    return count, width


def _rows(windows: Iterable[WindowValues], loader: ClipLoader) -> Iterator[Row]:
    for window in windows:
        record = loader.dataset.records[window.video]
        yield window.values, record.video_id, record.label, window.segment


def _shapes(n_rows: int, width: int) -> Shapes:
    return {
        "features": ((n_rows, width), np.float32),
        "video_ids": ((n_rows,), object),
        "labels": ((n_rows,), np.int64),
        "segments": ((n_rows, 2), np.int64),
    }


def _fill(
    columns: Mapping[str, Any], rows: Iterable[Row], encode: Callable[[str], str | bytes] = str
) -> int:
    """Store the rows as they are computed; return their number."""
    count = 0
    for values, video_id, label, segment in rows:
        columns["features"][count] = values
        columns["video_ids"][count] = encode(video_id)
        columns["labels"][count] = label
        columns["segments"][count] = segment
        count += 1
    return count


def _write_npz(path: Path, shapes: Shapes, rows: Iterable[Row], extra: Mapping[str, Any]) -> int:
    """Collect all rows in memory, then write them."""
    columns = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
    count = _fill(columns, rows)
    arrays: dict[str, Any] = {name: column[:count] for name, column in columns.items()}
    arrays["video_ids"] = arrays["video_ids"].astype(str)
    arrays |= {name: np.array(value) for name, value in extra.items()}
    np.savez(path, **arrays)
    return count


def _write_hdf5(path: Path, shapes: Shapes, rows: Iterable[Row], extra: Mapping[str, Any]) -> int:
    """Write row by row, so that memory does not grow."""
    import h5py

    text = h5py.string_dtype()
    with Hdf5Writer(path) as writer:
        # First, so that all dataset names are near the start of the file, by which utils.outputs
        # recognises it.
        for name, value in extra.items():
            writer.file.create_dataset(name, data=np.vectorize(os.fsencode)(value), dtype=text)
        columns = {
            name: writer.file.create_dataset(
                name, shape, text if dtype is object else dtype, maxshape=shape, chunks=True
            )
            for name, (shape, dtype) in shapes.items()
        }
        checked = (row for row in rows if writer.check() is None)  # stops when the disk is full
        count = _fill(columns, checked, os.fsencode)  # names may not be valid UTF-8
        for column in columns.values():
            column.resize(count, axis=0)
    return count
