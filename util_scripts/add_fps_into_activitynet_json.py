"""Adds `fps`, the frame rate of VIDEO_DIR/v_ID.mp4, to every entry ID of ActivityNet's index."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.activitynet import FOLDER_PREFIX
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.files import are_same, back_up, write_json
from utils.outputs import INDEX_WITH_FPS
from utils.reading import read_json, typed
from utils.text import first_few
from utils.threads import thread_pool

MAX_LISTED = 20  # videos without a rate


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.add_fps_into_activitynet_json", description=__doc__)
    parser.add_argument("video_dir", type=INPUT, help="folder of the videos, v_ID.mp4 or the like")
    parser.add_argument("src_json", type=INPUT, help="ActivityNet's index")
    parser.add_argument(
        "dst_json",
        type=OutputPath(INDEX_WITH_FPS, in_place="src_json"),
        nargs="?",
        help="where to write; default: in place, leaving JSON.bak",
    )
    options = parser.parse_args(argv)
    if not options.video_dir.is_dir():
        raise UserError(f"{options.video_dir}: no such folder of videos")
    content = read_json(options.src_json, "index")
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise UserError(f"{options.src_json}: no index: it has no object 'database'")
    database = content["database"]
    typed(database, dict[str, dict[str, Any]], f"{options.src_json}: database")
    files = {path.stem: path for path in sorted(options.video_dir.iterdir()) if path.is_file()}
    found = [video for video in database if f"{FOLDER_PREFIX}{video}" in files]
    rates = read_rates([files[f"{FOLDER_PREFIX}{video}"] for video in found])
    missing = [f"{video}: no file" for video in database if f"{FOLDER_PREFIX}{video}" not in files]
    n_changed = 0
    for video, (rate, complaint) in zip(found, rates, strict=True):
        if rate is None:
            missing.append(f"{video}: {complaint}")
        else:
            n_changed += database[video].get("fps") != rate
            database[video]["fps"] = rate
    destination = options.dst_json or options.src_json
    is_in_place = are_same(destination, options.src_json)
    if is_in_place and n_changed:
        print(f"the file as it was: {back_up(options.src_json)}")
    if n_changed or not is_in_place:
        write_json(destination, content)
    for line in first_few(missing, MAX_LISTED):
        print(line)
    print(f"{len(database) - len(missing)} videos have their fps, {len(missing)} have none")
    return 0


def read_rates(paths: Sequence[Path]) -> list[tuple[float | None, str]]:
    """Frames per second as ffmpeg tells them, or None and its complaint."""

    def read(path: Path) -> tuple[float | None, str]:
        ran = ffmpeg.run([*input_of(path), "-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"])
        return ran.rate, ran.errors[0] if ran.errors else "ffmpeg tells no rate"

    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        return list(tqdm(pool.map(read, paths), total=len(paths), disable=None))


if __name__ == "__main__":
    sys.exit(run(main))
