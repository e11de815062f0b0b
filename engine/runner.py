"""One run of main.py: set up, then train, validate, infer and report, as the options ask."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.class_balance import balanced_weights, class_counts, describe_counts
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
from engine.distributed import World
from engine.ema import WeightAverage
from engine.optim import build_optimization
from engine.optim_resume import resume_optimization
from engine.profiler import tracing
from engine.progress import Position
from engine.provenance import versions
from engine.results_folder import locked
from engine.resume_check import check_same_run
from engine.run_inference import infer_and_report
from engine.run_setup import Run, set_up
from engine.scoring import clip_network, head_network, make_scorer
from errors import UserError
from evaluation.metrics import FEW, describe_interval
from fitting import fit
from flags import Role
from model import frozen_batch_norms, takes_single_clips, without_head, wrap_for_distributed
from models.catalog import FAMILIES
from opts import Options, names_with
from training import Trainer
from utils.interruption import Interruption, resume_hint
from utils.text import first_few
from validation import validate

N_SHOWN_CLIPS = 8  # on the sheet of training clips in TensorBoard

log = logging.getLogger("main")


def run(options: Options, interruption: Interruption, world: World) -> None:
    """Read and check everything first, then run the phases. Raises UserError and Interrupted."""
    this_run = set_up(options, world)
    owns_folder = world.is_first and not options.no_train
    with locked(options.result_path) if owns_folder else nullcontext():
        try:
            run_phases(this_run, interruption)
        finally:
            this_run.run_log.close()


def run_phases(run: Run, interruption: Interruption) -> None:
    """Train and validate, or validate once; then infer."""
    options, index, world = run.options, run.index, run.world
    # All loaders first: an error in any of them should come before hours of training.
    train_loader = None if options.no_train else build_train_loader(options, index, world)
    val_loader = None if options.no_val else build_val_loader(options, index, world)
    inference_loader = build_inference_loader(options, index, world) if options.inference else None
    for loader in (train_loader, val_loader, inference_loader):
        if loader is not None:
            loader.probe()
    summary: dict[str, float] = {}
    with _tracing(options, world) as after_batch:
        if train_loader is not None:
            best, last = _train(run, train_loader, val_loader, interruption, after_batch)
            run = replace(run, options=replace(options, n_epochs=last))
            summary |= {f"best_{name}": value for name, value in (best or {}).items()}
        elif val_loader is not None:
            _validate(run, val_loader)
        if inference_loader is not None:
            summary |= infer_and_report(run, inference_loader, interruption, after_batch)
    if summary and run.run_log.board is not None:
        run.run_log.board.outcome(options.as_plain(), summary)


def _train(
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
        start = _checked_start(run, train_loader)
        trainer = _build_trainer(run, train_loader)
        checkpoints = _checkpoint_manager(
            run, interruption, digest_of(train_loader.dataset.records)
        )
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
        # A first signal saves and ends in fit; this is for a second Ctrl-C.
        hint = "stopped at once; --resume_path auto continues from what was saved before"
        with resume_hint(hint), interruption.deferred():
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


def _build_trainer(run: Run, train_loader: ClipLoader[ShuffledBatches]) -> Trainer:
    """Build the trainer, with its saved state if the run is resumed."""
    options, model, device, world = run.options, run.model, run.device, run.world
    counts = class_counts(train_loader.dataset.records, options.n_classes)
    log.info("training videos: %s", describe_counts(counts, run.index.labels))
    class_weights = None
    if options.class_weights == "balanced":
        weights = balanced_weights(counts)
        class_weights = torch.tensor(weights, dtype=torch.float32, device=device.torch_device)
    n_updates = -(-len(train_loader) // options.accumulate)
    optim = build_optimization(options, model, device.grad_scaler(), n_updates=n_updates)
    if run.resumed is not None:
        resume_optimization(optim, run.resumed, options=options, model=model)
    average = None
    if options.ema:
        is_continued = run.resumed is not None and run.resumed.trained_state_dict is not None
        saved = run.resumed.state_dict if run.resumed is not None and is_continued else None
        average = WeightAverage(model, options.ema, saved)
    if options.compile:
        model.compile()
    if options.cache_features:
        network = head_network(model, FAMILIES[options.model].head, device)
    else:
        module = wrap_for_distributed(model, device, world, sync_bn=options.batchnorm_sync)
        network = clip_network(model, device, module=module)
    # Only now: synchronised batch norms have replaced plain ones.
    frozen_norms = frozen_batch_norms(model) if options.freeze_bn else ()
    shape = (options.n_input_channels, options.sample_duration, *[options.sample_size] * 2)
    trainer = Trainer(
        model=model,
        network=network,
        optim=optim,
        device=device,
        n_classes=options.n_classes,
        world=world,
        accumulate=options.accumulate,
        class_weights=class_weights,
        label_smoothing=options.label_smoothing,
        augment=_batch_augment(options),
        dropout_seed=options.manual_seed if options.dropout else None,
        frozen_norms=frozen_norms,
        padding_clips=torch.zeros((2, *shape), dtype=torch.uint8),
        average=average,
        early_stopping=options.early_stopping,
        best=None if run.resumed is None else run.resumed.best,
    )
    if not (options.cache_features or options.batchnorm_sync):
        _check_single_clips(options, train_loader.batches, trainer)
    return trainer


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


def _checked_start(run: Run, train_loader: ClipLoader[ShuffledBatches]) -> Position:
    """Return where training starts.

    Raise UserError if a run that is resumed inside an epoch has other options.
    """
    options, resumed, start = run.options, run.resumed, run.start
    if resumed is not None and start.epoch > options.n_epochs + 1:
        raise UserError(
            f"{resumed.path}: is at epoch {resumed.epoch}, past --n_epochs {options.n_epochs}, "
            "which is the number of the last epoch"
        )
    if start.epoch == options.n_epochs + 1:
        log.info("all %d epochs are trained already", options.n_epochs)
    if resumed is not None:
        extras = resumed.extras
        saved: dict[str, Any] = {f"--{name}": value for name, value in extras.options.items()}
        saved |= {"number of nodes": extras.n_nodes, "training videos": extras.training_videos}
        names = names_with(Role.FIXED)
        here: dict[str, Any] = {f"--{name}": getattr(options, name) for name in names}
        here["number of nodes"] = run.world.n_nodes
        here["training videos"] = digest_of(train_loader.dataset.records)
        check_same_run(resumed.path, saved, here, is_inside_epoch=start.batches > 0)
    if start.batches:
        log.info("continuing in epoch %d after batch %d", start.epoch, start.batches)
    return start


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


def _validate(run: Run, loader: ClipLoader[OrderedBatches]) -> None:
    """Validate the model once."""
    epoch = 0 if run.resumed is None else run.resumed.epoch or 0
    score = make_scorer(run.model, run.device)
    hint = "stopped in validation; the same command starts it again"
    with resume_hint(hint), _closing(loader):
        validate(score, loader, run.device, epoch, run.run_log, world=run.world)


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


@contextmanager
def _tracing(options: Options, world: World) -> Iterator[Callable[[], None] | None]:
    """Trace some steps for --profile; yields what to call after every batch."""
    if not options.profile or not world.is_first:
        yield None
        return
    with tracing(options.result_path / "profile") as after_batch:
        yield after_batch
