"""Time a few steps of the real commands on this machine, with the beginning of some videos."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.index_writer import entry_of, write_index
from datasets.listed_videos import ListedVideo
from datasets.survey import survey_frames
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from own_videos.plan import Speed
from utils.progress_bar import Bar
from utils.reading import read_text

MAX_SECONDS = 10  # of each video that is copied for the measurement
N_TRAIN, N_VAL = 32, 8
N_VAL_SAMPLES = 3  # clips per video, so that validation takes long enough to be timed
LOG_LINES = 5  # of a command that failed, for the error
TITLE = "timing"

Run = Callable[[Sequence[str], Path], int]  # runs a command with its output in a file


class Sample(NamedTuple):
    """Copies of some videos, {name: label}, and how many seconds of video they are."""

    labels: Mapping[str, str]
    seconds: float


def measure(folder: Path, videos: Sequence[ListedVideo], flags: Sequence[str], run: Run) -> Speed:
    """Extract, train and test on a sample; return the seconds that each takes.

    `flags` are those of the network, the recipe and the clips. A bar counts the three steps. Raises
    UserError if a command fails.
    """
    with tempfile.TemporaryDirectory(prefix="measure-") as temporary, Bar(TITLE, 3, "step") as bar:
        work = Path(temporary)
        sample = _copy_sample(folder, videos, work / "videos")
        bar.update(1)
        started = time.monotonic()
        extract = ["-m", "util_scripts.generate_video_jpgs", str(work / "videos")]
        _run(run, [*extract, str(work / "jpg"), "own"], work, statuses=(0, 1))
        extraction = (time.monotonic() - started) / sample.seconds
        n_train, n_val = _write_index(work, sample.labels)
        bar.update(1)
        started = time.monotonic()
        train = ["main.py", "--video_path", str(work / "jpg"), "--dataset", "folder"]
        train += ["--annotation_path", str(work / "index.json"), "--result_path", str(work / "res")]
        train += [*flags, "--n_epochs", "2", "--warmup_epochs", "0", "--checkpoint", "2"]
        _run(run, [*train, "--inference", "--n_val_samples", str(N_VAL_SAMPLES)], work)
        seconds = time.monotonic() - started
        times = _read_times(work / "res" / "time.log")
    epochs = sum(row["train"] + row["validation"] for row in times)
    last = times[-1]
    return Speed(
        extraction,
        last["train"] / n_train,
        last["validation"] / (N_VAL_SAMPLES * n_val),
        max(0.0, seconds - epochs),
    )


def _copy_sample(folder: Path, videos: Sequence[ListedVideo], target: Path) -> Sample:
    """Copy the first seconds of some videos of every class, without decoding them."""
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.path not in by_label[video.label or ""]:
            by_label[video.label or ""].append(video.path)
    labels: dict[str, str] = {}
    seconds = 0.0
    target.mkdir()
    with Ffmpeg() as ffmpeg:
        for path, label in _in_turn(by_label):
            name = f"{len(labels):02d}"
            copy = ["-map", "0:V:0", "-t", str(MAX_SECONDS), "-c", "copy", "-y"]
            ran = ffmpeg.run([*input_of(folder / path), *copy, f"file:{target / name}.mkv"])
            if ran.returncode == 0:
                labels[name] = label
                seconds += min(ran.seconds or MAX_SECONDS, MAX_SECONDS)
            if len(labels) == N_TRAIN + N_VAL:
                break
    if not labels:
        raise UserError(f"{folder}: the videos can't be copied to measure this machine")
    return Sample(labels, max(seconds, 0.1))


def _in_turn(by_label: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """List (path, label) with one video of each class after the other."""
    longest = max(map(len, by_label.values()), default=0)
    return [
        (paths[number], label)
        for number in range(longest)
        for label, paths in by_label.items()
        if number < len(paths)
    ]


def _write_index(work: Path, labels: Mapping[str, str]) -> tuple[int, int]:
    """Write an index of the sample; return the numbers of training and validation videos.

    A small sample is in training as often as it takes to fill some batches.
    """
    survey = survey_frames(work / "jpg", labels)
    names = [name for name in labels if name in survey.n_frames]
    n_val = max(1, min(N_VAL, len(names) // 4))
    entries = {
        f"v{number}": entry_of(
            "validation" if number < n_val else "training",
            labels[name],
            survey.n_frames[name],
            video_path=name,
        )
        for number, name in enumerate([*names[:n_val], *_repeated(names[n_val:] or names)])
    }
    write_index(work / "index.json", sorted(set(labels.values())), entries)
    return len(entries) - n_val, n_val


def _repeated(names: Sequence[str]) -> list[str]:
    times = -(-N_TRAIN // len(names))
    return (list(names) * times)[:N_TRAIN]


def _run(run: Run, words: Sequence[str], work: Path, *, statuses: Sequence[int] = (0,)) -> None:
    log = work / "log"
    status = run(words, log)
    if status not in statuses:
        last = read_text(log, "log", errors="replace").splitlines()[-LOG_LINES:]
        raise UserError("\n".join(line.removeprefix("error: ") for line in last))


def _read_times(log: Path) -> list[dict[str, float]]:
    header, *rows = read_text(log, "log").splitlines()
    return [dict(zip(header.split("\t"), map(float, row.split("\t")), strict=True)) for row in rows]
