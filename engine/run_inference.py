"""The inference phase of a run: scores of whole videos, their accuracy and report."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from datasets.index import UNLABELLED
from datasets.video_dataset import ClipLoader, WindowBatches
from engine.advice import prediction_command
from engine.progress import Stopwatch
from engine.provenance import write_provenance
from engine.run_setup import Run
from evaluation.results import (
    Entries,
    accuracy_of,
    describe,
    few_videos_warning,
    write_results,
)
from inference import infer
from reporting.writing import report_inference
from utils.interruption import Interruption, resume_hint

log = logging.getLogger("main")


def infer_and_report(
    run: Run,
    loader: ClipLoader[WindowBatches],
    interruption: Interruption,
    after_batch: Callable[[], None] | None,
) -> dict[str, float]:
    """Write {subset}.json and its report; return the accuracies by name, if there are labels."""
    options = run.options
    trained = "" if options.no_train else " with --resume_path auto"
    hint = f"stopped in inference; the same command{trained} starts it again"
    with resume_hint(hint), closing(loader):
        interruption.raise_if_requested()
        stopwatch = Stopwatch()
        results = infer(
            run.model,
            loader,
            device=run.device,
            labels=run.index.labels,
            topk=options.output_topk,
            average=not options.inference_no_average,
            world=run.world,
            after_batch=after_batch,
        )
        if run.world.is_first:
            _write_results(run, results, stopwatch.seconds)
    if not run.world.is_first:
        return {}
    accuracies = _log_accuracy(run, loader, results)
    if not options.no_report:
        report_inference(
            options.result_path,
            options.inference_subset,
            results=results,
            index=run.index,
            model=run.model,
            family=options.model,
            device=run.device,
            dataset=loader.dataset,
        )
    if options.input_type == "rgb":  # predict_video reads nothing else
        log.info("to score other videos:\n    %s", _prediction_command(run))
    return accuracies


def _write_results(run: Run, results: Mapping[str, Entries], seconds: float) -> None:
    """Write {subset}.json, and {subset}.run.json with the settings it was made with."""
    run.run_log.begin()
    path = run.options.result_path / f"{run.options.inference_subset}.json"
    write_results(path, results)
    weights, epoch = _inferred_weights(run)
    write_provenance(
        path,
        options=run.options.as_plain(),
        checkpoint=weights,
        epoch=epoch,
        device=str(run.device),
        seconds=seconds,
    )
    log.info("%s: scores of %d videos", path, len(results))


def _log_accuracy(
    run: Run, loader: ClipLoader[WindowBatches], results: Mapping[str, Entries]
) -> dict[str, float]:
    subset = run.options.inference_subset
    if all(record.label == UNLABELLED for record in loader.dataset.records):
        log.info("the videos have no labels: no accuracy")
        return {}
    accuracy = accuracy_of(run.index, results, subset)
    if (warning := few_videos_warning(accuracy, subset)) is not None:
        log.warning("%s", warning)
    for line in describe(accuracy):
        log.info("%s", line)
    return {f"{subset}_top_{k}": share for k, share in accuracy.top.items()}


def _inferred_weights(run: Run) -> tuple[Path, int | None]:
    """Return the file with the weights that inference used, and their epoch."""
    options, resumed = run.options, run.resumed
    if resumed is not None and (options.no_train or run.start.epoch > options.n_epochs):
        return resumed.path, resumed.epoch
    return options.result_path / f"save_{options.n_epochs}.pth", options.n_epochs


def _prediction_command(run: Run) -> str:
    weights, _ = _inferred_weights(run)
    resumed = run.resumed
    if resumed is None or resumed.path != weights:  # written by this run
        return prediction_command(run.options, weights, has_names=True, held=run.options.as_plain())
    found = {} if resumed.identity is None else resumed.identity.values
    has_names = resumed.class_names is not None
    held = found | resumed.options
    return prediction_command(run.options, weights, has_names=has_names, held=held)
