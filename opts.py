"""Every flag of main.py, resolved and checked as a whole.

Each option is declared once, as a field of `Options`; the parser and its help are made from the
fields. Nothing here imports torch, so that -h and a wrong flag answer at once.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from errors import UserError
from models.catalog import FAMILIES, describe_depths
from utils.command_line import FlagParser
from utils.reading import shown, typed

ROOTED_PATHS = ("video_path", "annotation_path", "result_path", "pretrain_path", "resume_path")
AUTO = Path("auto")


class Range(NamedTuple):
    """The values that a number may have, both ends included, and how a message says that."""

    least: float
    most: float
    words: str = ""

    def __str__(self) -> str:
        return self.words or f"from {self.least:,g} to {self.most:,g}".replace(",", "")


# Bounds far beyond any use, so that what comes of a slip of the finger is a message.
COUNT = Range(1, 10**6, "from 1 to a million")
COUNT_OR_NONE = Range(0, 10**6, "from 0 to a million")
SHARE = Range(1e-6, 1, "above 0 and at most 1")
FACTOR = Range(0, 1e30, "from 0 to 1e30")


def _flag(group: str, default: Any, help: str, range: Range | None = None, **arguments: Any) -> Any:
    """One command-line flag; `arguments` go to argparse."""
    metadata = {"group": group, "help": help, "range": range, **arguments}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """The options of one run. Paths are resolved; nothing writes to it."""

    root_path: Path | None = _flag("files", None, "joined in front of the five paths below")
    video_path: Path = _flag("files", None, "folder of the frames (or of the videos)")
    annotation_path: Path = _flag("files", None, "index (JSON) of the videos")
    result_path: Path = _flag("files", None, "folder of results, made if missing")
    pretrain_path: Path | None = _flag("files", None, "checkpoint to fine-tune; gets a fresh head")
    resume_path: Path | None = _flag(
        "files", None, "checkpoint to go on from, or to evaluate; 'auto': newest in the results"
    )

    dataset: str = _flag(
        "data",
        "kinetics",
        "whose layout the index has",
        choices=("activitynet", "kinetics", "ucf101", "hmdb51", "mit", "folder"),
    )
    n_classes: int = _flag(
        "data",
        400,
        "outputs of the head; not given: one per label of the index, instead of",
        range=COUNT,
    )
    n_pretrain_classes: int = _flag(
        "data", 0, "classes of --pretrain_path; 0 reads the file", range=COUNT_OR_NONE
    )
    input_type: str = _flag("data", "rgb", "kind of frames", choices=("rgb", "flow"))
    file_type: str = _flag("data", "jpg", "form of the frames", choices=("jpg", "hdf5", "video"))
    on_bad_video: str = _flag(
        "data", "stop", "what an unreadable frame does to the run", choices=("stop", "skip")
    )
    accimage: bool = _flag("data", False, "decode JPEG with the accimage package")
    scaled_decode: bool = _flag(
        "data",
        False,
        "validation and inference decode JPEGs of twice sample_size or more at half their size: "
        "loads 1.3 times as fast, pixels 2.9/255 off on average",
    )
    n_threads: int = _flag(
        "data", 4, "worker processes that load clips; 0 loads in the main one", range=Range(0, 1024)
    )

    sample_size: int = _flag("clips", 112, "side of the square input, pixels", range=Range(1, 4096))
    sample_duration: int = _flag("clips", 16, "frames per clip", range=Range(1, 4096))
    sample_t_stride: int = _flag("clips", 1, "keep every so-many-th frame", range=COUNT)
    train_crop: str = _flag(
        "clips", "random", "spatial crop in training", choices=("random", "corner", "center")
    )
    train_crop_min_scale: float = _flag(
        "clips", 0.25, "smallest area share of a random crop", range=SHARE
    )
    train_crop_min_ratio: float = _flag(
        "clips", 0.75, "smallest aspect ratio of a random crop", range=SHARE
    )
    no_hflip: bool = _flag("clips", False, "no random horizontal flip")
    colorjitter: bool = _flag("clips", False, "jitter brightness, contrast, saturation and hue")
    train_t_crop: str = _flag(
        "clips", "random", "temporal crop in training", choices=("random", "center")
    )
    n_val_samples: int = _flag("clips", 3, "evenly spaced clips per validation video", range=COUNT)
    mean_dataset: str = _flag(
        "clips",
        "kinetics",
        "whose pixel mean and std normalise",
        choices=("kinetics", "activitynet", "0.5"),
    )
    no_mean_norm: bool = _flag("clips", False, "do not subtract the mean")
    no_std_norm: bool = _flag("clips", False, "do not divide by the std")
    value_scale: int = _flag("clips", 1, "pixels in [0, 1] or [0, 255]", choices=(1, 255))

    model: str = _flag("model", "resnet", "family", choices=tuple(FAMILIES))
    model_depth: int = _flag("model", 18, describe_depths())
    conv1_t_size: int = _flag("model", 7, "temporal kernel of the stem", range=Range(1, 127))
    conv1_t_stride: int = _flag("model", 1, "temporal stride of the stem", range=Range(1, 127))
    no_max_pool: bool = _flag("model", False, "no max pooling after the stem")
    resnet_shortcut: str = _flag("model", "B", "A pads with zeros, B projects", choices=("A", "B"))
    resnet_widen_factor: float = _flag(
        "model", 1.0, "width of resnet and resnet2p1d", range=Range(1e-3, 64)
    )
    wide_resnet_k: int = _flag("model", 2, "width of wideresnet", range=Range(1, 64))
    resnext_cardinality: int = _flag("model", 32, "groups of resnext", range=Range(1, 4096))

    ft_begin_module: str = _flag("training", "", "first trained module (fc, layer4 …); '' is all")
    batch_size: int = _flag(
        "training", 128, "clips per batch, of all processes together", range=COUNT
    )
    accumulate: int = _flag(
        "training", 1, "batches per optimiser step, one after the other", range=COUNT
    )
    n_epochs: int = _flag("training", 200, "last epoch; epochs count from 1", range=COUNT)
    checkpoint: int = _flag("training", 10, "epochs between save_{epoch}.pth", range=COUNT)
    optimizer: str = _flag("training", "sgd", "optimiser", choices=("sgd",))
    learning_rate: float = _flag("training", 0.1, "initial learning rate", range=Range(1e-30, 1e30))
    momentum: float = _flag("training", 0.9, "momentum", range=FACTOR)
    dampening: float = _flag("training", 0.0, "dampening of the momentum", range=FACTOR)
    clip_grad: float = _flag("training", 0.0, "largest norm of the gradient; 0: any", range=FACTOR)
    weight_decay: float = _flag("training", 1e-3, "weight decay", range=FACTOR)
    nesterov: bool = _flag("training", False, "Nesterov momentum; forces dampening 0")
    class_weights: str = _flag(
        "training",
        "none",
        "balanced: a clip counts in the training loss the more, the fewer videos its class has",
        choices=("none", "balanced"),
    )
    lr_scheduler: str = _flag(
        "training", "multistep", "learning rate schedule", choices=("multistep", "plateau")
    )
    multistep_milestones: tuple[int, ...] = _flag(
        "training",
        (50, 100, 150),
        "epochs after which the rate is divided by 10",
        nargs="+",
        range=COUNT,
    )
    overwrite_milestones: bool = _flag("training", False, "apply new milestones on resume")
    plateau_patience: int = _flag(
        "training", 10, "epochs without progress before the rate drops", range=COUNT_OR_NONE
    )
    freeze_bn: bool = _flag(
        "training",
        False,
        "keep the batch-norm statistics of the layers before --ft_begin_module (of all without it)",
    )
    cache_features: int = _flag(
        "training",
        0,
        "views of each clip that a frozen trunk sees once, for its head to train on",
        range=COUNT_OR_NONE,
    )
    keep_head: bool = _flag("training", False, "keep the head of --pretrain_path")
    checkpoint_minutes: float = _flag(
        "training",
        0.0,
        "minutes between saves to last.pth, inside epochs too; 0: never",
        range=FACTOR,
    )
    keep_checkpoints: int = _flag(
        "training", 0, "how many save_{epoch}.pth stay; 0: all", range=COUNT_OR_NONE
    )
    manual_seed: int = _flag("training", 1, "seed of everything random", range=Range(0, 2**63 - 1))

    no_train: bool = _flag("phases", False, "skip training (validation then runs once)")
    no_val: bool = _flag("phases", False, "skip validation")
    inference: bool = _flag("phases", False, "score whole videos and write {subset}.json")
    inference_subset: str = _flag(
        "phases", "val", "videos to score", choices=("train", "val", "test")
    )
    inference_stride: int = _flag(
        "phases", 16, "frames between windows; 0: sample_duration", range=COUNT_OR_NONE
    )
    inference_crop: str = _flag(
        "phases", "center", "centre square or whole frame", choices=("center", "nocrop")
    )
    inference_no_average: bool = _flag("phases", False, "one entry per window, not per video")
    inference_batch_size: int = _flag(
        "phases", 0, "videos in flight; 0: batch_size", range=COUNT_OR_NONE
    )
    output_topk: int = _flag(
        "phases", 5, "entries per video in the result; 0: all", range=Range(-(10**9), 10**9)
    )
    tensorboard: bool = _flag("phases", False, "event files in the results folder")
    no_report: bool = _flag("phases", False, "no report.html after --inference")

    no_cuda: bool = _flag("machine", False, "run on the CPU")
    precision: str = _flag(
        "machine",
        "auto",
        "arithmetic; auto: bf16 autocast where the device computes it natively, else fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    compile: bool = _flag("machine", False, "training steps through torch.compile")
    profile: bool = _flag("machine", False, "trace of some steps, in the results folder's profile")
    distributed: bool = _flag(
        "machine", False, "many processes; several visible GPUs are used without it"
    )
    dist_url: str = _flag("machine", "tcp://127.0.0.1:23456", "where processes meet")
    world_size: int = _flag(
        "machine", -1, "number of nodes; the launcher knows it", range=Range(-1, 10**6)
    )
    batchnorm_sync: bool = _flag("machine", False, "synchronised batch norm")

    given: frozenset[str] = frozenset()  # the flags that were on the command line

    @property
    def arch(self) -> str:
        return f"{self.model}-{self.model_depth}"

    @property
    def starts_from_file(self) -> bool:
        return self.pretrain_path is not None or self.resume_path is not None

    @property
    def n_input_channels(self) -> int:
        return 3 if self.input_type == "rgb" else 2

    @property
    def window_stride(self) -> int:
        """Frames between the windows of inference; a checkpoint may have told their length."""
        return self.inference_stride or self.sample_duration

    def model_options(self) -> dict[str, Any]:
        """The architecture flags that this family heeds."""
        return {name: getattr(self, name) for name in FAMILIES[self.model].options}

    def as_plain(self) -> dict[str, Any]:
        """All options as plain JSON values: paths as text, tuples as lists."""
        return {field.name: _plain(getattr(self, field.name)) for field in FLAGS} | {
            "arch": self.arch,
            "inference_stride": self.window_stride,
            "n_input_channels": self.n_input_channels,
        }


FLAGS = tuple(field for field in fields(Options) if field.metadata)
# What a file of the original does not tell, and how to compute.
CLASSIFIER_FLAGS = (
    "model",
    "model_depth",
    "conv1_t_stride",
    "no_max_pool",
    "sample_size",
    "sample_duration",
    "sample_t_stride",
    "mean_dataset",
    "no_mean_norm",
    "no_std_norm",
    "value_scale",
    "precision",
    "no_cuda",
)


def parse_opts(argv: Sequence[str] | None = None) -> Options:
    """Read the command line into checked, frozen options.

    Raises UserError with a line for every value that is out of range and every contradiction.
    """
    values = vars(_build_parser().parse_args(argv))
    options = _resolve(Options(**values, given=frozenset(values)))
    problems = [*_bad_ranges(options), *_contradictions(options)]
    if "model" in options.given or not options.starts_from_file:
        problems += _model_contradictions(options)
    if problems:
        raise UserError("\n".join(problems))
    return options


def options_of(given: Mapping[str, Any]) -> Options:
    """The options of a program that takes only some of the flags: those given, else the defaults.

    Raises UserError with a line for every value that is out of range.
    """
    options = _resolve(Options(**given, given=frozenset(given)))
    problems = list(_bad_ranges(options))
    if problems:
        raise UserError("\n".join(problems))
    return options


def fill_in(options: Options, found: Mapping[str, Any]) -> Options:
    """Take values that a checkpoint tells for flags that were not given, and check again.

    Raises UserError where what was given contradicts the model that was found.
    """
    filled = replace(options, **{k: v for k, v in found.items() if k not in options.given})
    problems = list(_model_contradictions(filled))
    if problems:
        raise UserError("\n".join(problems))
    return filled


GROUPS = {
    "files": "files",
    "data": "data",
    "clips": "clips: which frames, which part of the picture",
    "model": "model",
    "training": "training",
    "phases": "phases: train and validate by default, --inference on request",
    "machine": "machine",
}


def _build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="main.py",
        description="Train, fine-tune, validate and run 3D ResNets on videos.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=98),
        usage="main.py --video_path DIR --annotation_path JSON --result_path DIR [flags]",
    )
    for group, title in GROUPS.items():
        names = [field.name for field in FLAGS if field.metadata["group"] == group]
        add_flags(parser.add_argument_group(title), names)
    return parser


def add_flags(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add some of the flags of `Options` to a parser. One that is not given leaves no trace in what
    is parsed: its default is the field's, so that `given` can be told."""
    absent = argparse.SUPPRESS
    for name in names:
        field = Options.__dataclass_fields__[name]
        meta = {k: v for k, v in field.metadata.items() if k not in ("group", "range")}
        text = meta.pop("help")
        if isinstance(field.default, bool):
            parser.add_argument(f"--{name}", action="store_true", default=absent, help=text)
            continue
        parser.add_argument(
            f"--{name}",
            default=absent,
            type=_type_of(field.default),
            help=text + _default_text(field.default),
            **_metavar(field.default, meta),
        )


