"""`make demo VIDEOS=folder`, except for setting up the environment: demo.sh."""

import json
import sys

import pytest

from tests.commands import PATIENCE, ROOT, run_command
from tests.videos import draw, names

ENVIRON = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SECONDS = 6 * PATIENCE  # for several trainings


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project in which the demo can write to demo/."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("demo.sh", "main.py"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def demo(checkout, videos):
    environ = ENVIRON | {"PYTHON": sys.executable, "MINUTES": "0.01"}
    return run_command(
        "demo.sh", videos, program="sh", cwd=checkout, environ=environ, seconds=SECONDS
    )


def test_own_videos(checkout):
    source = checkout / "my videos"
    for seconds, name in enumerate(("cat/a", "cat/b", "dog/a", "dog/b"), 1):
        draw(source / f"{name}.mp4", size="32x32", seconds=seconds)
    done = demo(checkout, "my videos")
    assert done.status == 0, done.text
    [own] = (checkout / "demo").iterdir()
    assert own.name.startswith("own-my_videos-")
    assert json.loads((own / "index.json").read_text())["labels"] == ["cat", "dog"]
    assert {"report.html", "best.pth"} <= {*names(own / "results")}
    assert "accuracy: " in done.stdout
    assert str(own / "results/report.html") in done.stdout

    # Its script repeats it.
    here = ENVIRON | {"PYTHON": ""}  # the script knows which one made it
    done = run_command(own / "commands.sh", program="sh", environ=here, seconds=SECONDS)
    assert done.status == 0, done.text
    results = [own / place / "val.json" for place in ("results", "again/results")]
    assert results[0].read_bytes() == results[1].read_bytes()

    # The same source by another name goes to the same folder; its videos are gone.
    for video in source.rglob("*.mp4"):
        video.unlink()
    before = (own / "results/best.pth").stat().st_mtime_ns
    done = demo(checkout, f"{source}/")
    assert done.status == 2
    assert "no videos in class folders" in done.stderr
    assert names(checkout / "demo") == [own.name]

    # Another source with a file that is not a video, and a missing folder.
    (checkout / "elsewhere/my videos/fox").mkdir(parents=True)
    (checkout / "elsewhere/my videos/fox/a.mp4").write_text("no video")
    done = demo(checkout, "elsewhere/my videos")
    assert done.status == 2
    assert "no videos in class folders" in done.stderr
    done = demo(checkout, "typo")
    assert done.status == 2
    assert done.stderr == "error: typo: no such folder of videos, and no such table\n"
    assert (own / "results/best.pth").stat().st_mtime_ns == before
    assert names(checkout / "demo") == [own.name]
