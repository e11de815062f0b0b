from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from spatial_transforms import CORNER_SCALES, EvalView, TrainView, apply_view

pytestmark = pytest.mark.numeric


def noise(height, width, seed=0):
    """An image with detail at all scales, uint8 (3, H, W) in the memory layout of a decoder."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    fine = draw.integers(-20, 20, (height, width, 3))
    pixels = np.clip(np.asarray(image).astype(int) + fine, 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def pillow(frame):
    return Image.fromarray(frame.permute(1, 2, 0).numpy())


def difference(pixels, image):
    ours = pixels.permute(1, 2, 0).numpy().astype(int)
    return np.abs(ours - np.asarray(image).astype(int))


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (90, 91), (112, 112), (50, 80)])
def test_evaluation_matches_pillow(shape):
    frame = noise(*shape)
    height, width = shape
    size = 112
    short = min(shape)
    resized = pillow(frame).resize(
        (int(size * width / short), int(size * height / short)), Image.Resampling.BILINEAR
    )
    left = round((resized.width - size) / 2)
    top = round((resized.height - size) / 2)
    expected = resized.crop((left, top, left + size, top + size))
    ours = apply_view([frame], EvalView(size).draw(height, width, Random(0)))[0]
    assert ours.shape == (3, size, size)
    assert difference(ours, expected).max() <= 2
    assert difference(ours, expected).mean() <= 0.5


def test_nocrop_keeps_the_whole_frame():
    ours = apply_view([noise(60, 100)], EvalView(32, crop=False).draw(60, 100, Random(0)))
    assert ours.shape == (1, 3, 32, 53)


@pytest.mark.parametrize("crop", ["random", "corner", "center"])
def test_training_view_matches_pillow_in_all_frames(crop):
    frames = [noise(120, 160, seed) for seed in (0, 1)]
    transform = TrainView(64, crop, hflip=False)
    view = transform.draw(120, 160, Random(3))
    if crop == "center":
        expected = [apply_view([f], EvalView(64).draw(120, 160, Random(0)))[0] for f in frames]
        assert torch.equal(apply_view(frames, view), torch.stack(expected))
        return
    box = (view.box.left, view.box.top)
    box += (view.box.left + view.box.width, view.box.top + view.box.height)
    for ours, frame in zip(apply_view(frames, view), frames, strict=True):
        expected = pillow(frame).crop(box).resize((64, 64), Image.Resampling.BILINEAR)
        assert difference(ours, expected).max() <= 2


def test_random_crops_stay_within_the_frame_and_their_ranges():
    transform = TrainView(64, min_scale=0.25, min_ratio=0.75)
    for seed in range(300):
        box = transform.draw(120, 160, Random(seed)).box
        assert box.top >= 0
        assert box.top + box.height <= 120
        assert box.left >= 0
        assert box.left + box.width <= 160
        assert 0.24 <= box.height * box.width / (120 * 160) <= 1
        assert 0.73 <= box.width / box.height <= 1.36


def test_corner_crops_are_squares_of_five_sizes_in_five_places():
    views = [TrainView(64, "corner").draw(120, 160, Random(seed)).box for seed in range(300)]
    assert {box.height for box in views} == {int(120 * scale) for scale in CORNER_SCALES}
    assert all(box.height == box.width for box in views)
    assert len({(box.top, box.left) for box in views if box.height == 60}) == 5


def test_draws_depend_only_on_the_generator():
    transform = TrainView(64, jitter=True)
    before = torch.random.get_rng_state()
    first = transform.draw(120, 160, Random("1/2/3"))
    torch.rand(7)
    assert transform.draw(120, 160, Random("1/2/3")) == first
    assert transform.draw(120, 160, Random("1/2/4")) != first
    torch.random.set_rng_state(before)
    transform.draw(120, 160, Random(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_half_of_the_clips_are_mirrored():
    transform = TrainView(64, "center")
    flips = [transform.draw(120, 160, Random(seed)).flip for seed in range(400)]
    assert 150 < sum(flips) < 250
    frame = noise(64, 64)
    seed = flips.index(True)
    flipped = apply_view([frame], transform.draw(64, 64, Random(seed)))[0]
    assert torch.equal(flipped, frame.flip(-1))


def test_jitter_is_the_same_in_all_frames():
    frame = noise(64, 64)
    view = TrainView(64, "center", hflip=False, jitter=True).draw(64, 64, Random(5))
    one, two = apply_view([frame, frame], view)
    assert torch.equal(one, two)
    assert (one.int() - frame.int()).abs().float().mean() > 5
