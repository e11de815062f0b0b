"""One run of main.py: set up, then train, validate, infer and report, as the options ask."""

from contextlib import closing, nullcontext
from dataclasses import replace

from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.video_dataset import ClipLoader, OrderedBatches
from engine.distributed import World
from engine.profiler import tracing
from engine.run_inference import infer_and_report
from engine.run_setup import Run, set_up
from engine.run_training import train
from engine.scoring import make_scorer
from opts import Options
from utils.interruption import Interruption, resume_hint
from utils.locks import locked
from validation import validate


def run(options: Options, interruption: Interruption, world: World) -> None:
    """Read and check everything first, then run the phases. Raises UserError and Interrupted."""
    this_run = set_up(options, world)
    owns_folder = world.is_first and not options.no_train
    with locked(options.result_path, flag="--result_path") if owns_folder else nullcontext():
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
    traced = options.profile and world.is_first
    trace_folder = options.result_path / "profile" if traced else None
    summary: dict[str, float] = {}
    with tracing(trace_folder) as after_batch:
        if train_loader is not None:
            best, last = train(run, train_loader, val_loader, interruption, after_batch)
            run = replace(run, options=replace(options, n_epochs=last))
            summary |= {f"best_{name}": value for name, value in (best or {}).items()}
        elif val_loader is not None:
            _validate(run, val_loader)
        if inference_loader is not None:
            summary |= infer_and_report(run, inference_loader, interruption, after_batch)
    if summary and run.run_log.board is not None:
        run.run_log.board.outcome(options.as_plain(), summary)


def _validate(run: Run, loader: ClipLoader[OrderedBatches]) -> None:
    """Validate the model once."""
    epoch = 0 if run.resumed is None else run.resumed.epoch or 0
    score = make_scorer(run.model, run.device)
    hint = "stopped in validation; the same command starts it again"
    with resume_hint(hint), closing(loader):
        validate(score, loader, run.device, epoch, run.run_log, world=run.world)
