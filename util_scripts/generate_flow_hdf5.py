"""Folders of JPG frames -> optical flow in an HDF5 file each, for --input_type flow.

JPG_DIR/LABEL/NAME/image_00001.jpg … -> DST_DIR/LABEL/NAME.hdf5 with the datasets video_u and
video_v: JPEG bytes of the flow from every frame to the next, pixels per frame, -bound … bound as
0 … 255. A video of n frames has n - 1. A file is there whole or not at all.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets.hdf5 import FLOW, Hdf5Writer
from datasets.jpeg_header import PictureError, jpeg_size
from errors import UserError
from media.frame_names import count_frames
from media.orphans import find_orphans
from media.walking import walk
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, printable, run
from utils.files import written_whole
from utils.reading import read_bytes
from utils.threads import thread_pool

QUALITY = 95  # of the JPEGs; flow is smooth, and small differences matter
DONE, THERE, FAILED = "done", "already there", "failed"
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # grey uint8 (H, W) twice -> (H, W, 2)


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
    """Pixels per frame, cut at ±bound -> uint8, 128 for none."""
    return np.clip(np.rint(flow / bound * 127.5 + 128), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class FlowMaker:
    """How the flow of every video is computed."""

    cv2: Any
    flow: Flow
    bound: float

    def make(self, folder: Path, target: Path) -> tuple[str, str]:
        """Status and reason. Writes `target` whole or not at all."""
        if target.exists():
            return THERE, ""
        n_frames, missing = count_frames(os.listdir(folder))
        if missing is not None:
            return FAILED, f"frame {missing} is missing, though there are later ones"
        if n_frames < 2:
            return FAILED, f"{n_frames} frames: flow needs two"
        planes: dict[str, list[np.ndarray]] = {name: [] for name in FLOW}
        try:
            for pixels in self._flows(folder, n_frames):
                for name, plane in zip(planes, np.moveaxis(pixels, 2, 0), strict=True):
                    planes[name].append(self._jpeg(plane))
            _write(target, planes)
        except (OSError, UserError, self.cv2.error) as error:
            return FAILED, str(error).strip()
        return DONE, ""

    def _flows(self, folder: Path, n_frames: int) -> Iterator[np.ndarray]:
        """uint8 (H, W, 2) for each pair of frames."""
        before = self._grey(folder / "image_00001.jpg")
        for number in range(2, n_frames + 1):
            frame = self._grey(folder / f"image_{number:05d}.jpg")
            if frame.shape != before.shape:
                raise OSError(f"frame {number} differs in size from the one before")
            yield to_pixels(self.flow(before, frame), self.bound)
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


def _write(target: Path, planes: dict[str, list[np.ndarray]]) -> None:
    with written_whole(target) as part, Hdf5Writer(part) as writer:
        for name, frames in planes.items():
            dataset = writer.create_frames(name, len(frames))
            for number, frame in enumerate(frames):
                dataset[number] = frame
                writer.check()


def find_videos(jpg_dir: Path) -> list[Path]:
    """The folders of frames below `jpg_dir`, in name order; what is left out is told."""
    found = []
    orphans = find_orphans(jpg_dir)
    for visit in walk(jpg_dir):
        if "image_00001.jpg" in visit.files:
            orphan = orphans.get(visit.path.relative_to(jpg_dir).as_posix())
            if orphan is None or not orphan.is_left(count_frames(visit.files).n_frames):
                found.append(visit.path)
            else:
                print(f"{printable(str(visit.path))}: left out: {orphan.source}: {orphan.reason}")
        for skipped in visit.skipped:
            print(f"{printable(str(visit.path / skipped.name))}: passed over: {skipped.reason}")
    return sorted(found)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="util_scripts.generate_flow_hdf5",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jpg_dir", type=INPUT, help="what generate_video_jpgs wrote")
    parser.add_argument("dst_dir", type=OUTPUT_FOLDER, help="gets LABEL/NAME.hdf5; made if missing")
    parser.add_argument("--method", choices=tuple(METHODS), default="dis", help="(dis)")
    parser.add_argument("--bound", type=float, default=20, help="largest flow, pixels (20)")
    parser.add_argument("--n_jobs", type=int, default=-1, help="videos at once; -1: one per core")
    options = parser.parse_args(argv)
    if not 0 < options.bound < float("inf"):
        raise UserError(f"--bound {options.bound}: must be above 0")
    cv2 = _require_packages()
    folders = find_videos(options.jpg_dir)
    if not folders:
        raise UserError(f"{options.jpg_dir}: holds no folders of frames")
    maker = FlowMaker(cv2, METHODS[options.method](cv2), options.bound)
    targets = [
        options.dst_dir / folder.relative_to(options.jpg_dir).with_name(f"{folder.name}.hdf5")
        for folder in folders
    ]
    with thread_pool(max(options.n_jobs, 0)) as pool:
        outcomes = list(
            tqdm(pool.map(maker.make, folders, targets), total=len(folders), disable=None)
        )
    statuses = [status for status, _ in outcomes]
    for folder, (status, reason) in zip(folders, outcomes, strict=True):
        if status == FAILED:
            print(f"{folder.relative_to(options.jpg_dir)}: {reason}")
    print(", ".join(f"{statuses.count(status)} {status}" for status in (DONE, THERE, FAILED)))
    return 1 if FAILED in statuses else 0


def _require_packages() -> Any:
    try:
        import cv2
        import h5py  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the package {error.name} is missing: pip install h5py opencv-python-headless"
        ) from None
    cv2.setNumThreads(1)  # videos run side by side
    return cv2


if __name__ == "__main__":
    sys.exit(run(main))
