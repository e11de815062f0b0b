"""Every flag of main.py, one record each: type, default, allowed values, help, group and roles.

To add a flag, add its record to `Options`. The parser, its help, the checks of values, what a
checkpoint saves and every list of flags elsewhere are derived from the records. Nothing here
imports torch, so that -h and a mistyped flag are answered at once.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.catalog import FAMILIES, describe_depths

GIVEN = "given"  # in opts.json: the names of the flags that the run was given
AUTO = Path("auto")  # --resume_path auto: the newest checkpoint of the results folder
GROUPS = {
    "files": "files",
    "data": "data",
    "clips": "clips: which frames, and which part of them",
    "model": "model",
    "training": "training",
    "phases": "phases: training and validation by default, --inference on request",
    "machine": "machine",
}


class Role(enum.Flag):
    """What a flag is used for beyond the run that it was given to; `names_with` lists them."""

    NONE = 0
    REQUIRED = enum.auto()  # main.py does not run without it
    ROOTED = enum.auto()  # a path joined with --root_path
    WEIGHTS = enum.auto()  # a checkpoint, or the name of one in models/weights.py
    DATA_PATH = enum.auto()  # saved as an absolute path beside results, so that a report finds it
    ARCHITECTURE = enum.auto()  # an argument of the model families that list it
    STEM = enum.auto()  # architecture that tensor shapes do not reveal: must equal the checkpoint's
    PREPROCESSING = enum.auto()  # adopted from any checkpoint unless given
    CLIP_SHAPE = enum.auto()  # adopted from one that is resumed, used for inference, or hosted
    CLASSIFIER = enum.auto()  # offered by the scripts that load a checkpoint
    WINDOWS = enum.auto()  # offered by the scripts that read the videos of an index
    INFERENCE = enum.auto()  # not adopted from checkpoints: repeated in the suggested command
    PIXELS = enum.auto()  # decides which pixels inference sees
    FIXED_WITHIN_EPOCH = enum.auto()  # a run resumed inside an epoch must have the same value
    LAUNCH = enum.auto()  # of the machines of one run: not repeated with --recipe opts.json


@dataclass(frozen=True)
class Range:
    """The numbers that a flag accepts, both ends included, and how a message puts that."""

    least: float
    most: float
    words: str = ""

    def __str__(self) -> str:
        return self.words or f"from {self.least:,g} to {self.most:,g}".replace(",", "")


# Limits far beyond any sensible value: they catch typing errors.
COUNT = Range(1, 10**6, "from 1 to a million")
COUNT_OR_NONE = Range(0, 10**6, "from 0 to a million")
FRACTION = Range(1e-6, 1, "above 0 and at most 1")
FACTOR = Range(0, 1e30, "from 0 to 1e30")
SHARE_BELOW_1 = Range(0, 0.999999, "from 0 to less than 1")


@dataclass(frozen=True)
class Flag:
    """The record of one flag of main.py."""

    group: str  # a key of GROUPS
    default: Any  # its type is the flag's; None: an optional path
    allowed: Range | tuple[Any, ...] | None  # numbers in a range, one of several values, or any
    roles: Role
    help: str
    state_name: str | None  # its name in the optimiser's or schedule's state, which resuming keeps

    @property
    def is_path(self) -> bool:
        return self.default is None or isinstance(self.default, Path)

    @property
    def value_type(self) -> Callable[[str], Any]:
        """What converts one word of the command line."""
        if self.is_path:
            return Path
        return type(self.default[0]) if isinstance(self.default, tuple) else type(self.default)


def flag(
    group: str,
    default: Any,
    allowed: Range | tuple[Any, ...] | None = None,
    *,
    roles: Role,
    help: str,
    state_name: str | None = None,
) -> Any:
    """Return a dataclass field that holds the record of a flag."""
    record = Flag(group, default, allowed, roles, help, state_name)
    return dataclasses.field(default=default, metadata={"flag": record})


@dataclass(frozen=True)
class Options:
    """The options of one run, checked and with resolved paths.

    Other scripts use them too, and leave the required paths at Path().
    """

    # fmt: off
    root_path: Path | None = flag("files", None, roles=Role.NONE,
        help="folder that the five paths below are relative to")
    video_path: Path = flag("files", Path(), roles=Role.REQUIRED | Role.ROOTED | Role.DATA_PATH,
        help="folder of frames, HDF5 files or videos, as --file_type says")
    annotation_path: Path = flag("files", Path(),
        roles=Role.REQUIRED | Role.ROOTED | Role.DATA_PATH,
        help="JSON index of the videos")
    result_path: Path = flag("files", Path(), roles=Role.REQUIRED | Role.ROOTED,
        help="folder for results, created if missing")
    pretrain_path: Path | None = flag("files", None, roles=Role.ROOTED | Role.WEIGHTS,
        help="checkpoint to fine-tune, or its name, such as torchvision:r3d_18 (see "
        "util_scripts.weights); its head is replaced")
    resume_path: Path | None = flag("files", None, roles=Role.ROOTED | Role.WEIGHTS,
        help="checkpoint to resume or, with --no_train, to evaluate; auto: the newest one in "
        "--result_path, or a fresh start if there is none")
    recipe: str = flag("files", "", roles=Role.NONE,
        help="file of flags: one of recipes/ by its name, your own, or the opts.json of a run; "
        "flags on the command line win")

    dataset: str = flag("data", "kinetics",
        ("activitynet", "kinetics", "ucf101", "hmdb51", "mit", "folder"), roles=Role.INFERENCE,
        help="dataset; only the index of activitynet has a format of its own")
    n_classes: int = flag("data", 400, COUNT, roles=Role.NONE,
        help="outputs of the head; if omitted, as many as the index has labels, or 400 if there is "
        "no index")
    n_pretrain_classes: int = flag("data", 0, COUNT_OR_NONE, roles=Role.NONE,
        help="classes of --pretrain_path; 0: as many as the file has")
    input_type: str = flag("data", "rgb", ("rgb", "flow"),
        roles=Role.INFERENCE | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="RGB frames or optical flow")
    file_type: str = flag("data", "jpg", ("jpg", "hdf5", "video"),
        roles=Role.WINDOWS | Role.INFERENCE | Role.PIXELS,
        help="how frames are stored: JPEG files, HDF5 files, or the videos themselves")
    on_bad_video: str = flag("data", "stop", ("stop", "skip"), roles=Role.WINDOWS | Role.INFERENCE,
        help="what to do about unreadable frames: stop the run, or skip that clip")
    accimage: bool = flag("data", False, roles=Role.WINDOWS | Role.INFERENCE | Role.PIXELS,
        help="decode JPEG with the accimage package")
    scaled_decode: bool = flag("data", False, roles=Role.INFERENCE | Role.PIXELS,
        help="in validation and inference, decode JPEGs of at least twice --sample_size at half "
        "their size: loads 1.3 times as fast, pixels differ by 2.9/255 on average")
    n_threads: int = flag("data", 4, Range(0, 1024), roles=Role.WINDOWS | Role.INFERENCE,
        help="worker processes per node that load clips; 0: load in the main process")

    sample_size: int = flag("clips", 112, Range(1, 4096),
        roles=Role.CLIP_SHAPE | Role.CLASSIFIER | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="side of the square input in pixels")
    sample_duration: int = flag("clips", 16, Range(1, 4096),
        roles=Role.CLIP_SHAPE | Role.CLASSIFIER | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="frames per clip")
    sample_t_stride: int = flag("clips", 1, COUNT,
        roles=Role.CLIP_SHAPE | Role.CLASSIFIER | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="use every n-th frame only")
    train_crop: str = flag("clips", "random", ("random", "corner", "center"),
        roles=Role.FIXED_WITHIN_EPOCH, help="spatial crop in training")
    train_crop_min_scale: float = flag("clips", 0.25, FRACTION, roles=Role.FIXED_WITHIN_EPOCH,
        help="smallest area of a random crop, as a fraction of the frame")
    train_crop_min_ratio: float = flag("clips", 0.75, FRACTION, roles=Role.FIXED_WITHIN_EPOCH,
        help="smallest aspect ratio of a random crop; the largest is its inverse")
    no_hflip: bool = flag("clips", False, roles=Role.FIXED_WITHIN_EPOCH,
        help="no random horizontal flip")
    colorjitter: bool = flag("clips", False, roles=Role.FIXED_WITHIN_EPOCH,
        help="jitter brightness, contrast, saturation and hue")
    rand_augment: tuple[int, ...] = flag("clips", (0, 0), COUNT_OR_NONE,
        roles=Role.FIXED_WITHIN_EPOCH,
        help="RandAugment: number of random operations per clip, and their magnitude, 0 to 30; "
        "0 0: off")
    random_erasing: float = flag("clips", 0.0, Range(0, 1, "from 0 to 1"),
        roles=Role.FIXED_WITHIN_EPOCH,
        help="probability of erasing a random box, the same in all frames of a clip")
    train_t_crop: str = flag("clips", "random", ("random", "center"), roles=Role.FIXED_WITHIN_EPOCH,
        help="temporal crop in training")
    n_val_samples: int = flag("clips", 3, COUNT, roles=Role.NONE,
        help="evenly spaced clips per validation video")
    eval_resize: tuple[int, ...] = flag("clips", (0,), Range(0, 4096),
        roles=Role.PREPROCESSING | Role.CLASSIFIER | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="resize frames to this before the central square is cropped: the shorter side, or "
        "height and width; 0: the shorter side to --sample_size")
    no_antialias: bool = flag("clips", False,
        roles=Role.PREPROCESSING | Role.CLASSIFIER | Role.PIXELS | Role.FIXED_WITHIN_EPOCH,
        help="resize without antialiasing, as torchvision's video models were trained")
    frame_rate: float = flag("clips", 0.0, Range(0, 1e6),
        roles=Role.PREPROCESSING | Role.CLASSIFIER,
        help="frames per second of a clip that the weights expect; frames of another rate are "
        "reported; 0: unknown")
    mean_dataset: str = flag("clips", "kinetics",
        ("kinetics", "activitynet", "0.5", "torchvision", "imagenet"),
        roles=Role.PREPROCESSING | Role.CLASSIFIER,
        help="pixel mean and standard deviation that normalise the input, by the name of a "
        "dataset; torchvision: Kinetics-400 as its video models were trained")
    no_mean_norm: bool = flag("clips", False, roles=Role.PREPROCESSING | Role.CLASSIFIER,
        help="do not subtract the mean")
    no_std_norm: bool = flag("clips", False, roles=Role.PREPROCESSING | Role.CLASSIFIER,
        help="do not divide by the standard deviation")
    value_scale: int = flag("clips", 1, (1, 255), roles=Role.PREPROCESSING | Role.CLASSIFIER,
        help="scale pixels to [0, 1] or [0, 255]")

    model: str = flag("model", "resnet", tuple(FAMILIES), roles=Role.CLASSIFIER,
        help="model family")
    model_depth: int = flag("model", 18, roles=Role.CLASSIFIER, help=describe_depths())
    conv1_t_size: int = flag("model", 7, Range(1, 127), roles=Role.ARCHITECTURE,
        help="temporal kernel size of the first convolution")
    conv1_t_stride: int = flag("model", 1, Range(1, 127),
        roles=Role.ARCHITECTURE | Role.STEM | Role.CLASSIFIER,
        help="temporal stride of the first convolution")
    no_max_pool: bool = flag("model", False,
        roles=Role.ARCHITECTURE | Role.STEM | Role.CLASSIFIER,
        help="no max pooling after the first convolution")
    conv1_planes: int = flag("model", 0, Range(0, 8192), roles=Role.ARCHITECTURE,
        help="channels of the first convolution of wideresnet and resnext; 0: as many as the first "
        "layer has")
    conv1_mid_planes: int = flag("model", 0, Range(0, 8192), roles=Role.ARCHITECTURE,
        help="channels between the two first convolutions of resnet2p1d (torchvision: 45); 0: as "
        "many as keep the number of weights of a 3D convolution")
    shared_mid_planes: bool = flag("model", False, roles=Role.ARCHITECTURE,
        help="same channels inside both convolution pairs of a resnet2p1d block, as in torchvision")
    bn_eps: float = flag("model", 1e-5, Range(1e-12, 1),
        roles=Role.ARCHITECTURE | Role.STEM | Role.CLASSIFIER,
        help="epsilon of batch norm (1e-3 in weights converted from Caffe2 or TensorFlow)")
    resnet_2d_layers: int = flag("model", 0, Range(0, 4), roles=Role.ARCHITECTURE,
        help="number of last layers of resnet with 1x3x3 convolutions (3: MC3)")
    resnet_shortcut: str = flag("model", "B", ("A", "B"), roles=Role.ARCHITECTURE,
        help="shortcuts between different shapes: A pads with zeros, B projects")
    resnet_widen_factor: float = flag("model", 1.0, Range(1e-3, 64), roles=Role.ARCHITECTURE,
        help="width factor of resnet and resnet2p1d")
    wide_resnet_k: int = flag("model", 2, Range(1, 64), roles=Role.ARCHITECTURE,
        help="width factor of wideresnet")
    resnext_cardinality: int = flag("model", 32, Range(1, 4096), roles=Role.ARCHITECTURE,
        help="groups of resnext's convolutions")

    ft_begin_module: str = flag("training", "", roles=Role.NONE,
        help="first module to train, such as layer4 or fc; earlier ones are frozen; if omitted, "
        "all are trained")
    batch_size: int = flag("training", 128, COUNT, roles=Role.INFERENCE | Role.FIXED_WITHIN_EPOCH,
        help="clips per batch on each node, divided among its processes")
    accumulate: int = flag("training", 1, COUNT, roles=Role.FIXED_WITHIN_EPOCH,
        help="batches per optimiser step (gradient accumulation)")
    n_epochs: int = flag("training", 200, COUNT, roles=Role.NONE,
        help="number of the last epoch; the first is 1")
    checkpoint: int = flag("training", 10, COUNT, roles=Role.NONE,
        help="write save_{epoch}.pth every n epochs and after the last")
    optimizer: str = flag("training", "sgd", ("sgd", "adamw"), roles=Role.NONE, help="optimiser")
    learning_rate: float = flag("training", 0.1, Range(1e-30, 1e30), roles=Role.NONE,
        state_name="initial_lr", help="initial learning rate")
    momentum: float = flag("training", 0.9, FACTOR, roles=Role.NONE, state_name="momentum",
        help="momentum")
    dampening: float = flag("training", 0.0, FACTOR, roles=Role.NONE, state_name="dampening",
        help="dampening of the momentum")
    clip_grad: float = flag("training", 0.0, FACTOR, roles=Role.NONE,
        help="largest norm of the gradient, which is scaled down to it; 0: no limit")
    weight_decay: float = flag("training", 1e-3, FACTOR, roles=Role.NONE,
        state_name="weight_decay", help="weight decay")
    nesterov: bool = flag("training", False, roles=Role.NONE, state_name="nesterov",
        help="Nesterov momentum; sets --dampening to 0")
    class_weights: str = flag("training", "none", ("none", "balanced"),
        roles=Role.FIXED_WITHIN_EPOCH,
        help="balanced: weight the loss by inverse class frequency")
    lr_scheduler: str = flag("training", "multistep", ("multistep", "plateau", "cosine"),
        roles=Role.NONE, help="learning rate schedule")
    warmup_epochs: float = flag("training", 0.0, FACTOR, roles=Role.NONE,
        help="with cosine, raise the learning rate from 0 over this many epochs")
    head_lr_factor: float = flag("training", 1.0, Range(1e-6, 1e6), roles=Role.NONE,
        help="learning rate of the head, as a multiple of --learning_rate")
    layer_decay: float = flag("training", 1.0, FRACTION, roles=Role.NONE,
        help="learning rate of each module, as a fraction of that of the module after it")
    no_norm_decay: bool = flag("training", False, roles=Role.NONE,
        help="no weight decay for batch norm and biases")
    early_stopping: int = flag("training", 0, COUNT_OR_NONE, roles=Role.NONE,
        help="stop after n epochs without a better video accuracy; 0: off")
    sampler: str = flag("training", "shuffled", ("shuffled", "balanced"),
        roles=Role.FIXED_WITHIN_EPOCH,
        help="videos of an epoch; balanced: as many of each class, drawn with repetition")
    label_smoothing: float = flag("training", 0.0, SHARE_BELOW_1, roles=Role.FIXED_WITHIN_EPOCH,
        help="label smoothing: share of the target that is spread evenly over all classes")
    dropout: float = flag("training", 0.0, SHARE_BELOW_1, roles=Role.FIXED_WITHIN_EPOCH,
        help="dropout probability of the inputs of the head")
    mixup: float = flag("training", 0.0, FACTOR, roles=Role.FIXED_WITHIN_EPOCH,
        help="mixup: blend each clip with another, in a proportion from Beta(a, a); 0: off")
    cutmix: float = flag("training", 0.0, FACTOR, roles=Role.FIXED_WITHIN_EPOCH,
        help="CutMix: replace a box of each clip by another's, of an area from Beta(a, a); with "
        "--mixup, each batch gets one of them; 0: off")
    ema: float = flag("training", 0.0, SHARE_BELOW_1, roles=Role.FIXED_WITHIN_EPOCH,
        help="decay of an exponential moving average of the weights, which is validated and "
        "saved; 0: off")
    multistep_milestones: tuple[int, ...] = flag("training", (50, 100, 150), COUNT,
        roles=Role.NONE, state_name="milestones",
        help="epochs after which the learning rate is divided by 10")
    overwrite_milestones: bool = flag("training", False, roles=Role.NONE,
        help="when resuming, use the given milestones instead of the checkpoint's")
    plateau_patience: int = flag("training", 10, COUNT_OR_NONE, roles=Role.NONE,
        state_name="patience",
        help="epochs without improvement before the learning rate is divided by 10")
    freeze_bn: bool = flag("training", False, roles=Role.FIXED_WITHIN_EPOCH,
        help="freeze the batch norm statistics of the layers before --ft_begin_module, or of all "
        "layers without it")
    cache_features: int = flag("training", 0, COUNT_OR_NONE, roles=Role.FIXED_WITHIN_EPOCH,
        help="pass n views of each clip through the frozen trunk once, and train the head on "
        "their features; 0: off")
    keep_head: bool = flag("training", False, roles=Role.NONE,
        help="keep the head of --pretrain_path")
    checkpoint_minutes: float = flag("training", 0.0, FACTOR, roles=Role.NONE,
        help="write last.pth every n minutes, also inside epochs; 0: never")
    keep_checkpoints: int = flag("training", 0, COUNT_OR_NONE, roles=Role.NONE,
        help="keep the newest n of save_{epoch}.pth; 0: all")
    manual_seed: int = flag("training", 1, Range(0, 2**63 - 1), roles=Role.FIXED_WITHIN_EPOCH,
        help="random seed")

    no_train: bool = flag("phases", False, roles=Role.NONE,
        help="skip training; validation then runs once")
    no_val: bool = flag("phases", False, roles=Role.NONE, help="skip validation")
    inference: bool = flag("phases", False, roles=Role.NONE,
        help="score whole videos and write {subset}.json")
    inference_subset: str = flag("phases", "val", ("train", "val", "test"), roles=Role.INFERENCE,
        help="videos to score")
    inference_stride: int = flag("phases", 16, COUNT_OR_NONE,
        roles=Role.WINDOWS | Role.INFERENCE | Role.PIXELS,
        help="frames from the start of one window to the next; 0: --sample_duration")
    inference_crop: str = flag("phases", "center", ("center", "nocrop"),
        roles=Role.INFERENCE | Role.PIXELS, help="central square or whole frame")
    inference_clips: int = flag("phases", 0, COUNT_OR_NONE,
        roles=Role.WINDOWS | Role.INFERENCE | Role.PIXELS,
        help="evenly spaced clips per video; 0: sliding windows at --inference_stride")
    inference_crops: int = flag("phases", 1, (1, 3), roles=Role.INFERENCE | Role.PIXELS,
        help="squares per clip; 3: at the centre and at both ends of the longer side")
    inference_flip: bool = flag("phases", False, roles=Role.INFERENCE | Role.PIXELS,
        help="score each clip mirrored, too, and average")
    inference_no_average: bool = flag("phases", False, roles=Role.INFERENCE,
        help="write one entry per window or clip instead of one per video")
    inference_batch_size: int = flag("phases", 0, COUNT_OR_NONE,
        roles=Role.WINDOWS | Role.INFERENCE,
        help="videos loaded at a time; 0: --batch_size of main.py, by default 128")
    output_topk: int = flag("phases", 5, Range(-(10**9), 10**9), roles=Role.INFERENCE,
        help="classes per video in the result; 0: all")
    tensorboard: bool = flag("phases", False, roles=Role.NONE,
        help="write TensorBoard event files to --result_path")
    no_report: bool = flag("phases", False, roles=Role.INFERENCE,
        help="do not write report.html after --inference")

    no_cuda: bool = flag("machine", False, roles=Role.CLASSIFIER | Role.INFERENCE,
        help="run on the CPU")
    precision: str = flag("machine", "auto", ("auto", "fp32", "bf16", "fp16"),
        roles=Role.CLASSIFIER | Role.INFERENCE,
        help="number format; auto: bf16 autocast where the device supports it natively, else fp32")
    compile: bool = flag("machine", False, roles=Role.NONE,
        help="compile training steps with torch.compile")
    profile: bool = flag("machine", False, roles=Role.NONE,
        help="write a profiler trace of some steps to --result_path")
    distributed: bool = flag("machine", False, roles=Role.LAUNCH,
        help="join the processes of a launcher (torchrun, Slurm, MPI); not needed to use all GPUs "
        "of one machine")
    dist_url: str = flag("machine", "tcp://127.0.0.1:23456", roles=Role.LAUNCH,
        help="address where processes find each other")
    world_size: int = flag("machine", -1, Range(-1, 10**6), roles=Role.LAUNCH,
        help="number of nodes; -1: as the launcher says")
    batchnorm_sync: bool = flag("machine", False, roles=Role.NONE,
        help="synchronise batch norm across GPU processes")

    given: frozenset[str] = frozenset()  # names of the flags on the command line or in the recipe
    from_recipe: frozenset[str] = frozenset()  # those of them that only the recipe has
    # fmt: on

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
        """Frames between windows of inference. A checkpoint may have changed sample_duration."""
        return self.inference_stride or self.sample_duration

    def model_options(self) -> dict[str, Any]:
        """Return the architecture flags that the model family takes."""
        return {name: getattr(self, name) for name in FAMILIES[self.model].options}

    def as_plain(self) -> dict[str, Any]:
        """Return all options as plain JSON values: paths as text, tuples as lists."""
        return {name: _plain(getattr(self, name)) for name in FLAGS} | {
            "arch": self.arch,
            "inference_stride": self.window_stride,
            "n_input_channels": self.n_input_channels,
        }


def as_words(name: str, value: Any) -> list[str]:
    """Write a flag as on a command line."""
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


FLAGS: Mapping[str, Flag] = {
    field.name: field.metadata["flag"] for field in fields(Options) if field.metadata
}


def names_with(roles: Role, *, without: Role = Role.NONE) -> tuple[str, ...]:
    """Return the flags that have all of `roles` and none of `without`, in the order above."""
    return tuple(
        name
        for name, record in FLAGS.items()
        if roles in record.roles and not record.roles & without
    )
