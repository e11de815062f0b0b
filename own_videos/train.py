"""From videos to a trained classifier and its accuracy: look, measure, plan, run, tell."""

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.folds import LEAST
from datasets.listed_videos import read_listed_videos, sources_of
from errors import UserError
from models.download import cached_path
from models.weights import WEIGHTS
from own_videos import commands, look, saved_run
from own_videos.commands import Step
from own_videos.found import Found, find_videos, write_table
from own_videos.measure import measure
from own_videos.outcome import describe, read_outcome
from own_videos.plan import (
    FINE_TUNING,
    FROM_SCRATCH,
    HEAD,
    Data,
    Plan,
    batch_flags,
    choose,
    clip_flags,
    network_flags,
    without_flags,
)
from own_videos.processes import run_quietly, run_shown
from own_videos.saved_run import SavedRun
from recipe import find_recipe, read_recipe, recipe_names
from utils.interruption import Interrupted, resume_hint
from utils.progress_bar import duration
from utils.reading import read_json, read_text, typed
from utils.text import first_few

N_BEFORE_TRAINING = 2  # commands: extraction and the indexes
OF_SIGNALS = 128  # exit statuses above this: ended by a signal
FIRM = 200  # test videos; with fewer, folds give a firmer figure
MOST_FOLDS = 5  # to suggest
USUAL_WEIGHTS = WEIGHTS["torchvision:r3d_18"]  # trained on Kinetics-400
HOW_TO_GET = (
    "pretrained weights would most likely give a better accuracy: --weights "
    f"{USUAL_WEIGHTS.name} downloads {USUAL_WEIGHTS.megabytes} MB once, or --weights FILE.pth "
    "(python -m util_scripts.weights lists more)"
)
CONTINUED = "continuing the run that was planned here"
FINISHED = "this run is finished; to train again, choose another --out"


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
    with nullcontext() if is_dry else saved_run.alone_in(request.out):
        asked = _as_plain(request, found)
        earlier = _run_to_continue(request.out, asked)
        if earlier is None:
            found, saved = _new_run(request, found, asked, is_dry=is_dry)
        else:
            saved = earlier
            if not (is_dry or _is_prepared(request.out)):
                _write_commands(request, look.look_into(found)[0], saved)
            found = _as_listed(request.out, found)
        folder = _folder_of(request, found)
        steps = commands.steps_of(saved.plan, folder, request.out, no_cuda=request.no_cuda)
        is_finished = saved.n_done == len(steps)
        if earlier is not None:
            print(f"{request.out}: {FINISHED if is_finished else CONTINUED}")
        if is_dry or not is_finished:
            _print_plan(saved.plan, request.out)
        if is_dry:
            print("--dry_run: nothing is written")
            return 0
        with resume_hint("the same command continues the run"):
            saved = _run(steps, saved, request.out)
        _tell(saved, request, found, how="It took" if is_finished else "Done in")
    return 0


def _run_to_continue(out: Path, asked: Mapping[str, Any]) -> SavedRun | None:
    """Return the run in the folder, if it was planned for the same."""
    saved = saved_run.read_saved_run(out)
    if saved is None or saved.asked != asked or not _has_indexes(saved, out):
        return None
    return saved


def _new_run(
    request: Request, found: Found, asked: Mapping[str, Any], *, is_dry: bool
) -> tuple[Found, SavedRun]:
    files = {"--weights": request.weights, "--recipe": request.recipe}
    saved_run.refuse_to_move(request.out, files)
    found, plan = _make_plan(request, found)
    saved = SavedRun(asked, plan)
    if not is_dry:
        _prepare(request, found, saved)
    return found, saved


def _as_plain(request: Request, found: Found) -> dict[str, Any]:
    """Return what a plan is made for, to recognise the same command: flags and files."""
    lines = []
    for video in found.videos:
        status = os.stat(found.folder / video.path)
        lines.append(f"{video}{status.st_size} {status.st_mtime_ns}")
    if request.weights is not None and os.path.exists(request.weights):
        status = os.stat(request.weights)
        lines.append(f"weights {status.st_size} {status.st_mtime_ns}")
    if request.recipe is not None:
        lines.append(read_text(find_recipe(request.recipe), "recipe"))
    flags = {name: value for name, value in vars(request).items() if name not in ("source", "out")}
    folder, files = str(found.folder), saved_run.digest_of(lines)
    return {"source": str(request.source), "folder": folder, "files": files, **flags}


def _folder_of(request: Request, found: Found) -> Path:
    return Path(os.path.abspath(found.folder))


