"""Features of a frozen trunk, computed once and used in place of clips.

Each training video gets `n_views` feature vectors, one per view; the views are those of the first
epochs, and epoch e trains on view (e - 1) % n_views. A video that a balanced epoch repeats has the
same view each time. Without a cache every clip is another view.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from datasets.video_dataset import ClipBatch, ClipLoader, OrderedBatches, SampleKey, ShuffledBatches
from utils.progress_bar import Bar

Trunk = Callable[[Tensor], Tensor]  # uint8 clips (B, C, T, H, W) -> features (B, D)


def _features(loader: ClipLoader, trunk: Trunk, title: str) -> Iterator[ClipBatch]:
    with Bar(title, loader.n_videos, "video") as bar:
        for batch in loader:
            if len(batch.labels):
                yield batch._replace(clips=trunk(batch.clips).cpu())
            bar.update(batch.n_videos)


class CachedTraining:
    """Batches of features, in the same order as the loader's clips."""

    def __init__(self, loader: ClipLoader[ShuffledBatches], trunk: Trunk, n_views: int) -> None:
        self.batches, self.video_id = loader.batches, loader.video_id
        self.skipped: list[str] = []
        self._views: list[dict[int, tuple[Tensor, Tensor]]] = []  # video -> features (D,), label
        for view in range(1, n_views + 1):
            loader.batches.begin(view, every_video_once=True)
            found: dict[int, tuple[Tensor, Tensor]] = {}
            for batch in _features(loader, trunk, f"features {view} of {n_views}"):
                rows = zip(batch.videos.tolist(), batch.clips, batch.labels, strict=True)
                found |= {video: (feature, label) for video, feature, label in rows}
            self._views.append(found)
            self.skipped += loader.skipped

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def n_videos(self) -> int:
        return self.batches.n_videos

    def __iter__(self) -> Iterator[ClipBatch]:
        return map(self._batch, self.batches)

    def _batch(self, keys: list[SampleKey]) -> ClipBatch:
        view = self._views[(self.batches.epoch - 1) % len(self._views)]
        videos = [key.video for key in keys if key.video in view]
        nothing = torch.empty(0, dtype=torch.int64)
        if not videos:
            return ClipBatch(torch.empty(0), nothing, nothing, [], [])
        features, labels = zip(*(view[video] for video in videos), strict=True)
        return ClipBatch(torch.stack(features), torch.stack(labels), torch.tensor(videos), [], [])


class CachedValidation:
    """Batches of features of the validation clips."""

    def __init__(self, loader: ClipLoader[OrderedBatches], trunk: Trunk) -> None:
        self.video_id, self.n_videos = loader.video_id, loader.n_videos
        self._batches = list(_features(loader, trunk, "features of validation"))
        self.skipped = loader.skipped

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ClipBatch]:
        return iter(self._batches)
