"""The commands of a run: as words to start, as lines to paste, as a script that repeats them."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.folds import fold_paths
from engine.advice import python_name
from own_videos.plan import Plan
from utils.files import write_text
from utils.program import REPORTED_BY_PARENT

ROOT = Path(__file__).resolve().parent.parent
SCRIPT, TABLE = "commands.sh", "videos.csv"
WRITTEN = re.compile(r"jpg|index(_fold\d+)?\.json|results(_fold\d+)?")  # by the commands, in RUN
SOME_FAILED = 1  # exit status of extraction after which the other videos are still used


class Step(NamedTuple):
    """A command of this project: `words` are those after python. `may_fail` is an exit status that
    is no reason to stop."""

    title: str
    words: tuple[str, ...]
    may_fail: int = 0


def steps_of(plan: Plan, folder: Path, run: Path, *, no_cuda: bool) -> list[Step]:
    """List the commands of a run in the folder `run`, on videos in `folder`; both are absolute."""
    jpg, table, index = run / "jpg", run / TABLE, run / "index.json"
    extract = ["-m", "util_scripts.generate_video_jpgs", folder, jpg, "own", "--only", table]
    split = ["-m", "util_scripts.csv_json", table, jpg, index]
    steps = [Step("extract the frames", _words(extract), SOME_FAILED)]
    if plan.n_folds:
        steps.append(Step("write the indexes", _words([*split, "--folds", plan.n_folds])))
    else:
        fraction = [] if plan.is_split else ["--val_fraction", plan.val_fraction]
        steps.append(Step("write the index", _words([*split, *fraction])))
    for path, results in zip(indexes_of(plan, run), results_of(plan, run), strict=True):
        of = f" of {path.stem.rpartition('_')[2]}" if plan.n_folds else ""
        train = ["main.py", "--video_path", jpg, "--annotation_path", path]
        train += ["--result_path", results, "--dataset", "folder", *plan.flags]
        train += ["--inference", "--resume_path", "auto", "--checkpoint_minutes", 5]
        train += ["--keep_checkpoints", 1, *(["--no_cuda"] if no_cuda else [])]
        steps.append(Step(f"train and test{of}", _words(train)))
        accuracy = ["-m", "util_scripts.eval_accuracy", path, results / "val.json"]
        steps.append(Step(f"compute the accuracy{of}", _words(accuracy)))
    return steps


def indexes_of(plan: Plan, run: Path) -> list[Path]:
    """Return the index of each training."""
    index = run / "index.json"
    return fold_paths(index, plan.n_folds) if plan.n_folds else [index]


def results_of(plan: Plan, run: Path) -> list[Path]:
    """Return the results folder of each training."""
    numbers = range(1, plan.n_folds + 1)
    return [run / f"results_fold{n}" for n in numbers] if plan.n_folds else [run / "results"]


def _words(words: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, words))


def python_command(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment for the words of a step, from any folder."""
    script = [str(ROOT / words[0]), *words[1:]] if words[0].endswith(".py") else list(words)
    others = os.environ.get("PYTHONPATH")
    path = f"{ROOT}{os.pathsep}{others}" if others else str(ROOT)
    more = {"PYTHONPATH": path, REPORTED_BY_PARENT: "1"}
    return [sys.executable, *script], {**os.environ, **more}


def pasteable(words: Sequence[str]) -> str:
    """Write a step as a line to paste into a shell in the current folder."""
    here = Path.cwd()
    short = [_short(word, here) for word in words]
    if here == ROOT:
        return shlex.join([python_name(), *short])
    if words[0].endswith(".py"):
        return shlex.join([python_name(), str(ROOT / words[0]), *short[1:]])
    return f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.join([python_name(), *short])}"


def _short(word: str, folder: Path) -> str:
    """Write a path below `folder` relative to it, with ./ where it would look like a flag."""
    if not os.path.isabs(word) or word == str(folder) or not Path(word).is_relative_to(folder):
        return word
    short = str(Path(word).relative_to(folder))
    return f"./{short}" if short.startswith("-") else short


def write_script(run: Path, steps: Sequence[Step]) -> None:
    """Write RUN/commands.sh. Raises UserError."""
    write_text(run / SCRIPT, script_of(run, steps), errors="surrogateescape")


def script_of(run: Path, steps: Sequence[Step]) -> str:
    """Write the commands as a shell script that repeats them in another folder."""
    lines = [
        "#!/bin/sh",
        "# Repeat this run in another folder: sh commands.sh [FOLDER]",
        "set -eu",
        'HERE=$(cd "$(dirname "$0")" && pwd)',
        "RUN=${1:-$HERE/again}",
        "case $RUN in /*) ;; *) RUN=$PWD/$RUN ;; esac",
        f"PYTHON=${{PYTHON:-{shlex.quote(sys.executable)}}}",
        f"cd {shlex.quote(str(ROOT))}",
    ]
    places = {str(run / TABLE): f'"$HERE"/{TABLE}'}
    for step in steps:
        words = [places.get(word) or _in_run(word, run) for word in step.words]
        is_checked = f" || [ $? -eq {step.may_fail} ]" if step.may_fail else ""
        lines += ["", f"# {step.title}", f'"$PYTHON" {" ".join(words)}{is_checked}']
    return "\n".join(lines) + "\n"


def _in_run(word: str, run: Path) -> str:
    """Quote a word; what the run writes goes to $RUN, also of a user who keeps videos in RUN."""
    below = Path(word).relative_to(run) if Path(word).is_relative_to(run) else Path()
    if below.parts and WRITTEN.fullmatch(below.parts[0]):
        return f'"$RUN"/{shlex.quote(str(below))}'
    return shlex.quote(word)


def next_commands(plan: Plan, run: Path, video: Path) -> dict[str, tuple[str, ...]]:
    """Return what to do with the trained model: {what it does: words}."""
    results = results_of(plan, run)[0]
    weights = str(results / f"save_{plan.n_epochs}.pth")
    predict = ("-m", "util_scripts.predict_video", str(video), "--checkpoint", weights)
    export = ("-m", "util_scripts.export_model", "--checkpoint", weights, "--onnx")
    return {
        "classify a video": predict,
        "draw the predictions on it": (*predict, "--overlay", str(run / "overlay.mp4")),
        "try it on a page": ("-m", "util_scripts.serve", "--checkpoint", weights),
        "export the model": (*export, str(run / "model.onnx")),
    }
