"""Extract a folder of JPG frames from each video: VIDEO_DIR/LABEL/NAME.avi -> JPG_DIR/LABEL/NAME/.

Every file is tried, whatever its suffix. Frames are written to a temporary folder and renamed when
complete, so an interrupted run can simply be started again. JPG_DIR/manifest.jsonl records the
result of every video; a video is extracted again if its file or the flags change. Frames whose
video was moved, renamed or deleted are listed, left out of indexes, and removed with --prune.
Exit status 1 if a file with a video's suffix gave no frames.
"""

import sys
from collections.abc import Sequence

from media.extraction_command import extract_videos, make_parser
from media.frame_formats import JpgFolders
from utils.command_line import run


def main(argv: Sequence[str] | None = None) -> int:
    return extract_videos(make_parser("generate_video_jpgs", __doc__), JpgFolders(), argv)


if __name__ == "__main__":
    sys.exit(run(main))
