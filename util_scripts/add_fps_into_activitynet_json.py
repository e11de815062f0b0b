"""Add `fps`, the frame rate of VIDEO_DIR/v_ID.mp4, to every entry ID of ActivityNet's index."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.activitynet import FOLDER_PREFIX
from errors import UserError
from media.rates import read_timings
from media.verdicts import is_video_name
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.files import are_same, back_up, write_json
from utils.outputs import INDEX_WITH_FPS
from utils.reading import read_json, typed
from utils.text import first_few

MAX_LISTED = 20  # videos without a frame rate


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.add_fps_into_activitynet_json", description=__doc__)
    parser.add_argument("video_dir", type=INPUT, help="folder of the videos, v_ID.mp4 or similar")
    parser.add_argument("src_json", type=INPUT, help="ActivityNet's index")
    parser.add_argument(
        "dst_json",
        type=OutputPath(INDEX_WITH_FPS, in_place="src_json"),
        nargs="?",
        help="the index to write; default: src_json, with a backup in JSON.bak",
    )
    parser.rewrites("src_json", lambda options: options.dst_json is None)
    options = parser.parse_args(argv)
    if not options.video_dir.is_dir():
        raise UserError(f"{options.video_dir}: no such folder of videos")
    content = _read_index(options.src_json)
    database = content["database"]
    n_changed, missing = add_rates(database, options.video_dir)
    destination = options.dst_json or options.src_json
    is_in_place = are_same(destination, options.src_json)
    if is_in_place and n_changed:
        print(f"backup of the index: {back_up(options.src_json)}")
    if n_changed or not is_in_place:
        write_json(destination, content)
    for line in first_few(missing, MAX_LISTED):
        print(line)
    print(f"{len(database) - len(missing)} videos have a frame rate, {len(missing)} have none")
    return 0


def _read_index(path: Path) -> dict[str, Any]:
    content = read_json(path, "index")
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise UserError(f"{path}: not an index: it has no object 'database'")
    typed(content["database"], dict[str, dict[str, Any]], f"{path}: database")
    return content


def add_rates(database: dict[str, dict[str, Any]], video_dir: Path) -> tuple[int, list[str]]:
    """Set `fps` in the entries; return how many changed, and the videos without a rate."""
    files: dict[str, Path] = {}
    # Videos before subtitles and thumbnails of the same name, as in extraction.
    for path in sorted(video_dir.iterdir(), key=lambda path: (not is_video_name(path.name), path)):
        if path.is_file():
            files.setdefault(path.stem, path)
    paths = {video: files.get(f"{FOLDER_PREFIX}{video}") for video in database}
    missing = [f"{video}: no file" for video, path in paths.items() if path is None]
    found = {video: path for video, path in paths.items() if path is not None}
    n_changed = 0
    for video, (timing, error) in zip(found, read_timings(list(found.values())), strict=True):
        if timing is None:
            missing.append(f"{video}: {error}")
        else:
            n_changed += database[video].get("fps") != timing.rate
            database[video]["fps"] = timing.rate
    return n_changed, missing


if __name__ == "__main__":
    sys.exit(run(main))
