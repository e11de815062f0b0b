"""The phases of a run: training with validation, inference."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.class_balance import balanced_weights, class_counts, describe_counts
from datasets.compact import digest_of
from datasets.feature_cache import CachedTraining, CachedValidation
from datasets.index import UNLABELLED, Index
from datasets.index_checks import by_kind, check_index, first_few
from datasets.video_dataset import (
    ClipLoader,
    OrderedBatches,
    Sample,
    ShuffledBatches,
    TrainLoader,
    ValLoader,
)
from engine.advice import describe_best, from_scratch, inference_command, prediction_command
from engine.checkpoint import Checkpoint
from engine.checkpoint_manager import CheckpointKeeper
from engine.device import Device, Scorer, describe_device
from engine.distributed import World
from engine.profiler import tracing
from engine.progress import Position, Stopwatch
from engine.provenance import write_provenance
from engine.resume_check import DECIDE_CLIPS, check_same_run
from engine.run_log import RunLog
from errors import UserError
from evaluation.metrics import FEW, could_be
from evaluation.results import Entries, accuracy_of, caution, describe, write_results
from inference import infer
from model import without_head
from models.catalog import FAMILIES
from opts import Options
from reporting.writing import report_inference
from trainer import Trainer, build_trainer
from training import fit, validate
from utils.interruption import Interruption, going_on

SHOWN_CLIPS = 8  # of the sheet in TensorBoard

log = logging.getLogger("main")


@dataclass(frozen=True)
class Parts:
    """What all phases of a run use."""

    options: Options
    index: Index
    model: nn.Module
    device: Device
    world: World
    run_log: RunLog


def run_phases(parts: Parts, checkpoint: Checkpoint | None, interruption: Interruption) -> None:
    """Train and validate, or validate once; then infer. `checkpoint` is what is resumed."""
    options, index, world = parts.options, parts.index, parts.world
    # All loaders first: what is wrong with any of them is told before hours of training.
    train_loader = None if options.no_train else build_train_loader(options, index, world)
    val_loader = None if options.no_val else build_val_loader(options, index, world)
    inference_loader = build_inference_loader(options, index, world) if options.inference else None
    for loader in (train_loader, val_loader, inference_loader):
        if loader is not None:
            loader.probe()
    results: dict[str, float] = {}
    with _tracing(options, world) as on_batch:
        if train_loader is not None:
            _tell_doubts(parts, train_loader, val_loader, is_fresh=checkpoint is None)
            with _closing(train_loader, val_loader):
                best = _train(parts, train_loader, val_loader, checkpoint, interruption, on_batch)
            results |= {f"best_{name}": value for name, value in (best or {}).items()}
            log.info("%s", describe_best(options, best))
            if inference_loader is None:
                log.info("whole videos are scored by\n    %s", inference_command(options))
        elif val_loader is not None:
            assert checkpoint is not None
            epoch = checkpoint.epoch or 0
            again = "stopped in validation; the same command starts it again"
            with going_on(again), _closing(val_loader):
                validate(parts.model, val_loader, parts.device, epoch, parts.run_log, world=world)
        if inference_loader is not None:
            trained = "" if options.no_train else " with --resume_path auto"
            again = f"stopped in inference; the same command{trained} starts it again"
            with going_on(again), _closing(inference_loader):
                interruption.end_if_asked()
                scores = _infer(parts, inference_loader, checkpoint, on_batch)
            results |= _tell_results(parts, inference_loader, scores)
            _tell_how_to_predict(options, checkpoint)
    if results and parts.run_log.board is not None:
        parts.run_log.board.outcome(options.as_plain(), results)


@contextmanager
def _closing(*loaders: ClipLoader | None) -> Iterator[None]:
    """End the loaders' processes when their use ends: whatever still refers to a loader then, such
    as the traceback of an error, would keep them alive."""
    try:
        yield
    finally:
        for loader in loaders:
            if loader is not None:
                loader.close()


def _train(
    parts: Parts,
    clips: ClipLoader[ShuffledBatches],
    val_clips: ClipLoader[OrderedBatches] | None,
    checkpoint: Checkpoint | None,
    interruption: Interruption,
    on_batch: Callable[[], None] | None,
) -> dict[str, float] | None:
    """Train to the last epoch; the best epoch and its accuracy, if there was validation."""
    options = parts.options
    counts = class_counts(clips.dataset.records, options.n_classes)
    log.info("training videos: %s", describe_counts(counts, parts.index.labels))
    weights = balanced_weights(counts) if options.class_weights == "balanced" else None
    trainer = build_trainer(
        options, parts.model, parts.device, checkpoint, parts.world, class_weights=weights
    )
    if not (options.cache_features or options.batchnorm_sync):
        _check_lone_clips(options, clips.batches, trainer)
    settings = _settings(options, clips, parts.world.n_nodes)
    start = _start(options, checkpoint, settings)
    keeper = _keeper(parts, interruption, training_videos=settings["training videos"])
    if checkpoint is not None:
        parts.run_log.begin()  # which moves what the resumed run would overwrite
        keeper.mend(checkpoint)
    train_loader: TrainLoader = clips
    val_loader: ValLoader | None = val_clips
    scorer = None
    if options.cache_features and start.epoch <= options.n_epochs:
        with going_on("stopped before training; the same command starts again"):
            with _closing(clips, val_clips):  # no clip is asked for again
                train_loader, val_loader, scorer = _cached(parts, trainer, clips, val_clips)
    if options.tensorboard and start == Position(1):
        _show_clips(parts, clips)
    at_once = "stopped at once; --resume_path auto goes on from what was saved before"
    with going_on(at_once), interruption.deferred():
        fit(
            trainer,
            train_loader,
            val_loader,
            start=start,
            n_epochs=options.n_epochs,
            n_classes=options.n_classes,
            run_log=parts.run_log,
            keeper=keeper,
            accumulate=options.accumulate,
            scorer=scorer,
            on_batch=on_batch,
        )
    return None if trainer.best is None else dict(trainer.best)  # type: ignore[arg-type]


def _check_lone_clips(options: Options, batches: ShuffledBatches, trainer: Trainer) -> None:
    """Raises UserError where training would come to a batch that batch norm can't take."""
    if not batches.has_lone_clip or trainer.takes_lone_clips():
        return
    per_process = f" for one of {batches.size} processes" if batches.size > 1 else ""
    raise UserError(
        f"--batch_size {options.batch_size}: of {batches.n_videos} training videos it makes a "
        f"batch of one clip{per_process}, which at --sample_size {options.sample_size} and "
        f"--sample_duration {options.sample_duration} leaves batch norm a single value: choose "
        "another --batch_size"
    )


