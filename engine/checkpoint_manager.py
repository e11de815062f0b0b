"""Which checkpoints a training run writes, when, and how many it keeps."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint import TRAINED, Checkpoint, load_checkpoint
from engine.checkpoint_fields import Best
from engine.checkpoint_file import read_content, save_checkpoint
from engine.distributed import SINGLE_PROCESS, World
from engine.results_folder import SAVED, is_in
from engine.weights_check import first_not_finite
from errors import UserError
from utils.files import LEFTOVERS
from utils.interruption import Interrupted, Interruption

BEST = "best.pth"
State = Callable[[], dict[str, Any]]

log = logging.getLogger(__name__)


class CheckpointManager:
    """Writes save_{epoch}.pth, best.pth and last.pth to `folder`.

    `every` counts epochs between save_{epoch}.pth, of which the newest `keep` stay (0: all). Inside
    epochs last.pth is written every so many `minutes` (0: never). Each file includes `metadata`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        minutes: float,
        keep: int,
        metadata: Mapping[str, Any],
        interruption: Interruption,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.folder = folder
        self.every = every
        self.minutes = minutes
        self.keep = keep
        self.metadata = dict(metadata)
        self.interruption = interruption
        self.world = world
        self._last_saved = time.monotonic()
        for pattern in LEFTOVERS if world.is_first else ():
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)

    def save_at_end_of_epoch(
        self, state: State, epoch: int, *, is_last: bool, is_best: bool
    ) -> None:
        """Save what is due; end the run after a signal. Raises UserError and Interrupted."""
        content = state() | self.metadata | {"epoch": epoch}
        if is_last or epoch % self.every == 0:
            self._save(f"save_{epoch}.pth", content)
            self._last_saved = time.monotonic()
            self._delete_old(epoch)
        if is_best:  # second: see settle
            self._save(BEST, content)
        asked = self._asked()
        if asked and not is_last:
            if epoch % self.every != 0:
                self._save("last.pth", content)
            raise self._interrupted(asked, f"after epoch {epoch}")

    def settle(self, resumed: Checkpoint) -> Best | None:
        """Finish what the resumed run was killed before: delete old files, write best.pth.

        Returns the best epoch so far, or None if its weights are not to be had.
        """
        best = self._settled_best(resumed) if self.world.is_first else None
        found: Best | None = self.world.gather(best)[0]
        return found

    def _settled_best(self, resumed: Checkpoint) -> Best | None:
        is_ours = is_in(resumed.path, self.folder)
        if is_ours:
            self._delete_old(resumed.epoch or 0)
        best = resumed.best
        if best is None or self._holds(best):
            return best
        if is_ours and best["epoch"] == resumed.epoch and resumed.position is None:
            save_checkpoint(self.folder / BEST, read_content(resumed.path))
            return best
        log.warning(
            "%s: does not hold epoch %d, the best before %s: the best of the epochs from here on "
            "counts",
            self.folder / BEST,
            best["epoch"],
            resumed.path,
        )
        return None

    def _holds(self, best: Best) -> bool:
        """Return whether best.pth is of that epoch."""
        try:
            return load_checkpoint(self.folder / BEST).epoch == best["epoch"]
        except UserError:
            return False

    def save_inside_epoch(self, state: State, position: Mapping[str, Any]) -> None:
        """Save last.pth between two batches if it is due; end the run after a signal.

        `position` has plain values, among them the unfinished "epoch" and its finished "batches".
        Raises Interrupted, and UserError if the disk is full.
        """
        if self.world.size == 1 and not self.is_save_due():
            return
        asked = self._asked()
        # For programs that do not know positions: the last epoch that is complete.
        extra = {"epoch": position["epoch"] - 1, "position": dict(position)}
        self._save("last.pth", state() | self.metadata | extra)
        self._last_saved = time.monotonic()
        if asked:
            where = f"in epoch {position['epoch']}, batch {position['batches']}"
            raise self._interrupted(asked, where)

    def is_save_due(self) -> bool:
        """Return whether this process has a reason to pause; then all must call inside_epoch."""
        return self.interruption.signal_number is not None or self._is_due()

    def _asked(self) -> int:
        """Return the signal that asked any process to end, or 0."""
        return max(self.world.gather(self.interruption.signal_number or 0))

    def _save(self, name: str, content: dict[str, Any]) -> None:
        if not self.world.is_first:
            return
        weights = content.get(TRAINED, content["state_dict"])
        if (weight := first_not_finite(weights)) is not None:
            raise UserError(
                f"{self.folder / name}: not saved: {weight} contains NaN or infinity; try a lower "
                "--learning_rate"
            )
        save_checkpoint(self.folder / name, content)

    def _is_due(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self._last_saved >= self.minutes * 60

    def _interrupted(self, asked: int, where: str) -> Interrupted:
        return Interrupted(
            asked,
            f"stopped {where} and saved in {self.folder}; "
            "continue with the same command and --resume_path auto",
        )

    def _delete_old(self, epoch: int) -> None:
        """Delete all but the newest `keep` of the save_{epoch}.pth up to `epoch`."""
        if self.keep == 0 or not self.world.is_first:
            return
        found = [
            (int(m.group(1)), p) for p in self.folder.iterdir() if (m := SAVED.fullmatch(p.name))
        ]
        ours = sorted(pair for pair in found if pair[0] <= epoch)
        for _, path in ours[: -self.keep]:
            path.unlink(missing_ok=True)
