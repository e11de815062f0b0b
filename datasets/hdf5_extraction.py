"""The extraction format that writes an HDF5 file of frames per video, without temporary JPGs."""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.hdf5 import HDF5_SUFFIX, PICTURES, Hdf5Writer, count_hdf5, read_jpegs, reading_hdf5
from datasets.video_files import TO_PIPE, read_parts
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_log import FfmpegRun

GROWTH = 256  # frames added per resize, so that memory does not depend on the video's length


class Hdf5Files:
    """A FrameFormat: one HDF5 file per video."""

    suffix = HDF5_SUFFIX
    keeps_other_data = False

    def extract(
        self, ffmpeg: Ffmpeg, arguments: Sequence[str], work: Path, timeout: float
    ) -> tuple[FfmpegRun, Path]:
        frames = work / f"frames{HDF5_SUFFIX}"
        reading, writing = os.pipe()
        errors: list[BaseException] = []

        def consume() -> None:
            with os.fdopen(reading, "rb") as stream:
                try:
                    write_frames(frames, read_parts(stream))
                except BaseException as error:  # raised again in the thread that waits
                    errors.append(error)

        reader = threading.Thread(target=consume)
        reader.start()
        try:
            ran = ffmpeg.run([*arguments, *TO_PIPE], cwd=work, timeout=timeout, stdout=writing)
        finally:
            os.close(writing)
            reader.join()
        for error in errors:
            if not isinstance(error, OSError):
                raise error
            cause = error.strerror or error
            raise UserError(f"{work.parent}: can't be written: {cause}; run again to continue")
        return ran, frames

    def count(self, frames: Path) -> int:
        try:
            return count_hdf5(frames, [PICTURES])
        except UserError:
            return 0

    def holds_other_data(self, target: Path) -> bool:
        try:
            with reading_hdf5(target) as file:
                return PICTURES not in file  # optical flow, for example
        except UserError:
            return False

    def is_written(self, frames: Path, n_frames: int) -> bool:
        return True  # a file that was cut has no frames to count

    def move(self, frames: Path, target: Path) -> None:
        frames.replace(target)

    def remove(self, frames: Path, n_frames: int) -> None:
        frames.unlink(missing_ok=True)

    def size(self, frames: Path) -> tuple[int, int] | None:
        ((data,),) = read_jpegs(frames, [PICTURES], [0])
        with Image.open(io.BytesIO(data)) as image:
            return image.size


def write_frames(path: Path, frames: Iterator[bytes]) -> None:
    """Write JPEGs to an HDF5 file. Raises OSError, for example if the disk is full."""
    with Hdf5Writer(path) as writer:
        dataset = writer.create_frames(PICTURES, 0, maxshape=(None,), chunks=(GROWTH,))
        number = 0
        for number, data in enumerate(frames, start=1):
            if number > len(dataset):
                dataset.resize((len(dataset) + GROWTH,))
            dataset[number - 1] = np.frombuffer(data, np.uint8)
            writer.check()
        dataset.resize((number,))
