"""Write a report, of a results folder or right after inference."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from datasets.index import Index
from datasets.video_dataset import VideoDataset
from engine.device import Device
from engine.provenance import read_provenance
from evaluation.results import Entries
from reporting.facts import REPORT_NAME, Facts, facts_of
from reporting.page import render
from reporting.strips import Viewer, make_strips
from utils.files import write_text

N_AFTER_INFERENCE = 4  # film strips per group; few, because they take time without a GPU

log = logging.getLogger("main")


def write_report(
    path: Path, facts: Facts, *, strips: Mapping[str, Any], positive: str | None = None
) -> None:
    """Write the page. Raises UserError if it can't be written, or `positive` is not a class."""
    write_text(path, render(facts, strips=strips, positive=positive), errors="backslashreplace")


def report_inference(
    folder: Path,
    subset: str,
    *,
    results: Mapping[str, Entries],
    index: Index,
    model: nn.Module,
    family: str,
    device: Device,
    dataset: VideoDataset,
) -> None:
    """Write the report of results that were just written to `folder`.

    An error is only logged, in one line: the results themselves are complete.
    """
    try:
        provenance = read_provenance(folder / f"{subset}.json")
        facts = facts_of(folder, subset, results, index, provenance)
        viewer = Viewer(model, device, family)
        strips = make_strips(facts, N_AFTER_INFERENCE, dataset=dataset, viewer=viewer)
        write_report(folder / REPORT_NAME, facts, strips=strips)
    except Exception as error:
        text = " ".join(str(error).split()) or "no reason given"
        log.warning("no report: %s: %s", type(error).__name__, text)
    else:
        log.info("report: %s", folder / REPORT_NAME)
