"""What to do next: the files that are there in place of a missing one, a start without pretrained
weights, the commands after training."""

import difflib
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from opts import CLASSIFIER_FLAGS, FLAGS, Options

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
NAMED = 5  # files that are there, before "and N more"
MANY_VIDEOS, LARGE_BATCH = 5000, 64  # below either, the default rate is too high from scratch
WITHOUT_WEIGHTS = (
    "train a small network from random weights, at a low rate: leave out --pretrain_path and "
    "--ft_begin_module, and give --model_depth 10 --learning_rate 0.01"
)
# Of a training command, what its inference needs too and the checkpoint does not tell.
CARRIED = (
    "dataset",
    "input_type",
    "file_type",
    "on_bad_video",
    "accimage",
    "scaled_decode",
    "n_threads",
    "batch_size",
    "inference_subset",
    "inference_stride",
    "inference_crop",
    "inference_no_average",
    "inference_batch_size",
    "output_topk",
    "no_report",
    "no_cuda",
    "precision",
)


def no_such_checkpoint(path: Path) -> str:
    """A message that names the checkpoints that are there, those of the closest names first."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such checkpoint: there is no folder {folder}"
    where = "the working directory" if folder == Path() else str(folder)
    try:
        names = [file.name for file in folder.iterdir() if file.suffix in CHECKPOINTS]
    except OSError as error:
        return f"{path}: no such checkpoint; {where} can't be listed: {error.strerror}"
    if not names:
        return f"{path}: no such checkpoint, and no other in {where}"
    closest = difflib.get_close_matches(path.name, sorted(names), n=len(names), cutoff=0)
    more = f" and {len(closest) - NAMED} more" if len(closest) > NAMED else ""
    return f"{path}: no such checkpoint; {where} holds {', '.join(closest[:NAMED])}{more}"


def no_such_weights(path: Path) -> str:
    """The same of --pretrain_path, and how to do without."""
    return (
        f"--pretrain_path {no_such_checkpoint(path)}. docs/recipes.md tells where to get the "
        f"released ones; without one, {WITHOUT_WEIGHTS}"
    )


def from_scratch(options: Options, *, n_videos: int, n_nodes: int = 1) -> str | None:
    """What to know where training starts from random weights at the default rate, or None where
    there are videos enough for it."""
    batch = options.batch_size * options.accumulate * n_nodes
    if "learning_rate" in options.given or (n_videos >= MANY_VIDEOS and batch >= LARGE_BATCH):
        return None
    return (
        f"training starts from random weights at --learning_rate {options.learning_rate:g}, the "
        "default, which is for batches of 128 out of hundreds of thousands of videos: for "
        f"{n_videos} videos in batches of {min(batch, n_videos)} take --learning_rate 0.01 and a "
        "small network (--model_depth 10), or pretrained weights (docs/recipes.md)"
    )


def describe_best(options: Options, best: Mapping[str, float] | None) -> str:
    """The last line of training: which epoch was the best, and where it is."""
    path, epochs = _weights_to_use(options), options.n_epochs
    if best is None:
        return f"trained for {epochs} epochs, without validation: {path}"
    return (
        f"the best of {epochs} epochs was {best['epoch']:.0f}, with a video accuracy of "
        f"{best['video_accuracy']:.4f}: {path}"
    )


def _weights_to_use(options: Options) -> Path:
    """best.pth of a training that has ended, or where nothing was validated its last file."""
    assert options.result_path is not None
    best = options.result_path / "best.pth"
    if options.no_val or not best.exists():
        return options.result_path / f"save_{options.n_epochs}.pth"
    return best


def inference_command(options: Options) -> str:
    """A command line, as a shell takes it, that scores whole videos with what was trained."""
    words: list[object] = [_python(), _here(ROOT / "main.py")]
    for name in ("video_path", "annotation_path", "result_path"):
        words += [f"--{name}", getattr(options, name)]
    words += _given(options, CARRIED)
    words += ["--resume_path", _weights_to_use(options), "--no_train", "--no_val", "--inference"]
    return shlex.join(map(str, words))


def prediction_command(options: Options, weights: Path, *, has_names: bool) -> str:
    """The same for any other video. A file of `weights` that this run did not write may lack the
    names of its classes, and needs the flags that it was given here."""
    words: list[object] = [_python(), "-m", "util_scripts.predict_video", "VIDEO.mp4"]
    words += ["--checkpoint", weights]
    words += [] if has_names else ["--labels", options.annotation_path]
    words += _given(options, CLASSIFIER_FLAGS if options.no_train else ("no_cuda", "precision"))
    here = "" if Path.cwd() == ROOT else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return here + shlex.join(map(str, words))


def _given(options: Options, names: Collection[str]) -> Iterator[object]:
    """Those flags of `names` that were on the command line, with their values."""
    for field in FLAGS:
        if field.name in names and field.name in options.given:
            value = getattr(options, field.name)
            yield f"--{field.name}"
            if value is not True:
                yield value


def _python() -> str:
    """This interpreter, by the shortest name that a shell in this folder finds it by."""
    found = shutil.which("python")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "python"
    return _here(Path(sys.executable))


def _here(path: Path) -> str:
    """A path from the working directory on, where it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
