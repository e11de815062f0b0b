"""What the commands share: parsers that check paths, errors in one line, the exit status."""

import argparse
import difflib
import glob
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from utils.interruption import Interruption
from utils.outputs import ANY_FILE, Input, Kind, Output, check_outputs
from utils.program import on_output_lost, run_program
from utils.reading import shown_name

NEGATIVE_NUMBER = re.compile(r"-\.?\d")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes that file systems allow


class FlagParser(argparse.ArgumentParser):
    """Raises UserError for a wrong command line, with a suggestion for a misspelt flag."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message} (-h lists all flags)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reject unknown flags first: argparse would take their values for positional arguments,
        or report only arguments that are missing because of them."""
        words = list(sys.argv[1:] if args is None else args)
        flags = words[: words.index("--")] if "--" in words else words
        unknown = [word.partition("=")[0] for word in flags if self._is_unknown_flag(word)]
        if unknown and not {"-h", "--help"} & {*flags}:
            self.error("unrecognized arguments: " + ", ".join(map(self._with_suggestion, unknown)))
        if words.count("--") > 1:  # argparse would turn the second into an empty list
            self.error("-- occurs twice; for a file of that name, write ./--")
        return super().parse_known_args(words, namespace)

    def _is_unknown_flag(self, word: str) -> bool:
        if not word.startswith("-") or word == "-" or " " in word or NEGATIVE_NUMBER.match(word):
            return False
        name, known = word.partition("=")[0], self._option_string_actions
        if word.startswith("--"):  # may be abbreviated
            return not any(flag.startswith(name) for flag in known)
        return name not in known and name[:2] not in known  # -k1 is -k 1

    def _with_suggestion(self, name: str) -> str:
        plain = {_plain_name(flag): flag for flag in self._option_string_actions}
        close = difflib.get_close_matches(_plain_name(name), plain, n=1, cutoff=0.7)
        return f"{name} (did you mean {plain[close[0]]}?)" if close else name


def _plain_name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_").lower()


def path_fault(path: Path) -> str | None:
    """Say why no file can have this path, or return None. For such a path Path.exists() and the
    like raise OSError or ValueError."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        return "holds a surrogate that is no character"
    if b"\0" in raw:
        return "holds a NUL character, which no path can"
    longest = max(map(len, raw.split(os.fsencode(os.sep))))
    if longest > LONGEST_NAME:
        return f"holds a name of {longest} bytes, and file systems allow {LONGEST_NAME}: shorten it"
    if len(raw) > LONGEST_PATH:
        return f"has {len(raw)} bytes, and file systems allow {LONGEST_PATH}: shorten it"
    return None


def expand_user(path: str | Path) -> Path:
    """Replace a leading ~ or ~name by that user's home. Raises UserError for an unknown user.

    ./~name, as text, is a file of that name.
    """
    expanded = os.path.expanduser(path)
    if os.fspath(expanded).startswith("~"):
        raise UserError(f"{path}: no such user {Path(path).parts[0]}")
    return Path(expanded)


def _path(text: str) -> Path:
    """The argparse type of a path; ~ is expanded. Raises ArgumentTypeError for one that no file can
    have, and for an empty one, which a shell makes of an unset variable."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; the current folder is .")
    path = expand_user(text)
    if (fault := path_fault(path)) is not None:
        raise argparse.ArgumentTypeError(f"{shown_name(text)}: {fault}")
    return path


class InputPath:
    """The argparse type of a file or folder that a command reads."""

    def __call__(self, text: str) -> Any:
        return _path(text)

    def files(self, value: Any) -> Iterable[Path]:
        return [value]


class InputVideo(InputPath):
    """The argparse type of an input of predict_video: a file, folder, pattern, URL or device."""

    def __call__(self, text: str) -> str:
        if not is_url(text):
            _path(text)
        return text

    def files(self, value: str) -> Iterable[Path]:
        if is_url(value):
            return []
        path = expand_user(value)
        return [path, *map(Path, glob.glob(str(path), recursive=True))]


