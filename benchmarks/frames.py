"""Frame folders and an index to measure with: those given, or drawn ones."""

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks.extraction import draw
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_jpgs import main as generate_video_jpgs


def frame_folders(work: Path) -> Path:
    """$BENCH_FRAMES, class folders of frame folders, or those of drawn videos below `work`."""
    given = os.environ.get("BENCH_FRAMES")
    if given:
        return Path(given)
    if not (work / "jpg").exists():
        with redirect_stdout(StringIO()):
            generate_video_jpgs([str(draw(work / "videos")), str(work / "jpg"), "bench"])
    return work / "jpg"


def index_of(frames: Path, work: Path) -> Path:
    with redirect_stdout(StringIO()):
        folder_json([str(frames), str(work / "index.json")])
    return work / "index.json"
