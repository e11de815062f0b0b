from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment

from spatial_transforms import (
    CORNER_SCALES,
    GREY,
    Box,
    EvalView,
    RandAugmentDraw,
    TrainView,
    View,
    apply_view,
    apply_views,
)

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


def operations_of(transform, n_clips=60):
    """The RandAugment draws of some clips."""
    return [transform.draw(64, 64, Random(seed)).rand_augment for seed in range(n_clips)]


def test_rand_augment_is_the_same_in_all_frames():
    frame = noise(64, 64)
    transform = TrainView(64, "center", hflip=False, rand_augment=(2, 9))
    n_changed = 0
    for seed in range(40):
        view = transform.draw(64, 64, Random(seed))
        one, two, three = apply_view([frame] * 3, view)
        assert torch.equal(one, two)
        assert torch.equal(one, three)
        assert one.dtype == torch.uint8
        assert torch.equal(apply_view([frame], view)[0], one)  # also in another process, later
        n_changed += not torch.equal(one, frame)
    assert n_changed > 30
    assert len(set(operations_of(transform))) == 60
    assert {(draw.n_operations, draw.magnitude) for draw in operations_of(transform)} == {(2, 9)}


def test_rand_augment_matches_torchvision():
    frames = [noise(64, 64, seed) for seed in (0, 1)]
    for seed in range(20):
        draw = RandAugmentDraw(2, 15, seed)
        view = View(Box(0, 0, 64, 64), (64,), rand_augment=draw)
        reference = RandAugment(2, 15, interpolation=InterpolationMode.BILINEAR, fill=GREY)
        torch.manual_seed(seed)
        assert torch.equal(apply_view(frames, view), reference(torch.stack(frames)))


def test_a_higher_magnitude_changes_more():
    frame = noise(64, 64)

    def change(magnitude):
        views = [
            View(Box(0, 0, 64, 64), (64,), rand_augment=RandAugmentDraw(1, magnitude, seed))
            for seed in range(40)
        ]
        return sum((apply_view([frame], v)[0].int() - frame.int()).abs().sum() for v in views)

    assert change(2) < change(10) < change(30)


def test_erased_box_is_grey_and_the_same_in_all_frames():
    frames = [noise(64, 64, seed) for seed in range(3)]
    transform = TrainView(64, "center", hflip=False, erasing=1.0)
    areas = []
    for seed in range(40):
        view = transform.draw(64, 64, Random(seed))
        expected = torch.stack(frames)
        top, left, height, width = view.erase
        expected[..., top : top + height, left : left + width] = 128
        assert torch.equal(apply_view(frames, view), expected)
        areas.append(height * width / 64**2)
    assert 0.01 < min(areas) < 0.06 < 0.25 < max(areas) < 0.35


def test_erasing_happens_with_its_probability():
    transform = TrainView(64, erasing=0.25)
    assert 60 < sum(transform.draw(64, 64, Random(s)).erase is not None for s in range(400)) < 140


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_view_is_not_erased_as_a_whole(size):
    white = torch.full((3, size, size), 255, dtype=torch.uint8)
    for seed in range(100):
        view = TrainView(size, "center", erasing=1.0).draw(size, size, Random(seed))
        assert apply_view([white], view).any()


def test_further_augmentation_leaves_the_other_draws_as_they_are():
    for seed in range(20):
        plain = TrainView(64, jitter=True).draw(120, 160, Random(seed))
        view = TrainView(64, jitter=True, rand_augment=(2, 9), erasing=0.5)
        view = view.draw(120, 160, Random(seed))
        assert replace(view, rand_augment=None, erase=None) == plain


def test_erased_flow_does_not_move():
    """128 is no motion; a flip, which inverts channel 0, comes before."""
    flow = torch.full((2, 64, 64), 200, dtype=torch.uint8)
    transform = TrainView(64, "center", erasing=1.0, is_flow=True)
    view = next(v for s in range(9) if (v := transform.draw(64, 64, Random(s))).flip)
    pixels = apply_view([flow], view)[0]
    assert pixels[0].unique().tolist() == [55, 128]
    assert pixels[1].unique().tolist() == [128, 200]


def test_squares_of_resized_frames_are_centred_along_the_shorter_side():
    frame = torch.arange(3 * 60 * 80).remainder(251).to(torch.uint8).view(3, 60, 80)
    views = EvalView(40, crops=3, resize=(60, 80)).views(60, 80, None)
    places = [(10, 20), (10, 0), (10, 40)]
    for clip, (top, left) in zip(apply_views([frame], views), places, strict=True):
        assert torch.equal(clip[0], frame[:, top : top + 40, left : left + 40])
    tall = EvalView(40, crops=3, resize=(60,)).views(80, 60, None)
    clips = apply_views([frame.transpose(1, 2)], tall)
    for clip, (left, top) in zip(clips, places, strict=True):
        assert torch.equal(clip[0], frame.transpose(1, 2)[:, top : top + 40, left : left + 40])


def test_without_antialiasing_a_pixel_is_a_mean_of_its_neighbours_alone():
    frame = torch.zeros(3, 8, 8, dtype=torch.uint8)
    frame[:, ::4] = 200  # rows that lie between the sampled ones of a quarter of the size
    plain, smooth = (EvalView(2, antialias=antialias) for antialias in (False, True))
    assert apply_view([frame], plain.draw(8, 8, None)).max() == 0
    assert apply_view([frame], smooth.draw(8, 8, None)).min() > 20
