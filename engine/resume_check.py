"""Whether a resumed run is still the one that was interrupted: the same clips in the same order."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from utils.reading import shown

# The flags that decide which clips a training step sees, and how they count.
DECIDE_CLIPS = (
    "batch_size",
    "accumulate",
    "manual_seed",
    "sample_size",
    "sample_duration",
    "sample_t_stride",
    "train_crop",
    "train_crop_min_scale",
    "train_crop_min_ratio",
    "train_t_crop",
    "no_hflip",
    "colorjitter",
    "input_type",
    "class_weights",
    "freeze_bn",
    "cache_features",
)

log = logging.getLogger(__name__)


def check_same_run(
    path: Path, saved: Mapping[str, Any], here: Mapping[str, Any], *, is_inside_epoch: bool
) -> None:
    """Compare the settings that a checkpoint was saved with to those of this run.

    Raises UserError for one that differs inside an epoch, whose batches it would mix; at the end
    of one it is logged. Settings that the file does not hold are passed over.
    """
    for name, value in here.items():
        before = saved.get(name)
        if before is None or before == value:
            continue
        if is_inside_epoch:
            raise UserError(
                f"{name} {shown(value)}: {path} was saved inside an epoch with {shown(before)}; "
                "resume with that, or from a save_{epoch}.pth"
            )
        log.warning("%s %s: %s was trained with %s so far", name, shown(value), path, shown(before))
