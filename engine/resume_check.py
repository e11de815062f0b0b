"""Check that a resumed run sees the same clips in the same order as before."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from utils.reading import shown

log = logging.getLogger(__name__)


def check_same_run(
    path: Path, saved: Mapping[str, Any], here: Mapping[str, Any], *, is_inside_epoch: bool
) -> None:
    """Compare the settings `saved` in a checkpoint with those of this run.

    A setting that differs raises UserError inside an epoch, whose batches it would change, and is
    logged at the end of one. Settings that the file does not hold are ignored.
    """
    for name, value in here.items():
        before = saved.get(name)
        if before is None or before == value:
            continue
        if is_inside_epoch:
            raise UserError(
                f"{name} {shown(value)}: {path} was saved inside an epoch with {shown(before)}; "
                "resume with that value, or from a save_{epoch}.pth"
            )
        log.warning("%s %s: %s was trained with %s", name, shown(value), path, shown(before))
