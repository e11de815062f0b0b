"""What a bare machine lacks, carried along in one folder: packages as wheels, and frames.

Imports only the standard library, so that it runs before the packages are there.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WHEELS, FRAMES = "wheels", "frames"
# Installed with torch on most machines, and large.
EXPECTED = {"torch", "torchvision", "numpy", "pillow", "tensorboard", "matplotlib", "jinja2"}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
SMALLER = {"imageio-ffmpeg": "imageio-ffmpeg==0.6.0"}  # 30 MB; 0.8 has 68
DRAWN = {"n_videos": 12, "seconds": 3}


def missing_packages() -> list[str]:
    """Return what to fetch: the lines of requirements.txt, without those of EXPECTED."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    names = {line.partition(">=")[0]: line for line in lines}
    return [SMALLER.get(name, line) for name, line in names.items() if name not in EXPECTED]


def download_command(folder: Path, python: str, packages: Sequence[str]) -> list[str]:
    """Return pip's command line that fetches wheels for x86-64 Linux and a version of Python."""
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    target = ["--python-version", python, "--implementation", "cp", *platforms]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    return [*pip, *target, "-d", str(folder), *packages]


def pack(folder: Path, python: str) -> None:
    """Fill the folder. Raises CalledProcessError if a wheel can't be fetched."""
    from benchmarks.frames import draw_frames

    subprocess.run(download_command(folder / WHEELS, python, missing_packages()), check=True)
    draw_frames(folder / FRAMES, **DRAWN)


def unpack(folder: Path) -> None:
    """Install the wheels into a temporary folder that this process and its children import from.

    Raises CalledProcessError for wheels of another Python or machine.
    """
    wheels = sorted(str(path) for path in (folder / WHEELS).glob("*.whl"))
    if not wheels:
        return
    site = tempfile.mkdtemp(prefix="gpu_check_")
    atexit.register(shutil.rmtree, site, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--no-cache-dir", "--target", site, *wheels], check=True)
    sys.path.insert(0, site)
    paths = [site, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