def _type_of(default: Any) -> Callable[[str], Any]:
    if default is None:
        return Path
    return type(default[0]) if isinstance(default, tuple) else type(default)


def _metavar(default: Any, meta: dict[str, Any]) -> dict[str, Any]:
    if "choices" in meta:
        return meta | {"metavar": "|".join(map(str, meta["choices"]))}
    return meta | {"metavar": "PATH" if default is None else _type_of(default).__name__.upper()}


def _default_text(default: Any) -> str:
    if default is None or default == "":
        return ""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f" ({str(shown).replace('%', '%%')})"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def expanded(path: Path) -> Path:
    """With ~ and ~name in front replaced by that user's home. Raises UserError where there is no
    such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: no such user {path.parts[0]}") from None


def _resolve(options: Options) -> Options:
    """Join the root, expand ~, settle the values that other values decide."""
    changes: dict[str, Any] = {"multistep_milestones": tuple(options.multistep_milestones)}
    if options.root_path is not None:
        changes["root_path"] = expanded(options.root_path)
    for name in ROOTED_PATHS:
        path = getattr(options, name)
        if path is not None and not (name == "resume_path" and path == AUTO):
            changes[name] = changes.get("root_path", Path()) / expanded(path)
    if options.nesterov:
        changes["dampening"] = 0.0
    if options.inference_batch_size == 0:
        changes["inference_batch_size"] = max(1, options.batch_size)
    return replace(options, **changes)


def _bad_ranges(options: Options) -> Iterator[str]:
    for field in FLAGS:
        value, range = getattr(options, field.name), field.metadata["range"]
        if range is not None and not _is_within(value, range):
            yield f"--{field.name} {_shown(value)}: must be {range}"


def _is_within(value: Any, range: Range) -> bool:
    """Whether a number, or all of several, lie in a range; NaN lies in none."""
    values = value if isinstance(value, tuple) else (value,)
    return all(range.least <= number <= range.most for number in values)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_saved(values: Any, place: str) -> dict[str, Any]:
    """The options that a file holds, of this program's flags those that are known.

    Raises UserError, which begins with `place`, for a value that its flag would refuse.
    """
    values = typed(values, dict[str, Any], f"{place}: options")
    checked = {}
    for field in FLAGS:
        if field.name not in values:
            continue
        where = f"{place}: option {field.name}"
        value = typed(values[field.name], _saved_type(field.default), where)
        choices, range = field.metadata.get("choices"), field.metadata["range"]
        if choices is not None and value not in choices:
            raise UserError(f"{where}: {shown(value)} is none of {', '.join(map(str, choices))}")
        if range is not None and not _is_within(value, range):
            raise UserError(f"{where}: {shown(value)} must be {range}")
        checked[field.name] = value
    return checked


def _saved_type(default: Any) -> Any:
    """The type of an option as as_plain() writes it."""
    if default is None:
        return str | None
    return tuple[int, ...] if isinstance(default, tuple) else type(default)


def _contradictions(options: Options) -> Iterator[str]:
    for name in ("video_path", "annotation_path", "result_path"):
        if getattr(options, name) is None:
            yield f"--{name} is missing"
    if options.batchnorm_sync and options.no_cuda:
        yield "--batchnorm_sync works on GPUs alone: leave out that or --no_cuda"
    if options.world_size > 1 and not options.distributed:
        yield f"--world_size {options.world_size} needs --distributed and a launcher on each node"
    if options.cache_features and options.distributed:
        yield "--cache_features runs in one process: leave out --distributed"
    if options.nesterov and options.momentum == 0:
        yield "--nesterov needs a --momentum above 0"
    if options.input_type == "flow" and options.file_type != "hdf5":
        yield f"--input_type flow is read from --file_type hdf5, not {options.file_type}"
    if options.dataset == "activitynet" and options.file_type != "jpg":
        yield f"--dataset activitynet is read from --file_type jpg, not {options.file_type}"
    if options.scaled_decode and (options.accimage or options.file_type == "video"):
        other = "--accimage" if options.accimage else "--file_type video"
        yield f"--scaled_decode is not to be had with {other}: leave one out"
    if options.input_type == "flow" and options.colorjitter:
        yield "--colorjitter changes colours, which --input_type flow has not"
    if options.no_train and options.no_val and not options.inference:
        yield "--no_train --no_val without --inference leaves nothing to do"
    if options.lr_scheduler == "plateau" and options.no_val and not options.no_train:
        yield "--lr_scheduler plateau follows the validation loss, which --no_val skips"
    if options.no_train and options.resume_path is None:
        yield "--no_train needs --resume_path: without it the weights would be random"
    if options.keep_head and not options.starts_from_file:
        yield "--keep_head keeps the head of --pretrain_path, which is missing"
    if options.ft_begin_module and not options.starts_from_file:
        yield (
            f"--ft_begin_module {options.ft_begin_module} freezes the layers before it; "
            "without --pretrain_path or --resume_path those would stay random: leave it out too, "
            "and train a small network at a low rate (--model_depth 10 --learning_rate 0.01)"
        )


def _model_contradictions(options: Options) -> Iterator[str]:
    family = FAMILIES[options.model]
    if options.model_depth not in family.depths:
        known = " ".join(map(str, family.depths))
        yield f"--model_depth {options.model_depth}: {options.model} has depths {known}"
    if options.ft_begin_module and options.ft_begin_module not in family.modules:
        yield (
            f"--ft_begin_module {options.ft_begin_module}: the modules of {options.model} are "
            + " ".join(family.modules)
        )
    head = family.head
    if options.cache_features and not (options.ft_begin_module == head and options.freeze_bn):
        yield f"--cache_features needs a frozen trunk: --ft_begin_module {head} --freeze_bn"
    for field in FLAGS:
        if field.metadata["group"] != "model" or field.name in ("model", "model_depth"):
            continue
        value = getattr(options, field.name)
        if field.name not in family.options and value != field.default:
            yield f"--{field.name} {value}: {options.model} has no such option"