def is_url(text: str) -> bool:
    """Return whether a video input is a URL; file:// names a local file."""
    return bool(URL.match(text)) and not text.lower().startswith("file://")


@dataclass(frozen=True)
class OutputPath:
    """The argparse type of a file that a command writes. It may be the input named `in_place`,
    whose content the command then keeps as FILE.bak."""

    kind: Kind
    in_place: str = ""

    def __call__(self, text: str) -> Path:
        return _path(text)


class OutputFolder:
    """The argparse type of a folder that a command fills."""

    def __call__(self, text: str) -> Path:
        return _path(text)


INPUT, INPUT_VIDEO, OUTPUT_FOLDER = InputPath(), InputVideo(), OutputFolder()


class Parser(FlagParser):
    """The parser of a command. The types of its arguments, INPUT, OutputPath …, say which files it
    reads and writes; once parsed, the outputs are checked by utils.outputs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self._more: list[tuple[Kind, Callable[[argparse.Namespace], Iterable[Path]]]] = []
        self._rewritten: list[tuple[str, Callable[[argparse.Namespace], bool]]] = []

    def also_writes(
        self, kind: Kind, files_of: Callable[[argparse.Namespace], Iterable[Path]]
    ) -> None:
        """Declare output files that are not arguments themselves; `files_of` takes the parsed
        options."""
        self._more.append((kind, files_of))

    def rewrites(self, name: str, when: Callable[[argparse.Namespace], bool]) -> None:
        """Declare an input that is replaced, after a backup, if `when` is true of the parsed
        options."""
        self._rewritten.append((name, when))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        writes = self._more or any(isinstance(a.type, OutputPath) for a in self._actions)
        if writes and "--overwrite" not in self._option_string_actions:
            text = "replace output files even if another program wrote them"
            self.add_argument("--overwrite", action="store_true", help=text)
        options, rest = super().parse_known_args(args, namespace)
        check_outputs(
            list(self._outputs(options)),
            list(self._inputs(options)),
            overwrite=getattr(options, "overwrite", False),
        )
        return options, rest

    def _inputs(self, options: argparse.Namespace) -> Iterator[Input]:
        for flag, kind, value in self._values(options):
            if isinstance(kind, InputPath):
                yield from (Input(flag, path) for path in kind.files(value))

    def _outputs(self, options: argparse.Namespace) -> Iterator[Output]:
        for flag, kind, path in self._values(options):
            if isinstance(kind, OutputPath):
                in_place = getattr(options, kind.in_place) if kind.in_place else None
                yield Output(flag, path, kind.kind, in_place)
            elif isinstance(kind, OutputFolder) and os.path.exists(path) and not path.is_dir():
                raise UserError(f"{path}: is not a folder")
        for kind, files_of in self._more:
            yield from (Output("", path, kind) for path in files_of(options))
        for name, when in self._rewritten:
            if when(options):
                path = getattr(options, name)
                yield Output("", path, ANY_FILE, in_place=path)

    def _values(self, options: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
        """Yield (flag or "", type, value) for every value of every argument."""
        for action in self._actions:
            flag = action.option_strings[-1] if action.option_strings else ""
            for value in _flat(getattr(options, action.dest, None)):
                yield flag, action.type, value


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield value


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Run a command on sys.argv and return its exit status: see run_program. SIGTERM and a closed
    terminal end it as Ctrl-C does: no half-written files and no processes are left. Progress goes
    to standard error."""
    interruption = Interruption()

    def watched() -> int:
        progress = logging.getLogger("progress")
        progress.addHandler(logging.StreamHandler(sys.stderr))
        progress.setLevel(logging.INFO)
        with (
            interruption.handling_signals(),
            on_output_lost(lambda: interruption.request(signal.SIGPIPE)),
        ):
            return main(None)

    return run_program(watched)


def printable(name: str) -> str:
    """Escape a name that does not fit into one line."""
    return name if name.isprintable() else ascii(name)
