"""The training phase of a run: its trainer, what it warns of and saves, its best epoch."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datasets.feature_cache import CachedTraining, CachedValidation
from datasets.index_checks import by_kind, check_index
from datasets.records import digest_of
from datasets.video_dataset import (
    ClipLoader,
    OrderedBatches,
    Sample,
    ShuffledBatches,
    TrainLoader,
    ValLoader,
)
from engine.advice import describe_best, from_scratch, inference_command
from engine.batch_augment import BatchAugment
from engine.checkpoint_manager import CheckpointManager
from engine.ema import WeightAverage
from engine.losses import balanced_weights, class_counts, describe_counts
from engine.optim import build_optimization
from engine.optim_resume import resume_optimization
from engine.progress import Position
from engine.provenance import versions
from engine.results_folder import UNREADABLE_POSITION, saved_positions
from engine.run_setup import Run, checked_start
from engine.scoring import Network, clip_network, head_network, make_scorer
from errors import UserError
from evaluation.metrics import FEW, describe_interval
from fitting import fit
from model import frozen_batch_norms, takes_single_clips, without_head, wrap_for_distributed
from models.catalog import FAMILIES
from opts import Options
from training import Trainer
from utils.interruption import Interruption, resume_hint
from utils.text import first_few

STOPPING = "stopping after this batch, and saving; Ctrl-C again stops at once, without saving"
N_SHOWN_CLIPS = 8  # on the sheet of training clips in TensorBoard

log = logging.getLogger("main")


def train(
    run: Run,
    train_loader: ClipLoader[ShuffledBatches],
    val_loader: ClipLoader[OrderedBatches] | None,
    interruption: Interruption,
    after_batch: Callable[[], None] | None,
) -> tuple[Mapping[str, Any] | None, int]:
    """Train; return the best epoch with its accuracy, if there was validation, and the last."""
    options = run.options
    _warn_before_training(run, train_loader, val_loader)
    with _closing(train_loader, val_loader):
        videos = digest_of(train_loader.dataset.records)
        start = checked_start(run, videos)
        trainer = _build_trainer(run, train_loader)
        checkpoints = _checkpoint_manager(run, interruption, videos)
        if run.resumed is not None:
            run.run_log.begin()  # moves aside what this run would overwrite
            trainer.best = checkpoints.settle(run.resumed)
        batches: TrainLoader = train_loader
        val_batches: ValLoader | None = val_loader
        if options.cache_features and start.epoch <= options.n_epochs:
            with resume_hint("stopped before training; the same command starts again"):
                batches, val_batches = _cache_features(run, train_loader, val_loader)
        if options.tensorboard and start == Position(1):
            _show_clips(run, train_loader)
        # A first signal saves and ends in fit; the hint is for a second Ctrl-C.
        notice = STOPPING if run.world.is_first else ""
        with resume_hint(lambda: _what_is_saved(run)), interruption.deferred(notice):
            last_epoch = fit(
                trainer,
                batches,
                val_batches,
                start=start,
                n_epochs=options.n_epochs,
                run_log=run.run_log,
                checkpoints=checkpoints,
                after_batch=after_batch,
            )
    if trainer.average is not None:
        run.model.load_state_dict(trainer.average.model.state_dict())
    best: Mapping[str, Any] | None = trainer.best
    options = replace(options, n_epochs=last_epoch)
    log.info("%s", describe_best(options, best))
    if not options.inference:
        log.info("to score whole videos:\n    %s", inference_command(options))
    return best, last_epoch


def _what_is_saved(run: Run) -> str:
    """Say from where a run that did not save can be resumed."""
    positions = {*saved_positions(run.options.result_path).values()} - {UNREADABLE_POSITION}
    if not positions:
        return "stopped at once; nothing had been saved yet"
    n_epochs, n_batches = max(positions)
    after = f"epoch {n_epochs}" + (f" and batch {n_batches} of the next" if n_batches else "")
    return f"stopped at once; --resume_path auto continues after {after}"


def _build_trainer(run: Run, train_loader: ClipLoader[ShuffledBatches]) -> Trainer:
    """Build the trainer, with its saved state if the run is resumed."""
    options, model, device, resumed = run.options, run.model, run.device, run.resumed
    class_weights = _class_weights(run, (record.label for record in train_loader.dataset.records))
    n_updates = -(-len(train_loader) // options.accumulate)
    optim = build_optimization(options, model, device.grad_scaler(), n_updates=n_updates)
    if resumed is not None and run.start.epoch <= options.n_epochs:
        resume_optimization(optim, resumed, options=options, model=model, n_updates=n_updates)
    average = _weight_average(run)
    network = _network(run)
    # Only now: synchronised batch norms have replaced plain ones.
    frozen_norms = frozen_batch_norms(model) if options.freeze_bn else ()
    shape = (options.n_input_channels, options.sample_duration, *[options.sample_size] * 2)
    trainer = Trainer(
        model=model,
        network=network,
        optim=optim,
        device=device,
        n_classes=options.n_classes,
        world=run.world,
        accumulate=options.accumulate,
        class_weights=class_weights,
        label_smoothing=options.label_smoothing,
        augment=_batch_augment(options),
        dropout_seed=options.manual_seed if options.dropout else None,
        frozen_norms=frozen_norms,
        padding_clips=torch.zeros((2, *shape), dtype=torch.uint8),
        average=average,
        early_stopping=options.early_stopping,
        best=None if resumed is None else resumed.best,
    )
    if not (options.cache_features or options.batchnorm_sync):
        _check_single_clips(options, train_loader.batches, trainer)
    return trainer


def _class_weights(run: Run, labels: Iterable[int]) -> Tensor | None:
    """Log how many training videos each class has; return the weights for the loss, if any."""
    counts = class_counts(labels, run.options.n_classes)
    log.info("training videos: %s", describe_counts(counts, run.index.labels))
    if run.options.class_weights != "balanced":
        return None
    weights = balanced_weights(counts)
    return torch.tensor(weights, dtype=torch.float32, device=run.device.torch_device)


def _weight_average(run: Run) -> WeightAverage | None:
    """Return the average that --ema asks for; a resumed run with one continues it."""
    if not run.options.ema:
        return None
    resumed = run.resumed
    saved = None
    if resumed is not None and resumed.trained_state_dict is not None:
        saved = resumed.state_dict
    return WeightAverage(run.model, run.options.ema, saved)


def _network(run: Run) -> Network:
    """Return what steps run: the head on cached features, or the whole model, wrapped if there are
    several processes."""
    options, model, device = run.options, run.model, run.device
    if options.compile:
        model.compile()
    if options.cache_features:
        return head_network(model, FAMILIES[options.model].head, device)
    module = wrap_for_distributed(model, device, run.world, sync_bn=options.batchnorm_sync)
    return clip_network(model, device, module=module)


def _batch_augment(options: Options) -> BatchAugment | None:
    if not (options.mixup or options.cutmix):
        return None
    return BatchAugment(
        options.n_classes, seed=options.manual_seed, mixup=options.mixup, cutmix=options.cutmix
    )


def _check_single_clips(options: Options, batches: ShuffledBatches, trainer: Trainer) -> None:
    """Raise UserError if training would come to a batch too small for batch norm."""
    if not batches.has_single_clip:
        return
    trainer.begin_epoch()  # for its training mode
    assert trainer.padding_clips is not None
    if takes_single_clips(trainer.model, trainer.padding_clips.shape[1:]):
        return
    per_process = f" for at least one of {batches.size} processes" if batches.size > 1 else ""
    raise UserError(
        f"--batch_size {options.batch_size}: of {batches.n_videos} training videos it makes a "
        f"batch of one clip{per_process}, which at --sample_size {options.sample_size} and "
        f"--sample_duration {options.sample_duration} leaves batch norm a single value: choose "
        "another --batch_size"
    )


def _checkpoint_manager(run: Run, interruption: Interruption, videos: str) -> CheckpointManager:
    options = run.options
    return CheckpointManager(
        options.result_path,
        every=options.checkpoint,
        minutes=options.checkpoint_minutes,
        keep=options.keep_checkpoints,
        metadata={
            "arch": options.arch,
            "class_names": list(run.index.labels),
            "options": options.as_plain(),
            "n_nodes": run.world.n_nodes,
            "training_videos": videos,
            "versions": versions(),
        },
        interruption=interruption,
        world=run.world,
    )


def _cache_features(
    run: Run,
    train_loader: ClipLoader[ShuffledBatches],
    val_loader: ClipLoader[OrderedBatches] | None,
) -> tuple[CachedTraining, CachedValidation | None]:
    """Run all clips through the frozen trunk once; return loaders of its output."""
    trunk = make_scorer(without_head(run.model, run.options.model), run.device)
    with _closing(train_loader, val_loader):  # their workers are not needed any more
        cached = CachedTraining(train_loader, trunk, run.options.cache_features)
        return cached, None if val_loader is None else CachedValidation(val_loader, trunk)


def _show_clips(run: Run, train_loader: ClipLoader[ShuffledBatches]) -> None:
    """Put the first training clips, cropped and flipped as the model gets them, on TensorBoard."""
    run.run_log.begin()
    if run.run_log.board is None:
        return
    train_loader.batches.begin(1)
    keys = next(iter(train_loader.batches))[:N_SHOWN_CLIPS]
    samples = [s for key in keys if isinstance(s := train_loader.dataset[key], Sample)]
    if samples:
        names = [
            f"{train_loader.video_id(s.video)} ({run.index.labels[s.label]}), frames "
            + ", ".join(f"{first} to {end - 1}" for first, end in s.segments)
            for s in samples
        ]
        run.run_log.board.clips(torch.cat([s.clips for s in samples]), names)


def _warn_before_training(
    run: Run,
    train_loader: ClipLoader[ShuffledBatches],
    val_loader: ClipLoader[OrderedBatches] | None,
) -> None:
    """Log what looks wrong in the index, and what few videos or no pretrained weights mean."""
    for kind, texts in by_kind(check_index(run.index)).items():
        log.warning("index: %d %s: %s", len(texts), kind, "; ".join(first_few(texts)))
    if val_loader is not None and (n := len(val_loader.dataset)) < FEW:
        text = describe_interval((n + 1) // 2, n)
        log.warning("with only %d validation videos, %s", n, text)
    if run.resumed is None and run.options.pretrain_path is None:
        n_videos, n_nodes = len(train_loader.dataset), run.world.n_nodes
        advice = from_scratch(run.options, n_videos=n_videos, n_nodes=n_nodes)
        if advice is not None:
            log.warning("%s", advice)


@contextmanager
def _closing(*loaders: ClipLoader | None) -> Iterator[None]:
    """End the loaders' processes on leaving, whatever still refers to a loader then, such as the
    traceback of an error."""
    try:
        yield
    finally:
        for loader in loaders:
            if loader is not None:
                loader.close()
