"""Extract an HDF5 file of frames from each video: VIDEO_DIR/LABEL/NAME.avi ->
JPG_DIR/LABEL/NAME.hdf5.

The dataset `video` holds the JPEG bytes of every frame, counted from 0; they are the bytes that
generate_video_jpgs writes. Everything else works as in that command: every file is tried, a video
is extracted completely or not at all, and JPG_DIR/manifest.jsonl records the results.
"""

import sys
from collections.abc import Sequence

from datasets.hdf5 import require_h5py
from datasets.hdf5_extraction import Hdf5Files
from media.extraction_command import extract_videos, make_parser
from utils.command_line import run


def main(argv: Sequence[str] | None = None) -> int:
    require_h5py()
    return extract_videos(make_parser("generate_video_hdf5", __doc__), Hdf5Files(), argv)


if __name__ == "__main__":
    sys.exit(run(main))