def _show_clips(parts: Parts, clips: ClipLoader[ShuffledBatches]) -> None:
    """The first training clips, cropped and flipped as the model will get them."""
    parts.run_log.begin()
    if parts.run_log.board is None:
        return
    clips.batches.begin(1)
    keys = next(iter(clips.batches))[:SHOWN_CLIPS]
    samples = [s for key in keys if isinstance(s := clips.dataset[key], Sample)]
    if samples:
        names = [
            f"{clips.video_id(s.video)} ({parts.index.labels[s.label]}), frames "
            + ", ".join(f"{first} to {end - 1}" for first, end in s.segments)
            for s in samples
        ]
        parts.run_log.board.clips(torch.cat([s.clips for s in samples]), names)


def _cached(
    parts: Parts,
    trainer: Trainer,
    clips: ClipLoader[ShuffledBatches],
    val_clips: ClipLoader[OrderedBatches] | None,
) -> tuple[CachedTraining, CachedValidation | None, Callable[[nn.Module], Scorer]]:
    """Features in the place of clips; steps and validation then go through the head alone."""
    options, device = parts.options, parts.device
    trunk = device.scorer(without_head(parts.model, options.model))
    head = parts.model.get_submodule(FAMILIES[options.model].head)
    cached = CachedTraining(clips, trunk, options.cache_features)
    cached_val = None if val_clips is None else CachedValidation(val_clips, trunk)
    trainer.forward, trainer.inputs = head, device.features
    return cached, cached_val, lambda model: device.head_scorer(head)


@contextmanager
def _tracing(options: Options, world: World) -> Iterator[Callable[[], None] | None]:
    if not options.profile or not world.is_first:
        yield None
        return

    assert options.result_path is not None
    with tracing(options.result_path / "profile") as on_batch:
        yield on_batch


