"""The fast implementation matches the plain one of benchmarks/plain.py."""

from random import Random

import pytest
import torch

from benchmarks import plain
from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.frame_readers import JpgFolder, default_decoder
from datasets.index import read_index
from datasets.records import VideoRecord
from datasets.samplers import SampleKey, WindowBatches
from datasets.video_dataset import ClipBatch, VideoDataset, in_batches_of
from engine.device import Normalization, choose_device
from engine.scoring import SplittingScorer, make_scorer
from errors import UserError
from inference import WINDOWS
from media.ffmpeg import Ffmpeg
from models.build import build
from parsing import parse_opts
from spatial_transforms import EvalView, TrainView
from temporal_transforms import center_window
from tests.runs import make_dataset, make_trainer, read_results, small_run

pytestmark = pytest.mark.numeric

KINETICS = Normalization.of("kinetics")


def on_cpu(precision="fp32"):
    return choose_device(no_cuda=True, precision=precision, normalization=KINETICS)


def clips(n, *, side=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 16, side, side), dtype=torch.uint8, generator=draw)


def small(family="resnet"):
    torch.manual_seed(1)
    return build(family, 10, n_classes=9, resnet_widen_factor=0.25)


def with_statistics(family):
    """A model whose batch norms have statistics, like a trained model's."""
    model = small(family).train()
    with torch.no_grad():
        model(plain.model_input(clips(4, seed=1)))
    return model.eval()


@pytest.mark.parametrize("family", ["resnet", "resnet2p1d"])
def test_logits_match(family):
    model, pixels = with_statistics(family), clips(3)
    with torch.no_grad():
        expected = model(plain.model_input(pixels))
    largest = expected.abs().max()
    exact = make_scorer(model, on_cpu())(pixels)
    assert (exact - expected).abs().max() <= 1e-4 * largest
    if family == "resnet":  # bf16 has 8 bits of precision
        rounded = make_scorer(model, on_cpu("bf16"))(pixels)
        assert (rounded - expected).abs().max() <= 0.05 * largest


def test_densenet_scores_in_bf16():
    """It has average pooling between its blocks, which torch cannot compute in bf16 on a CPU."""
    torch.manual_seed(1)
    model, pixels = build("densenet", 121, n_classes=9).eval(), clips(2, side=64)
    expected = make_scorer(model, on_cpu())(pixels)
    rounded = make_scorer(model, on_cpu("bf16"))(pixels)
    assert (rounded - expected).abs().max() <= 0.05 * expected.abs().max()


