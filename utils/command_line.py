"""What every command shares: errors told in one line, the exit status, the flags of a model."""

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
from utils.outputs import Input, Kind, Output, check_outputs
from utils.program import losing_output, run_program

NEGATIVE_NUMBER = re.compile(r"-\.?\d")


class FlagParser(argparse.ArgumentParser):
    """Reports a wrong command line as a UserError, and names the flag a misspelt one is like."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message} (-h lists all flags)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown flags first: argparse would take their values for positional arguments,
        or report only what is missing because of them."""
        words = list(sys.argv[1:] if args is None else args)
        flags = words[: words.index("--")] if "--" in words else words
        unknown = [word.partition("=")[0] for word in flags if self._is_unknown_flag(word)]
        if unknown and not {"-h", "--help"} & {*flags}:
            self.error("unrecognized arguments: " + ", ".join(map(self._with_suggestion, unknown)))
        return super().parse_known_args(words, namespace)

    def _is_unknown_flag(self, word: str) -> bool:
        if not word.startswith("-") or word == "-" or " " in word or NEGATIVE_NUMBER.match(word):
            return False
        name, known = word.partition("=")[0], self._option_string_actions
        if word.startswith("--"):  # may be cut short
            return not any(flag.startswith(name) for flag in known)
        return name not in known and name[:2] not in known  # -k1 is -k 1

    def _with_suggestion(self, name: str) -> str:
        plain = {_plain_name(flag): flag for flag in self._option_string_actions}
        close = difflib.get_close_matches(_plain_name(name), plain, n=1, cutoff=0.7)
        return f"{name} (did you mean {plain[close[0]]}?)" if close else name


def _plain_name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_").lower()


class InputPath:
    """The argparse type of a file or folder that a command reads."""

    def __call__(self, text: str) -> Any:
        return Path(text)

    def files(self, value: Any) -> Iterable[Path]:
        return [value]


class InputVideo(InputPath):
    """Of what predict_video takes: a file, folder, pattern, URL or device."""

    def __call__(self, text: str) -> str:
        return text

    def files(self, value: str) -> Iterable[Path]:
        path = Path(value).expanduser()
        return [path, *map(Path, glob.glob(str(path), recursive=True))]


@dataclass(frozen=True)
class OutputPath:
    """The argparse type of a file that a command writes. It may be the input named `in_place`,
    whose content the command then keeps as FILE.bak."""

    kind: Kind
    in_place: str = ""

    def __call__(self, text: str) -> Path:
        return Path(text)


class OutputFolder:
    """The argparse type of a folder that a command fills."""

    def __call__(self, text: str) -> Path:
        return Path(text)


INPUT, INPUT_VIDEO, OUTPUT_FOLDER = InputPath(), InputVideo(), OutputFolder()


class Parser(FlagParser):
    """A command's parser. What an argument names is declared by its type, INPUT, OutputPath …, and
    checked once parsed: see utils.outputs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._more: list[tuple[Kind, Callable[[argparse.Namespace], Iterable[Path]]]] = []

    def also_writes(
        self, kind: Kind, files_of: Callable[[argparse.Namespace], Iterable[Path]]
    ) -> None:
        """Declare files that no argument names as such; `files_of` gets the parsed options."""
        self._more.append((kind, files_of))

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

    def _values(self, options: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
        """(flag or "", type, value) of every value of every argument."""
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
    """Run a command on sys.argv and return its exit status: see run_program. SIGTERM and a terminal
    that is closed end it as Ctrl-C does: it leaves nothing half done, and no process. Lines on the
    progress go to standard error."""
    interruption = Interruption()

    def watched() -> int:
        progress = logging.getLogger("progress")
        progress.addHandler(logging.StreamHandler(sys.stderr))
        progress.setLevel(logging.INFO)
        with interruption.watching(), losing_output(lambda: interruption.ask(signal.SIGPIPE)):
            return main(None)

    return run_program(watched)


def printable(name: str) -> str:
    """A name as it can stand in one line."""
    return name if name.isprintable() else ascii(name)
