"""Every flag of main.py, one record each: `Options`.

To add a flag, add its record. The parser, its help, the checks of values, what a checkpoint saves
and every list of flags elsewhere are derived from the records. Nothing here imports torch, so that
-h and a mistyped flag are answered at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flags import COUNT, COUNT_OR_NONE, FACTOR, FRACTION, SHARE, Flag, Range, Role, as_json, flag
from models.catalog import FAMILIES, describe_depths

GIVEN = "given"  # in opts.json: the names of the flags that the run was given
AUTO = Path("auto")  # --resume_path auto: the newest checkpoint of the results folder


@dataclass(frozen=True)
class Options:
    """The options of one run, checked and with resolved paths.

    Other scripts use them too, and leave the required paths at Path().
    """

    # fmt: off
    root_path: Path | None = flag("files", None,
        help="folder that the five paths below are relative to")
    video_path: Path = flag("files", Path(), roles=Role.REQUIRED | Role.ROOTED | Role.DATA_PATH,
        help="folder of frames, HDF5 files or videos, as --file_type says")
    annotation_path: Path = flag("files", Path(),
        roles=Role.REQUIRED | Role.ROOTED | Role.DATA_PATH, help="JSON index of the videos")
    result_path: Path = flag("files", Path(), roles=Role.REQUIRED | Role.ROOTED,
        help="folder for results, created if missing")
    pretrain_path: Path | None = flag("files", None, roles=Role.ROOTED | Role.WEIGHTS,
        help="checkpoint to fine-tune, or its name, such as torchvision:r3d_18 (see "
        "util_scripts.weights); its head is replaced")
    resume_path: Path | None = flag("files", None, roles=Role.ROOTED | Role.WEIGHTS,
        help="checkpoint to resume or, with --no_train, to evaluate; auto: the newest one in "
        "--result_path, or a fresh start if there is none")
    recipe: str = flag("files", "",
        help="file of flags: one of recipes/ by its name, your own, or the opts.json of a run; "
        "flags on the command line win")

    dataset: str = flag("data", "kinetics",
        ("activitynet", "kinetics", "ucf101", "hmdb51", "mit", "folder"), roles=Role.INFERENCE,
        help="dataset; only the index of activitynet has a format of its own")
    n_classes: int = flag("data", 400, COUNT,
        help="outputs of the head; if omitted, as many as the index has labels, or 400 if there is "
        "no index")
    n_pretrain_classes: int = flag("data", 0, COUNT_OR_NONE,
        help="classes of --pretrain_path; 0: as many as the file has")
    input_type: str = flag("data", "rgb", ("rgb", "flow"), roles=Role.SCORING | Role.FIXED,
        help="RGB frames or optical flow")
    file_type: str = flag("data", "jpg", ("jpg", "hdf5", "video"),
        roles=Role.WINDOWS | Role.SCORING,
        help="how frames are stored: JPEG files, HDF5 files, or the videos themselves")
    on_bad_video: str = flag("data", "stop", ("stop", "skip"), roles=Role.WINDOWS | Role.INFERENCE,
        help="what to do about unreadable frames: stop the run, or skip that clip")
    accimage: bool = flag("data", False, roles=Role.WINDOWS | Role.SCORING,
        help="decode JPEG with the accimage package")
    scaled_decode: bool = flag("data", False, roles=Role.SCORING,
        help="in validation and inference, decode JPEGs of at least twice --sample_size at half "
        "their size: loads 1.3 times as fast, pixels differ by 2.9/255 on average")
    n_threads: int = flag("data", 4, Range(0, 1024), roles=Role.WINDOWS | Role.INFERENCE,
        help="worker processes per node that load clips; 0: load in the main process")

    sample_size: int = flag("clips", 112, Range(1, 4096), roles=Role.CLIP,
        help="side of the square input in pixels")
    sample_duration: int = flag("clips", 16, Range(1, 4096), roles=Role.CLIP,
        help="frames per clip")
    sample_t_stride: int = flag("clips", 1, COUNT, roles=Role.CLIP,
        help="use every n-th frame only")
    train_crop: str = flag("clips", "random", ("random", "corner", "center"),
        roles=Role.FIXED, help="spatial crop in training")
    train_crop_min_scale: float = flag("clips", 0.25, FRACTION, roles=Role.FIXED,
        help="smallest area of a random crop, as a fraction of the frame")
    train_crop_min_ratio: float = flag("clips", 0.75, FRACTION, roles=Role.FIXED,
        help="smallest aspect ratio of a random crop; the largest is its inverse")
    no_hflip: bool = flag("clips", False, roles=Role.FIXED, help="no random horizontal flip")
    colorjitter: bool = flag("clips", False, roles=Role.FIXED,
        help="jitter brightness, contrast, saturation and hue")
    rand_augment: tuple[int, ...] = flag("clips", (0, 0), COUNT_OR_NONE, roles=Role.FIXED,
        help="RandAugment: number of random operations per clip, and their magnitude, 0 to 30; "
        "0 0: off")
    random_erasing: float = flag("clips", 0.0, Range(0, 1, "from 0 to 1"), roles=Role.FIXED,
        help="probability of erasing a random box, the same in all frames of a clip")
    train_t_crop: str = flag("clips", "random", ("random", "center"), roles=Role.FIXED,
        help="temporal crop in training")
    n_val_samples: int = flag("clips", 3, COUNT, help="evenly spaced clips per validation video")
    eval_resize: tuple[int, ...] = flag("clips", (0,), Range(0, 4096),
        roles=Role.INPUT | Role.PIXELS | Role.FIXED,
        help="resize frames to this before the central square is cropped: the shorter side, or "
        "height and width; 0: the shorter side to --sample_size")
    no_antialias: bool = flag("clips", False, roles=Role.INPUT | Role.PIXELS | Role.FIXED,
        help="resize without antialiasing, as torchvision's video models were trained")
    frame_rate: float = flag("clips", 0.0, Range(0, 1e6), roles=Role.INPUT,
        help="frames per second of a clip that the weights expect; frames of another rate are "
        "reported; 0: unknown")
    mean_dataset: str = flag("clips", "kinetics",
        ("kinetics", "activitynet", "0.5", "torchvision", "imagenet"), roles=Role.INPUT,
        help="pixel mean and standard deviation that normalise the input, by the name of a "
        "dataset; torchvision: Kinetics-400 as its video models were trained")
    no_mean_norm: bool = flag("clips", False, roles=Role.INPUT, help="do not subtract the mean")
    no_std_norm: bool = flag("clips", False, roles=Role.INPUT,
        help="do not divide by the standard deviation")
    value_scale: int = flag("clips", 1, (1, 255), roles=Role.INPUT,
        help="scale pixels to [0, 1] or [0, 255]")

    model: str = flag("model", "resnet", tuple(FAMILIES), roles=Role.CLASSIFIER,
        help="model family")
    model_depth: int = flag("model", 18, roles=Role.CLASSIFIER, help=describe_depths())
    conv1_t_size: int = flag("model", 7, Range(1, 127), roles=Role.ARCHITECTURE,
        help="temporal kernel size of the first convolution")
    conv1_t_stride: int = flag("model", 1, Range(1, 127),
        roles=Role.ARCHITECTURE | Role.STEM | Role.CLASSIFIER,
        help="temporal stride of the first convolution")
    no_max_pool: bool = flag("model", False, roles=Role.ARCHITECTURE | Role.STEM | Role.CLASSIFIER,
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
    resnet_widen_factor: float = flag("model", 1.0, Range(1 / 64, 64), roles=Role.ARCHITECTURE,
        help="width factor of resnet and resnet2p1d")
    wide_resnet_k: int = flag("model", 2, Range(1, 64), roles=Role.ARCHITECTURE,
        help="width factor of wideresnet")
    resnext_cardinality: int = flag("model", 32, Range(1, 4096), roles=Role.ARCHITECTURE,
        help="groups of resnext's convolutions")

    ft_begin_module: str = flag("training", "",
        help="first module to train, such as layer4 or fc; earlier ones are frozen; if omitted, "
        "all are trained")
    batch_size: int = flag("training", 128, COUNT, roles=Role.INFERENCE | Role.FIXED,
        help="clips per batch on each node, divided among its processes")
    accumulate: int = flag("training", 1, COUNT, roles=Role.FIXED,
        help="batches per optimiser step (gradient accumulation)")
    n_epochs: int = flag("training", 200, COUNT, roles=Role.FREE,
        help="number of the last epoch; the first is 1")
    checkpoint: int = flag("training", 10, COUNT, roles=Role.FREE,
        help="write save_{epoch}.pth every n epochs and after the last")
    optimizer: str = flag("training", "sgd", ("sgd", "adamw"), help="optimiser")
    learning_rate: float = flag("training", 0.1, Range(1e-30, 1e30),
        state_name="initial_lr", help="initial learning rate")
    momentum: float = flag("training", 0.9, FACTOR, state_name="momentum", help="momentum")
    dampening: float = flag("training", 0.0, FACTOR, state_name="dampening",
        help="dampening of the momentum")
    clip_grad: float = flag("training", 0.0, FACTOR,
        help="largest norm of the gradient, which is scaled down to it; 0: no limit")
    weight_decay: float = flag("training", 1e-3, FACTOR,
        state_name="weight_decay", help="weight decay")
    nesterov: bool = flag("training", False, state_name="nesterov",
        help="Nesterov momentum; sets --dampening to 0")
    class_weights: str = flag("training", "none", ("none", "balanced"), roles=Role.FIXED,
        help="balanced: weight the loss by inverse class frequency")
    lr_scheduler: str = flag("training", "multistep", ("multistep", "plateau", "cosine"),
        help="learning rate schedule")
    warmup_epochs: float = flag("training", 0.0, FACTOR,
        help="with cosine, raise the learning rate from 0 over this many epochs")
    head_lr_factor: float = flag("training", 1.0, Range(1e-6, 1e6), roles=Role.GROUPS,
        help="learning rate of the head, as a multiple of --learning_rate")
    layer_decay: float = flag("training", 1.0, FRACTION, roles=Role.GROUPS,
        help="learning rate of each module, as a fraction of that of the module after it")
    no_norm_decay: bool = flag("training", False, roles=Role.GROUPS,
        help="no weight decay for batch norm and biases")
    early_stopping: int = flag("training", 0, COUNT_OR_NONE,
        help="stop after n epochs without a better video accuracy; 0: off")
    sampler: str = flag("training", "shuffled", ("shuffled", "balanced"), roles=Role.FIXED,
        help="videos of an epoch; balanced: as many of each class, drawn with repetition")
    label_smoothing: float = flag("training", 0.0, SHARE, roles=Role.FIXED,
        help="label smoothing: share of the target that is spread evenly over all classes")
    dropout: float = flag("training", 0.0, SHARE, roles=Role.FIXED,
        help="dropout probability of the inputs of the head")
    mixup: float = flag("training", 0.0, FACTOR, roles=Role.FIXED,
        help="mixup: blend each clip with another, in a proportion from Beta(a, a); 0: off")
    cutmix: float = flag("training", 0.0, FACTOR, roles=Role.FIXED,
        help="CutMix: replace a box of each clip by another's, of an area from Beta(a, a); with "
        "--mixup, each batch gets one of them; 0: off")
    ema: float = flag("training", 0.0, SHARE, roles=Role.FIXED,
        help="decay of an exponential moving average of the weights, which is validated and "
        "saved; 0: off")
    multistep_milestones: tuple[int, ...] = flag("training", (50, 100, 150), COUNT,
        state_name="milestones", help="epochs after which the learning rate is divided by 10")
    overwrite_milestones: bool = flag("training", False, roles=Role.FREE,
        help="when resuming, use the given milestones instead of the checkpoint's")
    plateau_patience: int = flag("training", 10, COUNT_OR_NONE, state_name="patience",
        help="epochs without improvement before the learning rate is divided by 10")
    freeze_bn: bool = flag("training", False, roles=Role.FIXED,
        help="freeze the batch norm statistics of the layers before --ft_begin_module, or of all "
        "layers without it")
    cache_features: int = flag("training", 0, COUNT_OR_NONE, roles=Role.FIXED,
        help="pass n views of each clip through the frozen trunk once, and train the head on "
        "their features; 0: off")
    keep_head: bool = flag("training", False, roles=Role.FREE,
        help="keep the head of --pretrain_path")
    checkpoint_minutes: float = flag("training", 0.0, FACTOR, roles=Role.FREE,
        help="write last.pth every n minutes, also inside epochs; 0: never")
    keep_checkpoints: int = flag("training", 0, COUNT_OR_NONE, roles=Role.FREE,
        help="keep the newest n of save_{epoch}.pth; 0: all")
    manual_seed: int = flag("training", 1, Range(0, 2**63 - 1), roles=Role.FIXED,
        help="random seed")

    no_train: bool = flag("phases", False, help="skip training; validation then runs once")
    no_val: bool = flag("phases", False, help="skip validation")
    inference: bool = flag("phases", False, help="score whole videos and write {subset}.json")
    inference_subset: str = flag("phases", "val", ("train", "val", "test"), roles=Role.INFERENCE,
        help="videos to score")
    inference_stride: int = flag("phases", 16, COUNT_OR_NONE, roles=Role.WINDOWS | Role.SCORING,
        help="frames from the start of one window to the next; 0: --sample_duration")
    inference_crop: str = flag("phases", "center", ("center", "nocrop"),
        roles=Role.SCORING, help="central square or whole frame")
    inference_clips: int = flag("phases", 0, COUNT_OR_NONE, roles=Role.WINDOWS | Role.SCORING,
        help="evenly spaced clips per video; 0: sliding windows at --inference_stride")
    inference_crops: int = flag("phases", 1, (1, 3), roles=Role.SCORING,
        help="squares per clip; 3: at the centre and at both ends of the longer side")
    inference_flip: bool = flag("phases", False, roles=Role.SCORING,
        help="score each clip mirrored, too, and average")
    inference_no_average: bool = flag("phases", False, roles=Role.INFERENCE,
        help="write one entry per window or clip instead of one per video")
    inference_batch_size: int = flag("phases", 0, COUNT_OR_NONE,
        roles=Role.WINDOWS | Role.INFERENCE,
        help="videos loaded at a time; 0: --batch_size of main.py, by default 128")
    output_topk: int = flag("phases", 5, Range(-(10**9), 10**9), roles=Role.INFERENCE,
        help="classes per video in the result; 0: all")
    tensorboard: bool = flag("phases", False, help="write TensorBoard event files to --result_path")
    no_report: bool = flag("phases", False, roles=Role.INFERENCE,
        help="do not write report.html after --inference")

    no_cuda: bool = flag("machine", False, roles=Role.CLASSIFIER | Role.INFERENCE | Role.FREE,
        help="run on the CPU")
    precision: str = flag("machine", "auto", ("auto", "fp32", "bf16", "fp16"),
        roles=Role.CLASSIFIER | Role.INFERENCE,
        help="number format; auto: bf16 autocast where the device supports it natively, else fp32")
    compile: bool = flag("machine", False, roles=Role.FREE,
        help="compile training steps with torch.compile")
    profile: bool = flag("machine", False, roles=Role.FREE,
        help="write a profiler trace of some steps to --result_path")
    distributed: bool = flag("machine", False, roles=Role.LAUNCH,
        help="join the processes of a launcher (torchrun, Slurm, MPI); not needed to use all GPUs "
        "of one machine")
    dist_url: str = flag("machine", "tcp://127.0.0.1:23456", roles=Role.LAUNCH,
        help="address where processes find each other")
    world_size: int = flag("machine", -1, Range(-1, 10**6), roles=Role.LAUNCH,
        help="number of nodes; -1: as the launcher says")
    batchnorm_sync: bool = flag("machine", False,
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
        return {name: as_json(getattr(self, name)) for name in FLAGS} | {
            "arch": self.arch,
            "inference_stride": self.window_stride,
            "n_input_channels": self.n_input_channels,
        }


FLAGS: Mapping[str, Flag] = {f.name: f.metadata["flag"] for f in fields(Options) if f.metadata}


def names_with(roles: Role, *, without: Role = Role.NONE) -> tuple[str, ...]:
    """Return the flags that have all of `roles` and none of `without`, in the order above."""
    return tuple(n for n, f in FLAGS.items() if roles in f.roles and not f.roles & without)
