"""Compute optical flow from folders of JPG frames, for --input_type flow.

JPG_DIR/LABEL/NAME/image_00001.jpg … -> DST_DIR/LABEL/NAME.hdf5 with the datasets video_u and
video_v: JPEG bytes of the flow from every frame to the next, in pixels per frame, with -bound …
bound mapped to 0 … 255. A video of n frames has n - 1. Files are written completely or not at all,
and again if their frames, --method or --bound changed.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.optical_flow import DONE, FAILED, METHODS, THERE, FlowMaker, find_frame_folders
from errors import UserError
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, run
from utils.threads import thread_pool


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.generate_flow_hdf5", description=__doc__)
    parser.add_argument("jpg_dir", type=INPUT, help="folder that generate_video_jpgs wrote")
    parser.add_argument("dst_dir", type=OUTPUT_FOLDER, help="gets LABEL/NAME.hdf5; made if missing")
    parser.add_argument("--method", choices=tuple(METHODS), default="dis", help="(dis)")
    parser.add_argument("--bound", type=float, default=20, help="largest flow, pixels (20)")
    parser.add_argument(
        "--n_jobs", type=int, default=-1, help="videos at a time; -1: one per CPU core"
    )
    options = parser.parse_args(argv)
    if not 0 < options.bound < float("inf"):
        raise UserError(f"--bound {options.bound}: must be above 0")
    cv2 = _require_packages()
    folders = find_frame_folders(options.jpg_dir)
    if not folders:
        raise UserError(f"{options.jpg_dir}: holds no folders of frames")
    maker = FlowMaker(cv2, options.method, options.bound)
    targets = _targets(folders, options.jpg_dir, options.dst_dir)
    with thread_pool(max(options.n_jobs, 0)) as pool:
        outcomes = list(
            tqdm(pool.map(maker.make, folders, targets), total=len(folders), disable=None)
        )
    statuses = [status for status, _ in outcomes]
    for folder, (status, reason) in zip(folders, outcomes, strict=True):
        if status == FAILED:
            print(f"{folder.relative_to(options.jpg_dir)}: {reason}")
    n_unknown = sum(status == THERE and bool(reason) for status, reason in outcomes)
    if n_unknown:
        print(
            f"{n_unknown} files are kept though they do not say how they were made, as those of "
            "earlier versions; delete them to compute their flow again"
        )
    print(", ".join(f"{statuses.count(status)} {status}" for status in (DONE, THERE, FAILED)))
    return 1 if FAILED in statuses else 0


def _targets(folders: Sequence[Path], jpg_dir: Path, dst_dir: Path) -> list[Path]:
    """Return the file of each folder. Raises UserError if two have the same."""
    owners: dict[Path, Path] = {}
    for folder in folders:
        # JPG_DIR itself may be a folder of frames, also as ".".
        name = Path(os.path.abspath(folder)).name
        target = dst_dir / folder.relative_to(jpg_dir).parent / f"{name}.hdf5"
        if (other := owners.setdefault(target, folder)) != folder:
            raise UserError(f"{folder}: its flow would replace that of {other}; rename one of them")
    return list(owners)


def _require_packages() -> Any:
    try:
        import cv2
        import h5py  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the package {error.name} is missing: pip install h5py opencv-python-headless"
        ) from None
    cv2.setNumThreads(1)  # videos are processed in parallel instead
    return cv2


if __name__ == "__main__":
    sys.exit(run(main))
