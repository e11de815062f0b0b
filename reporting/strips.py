"""Film strips of single videos: frames of one window, with and without a Grad-CAM heat map."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from datasets.video_dataset import InferenceWindows, Sample, SampleKey, VideoDataset
from engine.device import Device
from models.gradcam import finest_useful_layer, grad_cam, in_float32
from reporting.facts import UNKNOWN, Facts
from reporting.tables import most_uncertain, worst_mistakes

N_TRIED = 3  # windows per video, of which the one with the highest score is shown
N_FRAMES, COLUMNS = 8, 4  # of a strip
LARGEST_SIDE = 128  # pixels of a frame
N_SCORES = 3  # listed with a strip
BAR = 4  # height in pixels of the bar below a frame
JPEG_QUALITY = 80


class Strip(NamedTuple):
    """One video on the page; pictures are data URIs or None."""

    video_id: str
    truth: str | None
    prediction: str
    ranking: list[tuple[str, float]]
    caption: str
    frames: str | None = None
    heat: str | None = None
    frames_alt: str = ""
    heat_alt: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass
class Viewer:
    """A model for Grad-CAM.

    `family` is a key of models.catalog.FAMILIES. Without `layer`, the first clip decides which
    layer is fine enough.
    """

    model: nn.Module
    device: Device
    family: str
    layer: str | None = None
    _ready: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self._ready = in_float32(self.model)

    def explain(self, clips: Tensor, prediction: int) -> tuple[int, np.ndarray]:
        """Return which of uint8 clips (N, C, T, H, W) has the highest score for the class
        `prediction`, and its heat map, (T, H, W) in [0, 1]."""
        inputs = self.device.model_input(clips)
        if self.layer is None:
            self.layer = finest_useful_layer(self._ready, self.family, inputs[:1])
        classes = torch.full((len(clips),), prediction, device=inputs.device)
        found = grad_cam(self._ready, inputs, classes, self.layer)
        best = int(found.logits.softmax(dim=1)[:, prediction].argmax())
        return best, found.upsampled(*clips.shape[2:])[best].cpu().numpy()


def make_strips(
    facts: Facts, n: int, *, dataset: VideoDataset | None, viewer: Viewer | None, reasons: str = ""
) -> dict[str, Any]:
    """Make the section on single videos: the `n` worst mistakes and the `n` most uncertain videos.

    Without a dataset there are only names and scores, without a viewer no heat maps; `reasons` says
    why.
    """
    groups = groups_of(facts, n)
    album = _Album(facts, dataset, viewer, ids_of(facts, groups))
    shown = [
        {"title": title, "strips": [album.strip(place) for place in places]}
        for title, places in groups.items()
    ]
    return {"groups": shown, "note": _note(dataset, viewer, reasons)}


def groups_of(facts: Facts, n: int) -> dict[str, list[int]]:
    """Choose the videos to show: {title: positions in the columns}."""
    uncertain = "Most uncertain: smallest difference between the two best scores"
    if facts.accuracy is None:
        return {uncertain: most_uncertain(facts.videos, n)}
    mistakes = worst_mistakes(facts.videos, n)
    return {
        "Worst mistakes: wrong predictions with the highest scores": mistakes,
        uncertain: most_uncertain(facts.videos, n, exclude=mistakes),
    }


def ids_of(facts: Facts, groups: Mapping[str, Sequence[int]]) -> set[str]:
    return {facts.videos.ids[place] for places in groups.values() for place in places}


def _note(dataset: VideoDataset | None, viewer: Viewer | None, reasons: str) -> str:
    parts = []
    if dataset is not None:
        parts.append(f"Each video is shown by {N_FRAMES} frames of one window.")
    if viewer is not None and viewer.layer is not None:
        parts.append(
            f"Bright areas contributed most to the prediction (Grad-CAM, {viewer.layer}); the bar "
            "below a frame shows its mean heat."
        )
    return " ".join([*parts, reasons])


class _Album:
    """Makes strips of some videos; looks up their positions in the dataset once."""

    def __init__(
        self, facts: Facts, dataset: VideoDataset | None, viewer: Viewer | None, ids: set[str]
    ) -> None:
        self.facts, self.dataset, self.viewer = facts, dataset, viewer
        records = [] if dataset is None else dataset.records
        self.places = {r.video_id: place for place, r in enumerate(records) if r.video_id in ids}

    def strip(self, number: int) -> Strip:
        videos, labels = self.facts.videos, self.facts.labels
        truth = labels[videos.targets[number]] if videos.is_labelled[number] else None
        ranking = videos.rankings[number]
        shown = ranking[:N_SCORES]
        shown += [pair for pair in ranking[N_SCORES:] if pair[0] == truth]
        bare = Strip(videos.ids[number], truth, ranking[0][0], shown, "")
        if self.dataset is None:
            return bare
        place = self.places.get(bare.video_id)
        if place is None:
            return bare._replace(caption="Its frames were not found.")
        return self._pictured(bare, place, int(videos.predictions[number]))

    def _pictured(self, bare: Strip, place: int, prediction: int) -> Strip:
        assert self.dataset is not None
        assert isinstance(self.dataset.temporal, InferenceWindows)
        n_windows = self.dataset.temporal.count(len(self.dataset.kept_frames(place)))
        tried = np.unique(np.linspace(0, n_windows - 1, N_TRIED).round().astype(int)).tolist()
        samples = []
        for window in tried:
            sample = self.dataset[SampleKey(0, place, (window, window + 1))]
            if not isinstance(sample, Sample):
                return bare._replace(caption=f"{sample.reason}.")
            samples.append(sample)  # of its views, the first: the centre
        best, heat = len(tried) // 2, None
        if self.viewer is not None and prediction != UNKNOWN:
            best, heat = self.viewer.explain(torch.cat([s.clips[:1] for s in samples]), prediction)
        first, end = samples[best].segments[0]
        caption = f"Frames {first} to {end - 1}, window {tried[best] + 1} of {n_windows}" + (
            "" if heat is None or len(tried) == 1 else f", the highest score of {len(tried)} tried"
        )
        return with_pictures(bare._replace(caption=f"{caption}."), samples[best].clips[0], heat)


def with_pictures(bare: Strip, clip: Tensor, heat: np.ndarray | None) -> Strip:
    """Add pictures of a clip, uint8 (C, T, H, W), and of its heat map, (T, H, W) in [0, 1]."""
    pixels = clip if clip.shape[0] == 3 else clip[:1].expand(3, -1, -1, -1)  # flow: only u
    shown = np.linspace(0, pixels.shape[1] - 1, min(N_FRAMES, pixels.shape[1])).round().astype(int)
    frames = pixels.permute(1, 2, 3, 0).numpy()[shown]  # (T', H, W, 3)
    picture = _sheet(frames)
    with_frames = bare._replace(
        frames=data_uri(picture),
        frames_alt=f"{len(shown)} frames of {bare.video_id}",
        size=picture.size,
    )
    if heat is None:
        return with_frames
    hot = _sheet(_overlaid(frames, heat[shown]), heat[shown].mean(axis=(1, 2)))
    alt = f"Heat map of the same frames for {bare.prediction}; {_brightest(heat)}"
    return with_frames._replace(heat=data_uri(hot), heat_alt=alt)


def _brightest(heat: np.ndarray) -> str:
    """Describe where the maximum of (T, H, W) is."""
    if not heat.any():
        return "it is zero everywhere"
    frame, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
    vertical = rows[min(2, 3 * int(row) // heat.shape[1])]
    horizontal = columns[min(2, 3 * int(column) // heat.shape[2])]
    return f"brightest at the {vertical} {horizontal} of frame {int(frame) + 1} of {len(heat)}"


def _overlaid(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour grey frames, uint8 (T, H, W, 3), by their heat, (T, H, W)."""
    import matplotlib

    grey = frames.mean(axis=3, keepdims=True) * 0.7
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    weight = 0.8 * heat[..., None]
    return (grey * (1 - weight) + colours * weight).astype(np.uint8)


def _sheet(frames: np.ndarray, bars: Sequence[float] | np.ndarray | None = None) -> Image.Image:
    """Arrange frames, uint8 (T, H, W, 3), in rows of COLUMNS, with (T,) `bars` below them."""
    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    width, height = images[0].size
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + 1) - 1, rows * (height + BAR + 1) - 1))
    longest = 0.0 if bars is None else max(bars)
    for number, image in enumerate(images):
        x, y = number % columns * (width + 1), number // columns * (height + BAR + 1)
        sheet.paste(image, (x, y))
        if bars is not None and longest > 0:
            length = round(width * float(bars[number]) / longest)
            sheet.paste((255, 200, 80), (x, y + height + 1, x + length, y + height + BAR))
    return sheet


def data_uri(image: Image.Image) -> str:
    """Return a JPEG of the image as a URI that contains it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
