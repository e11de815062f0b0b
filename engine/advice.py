"""Suggestions for the user: checkpoints beside a missing one, training without pretrained weights,
the commands to run after training."""

import difflib
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from flags import Role, as_words
from opts import FLAGS, Options, names_with
from utils.text import join_few

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
MANY_VIDEOS, LARGE_BATCH = 5000, 64  # with fewer, the default rate is too high from scratch
DOWNLOADED = "--pretrain_path torchvision:r3d_18"
WITHOUT_WEIGHTS = (
    "train a small network from random weights at a low rate: leave out --pretrain_path and "
    "--ft_begin_module, and add --model_depth 10 --learning_rate 0.01"
)


def no_such_checkpoint(path: Path) -> str:
    """Say that a checkpoint is missing, and which ones exist, closest names first."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such checkpoint: the folder {folder} does not exist"
    where = "the working directory" if folder == Path() else str(folder)
    try:
        names = [file.name for file in folder.iterdir() if file.suffix in CHECKPOINTS]
    except OSError as error:
        return f"{path}: no such checkpoint; {where} can't be listed: {error.strerror}"
    if not names:
        return f"{path}: no such checkpoint, and no others in {where}"
    closest = difflib.get_close_matches(path.name, sorted(names), n=len(names), cutoff=0)
    return f"{path}: no such checkpoint; {where} holds {join_few(closest)}"


def no_such_weights(path: Path) -> str:
    """Describe a missing --pretrain_path, with advice on training without one."""
    return (
        f"--pretrain_path {no_such_checkpoint(path)}. {DOWNLOADED} downloads one, and "
        "docs/recipes.md says where to get the released ones of the original; without one, "
        f"{WITHOUT_WEIGHTS}"
    )


def from_scratch(options: Options, *, n_videos: int, n_nodes: int = 1) -> str | None:
    """Warn of training from random weights at the default rate; None if there are enough videos
    for it."""
    batch = options.batch_size * options.accumulate * n_nodes
    is_default = options.learning_rate == FLAGS["learning_rate"].default
    is_chosen = "learning_rate" in options.given - options.from_recipe or not is_default
    if is_chosen or (n_videos >= MANY_VIDEOS and batch >= LARGE_BATCH):
        return None
    return (
        f"training starts from random weights at --learning_rate {options.learning_rate:g}, the "
        "default for batches of 128 and hundreds of thousands of videos: for "
        f"{n_videos} videos in batches of {min(batch, n_videos)} use --learning_rate 0.01 and a "
        f"small network (--model_depth 10), or pretrained weights ({DOWNLOADED})"
    )


def describe_best(options: Options, best: Mapping[str, float] | None) -> str:
    """Return the last line of training: the best epoch and its file."""
    path, epochs = _weights_to_use(options), options.n_epochs
    if best is None or options.no_val:  # a resumed run may know an earlier best epoch
        how = " without validation" if options.no_val else ""
        return f"trained for {epochs} epochs{how}: {path}"
    return (
        f"best of {epochs} epochs: {best['epoch']:.0f}, with a video accuracy of "
        f"{best['video_accuracy']:.4f}: {path}"
    )


def _weights_to_use(options: Options) -> Path:
    """Return best.pth of a finished training, or its last checkpoint if nothing was validated."""
    best = options.result_path / "best.pth"
    if options.no_val or not best.exists():
        return options.result_path / f"save_{options.n_epochs}.pth"
    return best


def inference_command(options: Options) -> str:
    """Return a shell command that scores whole videos with the trained weights."""
    words: list[object] = [python_name(), _here(ROOT / "main.py")]
    for name in names_with(Role.REQUIRED):
        words += [f"--{name}", getattr(options, name)]
    words += _given(options, names_with(Role.INFERENCE))
    words += ["--resume_path", _weights_to_use(options), "--no_train", "--no_val", "--inference"]
    return shlex.join(map(str, words))


def prediction_command(
    options: Options, weights: Path, *, has_names: bool, held: Mapping[str, Any]
) -> str:
    """Return a shell command that scores any video.

    `held` are the options that the weights hold, as plain values: flags that were given here are
    repeated if they are others, or given anew for each inference. --labels is added unless the
    weights hold class names.
    """
    words: list[object] = [python_name(), "-m", "util_scripts.predict_video", "VIDEO.mp4"]
    words += ["--checkpoint", weights]
    words += [] if has_names else ["--labels", options.annotation_path]
    plain, anew = options.as_plain(), names_with(Role.CLASSIFIER | Role.INFERENCE)
    words += _given(
        options,
        [
            name
            for name in names_with(Role.CLASSIFIER)
            if name in anew or name not in held or held[name] != plain[name]
        ],
    )
    here = "" if Path.cwd() == ROOT else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return here + shlex.join(map(str, words))


def _given(options: Options, names: Collection[str]) -> Iterator[object]:
    """Yield the flags among `names` that were given, with their values."""
    for name in names:
        if name in options.given:
            yield from as_words(name, getattr(options, name))


def python_name() -> str:
    """Return the name of this interpreter: python if a shell finds it by that, else its path."""
    found = shutil.which("python")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "python"
    return _here(Path(sys.executable))


def _here(path: Path) -> str:
    """Make a path relative to the working directory, if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
