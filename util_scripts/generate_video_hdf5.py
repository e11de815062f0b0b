"""Videos -> an HDF5 file of frames each: VIDEO_DIR/LABEL/NAME.avi -> HDF5_DIR/LABEL/NAME.hdf5.

The dataset `video` holds the JPEG bytes of every frame, from 0, the same as generate_video_jpgs
writes; they come through a pipe, without files between. Everything else is as there: every file is
tried, a video is there whole or not at all, and HDF5_DIR/manifest.jsonl tells what became of it.
"""

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.hdf5 import (
    HDF5_SUFFIX,
    PICTURES,
    Hdf5Writer,
    count_hdf5,
    read_jpegs,
    require_h5py,
)
from datasets.video_files import TO_PIPE, read_parts
from errors import UserError
from media.extraction import Form
from media.ffmpeg import Ffmpeg, FfmpegRun
from util_scripts.generate_video_jpgs import extract_videos, make_parser
from utils.command_line import run

GROWTH = 256  # frames by which the dataset grows: an hour of video passes in constant memory


class Hdf5Files:
    """A file per video."""

    suffix = HDF5_SUFFIX

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        frames = work / f"frames{HDF5_SUFFIX}"
        reading, writing = os.pipe()
        failed: list[BaseException] = []

        def consume() -> None:
            with os.fdopen(reading, "rb") as stream:
                try:
                    write_frames(frames, read_parts(stream))
                except BaseException as error:  # raised in the thread that waits
                    failed.append(error)

        reader = threading.Thread(target=consume)
        reader.start()
        try:
            ran = ffmpeg.run([*arguments, *TO_PIPE], cwd=work, timeout=timeout, stdout=writing)
        finally:
            os.close(writing)
            reader.join()
        for error in failed:
            if not isinstance(error, OSError):
                raise error
            cause = error.strerror or error
            raise UserError(f"{work.parent}: can't be written: {cause}; run again to go on")
        return ran, frames

    def count(self, frames: Path) -> int:
        try:
            return count_hdf5(frames)
        except UserError:
            return 0

    def move(self, frames: Path, target: Path) -> None:
        frames.replace(target)

    def remove(self, frames: Path, n_frames: int) -> None:
        frames.unlink(missing_ok=True)

    def size(self, frames: Path) -> tuple[int, int] | None:
        ((data,),) = read_jpegs(frames, [PICTURES], [0])
        with Image.open(io.BytesIO(data)) as image:
            return image.size


def write_frames(path: Path, frames: Iterator[bytes]) -> None:
    """Raises OSError where the disk is full."""
    with Hdf5Writer(path) as writer:
        dataset = writer.create_frames(PICTURES, 0, maxshape=(None,), chunks=(GROWTH,))
        number = 0
        for number, data in enumerate(frames, start=1):
            if number > len(dataset):
                dataset.resize((len(dataset) + GROWTH,))
            dataset[number - 1] = np.frombuffer(data, np.uint8)
            writer.check()
        dataset.resize((number,))


def main(argv: Sequence[str] | None = None) -> int:
    require_h5py()
    form: Form = Hdf5Files()
    return extract_videos(make_parser("generate_video_hdf5", __doc__), form, argv)


if __name__ == "__main__":
    sys.exit(run(main))