def _make_plan(request: Request, found: Found) -> tuple[Found, Plan]:
    weights = _weights_of(request)
    found, opened = look.look_into(found)
    look.print_findings(found)
    look.check_enough(found, request.n_folds)
    data = look.data_of(found, opened, request.n_folds)
    set_by_recipe = _flags_of(request.recipe)
    flags = without_flags(_flags_to_measure(data, weights, request), set_by_recipe)
    print("timing a few steps on this machine …")
    no_cuda = ("--no_cuda",) if request.no_cuda else ()
    speed = measure(found.folder, found.videos, [*flags, *no_cuda], run_quietly)
    plan = choose(
        data,
        speed,
        minutes=request.minutes,
        n_folds=request.n_folds,
        weights=weights,
        recipe=request.recipe,
    )
    flags = without_flags(plan.flags, set_by_recipe)
    return found, replace(plan, flags=flags, warnings=look.warnings_of(found))


def _weights_of(request: Request) -> str | None:
    """Return the weights to start from: the user's, or where the recipe is for weights or not
    given, those in torch's cache. Raises UserError if a recipe lacks them."""
    if request.weights is not None or request.recipe not in (None, FINE_TUNING, HEAD):
        return request.weights
    cached = cached_path(USUAL_WEIGHTS)
    weights = str(cached) if cached.is_file() else None
    if weights is None and request.recipe is not None:
        raise UserError(f"--recipe {request.recipe} needs --weights, which it starts from")
    return weights


def _flags_of(recipe: str | None) -> set[str]:
    """Return the names of the flags that a recipe of the user's own sets."""
    if recipe is None or recipe in recipe_names():
        return set()
    path = find_recipe(recipe)
    if path.suffix.lower() == ".json":  # the options of an earlier run
        return set(typed(read_json(path, "recipe"), dict[str, Any], str(path)))
    return {line.words[0].removeprefix("--") for line in read_recipe(path)}


def _flags_to_measure(data: Data, weights: str | None, request: Request) -> list[str]:
    recipe = request.recipe or (FROM_SCRATCH if weights is None else FINE_TUNING)
    clips = clip_flags(median_frames=data.median_frames, rate=data.rate, weights=weights)
    return ["--recipe", recipe, *network_flags(weights), *clips, *batch_flags(data.n_train)]


def _prepare(request: Request, found: Found, saved: SavedRun) -> None:
    """Write the plan, the table and the script; move those of another plan aside."""
    out = request.out
    aside = saved_run.move_aside(out)
    if aside is not None:
        print(f"{out}: holds the run of another plan, which is moved to {aside}")
    # The plan first: by it, the next run recognises the rest as this command's.
    saved.save(out)
    _write_commands(request, found, saved)


def _has_indexes(saved: SavedRun, out: Path) -> bool:
    """Whether the indexes are there, if they have been written: not if moving them aside was
    interrupted."""
    is_written = saved.n_done >= N_BEFORE_TRAINING
    return not is_written or all(path.exists() for path in commands.indexes_of(saved.plan, out))


def _as_listed(out: Path, found: Found) -> Found:
    """Keep the videos that the plan was made for: not broken files, nor copies."""
    table = out / commands.TABLE
    return replace(found, videos=tuple(read_listed_videos(table))) if table.exists() else found


def _is_prepared(out: Path) -> bool:
    return all((out / name).exists() for name in (commands.TABLE, commands.SCRIPT))


def _write_commands(request: Request, found: Found, saved: SavedRun) -> None:
    write_table(request.out / commands.TABLE, found.videos)
    folder = _folder_of(request, found)
    steps = commands.steps_of(saved.plan, folder, request.out, no_cuda=request.no_cuda)
    commands.write_script(request.out, steps)


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


def _tell(saved: SavedRun, request: Request, found: Found, *, how: str) -> None:
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
        f"\n{how} {taken} (planned: {planned}).",
        *describe(folds),
        *plan.warnings,
        "",
        f"report, to open in a browser: {', '.join(first_few(reports, 3))}",
        f"to repeat this run: sh {shlex.quote(str(out / commands.SCRIPT))}",
    ]
    following = commands.next_commands(plan, out, found.folder / found.videos[0].path)
    if not plan.n_folds and not plan.is_split and len(folds[0].truths) < FIRM:
        words = _command_of_folds(request)
        following |= {"test every video once, for a firmer figure": words} if words else {}
    for what, words in following.items():
        lines.append(f"to {what}:\n    {commands.pasteable(words)}")
    if plan.weights is None:
        lines.append(HOW_TO_GET)
    print("\n".join(lines))


def _command_of_folds(request: Request) -> tuple[str, ...]:
    """Return the words of the same command with folds; none if there is a single source."""
    videos = read_listed_videos(request.out / commands.TABLE)
    n_folds = min(MOST_FOLDS, len(set(sources_of(videos).values())))
    if n_folds < LEAST:
        return ()
    values = {"weights": request.weights, "recipe": request.recipe, "encoding": request.encoding}
    given = [word for name, value in values.items() if value for word in (f"--{name}", value)]
    return (
        *("-m", "util_scripts.train_videos", str(request.source), "--folds", str(n_folds)),
        *("--minutes", f"{request.minutes * n_folds:g}", *given),
        *(("--no_cuda",) if request.no_cuda else ()),
        *("--out", str(request.out.with_name(f"{request.out.name}-folds"))),
    )
