"""Grad-CAM: matches its definition, works on every family, and finds the squares of the demo."""

import math
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from media.demo_videos import HEIGHT, MOTIONS, RATE, WIDTH, course, filter_graph
from media.ffmpeg import Ffmpeg
from models.build import build
from models.folding import folded
from models.gradcam import finest_useful_layer, grad_cam, in_float32

pytestmark = pytest.mark.numeric

CLIPS = torch.randn((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([1, 0])
SMALL = {"resnet_widen_factor": 0.25}
FAMILIES = [
    ("resnet", 10, SMALL, "layer2"),
    ("resnet2p1d", 10, SMALL, "layer2"),
    ("preresnet", 10, {}, "layer2"),
    ("wideresnet", 50, {"wide_resnet_k": 1}, "layer1"),
    ("resnext", 50, {}, "layer1.0.conv2"),
    ("densenet", 121, {}, "features.denseblock1"),
]


def tiny_model(family="resnet", depth=10, options=SMALL):
    torch.manual_seed(0)
    return build(family, depth, n_classes=3, **options).eval()


def test_it_matches_its_definition():
    """Against finite differences of the logit by each channel's mean."""
    model = tiny_model().double()
    layer, found = model.layer1, []
    handle = layer.register_forward_hook(lambda module, arguments, output: found.append(output))
    with torch.no_grad():
        model(CLIPS.double())
    handle.remove()
    [activations] = found
    expected = torch.zeros_like(activations[:, 0])
    n_cells = expected[0].numel()

    def logits(shift, channel):
        moved = activations.clone()
        moved[:, channel] += shift
        handle = layer.register_forward_hook(lambda module, arguments, output: moved)
        with torch.no_grad():
            out = model(CLIPS.double())
        handle.remove()
        return out.gather(1, CLASSES[:, None])[:, 0]

    for channel in range(activations.shape[1]):
        slope = (logits(1e-6, channel) - logits(-1e-6, channel)) / 2e-6 / n_cells
        expected += slope[:, None, None, None] * activations[:, channel]
    grid = grad_cam(model, CLIPS, CLASSES, "layer1").grid
    assert grid.shape == expected.shape
    assert torch.allclose(grid.double(), expected.relu(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("family", "depth", "options", "layer"), FAMILIES)
def test_every_family_and_kind_of_layer_frozen_or_not(family, depth, options, layer):
    model = tiny_model(family, depth, options)
    clips = CLIPS.repeat(1, 1, 2, 1, 1)  # densenet halves 16 frames to one
    found = grad_cam(model, clips, CLASSES, layer)
    with torch.no_grad():
        assert torch.allclose(found.logits, model(clips), atol=1e-4)
    assert found.grid.shape[0] == 2
    assert found.grid.dim() == 4
    assert (found.grid >= 0).all()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    again = grad_cam(model, clips, CLASSES, layer).grid  # summed in another order
    assert torch.allclose(again, found.grid, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_models_in_training_and_copies_for_inference_are_not_changed():
    model = tiny_model()
    grid = grad_cam(model, CLIPS, CLASSES, "layer2").grid
    model.train()
    statistics = model.bn1.running_mean.clone()
    assert torch.equal(grad_cam(model, CLIPS, CLASSES, "layer2").grid, grid)
    assert model.training
    assert torch.equal(model.bn1.running_mean, statistics)
    with torch.inference_mode():
        ready = folded(model)
        half = folded(model).to(torch.bfloat16)
        near = grad_cam(ready, CLIPS, CLASSES, "layer2").grid
        rough = grad_cam(half, CLIPS, CLASSES, "layer2").grid
    assert torch.allclose(near, grid, rtol=1e-3, atol=1e-6)
    assert rough.dtype == torch.float32
    assert torch.corrcoef(torch.stack([rough.flatten(), grid.flatten()]))[0, 1] > 0.99
    assert half.conv1.weight.dtype == torch.bfloat16
    assert in_float32(ready) is not ready
    assert in_float32(model.eval()) is model


def test_heat_maps_have_the_size_of_the_clip_and_a_maximum_of_1():
    found = grad_cam(tiny_model(), CLIPS, CLASSES, "layer2")
    full = found.upsampled(8, 32, 32)
    assert full.shape == (2, 8, 32, 32)
    assert full.min() >= 0
    assert full.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    empty = found._replace(grid=torch.zeros_like(found.grid))
    assert not empty.upsampled(8, 32, 32).any()


def test_the_default_layer_is_the_last_that_is_fine_enough():
    model = tiny_model()
    sides = {64: "layer2", 112: "layer3", 224: "layer3", 16: "layer1"}
    for side, layer in sides.items():
        assert finest_useful_layer(model, "resnet", torch.zeros(1, 3, 16, side, side)) == layer
    dense = tiny_model("densenet", 121, {})
    clip = torch.zeros(1, 3, 16, 64, 64)
    assert finest_useful_layer(dense, "densenet", clip) == "features.denseblock2"


def test_layers_without_a_5d_output_are_rejected():
    model = tiny_model()
    with pytest.raises(ValueError, match="no module 'layer9'"):
        grad_cam(model, CLIPS, CLASSES, "layer9")
    with pytest.raises(ValueError, match="'fc' does not output"):
        grad_cam(model, CLIPS, CLASSES, "fc")


# The squares of the demo: frames of 96 x 72 pixels, cropped to the centre and resized to 64.
SIDE, SEEN, LAYER = 64, 72, "layer2"
LABELS = ("Rise", "Fall")
TESTED, GROUPS = 6, 15  # groups 1 to 6 for testing, 7 to 15 for training
STARTS = (0, 17, 34)


def key(label, group, clip):
    name = f"1/pretraining/{group}"
    return MOTIONS["pretraining"][label], Random(name), Random(f"{name}/{clip}")


def draw_video(path, label, group, clip):
    """Draw a video with ffmpeg: (3, T, 64, 64), normalised."""
    arguments = ["-filter_complex", filter_graph(*key(label, group, clip)), "-t", "2"]
    pixels = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-threads", "1", f"file:{path}"]
    assert Ffmpeg().run([*arguments, *pixels]).returncode == 0
    frames = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, HEIGHT, WIDTH, 3))
    left = (WIDTH - SEEN) // 2
    square = frames[:, :, left : left + SEEN].permute(0, 3, 1, 2).float()
    small = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
    return ((small / 255 - 0.4) / 0.27).transpose(0, 1)


def box_of(label, group, clip, frame):
    """Left, top, right, bottom of the square in the model's pixels, from the drawing commands."""
    motion, _, draw = key(label, group, clip)
    known = {"t": frame / RATE, "mod": math.fmod, "abs": abs, "trunc": math.trunc}
    x, y, side = (eval(text, {"__builtins__": {}}, known) for text in course(motion, draw))
    left, top = (WIDTH - side) * x - (WIDTH - SEEN) // 2, (HEIGHT - side) * y
    return [value * SIDE / SEEN for value in (left, top, left + side, top + side)]


def cells_under(boxes, n_cells):
    """The cells of the picture that a box touches: (n_cells, n_cells), bool."""
    edges = np.arange(n_cells) * SIDE / n_cells
    touched = np.zeros((n_cells, n_cells), bool)
    for left, top, right, bottom in boxes:
        rows = (edges < bottom) & (edges + SIDE / n_cells > top)
        touched |= rows[:, None] & (edges < right) & (edges + SIDE / n_cells > left)
    return touched


def with_neighbours(cells):
    padded = np.pad(cells, 1)
    n = len(cells)
    return np.any([padded[i : i + n, j : j + n] for i in range(3) for j in range(3)], axis=0)


def train_on(videos, labels, *, epochs=9):
    torch.manual_seed(1)
    options = {"resnet_widen_factor": 0.25, "conv1_t_size": 3}
    model = build("resnet", 10, n_classes=len(LABELS), **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, weight_decay=1e-3)
    draw = np.random.default_rng(1)
    for epoch in range(epochs):
        if epoch == 6:
            optimizer.param_groups[0]["lr"] /= 10
        order = draw.permutation(len(videos))
        for part in np.split(order, range(8, len(order), 8)):
            starts = draw.integers(0, videos[0].shape[1] - 16, len(part))
            clips = [videos[v][:, s : s + 16] for v, s in zip(part, starts, strict=True)]
            loss = F.cross_entropy(model(torch.stack(clips)), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def test_it_points_at_the_moving_squares_of_the_demo(tmp_path):
    jobs = [(x, g, c) for x in LABELS for g in range(1, GROUPS + 1) for c in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        paths = [tmp_path / f"{number}.rgb" for number in range(len(jobs))]
        videos = list(pool.map(lambda path, job: draw_video(path, *job), paths, jobs))
    labels = torch.tensor([LABELS.index(label) for label, _, _ in jobs])
    trained = [number for number, (_, group, _) in enumerate(jobs) if group > TESTED]
    model = train_on([videos[number] for number in trained], labels[trained])

    near, on, area, n_clips = [], [], [], 0
    for number, job in enumerate(jobs):
        if job[1] > TESTED:
            continue
        clips = torch.stack([videos[number][:, s : s + 16] for s in STARTS])
        found = grad_cam(model, clips, labels[number].expand(len(clips)), LAYER)
        is_right = (found.logits.argmax(dim=1) == labels[number]).tolist()
        for start, grid, right in zip(STARTS, found.grid.numpy(), is_right, strict=True):
            n_clips += 1
            if not right:
                continue
            step, row, column = np.unravel_index(grid.argmax(), grid.shape)
            span = 16 // len(grid)  # frames of a cell
            frames = range(start + step * span, start + (step + 1) * span)
            square = cells_under([box_of(*job, frame) for frame in frames], grid.shape[-1])
            close = with_neighbours(square)
            near.append(close[row, column])
            on.append(square[row, column])
            area.append(close.mean())
    share, by_chance = np.mean(near), np.mean(area)
    message = f"{len(near)} of {n_clips} clips right: highest response on or beside the square in "
    message += f"{share:.0%}, on it in {np.mean(on):.0%}; a random cell {by_chance:.0%}"
    print(message)
    assert len(near) > 0.7 * n_clips, message
    assert share >= 0.8, message
    assert by_chance < 0.6, message
