"""The videos of a subset that have frames."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.frame_locations import UNCOUNTED, FrameLocator, segment_fault
from datasets.index import Index, canonical_subset
from datasets.records import CompactList, VideoRecord, make_record
from errors import UserError
from utils.reading import shown_name
from utils.text import first_few

MAX_REASONS = 3  # omitted videos that an error names
# In larger indexes, folders are only looked up in the listing of their label: opening each would
# take a minute on a disk and an hour over a network. An empty folder is then an error on reading.
MAX_OPENED = 50_000

log = logging.getLogger(__name__)


class Selection(NamedTuple):
    """The usable videos of a subset, and the omitted ones as (video id, reason)."""

    records: Sequence[VideoRecord]
    omitted: list[tuple[str, str]]


def select_videos(
    index: Index, subset: str, frames_dir: Path, *, file_type: str = "jpg"
) -> Selection:
    """Select the videos of a subset that have frames, in the index's order.

    Raises UserError if `frames_dir` is missing or no video of the subset can be used.
    """
    subset = canonical_subset(subset)
    if not frames_dir.is_dir():
        raise UserError(f"{frames_dir}: no such folder of frames")
    locator, frames = FrameLocator(file_type), str(frames_dir)
    _warn_outside(index, subset, frames)
    open_folders = not locator.is_files and len(index.entries) <= MAX_OPENED
    omitted: list[tuple[str, str]] = []

    def usable() -> Iterator[tuple[Any, ...]]:
        for entry in index.entries.of_subset(subset):
            path, exists = locator.locate(index, entry, frames)
            fault = segment_fault(entry.segment, file_type)
            if entry.segment is None or fault == UNCOUNTED:
                omitted.append((entry.video_id, UNCOUNTED))
                continue
            if fault is not None:
                how = f"check_dataset {index.path} {frames_dir} --file_type {file_type} --fix"
                raise UserError(
                    f"{index.path}: {shown_name(entry.video_id)}: {fault}; to correct all: "
                    f"python -m util_scripts.{how}"
                )
            if exists:
                reason = _why_unusable(path) if open_folders else None
            else:
                reason = _why_absent(path, locator.what)
            if reason is None:
                first, end = entry.segment
                yield entry.video_id, path, first, end - 1, entry.label
            else:
                omitted.append((entry.video_id, reason))

    records = CompactList(usable(), make_record)
    refuse_empty(index.path, subset, records, omitted)
    return Selection(records, omitted)


def _warn_outside(index: Index, subset: str, frames: str) -> None:
    """Warn once if a video_path leads out of the folder of frames, which the original allows."""
    inside = os.path.join(os.path.abspath(frames), "")
    outside = [
        entry.video_path
        for entry in index.entries.of_subset(subset)
        if entry.video_path is not None
        and not os.path.abspath(os.path.join(frames, entry.video_path)).startswith(inside)
    ]
    if outside:
        log.warning(
            "%s: video_path leads out of %s for %d %s videos, which are read from there (first: "
            "%s)", index.path, frames, len(outside), subset, shown_name(outside[0]),
        )  # fmt: skip


def refuse_empty(
    path: Path, subset: str, records: Sequence[VideoRecord], omitted: Sequence[tuple[str, str]]
) -> None:
    """Raise UserError if a subset has no usable video."""
    if records:
        return
    if not omitted:
        hint = "; --no_val trains without" if subset == "validation" else ""
        raise UserError(f"{path}: has no {subset} videos{hint}")
    reasons = [f"{video_id}: {reason}" for video_id, reason in omitted]
    raise UserError(
        f"{path}: none of its {len(omitted)} {subset} videos can be used: "
        f"{'; '.join(first_few(reasons, MAX_REASONS))}"
    )


def _why_absent(path: str, what: str) -> str:
    try:
        os.stat(path)
    except PermissionError as error:
        return f"{path} can't be read: {error.strerror}"
    except (OSError, ValueError):  # ValueError: a NUL character in the name
        pass
    return f"no {what} {path}"


def _why_unusable(path: str) -> str | None:
    try:
        with os.scandir(path) as items:
            return None if next(items, None) else f"no frames in {path}"
    except OSError as error:
        return f"{path} can't be read: {error}"
