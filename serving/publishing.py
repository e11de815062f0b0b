"""Sinks that tell the page about scores as they are computed."""

from PIL import Image
from torch import Tensor

from predict.predictions import ScoredWindow, VideoResult
from reporting.strips import data_uri
from serving.hub import RUNNING, Task

DIGITS = 4  # of scores


class Publisher:
    """Sends each window to the page: place, scores, and a picture of its middle frame."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        assert window.clip is not None
        first, end = window.segment
        content = {
            "start": round(window.start, 3),
            "end": round(window.end, 3),
            "frames": [first, end - 1],
            "scores": [round(score, DIGITS) for score in window.scores.tolist()],
            "picture": data_uri(_middle(window.clip)),
        }
        self._task.publish(RUNNING, window=content)

    def end(self, result: VideoResult) -> None:
        content = {"frames": result.frames, "seconds": result.seconds, "windows": result.n_windows}
        self._task.publish(RUNNING, totals=content)


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
