"""Check that the class names given for a checkpoint are those of its outputs."""

import logging
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from engine.checkpoint import Checkpoint
from errors import UserError

# Outputs of the original's released files: Kinetics-700 alone, with STAIR-Actions, Moments in Time,
# or both.
N_KINETICS_700 = 700
WITH_KINETICS_700 = (700, 800, 1039, 1139)

log = logging.getLogger(__name__)


def check_class_names(checkpoint: Checkpoint, labels: Sequence[str], index: Path) -> None:
    """Raise UserError unless the file's class names are the index's, in the same order.

    Otherwise a trained head's outputs mean something else, and accuracy falls to chance without
    any other sign. The original's files have no names.
    """
    names = checkpoint.class_names
    if names is None:
        _warn_of_alphabetical_order(checkpoint, labels, index)
        return
    for number, (saved, given) in enumerate(zip_longest(names, labels)):
        if _plain(saved) != _plain(given):
            raise UserError(
                f"{checkpoint.path}: class {number} is {saved!r} in the checkpoint and {given!r} "
                f"in {index}: use the index it was trained with, or --pretrain_path for new classes"
            )


def _plain(name: str | None) -> str | None:
    """Accents may be written in two ways that look the same: as NFC in new indexes."""
    return None if name is None else unicodedata.normalize("NFC", name)


def _warn_of_alphabetical_order(
    checkpoint: Checkpoint, labels: Sequence[str], source: Path
) -> None:
    """Warn where `labels` name the classes of Kinetics-700 in alphabetical order for a checkpoint
    of the original, which has them in the order in which the authors' list first mentions them."""
    identity = checkpoint.identity
    if identity is None or checkpoint.is_ours or checkpoint.naming is not None:
        return
    names = [name.casefold() for name in labels[:N_KINETICS_700]]
    is_whole = identity.n_classes in WITH_KINETICS_700 and len(names) == N_KINETICS_700
    if is_whole and names == sorted(names):
        log.warning(
            "%s: the class names are in alphabetical order; the released Kinetics-700 checkpoints "
            "of the original have another one (docs/models.md), so all names may be wrong",
            source,
        )
