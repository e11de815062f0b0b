"""Videos to JPGs, against ffprobe and a system ffmpeg per video in one job per class."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.timing import Comparison, compare
from media.ffmpeg import Ffmpeg

CLASSES, CLIPS = 2, 20
# Like UCF-101: 320 x 240, 7 seconds, about 500 kB, with 700 kB of JPGs.
DRAWN, SECONDS = "testsrc2=s=320x240:r=25:d={},noise=alls=2:allf=t", 7


def comparisons() -> Iterator[Comparison]:
    """Use the class folders of videos in $BENCH_VIDEOS, or generated videos of UCF-101's size."""
    if not shutil.which("ffmpeg") or not shutil.which("ffprobe"):
        print("extraction: skipped, there is no system ffmpeg to compare with")
        return
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get("BENCH_VIDEOS")
        videos = Path(given) if given else draw(Path(folder) / "videos")
        name = f"extraction of {videos if given else 'clips of 320x240, 7 s'}"
        yield compare(
            name,
            "videos/s",
            lambda: _ours(videos, Path(tempfile.mkdtemp(dir=folder))),
            lambda: _plain(videos, Path(tempfile.mkdtemp(dir=folder))),
            rounds=3,
        )
        targets = Path(folder, "ours"), Path(folder, "plain")
        again = compare(
            f"{name}, a second run",
            "seconds",
            lambda: _ours(videos, targets[0]),
            lambda: _plain(videos, targets[1]),
            rounds=3,
        )
        n_videos = _count(targets[0])
        yield again._replace(ours=n_videos / again.ours, plain=n_videos / again.plain)


def draw(folder: Path, *, n_videos: int = CLASSES * CLIPS, seconds: float = SECONDS) -> Path:
    """Generate two classes of videos."""
    ffmpeg = Ffmpeg()
    for number in range(n_videos):
        path = folder / str(number % CLASSES) / f"{number}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        graph = ["-f", "lavfi", "-i", DRAWN.format(seconds), "-c:v", "mpeg4", "-q:v", "8"]
        ffmpeg.run(["-y", *graph, str(path)])
    return folder


def _ours(videos: Path, target: Path) -> float:
    """Run the command, including its start."""
    module = "util_scripts.generate_video_jpgs"
    command = [sys.executable, "-m", module, str(videos), str(target), "b"]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _count(target)


def _plain(videos: Path, target: Path) -> float:
    """Probe every video in every run, and extract those without frames."""
    classes = [p for p in sorted(videos.rglob("*")) if p.is_dir() and any(p.glob("*.*"))]
    targets = [target / folder.relative_to(videos) for folder in classes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_plain_class, classes, targets))
    return _count(target)


def _plain_class(label: Path, target: Path) -> None:
    for video in sorted(path for path in label.iterdir() if path.is_file()):
        folder = target / video.stem
        folder.mkdir(parents=True, exist_ok=True)
        probe = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]
        entries = ["-show_entries", "stream=width,height,avg_frame_rate,duration"]
        probed = subprocess.run([*probe, *entries, str(video)], capture_output=True, text=True)
        if any(folder.iterdir()):
            continue
        width, height = map(int, probed.stdout.split(",")[:2])
        scale = "scale=-1:240" if width > height else "scale=240:-1"
        command = ["ffmpeg", "-i", str(video), "-vf", scale, "-threads", "1"]
        subprocess.run([*command, str(folder / "image_%05d.jpg")], capture_output=True)


def _count(target: Path) -> float:
    return sum(1 for path in target.rglob("image_00001.jpg"))
