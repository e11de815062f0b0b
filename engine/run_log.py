"""The logs, options and event files of a run, next to its weights in the results folder.

Nothing is touched before there is a first row to write, so that a run that fails at once leaves
the files of an earlier run unchanged.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.results_folder import holds_training, set_aside, set_later_aside
from errors import writing
from utils.files import write_text
from utils.reading import read_text

if TYPE_CHECKING:
    from engine.tensorboard import Board

COLUMNS = {
    "train": ("epoch", "loss", "acc", "lr"),
    "train_batch": ("epoch", "batch", "iter", "loss", "acc", "lr"),
    "val": ("epoch", "loss", "acc", "video_acc"),
    # Seconds of training, of waiting for clips in it, and of validation. Kept apart from the other
    # logs, which do not depend on the machine's speed.
    "time": ("epoch", "train", "waiting", "validation", "clips_per_second"),
}
MOST_DIGITS = 16


class Resumed(NamedTuple):
    """Where a run continues: after `batches` batches of `epoch`.

    `checkpoint` is a file of the results folder, or None for one from elsewhere.
    """

    epoch: int = 1
    batches: int = 0
    checkpoint: Path | None = None


class RunLog:
    """Writes train.log, train_batch.log, val.log, time.log, opts.json and TensorBoard event files.

    An earlier run's files in the folder, except `inputs`, are moved aside before the first row.

    A run that continues from a checkpoint of the folder keeps the rows up to there; only later
    checkpoints are moved. An evaluation moves nothing, and does not change the logs and
    options of a training run. Only one of several processes writes; the others are silent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, Any],
        labels: Sequence[str] = (),
        start: Resumed = Resumed(),  # noqa: B008  immutable
        tensorboard: bool = False,
        is_silent: bool = False,
        is_evaluation: bool = False,
        inputs: Collection[Path] = (),
    ) -> None:
        self.folder = folder
        self.is_silent = is_silent
        self.start = start
        self._options = dict(options)
        self._labels = labels
        self._tensorboard = tensorboard
        self._is_evaluation = is_evaluation
        self._inputs = inputs
        self._is_read_only = is_evaluation and folder.exists() and holds_training(folder)
        self._begun: set[str] = set()
        self.board: Board | None = None

    def write(self, log: str, row: Mapping[str, Any]) -> None:
        """Append a row to one of COLUMNS, values as str() formats them.

        Raises UserError if the disk is full.
        """
        if self.is_silent:
            return
        self.begin()
        if not self._is_read_only:
            self._append(log, row)
        if self.board is not None and log != "train_batch":
            self.board.scalars(log, row)

    def _append(self, log: str, row: Mapping[str, Any]) -> None:
        path = self.folder / f"{log}.log"
        with writing(path, "the log"):
            if log not in self._begun:
                self._begin_log(log, path)
            with path.open("a", encoding="utf-8") as file:
                file.write(_line([row[column] for column in COLUMNS[log]]))

    def begin(self) -> None:
        """Move an earlier run aside, write opts.json and open the event files, once.

        Raises UserError if the disk is full.
        """
        if self.is_silent or "opts" in self._begun:
            return
        self._begun.add("opts")
        if not self._is_evaluation:
            self._move_earlier_run()
        if not self._is_read_only:
            text = json.dumps(self._options, indent=1, ensure_ascii=False, allow_nan=False)
            write_text(self.folder / "opts.json", text + "\n")
        if self._tensorboard:
            from engine.tensorboard import Board

            self.board = Board(self.folder, labels=self._labels, purge_from=self.start.epoch)

    def _move_earlier_run(self) -> None:
        epoch, batches, checkpoint = self.start
        if checkpoint is None:
            set_aside(self.folder, inputs=self._inputs)
        else:
            set_later_aside(self.folder, checkpoint, (epoch - 1, batches))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _begin_log(self, log: str, path: Path) -> None:
        self._begun.add(log)
        header = _line(COLUMNS[log])
        if not path.exists():
            path.write_text(header, encoding="utf-8")
        else:
            n_batches = self.start.batches if log == "train_batch" else 0
            kept = _rows_before(path, (self.start.epoch, n_batches), len(COLUMNS[log]))
            write_text(path, header + kept)


def _rows_before(path: Path, position: tuple[int, int], n_columns: int) -> str:
    """Return the rows of earlier epochs, and of that epoch up to the batch of `position`.

    Columns that older versions did not write stay empty; a last row cut short by a full disk goes.
    """
    epoch, n_batches = position
    whole = read_text(path, "log", errors="replace").rpartition("\n")[0]
    rows = [line.split("\t") for line in whole.split("\n")[1:]]
    kept = [row for row in rows if _is_before(row, epoch, n_batches)]
    return "".join(_line([*row, *[""] * (n_columns - len(row))]) for row in kept)


def _is_before(row: list[str], epoch: int, n_batches: int) -> bool:
    number = _natural(row[0])
    if number is None or number > epoch:
        return False
    batch = _natural(row[1]) if len(row) > 1 else None
    return number < epoch or (n_batches > 0 and batch is not None and batch <= n_batches)


def _natural(text: str) -> int | None:
    """Return the number of an epoch or batch; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < MOST_DIGITS else None


def _line(values: Any) -> str:
    return "\t".join(map(str, values)) + "\n"
