"""Small videos, drawn by ffmpeg for the tests, and extractions of them that are killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from media.ffmpeg import Ffmpeg
from media.work_folders import WORK_PREFIX
from tests.commands import Command

# Real clips, lists and frames, which are not in the repository.
SHARED = Path(os.environ.get("SHARED_FILES", Path(__file__).parent.parent.parent / "shared"))


def shared(name):
    """Return a file or folder of SHARED; skip the test if it is not there."""
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    return SHARED / name


def draw(path, *, size="64x48", seconds=1, rate=10, extra=()):
    """Write a moving test picture to `path`, in the container of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"testsrc2=s={size}:r={rate}:d={seconds}"
    ran = Ffmpeg().run(["-y", "-f", "lavfi", "-i", source, *extra, f"file:{path.absolute()}"])
    assert ran.returncode == 0, ran.errors
    return path


def draw_sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "lavfi", "-i", "sine=d=1"]
    assert Ffmpeg().run(["-y", *source, f"file:{path.absolute()}"]).returncode == 0


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def kill_extractions(root, videos, n_kills):
    """Extract root/v to root/jpg, all videos of which are changed before each run, and kill that
    many runs at random moments."""
    arguments = ("-m", "util_scripts.generate_video_jpgs", root / "v", root / "jpg", "test")
    choose = random.Random(1)
    n_killed = 0
    while n_killed < n_kills:
        for path in videos:
            os.utime(path, (time.time(), time.time()))
        with Command(*arguments) as command:
            while command.process.poll() is None and not is_extracting(command, root / "jpg"):
                time.sleep(0.005)
            time.sleep(choose.uniform(0, 0.3))
            command.process.kill()
            done = command.finish(is_clean=False)
        assert done.status in (0, -signal.SIGKILL), done.text
        n_killed += done.status != 0


def is_extracting(command, jpg):
    """Whether a command, whose frames go to `jpg`, has begun with a video."""
    try:
        return any(jpg.glob(f"{WORK_PREFIX}*-{command.process.pid}-*/[0-9]*"))
    except FileNotFoundError:  # the folder of an earlier command was removed meanwhile
        return False


def link_frames(root, names):
    """Give many videos below root/jpg one frame each: links to one folder, which are made and
    deleted much faster than folders."""
    frames = root / "frames"
    frames.mkdir()
    (frames / "image_00001.jpg").touch()
    for name in names:
        link = root / "jpg" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(frames, link.parent))  # short ones take no block on disk
