"""How a video's frames lie on disk: a folder of JPGs here, an HDF5 file in datasets/."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from PIL import Image

from media.ffmpeg import Ffmpeg
from media.ffmpeg_log import FfmpegRun
from media.frame_folders import replace_frames
from media.frame_names import count_frames

FRAME_PATTERN = "image_%05d.jpg"


class FrameFormat(Protocol):
    """A format in which extraction writes frames."""

    @property
    def suffix(self) -> str:
        """The suffix of the folder or file with a video's frames."""

    @property
    def keeps_other_data(self) -> bool:
        """Whether `move` replaces nothing but frames."""

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        """Run ffmpeg with `arguments`, which name the input and the filters; return how it ended
        and the path of the frames, below `work`."""

    def count(self, frames: Path) -> int:
        """Count the frames; 0 if there is nothing, or a gap."""

    def holds_other_data(self, target: Path) -> bool:
        """Whether `target` holds no frames but something that `move` would replace."""

    def is_written(self, frames: Path, n_frames: int) -> bool:
        """Whether the first and the last frame are not empty, as they may be after a power
        loss."""

    def size(self, frames: Path) -> tuple[int, int] | None:
        """Return width and height of the first frame."""

    def move(self, frames: Path, target: Path) -> None:
        """Move new frames to `target`, replacing old frames but no other files.

        Raises OSError, or LostRace if another extraction has put its frames there meanwhile.
        """

    def remove(self, frames: Path, n_frames: int) -> None:
        """Remove a video's frames and nothing else."""


class JpgFolders:
    """A folder per video with image_00001.jpg …"""

    suffix = ""
    keeps_other_data = True

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        frames = work / "frames"
        frames.mkdir(exist_ok=True)
        return ffmpeg.run([*arguments, FRAME_PATTERN], cwd=frames, timeout=timeout), frames

    def count(self, frames: Path) -> int:
        try:
            n_frames, missing = count_frames(os.listdir(frames))
        except OSError:
            return 0
        return n_frames if missing is None else 0

    def holds_other_data(self, target: Path) -> bool:
        return False

    def is_written(self, frames: Path, n_frames: int) -> bool:
        try:
            return all((frames / (FRAME_PATTERN % n)).stat().st_size for n in (1, n_frames))
        except OSError:
            return False

    def size(self, frames: Path) -> tuple[int, int] | None:
        try:
            with Image.open(frames / (FRAME_PATTERN % 1)) as image:
                return image.size
        except OSError:
            return None

    def move(self, frames: Path, target: Path) -> None:
        replace_frames(frames, target)

    def remove(self, frames: Path, n_frames: int) -> None:
        """Remove the first `n_frames` frames, last one first so that no gap appears if killed."""
        for number in range(n_frames, 0, -1):
            (frames / (FRAME_PATTERN % number)).unlink(missing_ok=True)
        with suppress(OSError):  # the user's own files are in it
            frames.rmdir()
