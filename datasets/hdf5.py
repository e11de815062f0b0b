"""HDF5 files of frames, as far as an index needs them: names and lengths. Free of torch."""

from pathlib import Path

from errors import UserError

HDF5_SUFFIX = ".hdf5"
PICTURES = "video"
FLOW = ("video_u", "video_v")


def require_h5py() -> None:
    """Raises UserError where the package is absent."""
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise UserError("HDF5 files need the package h5py: pip install h5py") from None


def count_hdf5(path: Path) -> int:
    """How many frames a file holds, numbered from 0. Raises UserError."""
    require_h5py()
    import h5py

    try:
        with h5py.File(path, "r") as file:
            lengths = [len(file[name]) for name in (PICTURES, *FLOW) if name in file]
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if not lengths:
        raise UserError(f"{path}: has no dataset {PICTURES}, {' or '.join(FLOW)}")
    return min(lengths)


def has_flow(path: Path) -> bool:
    """Whether a file holds optical flow and no pictures."""
    import h5py

    with h5py.File(path, "r") as file:
        return PICTURES not in file and all(name in file for name in FLOW)
