"""ffmpeg: where it is, and how it is run. The only place that starts a process."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from errors import UserError

# With -loglevel level+…: "[h264 @ 0x55d0] [error] message", "[error] message"
COMPLAINT = re.compile(r"^(?:\[[^\]]*\] )?\[(?:error|fatal|panic)\] (.*)$")
INPUT_FORMAT = re.compile(r"^(?:\[[^\]]*\] )*Input #0, (.+), from ")


class FfmpegRun(NamedTuple):
    """How one run of ffmpeg ended."""

    returncode: int
    input_format: str | None  # as ffmpeg names it, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    complaints: list[str]  # its error lines, in order


class Ffmpeg:
    """Runs ffmpeg processes and can end all that are running, from any thread."""

    def __init__(self) -> None:
        self.binary = find_ffmpeg()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, arguments: Sequence[str], *, cwd: Path | None = None) -> FfmpegRun:
        """Run ffmpeg to its end. It reads no terminal input and leaves the terminal alone."""
        command = [self.binary, "-nostdin", "-hide_banner", "-nostats"]
        command += ["-loglevel", "repeat+level+info", *arguments]
        with self._lock:
            if self._stopped:
                return FfmpegRun(-1, None, ["interrupted"])
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it
            )
            self._running.add(process)
        try:
            lines = process.communicate()[1].decode("utf-8", "replace").splitlines()
        finally:
            with self._lock:
                self._running.discard(process)
        formats = [m.group(1) for line in lines if (m := INPUT_FORMAT.match(line))]
        complaints = [m.group(1).strip() for line in lines if (m := COMPLAINT.match(line))]
        return FfmpegRun(process.returncode, formats[0] if formats else None, complaints)

    def stop(self) -> None:
        """End all running processes; later calls of run do nothing."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


@cache
def find_ffmpeg() -> str:
    """$FFMPEG, else the binary of the package imageio-ffmpeg, else the one on PATH.

    Raises UserError where there is none.
    """
    chosen = os.environ.get("FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UserError(f"$FFMPEG is {chosen!r}, which is no program")
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: a package without a binary
        found = shutil.which("ffmpeg")
    if found is None:
        raise UserError("no ffmpeg: pip install imageio-ffmpeg, or name one in $FFMPEG")
    return found


def input_of(path: Path) -> list[str]:
    """The arguments that open a file and nothing else, whatever its name holds."""
    return ["-protocol_whitelist", "file", "-threads", "1", "-i", f"file:{path.absolute()}"]
