"""What every command shares: errors told in one line, the exit status, the flags of a model."""

import argparse
import glob
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opts
from datasets.annotation import SUBSETS, Index
from errors import UserError
from opts import CLASSIFIER_FLAGS, add_flags
from runtime.interruption import Interruption
from runtime.outputs import Input, Kind, Output, check_outputs
from runtime.program import losing_output, run_program

if TYPE_CHECKING:
    from classifier import Classifier
    from datasets.video_dataset import ClipLoader, WindowBatches

# Of main.py --inference: which windows of which frames.
CLIP_FLAGS = (
    "file_type",
    "inference_stride",
    "inference_batch_size",
    "n_threads",
    "on_bad_video",
    "accimage",
)


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


class Parser(opts.Parser):
    """A command's parser. What an argument names is declared by its type, INPUT, OutputPath …, and
    checked once parsed: see runtime.outputs."""

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


def add_classifier_flags(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --labels, and the flags that fill in what the checkpoint does not tell."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", type=INPUT, required=True, help="weights to use: best.pth …")
    group.add_argument(
        "--labels", type=INPUT, help="class names, one a line or an index; for files without names"
    )
    filling = parser.add_argument_group("what the checkpoint tells, unless it is a released one")
    add_flags(filling, CLASSIFIER_FLAGS)


def classifier_of(options: argparse.Namespace) -> "Classifier":
    """The classifier of a command line with those flags, and add_clip_flags' if it has these.

    Raises UserError."""
    from classifier import load_classifier

    names = (*CLASSIFIER_FLAGS, *CLIP_FLAGS)
    flags = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return load_classifier(options.checkpoint, labels=options.labels, flags=flags)


def add_clip_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how the videos of an index become clips."""
    group = parser.add_argument_group("clips, as main.py --inference reads them")
    group.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    add_flags(group, CLIP_FLAGS)


def clips_of(
    classifier: "Classifier", index: Path, frames_dir: Path, subset: str
) -> tuple[Index, "ClipLoader[WindowBatches]"]:
    """An index, and the loader of every window of its subset's videos as the classifier takes
    them. Raises UserError where the frames can't be used."""
    from datasets.activitynet import read_any_index
    from datasets.build import build_inference_loader

    options = replace(classifier.options, video_path=frames_dir, inference_subset=subset)
    if options.input_type == "flow" and options.file_type != "hdf5":
        raise UserError(
            f"{classifier.path}: takes optical flow, which is read from --file_type hdf5, "
            f"not {options.file_type}"
        )
    read = read_any_index(index)
    loader = build_inference_loader(options, read)
    loader.probe()
    return read, loader