def test_loss_and_gradients_of_a_training_step_match():
    model, other = small(), small()
    pixels, labels = clips(4), torch.tensor([0, 1, 2, 3])
    device = on_cpu()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = make_trainer(device.place(model), optimizer, device)
    trainer.begin_epoch()
    sums = trainer.run_batch(ClipBatch(pixels, labels, labels, [], []), n_clips=4)
    loss = plain.train_step(
        other.train(), torch.optim.SGD(other.parameters(), lr=0.0), pixels, labels
    )
    assert float(sums.loss) / 4 == pytest.approx(loss, rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        # More than rounding error: a value near 0 can end up on the other side of a ReLU.
        assert (ours.grad - theirs.grad).norm() <= 0.01 * theirs.grad.norm(), name


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """17 JPEGs of 320x240 with edges, text and noise."""
    folder = tmp_path_factory.mktemp("frames")
    graph = "testsrc2=s=320x240:r=17:d=1,noise=alls=12:allf=t"
    Ffmpeg().run(["-f", "lavfi", "-i", graph, "-q:v", "2", str(folder / "image_%05d.jpg")])
    return folder


@pytest.mark.parametrize("is_training", [False, True])
def test_pixels_of_clips_match_pillow(frames, is_training):
    """From the file to the normalised input, within 2/255, and 0.5/255 on average."""
    spatial = TrainView(112, hflip=False) if is_training else EvalView(112)
    record = VideoRecord("v", frames, 1, 17, 0)
    source = JpgFolder(default_decoder())
    temporal = lambda n, rng: center_window(n, size=16)  # noqa: E731
    sample = VideoDataset([record], source, temporal, spatial)[SampleKey(1, 0)]
    numbers = [1 + position for position in center_window(17, size=16)[0]]
    if is_training:
        box = spatial.draw(240, 320, Random("0/1/0")).box
        images = plain.load_clip(frames, numbers)
        crops = [plain.P.resized_crop(image, *box, [112, 112]) for image in images]
        expected = torch.stack([plain._normalised(crop) for crop in crops]).transpose(0, 1)
    else:
        expected = plain.eval_clip(frames, numbers)
    ours = on_cpu().model_input(sample.clips)[0]
    std = torch.tensor(KINETICS.std).view(-1, 1, 1, 1)
    difference = (ours - expected).abs() * std * 255
    assert difference.max() <= 2.01
    assert difference.mean() <= 0.5


def test_windows_of_many_videos_are_batched(tmp_path, monkeypatch):
    """The model sees the same batches and gives the same scores for any number of open videos."""
    make_dataset(tmp_path, train=1, val=5, n_frames=72)  # 9 windows each
    assert small_run(tmp_path, "--n_epochs", "1", result="trained") == 0
    weights = ("--resume_path", "trained/save_1.pth", "--no_train", "--no_val", "--inference")
    sizes, score = [], SplittingScorer.__call__

    def record_size(self, pixels):
        sizes.append(len(pixels))
        return score(self, pixels)

    monkeypatch.setattr(SplittingScorer, "__call__", record_size)
    results = []
    for number in ("1", "128"):
        flags = ("--inference_batch_size", number, "--inference_stride", "8")
        assert small_run(tmp_path, *weights, *flags, result=number) == 0
        results.append(read_results(tmp_path / number))
        assert sizes == [WINDOWS["cpu"]] * 11 + [2]
        sizes.clear()
    assert results[0] == results[1]
    assert small_run(tmp_path, *weights, "--inference_crop", "nocrop", result="whole") == 0
    assert sizes == [5] * 10


def test_scaled_decoding_applies_only_to_evaluation(tmp_path):
    make_dataset(tmp_path, train=1, val=1)
    paths = ("--video_path", "jpg", "--annotation_path", "index.json", "--result_path", "res")
    flags = ("--dataset", "folder", "--n_classes", "2", "--sample_size", "16", "--n_threads", "0")
    options = parse_opts(["--root_path", str(tmp_path), *paths, *flags, "--scaled_decode"])
    index = read_index(tmp_path / "index.json")
    builders = (build_train_loader, build_val_loader, build_inference_loader)
    for builder, shape in zip(builders, [(3, 32, 40), (3, 16, 20), (3, 16, 20)], strict=True):
        dataset = builder(options, index).dataset
        [frame] = dataset.source.read(dataset.records[0].path, [1])
        assert frame.shape == shape


def test_batches_are_split_and_merged_in_order():
    def batch(*numbers):
        column = torch.tensor(numbers, dtype=torch.int64)
        return ClipBatch(column[:, None], column, column, [(n, n + 1) for n in numbers], [])

    given = [batch(0, 1), batch(), batch(2, 3, 4, 5, 6), batch(7)]
    found = list(in_batches_of(3, given))
    assert [b.labels.tolist() for b in found] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [b.clips.flatten().tolist() for b in found] == [b.videos.tolist() for b in found]
    assert found[2].segments == [(6, 7), (7, 8)]
    assert list(in_batches_of(3, [])) == []


def test_the_number_of_windows_per_read_is_bounded():
    batches = list(WindowBatches({0: 70, 1: 3}, 128))
    assert [sum(stop - start for _, _, (start, stop), _ in b) for b in batches] == [32, 32, 9]


def test_scoring_continues_with_fewer_clips_when_memory_runs_out(caplog):
    def score(pixels):
        if len(pixels) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: …")
        return pixels.float().flatten(1).sum(1, keepdim=True)

    in_parts = SplittingScorer(score)
    pixels = torch.arange(10)[:, None]
    assert in_parts(pixels).flatten().tolist() == list(range(10))
    assert "2 clips at a time" in caplog.text
    assert in_parts.max_clips == 2

    def full(pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="smaller --sample_size"):
        SplittingScorer(full)(pixels)
