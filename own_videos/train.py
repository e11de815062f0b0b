"""From videos to a trained classifier and its accuracy: look, measure, plan, run, tell."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from own_videos import commands, look, saved_run
from own_videos.commands import Step
from own_videos.found import Found, find_videos, write_table
from own_videos.machine import HOW_TO_GET, cached_weights
from own_videos.measure import measure
from own_videos.outcome import describe, read_outcome
from own_videos.plan import (
    FINE_TUNING,
    FROM_SCRATCH,
    Data,
    Plan,
    batch_flags,
    choose,
    clip_flags,
    network_flags,
)
from own_videos.processes import run_quietly, run_shown
from own_videos.saved_run import SavedRun
from utils.interruption import Interrupted
from utils.progress_bar import duration
from utils.text import first_few

OF_SIGNALS = 128  # exit statuses above this: ended by a signal
FIRM = 200  # test videos; with fewer, folds give a firmer figure


@dataclass(frozen=True)
class Request:
    """What the user asks for; paths are absolute."""

    source: Path
    out: Path
    weights: str | None
    recipe: str | None
    n_folds: int
    minutes: float
    no_cuda: bool = False
    encoding: str | None = None


def train(request: Request, *, is_dry: bool) -> int:
    """Make a plan, or read that of an interrupted run; print it; and carry it out unless
    `is_dry`. Returns the exit status."""
    found = find_videos(request.source, request.out, encoding=request.encoding)
    asked = _as_plain(request, found)
    saved = saved_run.read_saved_run(request.out)
    if saved is not None and saved.asked == asked:
        print(f"{request.out}: continuing the run that was planned here")
    else:
        found, plan = _make_plan(request, found)
        saved = SavedRun(asked, plan)
        if not is_dry:
            _prepare(request, found, saved)
    _print_plan(saved.plan, request.out)
    if is_dry:
        print("--dry_run: nothing is written")
        return 0
    steps = commands.steps_of(
        saved.plan, _folder_of(request, found), request.out, no_cuda=request.no_cuda
    )
    try:
        saved = _run(steps, saved, request.out)
    except Interrupted as interrupted:
        print("interrupted: the same command continues the run", file=sys.stderr)
        return interrupted.exit_status
    _tell(saved, request, found)
    return 0


def _as_plain(request: Request, found: Found) -> dict[str, Any]:
    """Return what a plan is made for, to recognise the same command: flags and files."""
    lines = []
    for video in found.videos:
        status = os.stat(found.folder / video.path)
        lines.append(f"{video}{status.st_size} {status.st_mtime_ns}")
    flags = {name: value for name, value in vars(request).items() if name not in ("source", "out")}
    folder, files = str(found.folder), saved_run.digest_of(lines)
    return {"source": str(request.source), "folder": folder, "files": files, **flags}


def _folder_of(request: Request, found: Found) -> Path:
    return Path(os.path.abspath(found.folder))


def _make_plan(request: Request, found: Found) -> tuple[Found, Plan]:
    found, opened = look.look_into(found)
    look.print_findings(found)
    look.check_enough(found, request.n_folds)
    data = look.data_of(found, opened, request.n_folds)
    weights = request.weights or (cached_weights() if request.recipe is None else None)
    flags = _flags_to_measure(data, weights, request)
    print("timing a few steps on this machine …")
    speed = measure(found.folder, found.videos, flags, run_quietly)
    plan = choose(
        data,
        speed,
        minutes=request.minutes,
        n_folds=request.n_folds,
        weights=weights,
        recipe=request.recipe,
    )
    return found, plan


def _flags_to_measure(data: Data, weights: str | None, request: Request) -> list[str]:
    recipe = request.recipe or (FROM_SCRATCH if weights is None else FINE_TUNING)
    clips = clip_flags(median_frames=data.median_frames, rate=data.rate, weights=weights)
    flags = ["--recipe", recipe, *network_flags(weights), *clips, *batch_flags(data.n_train)]
    return [*flags, "--no_cuda"] if request.no_cuda else flags


def _prepare(request: Request, found: Found, saved: SavedRun) -> None:
    """Write the table, the script and the plan; move those of another plan aside."""
    out = request.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}") from None
    aside = saved_run.move_aside(out)
    if aside is not None:
        print(f"{out}: holds the run of another plan, which is moved to {aside}")
    folder = _folder_of(request, found)
    write_table(out / commands.TABLE, found.videos)
    steps = commands.steps_of(saved.plan, folder, out, no_cuda=request.no_cuda)
    commands.write_script(out, steps)
    saved.save(out)


def _print_plan(plan: Plan, out: Path) -> None:
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in plan.seconds.items())
    how = "from scratch" if plan.weights is None else f"from the weights {plan.weights}"
    folds = f", {plan.n_folds} times" if plan.n_folds else ""
    lines = [
        f"  training {how} on {plan.n_train} videos, {plan.n_epochs} times each (epochs){folds}",
        f"  testing on {plan.n_val} videos that the training does not see",
        f"  flags of main.py: {shlex.join(plan.flags)}",
        f"  results in {out}",
        f"  time: about {duration(plan.total_seconds)} ({times})",
        *(f"  {note}" for note in plan.notes),
    ]
    if plan.weights is None:
        lines.append(f"  {HOW_TO_GET}")
    print("\n".join(["", "The plan:", *lines]))


def _run(steps: Sequence[Step], saved: SavedRun, out: Path) -> SavedRun:
    """Run the commands that are not done yet. Raises Interrupted, and UserError if one fails."""
    for step in steps[saved.n_done :]:
        print(f"\n{step.title}:\n$ {commands.pasteable(step.words)}")
        started = time.monotonic()
        try:
            status = run_shown(step.words)
        except Interrupted:
            saved.interrupted(time.monotonic() - started).save(out)
            raise
        seconds = time.monotonic() - started
        if status not in (0, step.may_fail):
            saved.interrupted(seconds).save(out)
            if status > OF_SIGNALS:
                raise Interrupted(status - OF_SIGNALS)
            raise UserError(
                f"the last command ended with status {status}; once what it says above is "
                "corrected, the same command continues the run"
            )
        if status:
            print("(some videos failed, see above; continuing with the others)")
        saved = saved.after_step(seconds)
        saved.save(out)
    return saved


def _tell(saved: SavedRun, request: Request, found: Found) -> None:
    """Print how good the model is, and what to do next."""
    plan, out = saved.plan, request.out
    indexes, results = commands.indexes_of(plan, out), commands.results_of(plan, out)
    folds = [
        read_outcome(index, folder / "val.json")
        for index, folder in zip(indexes, results, strict=True)
    ]
    planned, taken = duration(plan.total_seconds), duration(saved.seconds)
    reports = [str(folder / "report.html") for folder in results]
    lines = [
        f"\nDone in {taken} (planned: {planned}).",
        *describe(folds),
        "",
        f"report, to open in a browser: {', '.join(first_few(reports, 3))}",
        f"to repeat this run: sh {shlex.quote(str(out / commands.SCRIPT))}",
    ]
    following = commands.next_commands(plan, out, found.folder / found.videos[0].path)
    if not plan.n_folds and not plan.is_split and len(folds[0].truths) < FIRM:
        following["test every video once, for a firmer figure"] = (
            *("-m", "util_scripts.train_videos", str(request.source), "--folds", "5"),
            *("--out", str(out.with_name(f"{out.name}-folds"))),
        )
    for what, words in following.items():
        lines.append(f"to {what}:\n    {commands.pasteable(words)}")
    if plan.weights is None:
        lines.append(HOW_TO_GET)
    print("\n".join(lines))
