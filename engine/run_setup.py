"""What a run reads and checks before its first phase: index, checkpoints, options, model, log."""

import logging
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from datasets.activitynet import UntrimmedIndex, read_any_index
from datasets.frame_rate import describe_mismatch, find_frame_rate
from datasets.index import Index
from engine.advice import no_such_weights
from engine.checkpoint import Checkpoint, load_checkpoint
from engine.class_names import check_class_names
from engine.device import Device, tune_process
from engine.distributed import World
from engine.progress import Position
from engine.results_folder import find_newest, is_in
from engine.run_log import Resumed, RunLog
from errors import UserError
from flags import Flag, Role
from model import (
    adopt_checkpoint_options,
    build_device,
    build_finetuned_model,
    build_loaded_model,
    build_model,
    freeze_before,
)
from models.namings import Inflation
from models.weights import is_weights_name
from option_checks import fresh_start_contradictions, refuse
from opts import AUTO, FLAGS, GIVEN, Options, names_with
from recipe import describe_recipe
from utils.reading import shown

log = logging.getLogger("main")


@dataclass(frozen=True)
class Run:
    """What all phases of a run share; `resumed` is the checkpoint it continues or evaluates."""

    options: Options
    index: Index
    model: nn.Module
    device: Device
    world: World
    run_log: RunLog
    resumed: Checkpoint | None

    @property
    def start(self) -> Position:
        """Where training starts."""
        return position_of(self.resumed)


def set_up(options: Options, world: World) -> Run:
    """Read the index and the checkpoints, complete the options, build the model.

    Nothing in the results folder changes yet. Raises UserError for files that do not fit together.
    """
    if (text := describe_recipe(options)) is not None:
        log.info("%s", text)
    index = read_any_index(options.annotation_path)
    _check_index_form(options, index)
    _check_writable(options.result_path)
    resumed, pretrained = _read_checkpoints(options)
    options = _count_classes(options, index, is_resumed=resumed is not None)
    if (file := resumed or pretrained) is not None:
        resumes = resumed is not None
        with_clips = resumes or file.hosted is not None
        options = adopt_checkpoint_options(
            options, file, with_classes=resumes, with_clips=with_clips
        )
    else:  # --resume_path auto may have found none
        refuse(fresh_start_contradictions(options))
    _check_classes(options, index)
    options = _with_frame_rate(options, index)
    if resumed is not None:
        check_class_names(resumed, index.labels, index.path)
    torch.manual_seed(options.manual_seed)
    # As the original; but whole frames differ in shape, and cuDNN would time each shape anew.
    torch.backends.cudnn.benchmark = options.inference_crop != "nocrop"
    device = build_device(options, gpu_index=world.local_rank)
    tune_process(device)
    log.info("%s on %s", options.arch, device)
    model = device.place(_build_model(options, index, resumed, pretrained))
    run_log = _open_log(options, resumed, world, index)
    return Run(options, index, model, device, world, run_log, resumed)


def position_of(checkpoint: Checkpoint | None) -> Position:
    """Return where training continues after a checkpoint."""
    if checkpoint is None:
        return Position(1)
    if checkpoint.position is not None:
        return Position(**checkpoint.position)
    return Position((checkpoint.epoch or 0) + 1)


def checked_start(run: Run, training_videos: str) -> Position:
    """Return where training starts. `training_videos` is the digest of their records.

    Raises UserError if a run that is resumed inside an epoch has other options or videos.
    """
    options, resumed, start = run.options, run.resumed, run.start
    if resumed is not None and start.epoch > options.n_epochs + 1:
        raise UserError(
            f"{resumed.path}: is at epoch {resumed.epoch}, past --n_epochs {options.n_epochs}, "
            "which is the number of the last epoch"
        )
    if start.epoch == options.n_epochs + 1:
        log.info("all %d epochs are trained already", options.n_epochs)
    elif resumed is not None:
        _check_same_run(run, resumed, training_videos)
    if start.batches:
        log.info("continuing in epoch %d after batch %d", start.epoch, start.batches)
    return start


def _check_same_run(run: Run, resumed: Checkpoint, training_videos: str) -> None:
    """Compare the settings of training that a checkpoint holds with those of this run.

    Raises UserError where another value would change the batches of an unfinished epoch, or the
    groups of a saved optimiser. Other differences are logged.
    """
    extras, saved = resumed.extras, resumed.extras.options
    has_optimizer = resumed.optimizer is not None
    if has_optimizer:  # files without these options have one rate for all
        saved = {name: FLAGS[name].default for name in names_with(Role.GROUPS)} | saved
    compared = [
        (f"--{name}", saved.get(name), getattr(run.options, name), flag.roles)
        for name, flag in FLAGS.items()
        if _is_compared(flag, has_optimizer)
    ]
    compared += [
        ("number of nodes", extras.n_nodes, run.world.n_nodes, Role.FIXED),
        ("training videos", extras.training_videos, training_videos, Role.FIXED),
    ]
    for name, before, here, roles in compared:
        if before is None or before == here:
            continue
        if run.start.batches and Role.FIXED in roles:
            raise UserError(
                f"{name} {shown(here)}: {resumed.path} was saved inside an epoch with "
                f"{shown(before)}; resume with that value, or from a save_{{epoch}}.pth"
            )
        text = f"{name} {shown(here)}: {resumed.path} was trained with {shown(before)}"
        if has_optimizer and Role.GROUPS in roles:
            raise UserError(
                f"{text}, and its optimiser goes on with these rates and weight decays: resume "
                "with that value, or start anew with --pretrain_path and --keep_head"
            )
        if not roles & (Role.PREPROCESSING | Role.CLIP_SHAPE):  # reported when they were adopted
            log.warning("%s", text)


