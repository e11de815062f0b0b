"""Optical flow of the frames of a video, as an HDF5 file of JPEGs."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.hdf5 import FLOW, Hdf5Writer, count_hdf5, has_flow, read_attributes
from datasets.jpeg_header import PictureError, jpeg_size
from errors import UserError
from media.frame_names import count_frames
from media.orphans import find_orphans
from media.walking import walk
from utils.command_line import printable
from utils.files import atomic_write
from utils.program import DISK_ERRORS
from utils.reading import read_bytes

QUALITY = 95  # of the JPEGs: flow is smooth, so small differences matter
DONE, THERE, FAILED = "done", "already there", "failed"
MADE_BY, MARK = "made_by", "generate_flow_hdf5 of 3D-ResNets"  # an attribute of the files
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two grey uint8 (H, W) -> (H, W, 2)


def _dis(cv2: Any) -> Flow:
    """Dense inverse search (Kroeger et al., arXiv:1603.03590), medium preset."""

    def flow(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return search.calc(one, other, None)

    return flow


def _farneback(cv2: Any) -> Flow:
    """Polynomial expansion (Farnebäck, SCIA 2003), OpenCV's usual settings."""

    def flow(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 15, 3, 5, 1.2, 0)

    return flow


METHODS: dict[str, Callable[[Any], Flow]] = {"dis": _dis, "farneback": _farneback}


def to_pixels(flow: np.ndarray, bound: float) -> np.ndarray:
    """Map flow in pixels per frame, clipped to ±bound, to uint8 with 128 for no motion."""
    return np.clip(np.rint(flow / bound * 127.5 + 128), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class FlowMaker:
    """Computes the flow of videos, all in the same way."""

    cv2: Any
    method: str
    bound: float

    def make(self, folder: Path, target: Path) -> tuple[str, str]:
        """Write the flow of a folder of frames to `target` atomically; return status and reason.

        Flow that is there already is kept if it is of these frames and made in this way; a file
        that this program did not write is always kept. Raises UserError if the disk is full.
        """
        n_frames, missing = count_frames(os.listdir(folder))
        if missing is not None:
            return FAILED, f"frame {missing} is missing, though there are later ones"
        if n_frames < 2:
            return FAILED, f"{n_frames} frames: flow needs at least 2"
        try:
            origin = self._origin(folder, n_frames)
            kept = _why_kept(target, n_frames, origin)
            if kept is not None:
                return kept
            self._write(target, folder, n_frames, origin)
        except (OSError, UserError, self.cv2.error) as error:
            if getattr(error.__cause__, "errno", None) in DISK_ERRORS:
                raise
            return FAILED, str(error).strip()
        return DONE, ""

    def _write(self, target: Path, folder: Path, n_frames: int, origin: Mapping[str, Any]) -> None:
        with atomic_write(target) as part, Hdf5Writer(part) as writer:
            writer.file.attrs.update(origin)
            datasets = [writer.create_frames(name, n_frames - 1) for name in FLOW]
            for number, pixels in enumerate(self._flows(folder, n_frames)):
                for dataset, plane in zip(datasets, np.moveaxis(pixels, 2, 0), strict=True):
                    dataset[number] = self._jpeg(plane)
                writer.check()

    def _origin(self, folder: Path, n_frames: int) -> dict[str, Any]:
        """Return what flow is made from and how: the attributes of its file."""
        frames = [folder / f"image_{number:05d}.jpg" for number in range(1, n_frames + 1)]
        sizes = [frame.stat().st_size for frame in frames]
        digest = hashlib.sha256(repr(sizes).encode())
        for frame in (frames[0], frames[n_frames // 2], frames[-1]):  # reading all would take long
            digest.update(read_bytes(frame, "frame"))
        return {
            MADE_BY: MARK,
            "method": self.method,
            "bound": float(self.bound),
            "n_frames": n_frames,
            "frames_sha256": digest.hexdigest(),
        }

    def _flows(self, folder: Path, n_frames: int) -> Iterator[np.ndarray]:
        """Yield uint8 (H, W, 2) for each pair of consecutive frames."""
        flow = METHODS[self.method](self.cv2)
        before = self._grey(folder / "image_00001.jpg")
        for number in range(2, n_frames + 1):
            frame = self._grey(folder / f"image_{number:05d}.jpg")
            if frame.shape != before.shape:
                raise UserError(f"frame {number} differs in size from the one before")
            yield to_pixels(flow(before, frame), self.bound)
            before = frame

    def _grey(self, path: Path) -> np.ndarray:
        data = read_bytes(path, "frame")
        try:
            jpeg_size(data)
        except PictureError as error:
            raise UserError(f"{path.name}: {error}") from None
        frame = self.cv2.imdecode(np.frombuffer(data, np.uint8), self.cv2.IMREAD_GRAYSCALE)
        if frame is None:
            raise UserError(f"{path.name}: can't be decoded")
        return frame

    def _jpeg(self, plane: np.ndarray) -> np.ndarray:
        settings = [self.cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        return self.cv2.imencode(".jpg", plane, settings)[1]


def _why_kept(target: Path, n_frames: int, origin: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return status and reason if a file exists that must not be replaced, None otherwise."""
    if not target.exists() or (target.is_file() and target.stat().st_size == 0):
        return None
    try:
        found = read_attributes(target)
        is_whole = has_flow(target) and count_hdf5(target) == n_frames - 1
    except UserError as error:
        return FAILED, f"{error}; delete or move it to compute its flow"
    if found.get(MADE_BY) == MARK:
        is_same = found == {name: str(value) for name, value in origin.items()}
        return (THERE, "") if is_whole and is_same else None
    if is_whole:
        return THERE, "written by an earlier version, which did not store how"
    return FAILED, f"{target}: exists, and is not flow of these frames; delete or move it"


def find_frame_folders(jpg_dir: Path) -> list[Path]:
    """Return the folders of frames below `jpg_dir` in name order. Prints what is left out."""
    found = []
    orphans = find_orphans(jpg_dir)
    for visit in walk(jpg_dir):
        if "image_00001.jpg" in visit.files:
            orphan = orphans.get(visit.path.relative_to(jpg_dir).as_posix())
            if orphan is None or not orphan.matches(count_frames(visit.files).n_frames):
                found.append(visit.path)
            else:
                print(f"{printable(str(visit.path))}: left out: {orphan.source}: {orphan.reason}")
        for skipped in visit.skipped:
            print(f"{printable(str(visit.path / skipped.name))}: skipped: {skipped.reason}")
    return sorted(found)
