"""Trace some training steps for TensorBoard's profiler or ui.perfetto.dev."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

SKIPPED, WARMED, TRACED = 2, 2, 6  # steps

log = logging.getLogger(__name__)


@contextmanager
def tracing(folder: Path | None) -> Iterator[Callable[[], None] | None]:
    """Yield a function to call after every step, and write the trace of some steps to `folder`;
    without a folder yield None."""
    if folder is None:
        yield None
        return

    def write(profiler: profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{profiler.step_num}.pt.trace.json"
        profiler.export_chrome_trace(str(path))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        log.info("%s: trace written; the operators that took most time:", path)
        table = profiler.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=40)
        log.info("%s", table)

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    steps = schedule(wait=SKIPPED, warmup=WARMED, active=TRACED, repeat=1)
    with profile(activities=activities, schedule=steps, on_trace_ready=write) as profiler:
        yield profiler.step
    if profiler.step_num <= SKIPPED + WARMED:
        text = "--profile: no trace: it begins at step %d, and there were only %d"
        log.warning(text, SKIPPED + WARMED + 1, profiler.step_num)
