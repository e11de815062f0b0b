"""Small videos, drawn by ffmpeg for the tests."""

from pathlib import Path

from media.ffmpeg import Ffmpeg

SHARED = Path(__file__).parent.parent.parent / "shared/data"


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
