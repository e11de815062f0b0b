"""Compare recipes on sets of videos over several seeds, paired per video.

    python -m benchmarks.accuracy --index own.json --frames jpg --configs original scratch_small \\
        --seeds 1 2 3 4 5 --out runs -- --model_depth 10 --n_epochs 12

Every combination is a run of main.py in a folder of its own, OUT/SET/CONFIG/SEED, where SET is the
name of the index. Finished runs are skipped and interrupted ones resumed: the same command
continues. Flags after -- go to all runs and win over the recipes. OUT/accuracy.json and
OUT/accuracy.md compare every recipe with the first; seeds that all recipes have finished count. Of
an epoch that was interrupted, minutes count only what came after the interruption.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy_table import SetRuns, plain_comparison, write_tables
from datasets.activitynet import read_any_index
from errors import UserError
from own_videos.processes import run_quietly
from recipe import find_recipe, recipe_names
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser, run
from utils.files import write_json, write_text
from utils.reading import read_json, read_text

FINISHED = "val.run.json"  # the last file that a run writes
# Change nothing in the results: a run that is killed loses at most 5 minutes.
ALWAYS = ("--inference", "--no_report", "--resume_path", "auto", "--checkpoint_minutes", "5")


@dataclass(frozen=True)
class Config:
    """A recipe under comparison; its content, so that a later change is noticed."""

    name: str
    value: str  # of --recipe
    content: str


@dataclass(frozen=True)
class VideoSet:
    """An index and the frames it lists."""

    name: str
    index: Path
    frames: Path


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    options, common = _build_parser().parse_args(words[:split]), words[split + 1 :]
    configs = [_config(name) for name in options.configs]
    sets = _sets(options)
    _refuse_same_names([config.name for config in configs], "--configs")
    _refuse_same_names([video_set.name for video_set in sets], "--index")
    for seed in options.seeds:
        for video_set in sets:
            for config in configs:
                folder = options.out / video_set.name / config.name / str(seed)
                _finish_run(folder, video_set, config, seed=seed, common=common)
            _write_comparison(options, sets, configs, common)
    print((options.out / "accuracy.md").read_text(encoding="utf-8"))
    return 0


def _build_parser() -> Parser:
    parser = Parser(prog="benchmarks.accuracy", description=__doc__)
    add = parser.add_argument
    add("--index", type=INPUT, nargs="+", required=True, help="index of each set")
    add("--frames", type=INPUT, nargs="+", required=True, help="folder of frames of each set")
    add("--configs", nargs="+", required=True, help="recipes, as main.py --recipe takes them")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="seeds (1 2 3 4 5)")
    add("--out", type=OUTPUT_FOLDER, required=True, help="folder for all runs and the tables")
    return parser


def _config(name: str) -> Config:
    path = find_recipe(name)
    value = name if name in recipe_names() else str(path.resolve())
    return Config(path.stem, value, read_text(path, "recipe"))


def _sets(options: Namespace) -> list[VideoSet]:
    if len(options.index) != len(options.frames):
        raise UserError(
            f"--frames: {len(options.frames)} folders for {len(options.index)} indexes; give one "
            "for each"
        )
    for index in options.index:
        read_any_index(index)  # an error here comes before hours of training
    pairs = zip(options.index, options.frames, strict=True)
    return [VideoSet(index.stem, index.resolve(), frames.resolve()) for index, frames in pairs]


def _refuse_same_names(names: Sequence[str], flag: str) -> None:
    if len({*names}) < len(names):
        raise UserError(f"{flag}: two files have the same name: {' '.join(names)}; rename one")


def _finish_run(
    folder: Path, video_set: VideoSet, config: Config, *, seed: int, common: Sequence[str]
) -> None:
    """Start or resume one run, unless it is finished. Raises UserError if it fails."""
    arguments = [
        "--video_path", str(video_set.frames), "--annotation_path", str(video_set.index),
        "--result_path", str(folder.resolve()), "--dataset", "folder",
        "--recipe", config.value, "--manual_seed", str(seed), *ALWAYS, *common,
    ]  # fmt: skip
    _check_same_run(folder, {"arguments": arguments, "recipe": config.content})
    if (folder / FINISHED).exists():
        return
    print(f"{folder}", flush=True)
    output = folder / "output.txt"
    if status := run_quietly(["main.py", *arguments], output):
        text = output.read_text(encoding="utf-8", errors="replace").rstrip()
        last = text.splitlines()[-1] if text else "no output"
        raise UserError(f"{output}: main.py ended with status {status}: {last}")


def _check_same_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what a run is made of beside its results, or check that it is the same."""
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    elif read_json(path, "record of the run") != record:
        raise UserError(
            f"{path}: this run was started with other flags or another recipe; delete the folder "
            "or choose another --out"
        )


def _write_comparison(
    options: Namespace, sets: Sequence[VideoSet], configs: Sequence[Config], common: Sequence[str]
) -> None:
    """Write the tables of all seeds that every recipe has finished."""
    compared = {
        video_set.name: plain_comparison(runs)
        for video_set in sets
        for runs in _finished(options, video_set, configs)
    }
    recipes = {config.name: config.content.splitlines() for config in configs}
    content = {"flags of all runs": list(common), "recipes": recipes, "sets": compared}
    text = json.dumps(content, indent=1, allow_nan=False)
    write_text(options.out / "accuracy.json", text + "\n")
    write_tables(options.out / "accuracy.md", compared, common)


def _finished(
    options: Namespace, video_set: VideoSet, configs: Sequence[Config]
) -> Iterator[SetRuns]:
    folders = {
        seed: [options.out / video_set.name / config.name / str(seed) for config in configs]
        for seed in options.seeds
    }
    done = {seed: row for seed, row in folders.items() if all((f / FINISHED).exists() for f in row)}
    if done:
        yield SetRuns(video_set.index, [config.name for config in configs], done)


if __name__ == "__main__":
    sys.exit(run(main))
