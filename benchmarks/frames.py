"""Frame folders and an index for benchmarks, given or generated."""

import json
import os
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.extraction import draw
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_jpgs import main as generate_video_jpgs


def frame_folders(work: Path) -> Path:
    """Return $BENCH_FRAMES (a folder of frame folders per class), or frames of generated videos."""
    given = os.environ.get("BENCH_FRAMES")
    if given:
        return Path(given)
    if not (work / "jpg").exists():
        draw_frames(work / "jpg")
    return work / "jpg"


def draw_frames(folder: Path, **sizes: Any) -> None:
    """Write frames of 320 x 240 like UCF-101's, extracted from generated videos of these sizes."""
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        generate_video_jpgs([str(draw(Path(name), **sizes)), str(folder), "bench"])


def index_of(frames: Path, work: Path, *, most: int | None = None) -> Path:
    """Write an index of all videos, or of at most `most` evenly spaced ones per subset."""
    path = work / "index.json"
    with redirect_stdout(StringIO()):
        folder_json([str(frames), str(path)])
    if most is not None:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["database"] = _subsample(content["database"], most)
        path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return path


def _subsample(database: dict[str, Any], most: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for subset in ("training", "validation"):
        entries = [item for item in database.items() if item[1]["subset"] == subset]
        kept |= dict(entries[:: max(1, -(-len(entries) // most))])
    return kept
