"""Frame folders and an index to measure with: those given, or drawn ones."""

import json
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

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


def index_of(frames: Path, work: Path, *, most: int | None = None) -> Path:
    """An index of them all, or of at most `most` of each subset, evenly picked."""
    path = work / "index.json"
    with redirect_stdout(StringIO()):
        folder_json([str(frames), str(path)])
    if most is not None:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["database"] = _thinned(content["database"], most)
        path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return path


def _thinned(database: dict[str, Any], most: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for subset in ("training", "validation"):
        entries = [item for item in database.items() if item[1]["subset"] == subset]
        kept |= dict(entries[:: max(1, -(-len(entries) // most))])
    return kept
