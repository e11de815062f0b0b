"""Parse ffmpeg's log: errors, and facts about the input."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from media.ffmpeg_inputs import redacted

# With -loglevel level+…: "[h264 @ 0x55d0] [error] message", "[error] message"
ERROR = re.compile(r"^(?:\[[^\]]*\] )?\[(?:error|fatal|panic)\] (.*)$")
NOT_ALLOWED = re.compile(r"^\[([^ #]*).*\] \[error\] Format not on whitelist")
WRAPPER = re.compile(r"^(?:pipe:\d+|Error opening input): ")  # repeats a playlist's error
FACTS = {  # the first line that matches counts
    "version": re.compile(r"^\[info\] ffmpeg version (\S+)"),
    "input_format": re.compile(r"^(?:\[[^\]]*\] )*Input #0, (.+), from "),
    "brand": re.compile(r"^\[info\] +major_brand +: (\S+)"),
    "duration": re.compile(r"^\[info\]   Duration: (\d+:\d\d:\d\d\.\d+)"),
    "stream": re.compile(r"^\[info\]   Stream #0:(\d+) -> #0:0 "),
    "n_frames": re.compile(r"^\[info\] frame= *(\d+)"),
}
INPUT_STREAM = re.compile(r"^\[info\]   Stream #0:(\d+)\D.*Video: .*")
RATES = {kind: re.compile(rf" (\d+(?:\.\d+)?k?) {kind}") for kind in ("fps", "tbr")}
FILTERS_CONFIGURED = re.compile(r"^\[Parsed_showinfo[^\]]*\] \[info\] config in ")
MAX_ERRORS = 100  # kept of one run: a damaged film logs millions


class FfmpegRun(NamedTuple):
    """How a run of ffmpeg ended, and what it logged."""

    returncode: int
    input_format: str | None  # ffmpeg's name for it, e.g. "mov,mp4,m4a,3gp,3g2,mj2"
    errors: list[str]  # its error lines in order; of many, the first and the last
    timed_out: bool = False
    version: str | None = None
    seconds: float | None = None  # duration of the input
    rate: float | None = None  # frames per second of the stream that was read, on average
    tbr: float | None = None  # the same, but where its frames are closest: differs if it varies
    n_frames: int = 0  # written
    brand: str | None = None  # of an MP4 or a file of that family, e.g. "isom", "heic"
    silent_for: float = 0  # seconds without output after which it was killed; 0: it was not


class FfmpegLog:
    """Collects what ffmpeg logs, line by line."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = secrets  # from the arguments; removed from errors
        self._errors: list[str] = []
        self._facts: dict[str, str] = {}
        self._streams: dict[str, str] = {}  # the lines of the input's video streams
        self.n_graphs = 0  # how often the filters were configured, if showinfo is one of them

    def add(self, line: str) -> None:
        if match := ERROR.match(line):
            error = WRAPPER.sub("", match[1].strip())
            if refused := NOT_ALLOWED.match(line):
                kind = f" ({refused[1]})" if refused[1] != "in" else ""
                error = f"not a video but audio, a picture, a playlist or a script{kind}"
            if not error.startswith("Impossible to open '"):  # the next line has the cause
                self._errors.append(redacted(error, self._secrets))
            if len(self._errors) > MAX_ERRORS:
                del self._errors[MAX_ERRORS // 2]
            return
        self.n_graphs += FILTERS_CONFIGURED.match(line) is not None
        for name, pattern in FACTS.items():
            if name not in self._facts and (match := pattern.match(line)):
                self._facts[name] = match[1]
        stream = None if "stream" in self._facts else INPUT_STREAM.match(line)
        if stream:
            self._streams[stream[1]] = line

    def summary(self, returncode: int = 0) -> FfmpegRun:
        """Return what was logged so far."""
        facts = self._facts
        stream = self._streams.get(facts.get("stream", ""), "")
        return FfmpegRun(
            returncode,
            facts.get("input_format"),
            list(self._errors),
            version=facts.get("version"),
            brand=facts.get("brand"),
            seconds=_in_seconds(facts["duration"]) if "duration" in facts else None,
            rate=_rate_in(stream, "fps"),
            tbr=_rate_in(stream, "tbr"),
            n_frames=int(facts.get("n_frames", 0)),
        )


def _rate_in(stream: str, kind: str) -> float | None:
    match = RATES[kind].search(stream)
    return None if match is None else float(match[1].replace("k", "000"))


def _in_seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 2)
