"""TensorBoard event files of a run: scalars, pictures, and its options with their results."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from errors import writing
from utils.files import as_utf8
from utils.plotting import fonts_for, literal_text, tick_names
from utils.reading import shown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED = 40  # classes whose names fit beside a confusion matrix
SHOWN_FRAMES = 8  # of each clip of the sheet, evenly spaced

log = logging.getLogger(__name__)


class Board:
    """An event file in `folder`; an interrupted run's events from epoch `purge_from` on go.

    `labels` name the classes. On a full disk everything here raises UserError.
    """

    def __init__(self, folder: Path, *, labels: Sequence[str], purge_from: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.labels = labels
        self._has_names = False
        self._folder = folder
        with self._writing():
            self._writer = SummaryWriter(str(folder), purge_step=purge_from)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._folder, "TensorBoard's events")

    def scalars(self, log: str, row: Mapping[str, Any]) -> None:
        """Add every value of a log's row except its epoch, as LOG/COLUMN."""
        with self._writing():
            for column, value in row.items():
                if column != "epoch":
                    self._writer.add_scalar(f"{log}/{column}", value, row["epoch"])
            self._writer.flush()

    def confusion(self, matrix: np.ndarray, epoch: int) -> None:
        """Draw a confusion matrix, (K, K): a row for each class, a column for each prediction."""
        try:
            with literal_text():
                picture = pixels_of(confusion_figure(matrix, self.labels))
        except Exception as error:  # a picture must never end a run
            log.warning(
                "TensorBoard's confusion matrix is left out: %s", " ".join(str(error).split())
            )
            return
        with self._writing():
            self._writer.add_image("val/confusion", picture, epoch, dataformats="HWC")
            if not self._has_names:
                self._writer.add_text("val/classes", _listed(self.labels), epoch)
                self._has_names = True

    def clips(self, clips: Tensor, names: Sequence[str]) -> None:
        """Add a sheet of training clips, uint8 (N, C, T, H, W), one per row."""
        with self._writing():
            self._writer.add_image("train/clips", sheet(clips), 1, dataformats="HWC")
            self._writer.add_text("train/clips", _listed(names), 1)
            self._writer.flush()

    def outcome(self, options: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """Add the run's options and results: a row in TensorBoard's table of runs."""
        plain = {
            k: v if isinstance(v, bool | int | float) else as_utf8(str(v))
            for k, v in options.items()
        }
        named = {f"result/{name}": value for name, value in results.items()}
        with self._writing():
            self._writer.add_hparams(plain, named, run_name=".")

    def close(self) -> None:
        with self._writing():
            self._writer.close()


def sheet(clips: Tensor) -> np.ndarray:
    """Arrange uint8 (N, C, T, H, W) as (N x H, frames x W, 3), some frames of each clip in a row.

    Of flow, two channels, the first is shown.
    """
    pixels = clips if clips.shape[1] == 3 else clips[:, :1].expand(-1, 3, -1, -1, -1)
    n_frames = pixels.shape[2]
    shown = np.linspace(0, n_frames - 1, min(SHOWN_FRAMES, n_frames)).round().astype(int)
    rows = pixels[:, :, shown].permute(0, 3, 2, 4, 1)  # (N, H, T, W, C)
    n, height, n_shown, width, channels = rows.shape
    return rows.reshape(n * height, n_shown * width, channels).numpy()


def _listed(names: Sequence[str]) -> str:
    """Return a numbered Markdown list, as code, so that names are not read as markup."""
    return "\n".join(f"    {number}. {shown_name(name)}" for number, name in enumerate(names, 1))


def pixels_of(figure: "Figure") -> np.ndarray:
    """Render a figure to uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def confusion_figure(matrix: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Draw the shares of each true class, (K, K), with counts and names if they fit.

    Classes are numbered from 1 if no installed font has the characters of their names.
    """
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.5 * len(matrix), 4, 14))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(matrix) <= MOST_NAMED:
        names = tick_names([*labels, *("?" for _ in range(len(matrix) - len(labels)))])
        fonts = fonts_for(names)
        families = None if fonts is None else [font.family for font in fonts]
        if fonts is None:
            names = [str(number) for number in range(1, len(matrix) + 1)]
            axes.set(xlabel="predicted (numbers of the text val/classes)")
        axes.set_xticks(range(len(matrix)), names, rotation=90, fontfamily=families)
        axes.set_yticks(range(len(matrix)), names, fontfamily=families)
    if len(matrix) <= MOST_NAMED // 2:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    return figure
