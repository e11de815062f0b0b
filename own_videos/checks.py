"""Look into the videos before training: broken files, and the same file twice."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.listed_videos import ListedVideo
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from media.frame_names import is_picture_name
from media.manifest import FAILED, LEFT_OUT
from media.verdicts import judge, why_no_video
from own_videos.found import Found
from utils.progress_bar import Bar
from utils.threads import thread_pool

MAX_OPENED = 2000  # videos; extraction finds what is wrong with the others
BLOCK = 1 << 20  # bytes read at a time
SUBSET_ORDER = {"validation": 0, "testing": 1, "": 2, "training": 3}


class Opened(NamedTuple):
    """What ffmpeg says about a video; None where it does not."""

    rate: float | None  # frames per second
    seconds: float | None


def open_videos(found: Found) -> tuple[Found, dict[str, Opened]]:
    """Decode the first frame of every video; leave out those that have none."""
    opened: dict[str, Opened] = {}
    broken: dict[str, str] = {}
    paths = found.paths
    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        answers = pool.map(lambda path: _open(found.folder / path, ffmpeg), paths[:MAX_OPENED])
        with Bar("opening the videos", len(paths[:MAX_OPENED]), "video") as bar:
            for path, answer in zip(paths, answers, strict=False):
                if isinstance(answer, str):
                    broken[path] = answer
                else:
                    opened[path] = answer
                bar.update(1)
    return found.without(broken), opened


def _open(file: Path, ffmpeg: Ffmpeg) -> Opened | str:
    if is_picture_name(file.name):
        return "a picture, not a video"
    if (verdict := why_no_video(file)) is not None:
        return verdict.reason
    ran = ffmpeg.run([*input_of(file), "-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"])
    verdict = judge(ran, n_frames=ran.n_frames, name=file.name)
    if verdict.status in (FAILED, LEFT_OUT):
        return verdict.reason
    return Opened(ran.rate, ran.seconds)


def leave_out_copies(found: Found) -> Found:
    """Leave out files with the same content as another: of the same label all but one, of several
    labels all, because one of the labels must be wrong.

    Of a training and a validation video, the training video is left out.
    """
    videos = {video.path: video for video in found.videos}
    reasons: dict[str, str] = {}
    for copies in _same_content(found.folder, list(videos)):
        copies = sorted(copies, key=lambda path: SUBSET_ORDER[videos[path].subset])
        labels = {video.label for video in found.videos if video.path in copies}
        is_cut = any(video.is_part for video in found.videos if video.path in copies)
        if len(labels) > 1 and not is_cut:
            for path in copies:
                other = copies[0] if path != copies[0] else copies[1]
                reasons[path] = f"the same file as {other}, which has another label"
        else:
            reasons |= dict.fromkeys(copies[1:], f"the same file as {copies[0]}")
    return found.without(reasons)


def _same_content(folder: Path, paths: Sequence[str]) -> list[list[str]]:
    """Group the paths of files with equal content; only files of equal size are read."""
    sizes: defaultdict[int, list[str]] = defaultdict(list)
    for path in paths:
        sizes[(folder / path).stat().st_size].append(path)
    groups: defaultdict[bytes, list[str]] = defaultdict(list)
    for same in sizes.values():
        for path in same if len(same) > 1 else ():
            groups[_digest(folder / path)].append(path)
    return [same for same in groups.values() if len(same) > 1]


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.digest()


def seconds_of(videos: Sequence[ListedVideo], opened: dict[str, Opened]) -> float:
    """Add up how long the files last; files of unknown length count as the average."""
    paths = {video.path for video in videos}
    known = [o.seconds for path, o in opened.items() if path in paths and o.seconds is not None]
    return sum(known) / len(known) * len(paths) if known else 10.0 * len(paths)
