"""Check where a command writes: never to an input, nor over a file from another program.

An output may be a new file, or replace one that this program wrote as the same kind of output.
With --overwrite it may replace any file that is not an input.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from utils.files import are_same, is_stream

ENDS = 1 << 20  # bytes at the start and end of a file that are searched for marks

SAVED = re.compile(r"save_(\d{1,9})\.pth")

# Written into files to recognise them later.
REPORT_MARK = "3D-ResNets report"
OVERLAY_MARK = "predictions drawn by 3D-ResNets"
STRIPPED_MARK = "stripped_by_remove_dataparallel"


class Kind(NamedTuple):
    """A kind of output and how to recognise it: `start` matches the first bytes, and all `marks`
    occur near the start or the end."""

    name: str
    start: str = ""
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} written by this program"

    def is_of(self, path: Path) -> bool:
        """Whether a file is of this kind, or empty. False if it can't be read."""
        try:
            with path.open("rb") as file:
                ends = file.read(ENDS)
                if len(ends) == ENDS:
                    file.seek(max(ENDS, os.fstat(file.fileno()).st_size - ENDS))
                    ends += file.read(ENDS)
        except OSError:
            return False
        is_started = re.match(self.start.encode("latin-1"), ends, re.DOTALL)
        return not ends or bool(is_started and all(mark.encode() in ends for mark in self.marks))


INDEX = Kind("an index", r'\{"labels": ?\[', ('"database":',))
INDEX_WITH_FPS = Kind("an index with frame rates", r"\{", ('"database":', '"fps":'))
ANY_FILE = Kind("any file")
DEMO_LIST = Kind("a list of the demo videos", r"(1 )?(Rise|UpAndDown)[\n/]")
RESULTS = Kind("a result file", r'\{"results": ?\{')
PROVENANCE = Kind("the origin of a result", r'\{"options": ?\{')
OPTIONS = Kind("the options of a run", r'\{\s*"(recipe|root_path)":')
ACCURACY = Kind("an accuracy", r"([01]\.\d+|\d(\.\d+)?e-\d+)\s*\Z")
COMPARISON = Kind("a comparison", r'\{"runs": ?\[', ('"splits":', '"pairs":'))
BENCHMARK = Kind("a result of the benchmarks", r'\{\s*"machine":', ('"rows":',))
REPORT = Kind("a report", r"\s*<!DOCTYPE html>", (REPORT_MARK,))
PREDICTIONS = Kind("predictions in JSON", r'\{"checkpoint":', ('"labels":', '"videos":'))
PREDICTION_TABLE = Kind("predictions in CSV", "video,start,end,first_frame,last_frame,")
OVERLAY = Kind("a video with predictions", marks=(OVERLAY_MARK,))
FEATURES = Kind(
    "a file of features",
    r"PK\x03\x04|\x89HDF\r\n",
    ("features", "video_ids", "segments", "label_names", "about"),
)
ONNX = Kind("an exported model", r"\x08", ('"normalized_inside":',))
PT2 = Kind("an exported model", r"PK\x03\x04", ("extra/preprocessing.json",))
RUN_SCRIPT = Kind("the commands of a run", "#!/bin/sh\n# Repeat this run")
RUN_TABLE = Kind("the videos of a run", "path,label,split,group,start,end\r\n")
RUN_PLAN = Kind("the plan of a run", r'\{"asked":')
STRIPPED = Kind("a checkpoint of remove_dataparallel", marks=(STRIPPED_MARK,))


class Input(NamedTuple):
    """A file or folder that a command reads; `flag` is "" for a positional argument."""

    flag: str
    path: Path

    def __str__(self) -> str:
        return f"{self.flag} {self.path}".strip()


class Output(NamedTuple):
    """A file that a command writes. It may be the input `in_place`, which is then backed up."""

    flag: str
    path: Path
    kind: Kind
    in_place: Path | None = None

    def __str__(self) -> str:
        return f"{self.flag} {self.path}".strip()


def check_outputs(
    outputs: Sequence[Output],
    inputs: Sequence[Input],
    *,
    overwrite: bool = False,
    remedy: str = "name another file, or replace it with --overwrite",
) -> None:
    """Raise UserError with a line for every output that can't be written, or would replace a file
    it must not. `remedy` is the advice for a file of another kind."""
    problems = []
    for number, output in enumerate(outputs):
        problem = _why_impossible(output, outputs[:number], inputs)
        if problem is None and not overwrite:
            problem = _why_kept(output, remedy)
        if problem is not None:
            problems.append(f"{output}: {problem}")
    if problems:
        raise UserError("\n".join(problems))


def _why_impossible(
    output: Output, earlier: Sequence[Output], inputs: Sequence[Input]
) -> str | None:
    """Explain why an output can't be written, with or without --overwrite."""
    path = output.path
    if is_stream(path):
        return None
    if os.path.isdir(path):
        return "is a folder; give the path of a file"
    for other in earlier:
        if are_same(path, other.path):
            return f"is the same file as {other}; give each output its own file"
    if problem := _why_not_writable(path):
        return problem
    if not os.path.exists(path) or _is_in_place(output):
        return None
    for source in inputs:
        if are_same(path, source.path):
            return f"is the input {source}; write to another file"
        if _lies_in(path, source.path) and not output.kind.is_of(path):
            return f"lies in the input {source}, and is not {output.kind}; write to another file"
    return None


def _why_kept(output: Output, remedy: str) -> str | None:
    """Explain why an existing file must not be replaced."""
    path = output.path
    if not os.path.exists(path) or is_stream(path) or _is_in_place(output):
        return None
    return None if output.kind.is_of(path) else f"exists, and is not {output.kind}; {remedy}"


def _is_in_place(output: Output) -> bool:
    return output.in_place is not None and are_same(output.path, output.in_place)


def _lies_in(path: Path, folder: Path) -> bool:
    return (
        folder.is_dir() and Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
    )


def _why_not_writable(path: Path) -> str | None:
    """Explain why a file can't be created or replaced, before hours are spent on its content."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # name too long, or no permission for a folder
        return f"can't be written: {error.strerror}"
    for folder in path.absolute().parents:
        if os.path.lexists(folder):
            if not os.path.isdir(folder):
                return f"can't be written: {folder} is not a folder"
            is_allowed = os.access(folder, os.W_OK | os.X_OK)
            return None if is_allowed else f"can't be written: {folder}: Permission denied"
    return None


def files_of_training(folder: Path, n_epochs: int, every: int) -> list[Output]:
    """List what training writes to its results folder: opts.json and checkpoints. Logs are not
    listed: they are continued or moved aside."""
    names = {"best.pth", "last.pth", f"save_{n_epochs}.pth"}
    for path in folder.glob("save_*.pth"):
        match = SAVED.fullmatch(path.name)
        if match and int(match[1]) <= n_epochs and int(match[1]) % every == 0:
            names.add(path.name)
    return [
        Output("", folder / "opts.json", OPTIONS),
        *(Output("", folder / name, ANY_FILE) for name in sorted(names)),
    ]


def files_of_inference(folder: Path, subset: str) -> list[Output]:
    """List what inference writes to the results folder."""
    kinds = {f"{subset}.json": RESULTS, f"{subset}.run.json": PROVENANCE, "report.html": REPORT}
    return [Output("", folder / name, kind) for name, kind in kinds.items()]
