"""Sinks that tell the page about scores as they are computed."""

import numpy as np
from PIL import Image
from torch import Tensor

from errors import UserError
from predict.predictions import ScoredWindow, VideoResult
from reporting.strips import JPEG_QUALITY
from serving.hub import RUNNING, Task

DIGITS = 4  # of scores
N_SCORES = 20  # labels of a window whose scores are sent; the files have all of them
N_MEANS = 5  # labels whose mean is sent


class Publisher:
    """Sends each window to the page: place, highest scores, and the highest means up to it. Its
    middle frame is stored for the page to fetch."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._total = np.zeros(0)  # (K,) summed over the windows
        self._n_windows = 0

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        assert window.clip is not None
        self._save_picture(window.clip)
        self._total = window.scores + (self._total if self._n_windows else 0)
        self._n_windows += 1
        content = {
            "start": round(window.start, 3),
            "end": round(window.end, 3),
            "scores": highest(window.scores, N_SCORES),
        }
        means = highest(self._total / self._n_windows, N_MEANS)
        self._task.publish(RUNNING, window=content, means=means)

    def _save_picture(self, clip: Tensor) -> None:
        path = self._task.video.folder / f"{self._n_windows}.jpg"
        try:
            _middle(clip).save(path, "JPEG", quality=JPEG_QUALITY)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror or error}") from None

    def end(self, result: VideoResult) -> None:
        content = {
            "frames": result.frames,
            "seconds": round(result.seconds, 3),
            "is_cut": result.is_cut,
        }
        self._task.publish(RUNNING, totals=content)


def highest(scores: np.ndarray, n: int) -> list[tuple[int, float]]:
    """Return (label number, score) of the `n` highest scores (K,), the highest first."""
    places = np.argsort(-scores, kind="stable")[:n]
    return [(int(place), round(float(scores[place]), DIGITS)) for place in places]


def _middle(clip: Tensor) -> Image.Image:
    """Return the middle frame of a clip, uint8 (3, T, H, W)."""
    frame = clip[:, clip.shape[1] // 2].permute(1, 2, 0)  # (H, W, 3)
    return Image.fromarray(frame.contiguous().numpy())


class ResultKeeper:
    """Keeps the result of the video."""

    def __init__(self) -> None:
        self.result = VideoResult("")

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        pass

    def end(self, result: VideoResult) -> None:
        self.result = result
