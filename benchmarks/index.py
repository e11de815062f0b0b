"""Read and check a large index of 700 classes and find its frames, against one object and one
directory check per video.

$BENCH_INDEX sets the number of videos, more than 50,000. The 650,000 of Kinetics-700 take some
minutes, mostly to create and delete their folders.
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from benchmarks.timing import Comparison

VIDEOS, LABELS = 65_000, 700


def comparisons() -> Iterator[Comparison]:
    n_videos = int(os.environ.get("BENCH_INDEX", VIDEOS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, n_videos)
        ours, plain = _in_fresh_process(_ours, folder), _in_fresh_process(_plain, folder)
        # Reported before the folders are deleted, which may take minutes.
        yield from _compared(n_videos, ours, plain)


def _compared(
    n_videos: int, ours: dict[str, float], plain: dict[str, float]
) -> Iterator[Comparison]:
    thousands = n_videos / 1000
    for title, unit, a, b in (
        ("ready", "seconds", ours["seconds"], plain["seconds"]),
        ("ready", "thousand videos/s", thousands / ours["seconds"], thousands / plain["seconds"]),
        ("resident", "MiB, ratio of savings", ours["resident"], plain["resident"]),
        ("peak", "MiB, ratio of savings", ours["peak"], plain["peak"]),
        ("a worker over an epoch", "MiB, ratio of savings", ours["worker"], plain["worker"]),
    ):
        ratio = a / b if unit.endswith("/s") else b / max(a, 0.1)
        yield Comparison(f"index of {n_videos:,} videos, {title}", unit, a, b, ratio)


def _make(folder: Path, n_videos: int) -> None:
    draw = Random(1)
    labels = [f"label number {number:03}" for number in range(LABELS)]
    database = {}
    for number in range(n_videos):
        video, label = f"{draw.getrandbits(64):011x}_000001_000011", labels[number % LABELS]
        subset = "validation" if draw.random() < 0.06 else "training"
        annotation = {"label": label, "segment": [1, 301]}
        database[video] = {"subset": subset, "annotations": annotation}
        os.makedirs(folder / "jpg" / label / video)
    content = {"labels": labels, "database": database}
    (folder / "index.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _in_fresh_process(work: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, float]:
    """Run `work` in a fresh process, to measure its memory separately."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, folder).result()


def _ours(folder: Path) -> dict[str, float]:
    from datasets.index import read_index
    from datasets.selection import select_videos

    def work() -> list:
        index = read_index(folder / "index.json")
        selected = [
            select_videos(index, subset, folder / "jpg").records for subset in ("train", "val")
        ]
        return [index, *selected]

    return _measure(work, lambda kept: (record.n_frames for record in kept[1]))


def _plain(folder: Path) -> dict[str, float]:
    """Read as the original does: keep the whole JSON, a dict per video, check each folder."""

    def work() -> list:
        content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        numbers = {label: number for number, label in enumerate(content["labels"])}
        selected = []
        for subset in ("training", "validation"):
            videos = []
            for name, entry in content["database"].items():
                if entry["subset"] != subset:
                    continue
                label = entry["annotations"]["label"]
                path = folder / "jpg" / label / name
                first, end = entry["annotations"]["segment"]
                if path.exists():
                    frames = list(range(first, end))
                    video = {"video": path, "segment": (first, end), "frame_indices": frames}
                    videos.append(video | {"video_id": name, "label": numbers[label]})
            selected.append(videos)
        return [content, *selected]

    return _measure(work, lambda kept: (len(video["frame_indices"]) for video in kept[1]))


def _measure(work: Callable[[], list], sample: Callable[[list], Iterator[int]]) -> dict[str, float]:
    before, started = _status("VmRSS"), time.perf_counter()
    kept = work()
    seconds, resident = time.perf_counter() - started, _status("VmRSS") - before
    peak = _status("VmHWM") - before  # getrusage's would be the parent's
    worker = _forked(lambda: sum(sample(kept)))
    return {"seconds": seconds, "resident": resident, "peak": peak, "worker": worker}


def _forked(work: Callable[[], object]) -> float:
    """Return the MiB that a forked worker stops sharing with its parent during `work`."""
    context = multiprocessing.get_context("fork")
    result = context.SimpleQueue()

    def child() -> None:
        before = _status("Private_Dirty", "smaps_rollup")
        work()
        result.put(_status("Private_Dirty", "smaps_rollup") - before)

    process = context.Process(target=child)
    process.start()
    grown = result.get()
    process.join()
    return grown


def _status(name: str, file: str = "status") -> float:
    """Return a field of a file in /proc/self, in MiB."""
    lines = Path("/proc/self", file).read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