def _tell_doubts(
    parts: Parts,
    clips: ClipLoader[ShuffledBatches],
    val_clips: ClipLoader[OrderedBatches] | None,
    *,
    is_fresh: bool,
) -> None:
    """What is odd before training; util_scripts.check_dataset looks at the frames too."""
    for kind, texts in by_kind(check_index(parts.index)).items():
        log.warning("index: %d %s: %s", len(texts), kind, "; ".join(first_few(texts)))
    if val_clips is not None and (n := len(val_clips.dataset)) < FEW:
        text = could_be((n + 1) // 2, n)
        log.warning("%d validation videos are few: an accuracy of %s", n, text)
    if is_fresh and parts.options.pretrain_path is None:
        n, n_nodes = len(clips.dataset), parts.world.n_nodes
        if (advice := from_scratch(parts.options, n_videos=n, n_nodes=n_nodes)) is not None:
            log.warning("%s", advice)


def position_of(checkpoint: Checkpoint | None) -> Position:
    """Where training goes on."""
    if checkpoint is None:
        return Position(1)
    if checkpoint.position is not None:
        return Position(**checkpoint.position)
    return Position((checkpoint.epoch or 0) + 1)


def _start(options: Options, checkpoint: Checkpoint | None, here: Mapping[str, Any]) -> Position:
    """Where training goes on. `here` are the settings that decide its batches."""
    start = position_of(checkpoint)
    if checkpoint is not None and start.epoch > options.n_epochs + 1:
        raise UserError(
            f"{checkpoint.path}: is at epoch {checkpoint.epoch}, past --n_epochs "
            f"{options.n_epochs}, which is the number of the last epoch"
        )
    if start.epoch == options.n_epochs + 1:
        log.info("all %d epochs are trained already", options.n_epochs)
    if checkpoint is not None:
        extras = checkpoint.extras
        saved: dict[str, Any] = {f"--{name}": value for name, value in extras.options.items()}
        saved |= {"number of nodes": extras.n_nodes, "training videos": extras.training_videos}
        check_same_run(checkpoint.path, saved, here, is_inside_epoch=start.batches > 0)
    if start.batches:
        log.info("going on in epoch %d after batch %d", start.epoch, start.batches)
    return start


def _settings(options: Options, clips: ClipLoader[ShuffledBatches], n_nodes: int) -> dict[str, Any]:
    """What decides the batches of training, by the names that messages use."""
    flags = {f"--{name}": getattr(options, name) for name in DECIDE_CLIPS}
    return flags | {"number of nodes": n_nodes, "training videos": digest_of(clips.dataset.records)}


def _keeper(parts: Parts, interruption: Interruption, *, training_videos: str) -> CheckpointKeeper:
    options = parts.options
    assert options.result_path is not None
    return CheckpointKeeper(
        options.result_path,
        every=options.checkpoint,
        minutes=options.checkpoint_minutes,
        keep=options.keep_checkpoints,
        about={
            "arch": options.arch,
            "class_names": list(parts.index.labels),
            "options": options.as_plain(),
            "n_nodes": parts.world.n_nodes,
            "training_videos": training_videos,
        },
        interruption=interruption,
        world=parts.world,
    )


def _infer(
    parts: Parts,
    loader: ClipLoader,
    checkpoint: Checkpoint | None,
    on_batch: Callable[[], None] | None,
) -> dict[str, Entries]:
    """Write {subset}.json, and beside it what made it."""
    options, watch = parts.options, Stopwatch()
    assert options.result_path is not None
    results = infer(
        parts.model,
        loader,
        device=parts.device,
        labels=parts.index.labels,
        topk=options.output_topk,
        average=not options.inference_no_average,
        world=parts.world,
        on_batch=on_batch,
    )
    if parts.world.is_first:
        parts.run_log.begin()
        path = options.result_path / f"{options.inference_subset}.json"
        write_results(path, results)
        weights, epoch = _weights(options, checkpoint)
        write_provenance(
            path,
            options=options.as_plain(),
            checkpoint=weights,
            epoch=epoch,
            device=describe_device(parts.device),
            seconds=watch.seconds,
        )
        log.info("%s: scores of %d videos", path, len(results))
    return results


def _weights(options: Options, checkpoint: Checkpoint | None) -> tuple[Path, int | None]:
    """The file that holds what inference computes with, and its epoch."""
    if checkpoint is not None and (
        options.no_train or position_of(checkpoint).epoch > options.n_epochs
    ):
        return checkpoint.path, checkpoint.epoch
    assert options.result_path is not None
    return options.result_path / f"save_{options.n_epochs}.pth", options.n_epochs


def _tell_how_to_predict(options: Options, checkpoint: Checkpoint | None) -> None:
    if options.input_type != "rgb":
        return  # which predict_video reads alone
    weights, _ = _weights(options, checkpoint)
    file = None if checkpoint is None or checkpoint.path != weights else checkpoint
    has_names = file is None or file.class_names is not None
    command = prediction_command(options, weights, has_names=has_names)
    log.info("other videos are scored by\n    %s", command)


def _tell_results(
    parts: Parts, loader: ClipLoader, results: dict[str, Entries]
) -> dict[str, float]:
    """Tell the accuracy, which is returned by name where it is known, and write the report."""
    options, index = parts.options, parts.index
    if not parts.world.is_first:
        return {}
    accuracy = None
    if all(record.label == UNLABELLED for record in loader.dataset.records):
        log.info("the videos have no labels: no accuracy")
    else:
        accuracy = accuracy_of(index, results, options.inference_subset)
        if (few := caution(accuracy, options.inference_subset)) is not None:
            log.warning("%s", few)
        for line in describe(accuracy):
            log.info("%s", line)
    if not options.no_report:
        assert options.result_path is not None
        report_inference(
            options.result_path,
            options.inference_subset,
            results=results,
            index=index,
            model=parts.model,
            family=options.model,
            device=parts.device,
            dataset=loader.dataset,
        )
    top = {} if accuracy is None else accuracy.top
    return {f"{options.inference_subset}_top_{k}": share for k, share in top.items()}