def _is_compared(flag: Flag, has_optimizer: bool) -> bool:
    """Whether a flag changes training and is not overruled by the state of an optimiser. Those of
    the model are compared with the tensors."""
    is_of_training = flag.group in ("clips", "training", "machine") or Role.FIXED in flag.roles
    is_overruled = has_optimizer and flag.state_name is not None
    return is_of_training and not is_overruled and not flag.roles & (Role.FREE | Role.LAUNCH)


def _check_index_form(options: Options, index: Index) -> None:
    if isinstance(index, UntrimmedIndex) != (options.dataset == "activitynet"):
        form = "" if isinstance(index, UntrimmedIndex) else "not "
        raise UserError(f"--dataset {options.dataset}: {index.path} is {form}in ActivityNet's form")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        cause = error.strerror or error
        raise UserError(f"--result_path {folder}: can't be written: {cause}") from None


def _read_checkpoints(options: Options) -> tuple[Checkpoint | None, Checkpoint | None]:
    """Read --resume_path and, if there is nothing to resume, --pretrain_path."""
    if options.resume_path is not None and options.resume_path != AUTO:
        return load_checkpoint(options.resume_path), None
    if options.resume_path == AUTO:
        newest = find_newest(options.result_path)
        if newest is not None:
            return newest, None
        if options.no_train:
            raise UserError(f"--resume_path auto: no checkpoint in {options.result_path}")
        log.info("no checkpoint in %s yet: starting a new run", options.result_path)
    if options.pretrain_path is None:
        return None, None
    if not is_weights_name(options.pretrain_path) and not options.pretrain_path.exists():
        raise UserError(no_such_weights(options.pretrain_path))
    inflation = Inflation(options.conv1_t_size, options.resnet_2d_layers)
    return None, load_checkpoint(options.pretrain_path, inflation=inflation)


def _count_classes(options: Options, index: Index, *, is_resumed: bool) -> Options:
    """Without --n_classes, give the head an output per label; a resumed run keeps its own."""
    if "n_classes" in options.given:
        return options
    if not is_resumed:
        log.info("--n_classes %d: the labels of %s", len(index.labels), index.path)
    return replace(options, n_classes=len(index.labels))


def _check_classes(options: Options, index: Index) -> None:
    n_labels = len(index.labels)
    if options.n_classes < n_labels:
        raise UserError(f"--n_classes {options.n_classes}: {index.path} has {n_labels} labels")
    if options.n_classes > n_labels:
        text = "--n_classes %d, but the index has %d labels: results leave the other outputs out"
        log.warning(text, options.n_classes, n_labels)


def _with_frame_rate(options: Options, index: Index) -> Options:
    """Warn of a frame rate that the weights do not expect; what is trained expects the rate of its
    clips, where that is known."""
    rate = find_frame_rate(index, options.video_path, options.file_type)
    if rate is None:
        return options
    stride, expected = options.sample_t_stride, options.frame_rate
    remedy = f"extract frames with --fps {expected:g}"
    if text := describe_mismatch(rate, expected, t_stride=stride, remedy=remedy):
        log.warning("%s", text)
    if options.no_train or "frame_rate" in options.given:
        return options
    return replace(options, frame_rate=round(rate / stride, 3))


def _build_model(
    options: Options, index: Index, resumed: Checkpoint | None, pretrained: Checkpoint | None
) -> nn.Module:
    if resumed is not None:
        model = build_loaded_model(options, resumed)
        if resumed.trained_state_dict is not None and not options.no_train:
            model.load_state_dict(resumed.trained_state_dict)
        progress = "weights only" if resumed.epoch is None else f"epoch {resumed.epoch}"
        log.info("%s: loaded, %s", resumed.path, progress)
    elif pretrained is not None:
        model = build_finetuned_model(options, pretrained, index.labels, index.path)
    else:
        model = build_model(options)
    freeze_before(model, options.model, options.ft_begin_module)
    return model


def _open_log(options: Options, resumed: Checkpoint | None, world: World, index: Index) -> RunLog:
    start = position_of(resumed)
    continues = (
        resumed is not None
        and resumed.epoch is not None
        and is_in(resumed.path, options.result_path)
    )
    checkpoint = None if resumed is None else resumed.path
    inputs = (options.pretrain_path, checkpoint, options.annotation_path)
    return RunLog(
        options.result_path,
        options=options.as_plain() | {GIVEN: sorted(options.given)},
        labels=index.labels,
        start=Resumed(
            sys.maxsize if options.no_train else start.epoch,
            start.batches,
            checkpoint if continues else None,
        ),
        tensorboard=options.tensorboard,
        is_silent=not world.is_first,
        is_evaluation=options.no_train,
        inputs=[path for path in inputs if path is not None],
    )
