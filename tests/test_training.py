"""The ways to train that leave the arithmetic as it is, and those that change it on purpose."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datasets.feature_cache import CachedTraining
from datasets.samplers import ShuffledBatches
from datasets.video_dataset import ClipBatch
from engine.device import Normalization, choose_device
from engine.distributed import World
from engine.scoring import clip_network
from errors import UserError
from model import takes_single_clips
from models.build import build
from models.catalog import FAMILIES
from tests.runs import frozen_norms, make_dataset, make_trainer, read_table, small_run
from training import explain_torch_errors

pytestmark = pytest.mark.numeric


def weights(run, epoch=2):
    return torch.load(run / f"save_{epoch}.pth", weights_only=True)["state_dict"]


def assert_near(one, two, atol):
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=0, atol=atol)


def test_accumulated_batches_are_one_large_one(tmp_path):
    """10 videos: 4, 4, 2 against twice 2, twice 2, one of 2."""
    make_dataset(tmp_path, train=5, val=1)
    frozen = frozen_norms(tmp_path)
    assert small_run(tmp_path, *frozen, result="large") == 0
    small = ("--batch_size", "2", "--accumulate", "2")
    assert small_run(tmp_path, *frozen, *small, result="small") == 0
    assert_near(weights(tmp_path / "large"), weights(tmp_path / "small"), 1e-6)
    rows = read_table((tmp_path / "small/train_batch.log").read_text())
    assert len(rows) == 10


def test_an_accumulated_step_without_its_last_batch_is_taken(tmp_path):
    """Of 2 and 2 videos those of the second batch can't be read: a step over the first two."""
    make_dataset(tmp_path, train=2, val=1)
    batches = ShuffledBatches(4, 2, 1)
    videos = ["a_0", "a_1", "b_0", "b_1"]
    for number in (key.video for key in list(batches)[1]):
        label, name = videos[number][0], videos[number]
        for frame in (tmp_path / f"jpg/{label}/{name}").iterdir():
            frame.write_bytes(b"x")
    flags = ("--on_bad_video", "skip", "--n_epochs", "1", "--no_val", "--batch_size", "2")
    flags += ("--weight_decay", "0")
    assert small_run(tmp_path, *flags, "--accumulate", "2", result="half") == 0
    assert small_run(tmp_path, *flags, "--learning_rate", "0.005", result="alone") == 0
    assert_near(weights(tmp_path / "half", 1), weights(tmp_path / "alone", 1), 1e-6)


def test_clips_of_a_group_of_batches():
    batches = ShuffledBatches(10, 2, 1)
    assert [batches.clips_around(number, 2) for number in range(5)] == [4, 4, 4, 4, 2]
    assert batches.clips_around(4, 10) == 10


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lone_clips_are_foreseen(size):
    for n_videos in range(1, 14):
        for batch_size in range(1, 14):
            ranks = [
                ShuffledBatches(n_videos, batch_size, 1, rank=rank, size=size)
                for rank in range(size)
            ]
            is_lone = any(len(batch) == 1 for batches in ranks for batch in batches)
            assert all(batches.has_single_clip == is_lone for batches in ranks)


@pytest.mark.parametrize(("side", "n_frames"), [(32, 8), (32, 16), (32, 17), (33, 8), (64, 1)])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_batch_norm_makes_of_a_lone_clip_is_foreseen(family, side, n_frames):
    model = build(family, min(FAMILIES[family].depths), n_classes=2)
    if family == "densenet" and n_frames < 16:
        pytest.skip("too few frames for a densenet, however many clips")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    foreseen = takes_single_clips(model.train(), (3, n_frames, side, side))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    clip = torch.zeros(1, 3, n_frames, side, side)
    try:
        with torch.no_grad():
            model.train()(clip)
        is_taken = True
    except ValueError:
        is_taken = False
    assert foreseen == is_taken


def test_a_loss_that_explodes_is_told(tmp_path, capsys):
    make_dataset(tmp_path, train=6, val=1)
    assert small_run(tmp_path, "--n_epochs", "1", "--learning_rate", "100", "--no_val") == 0
    warning = (
        r"epoch 1: the train loss, \S+, is far above the 0\.69 of guessing among 2 classes: .*"
    )
    assert re.search(warning + r"lower --learning_rate \(now 100\)", capsys.readouterr().out)
    assert small_run(tmp_path, "--n_epochs", "1", result="calm") == 0
    assert "far above" not in capsys.readouterr().out


def test_clipped_gradients_move_the_weights_less(tmp_path):
    make_dataset(tmp_path)
    flags = ("--n_epochs", "1", "--momentum", "0", "--weight_decay", "0")
    flags += frozen_norms(tmp_path)
    for norm in ("0", "1e-3", "1e9"):
        assert small_run(tmp_path, *flags, "--clip_grad", norm, result=norm) == 0
    free, tight, loose = (weights(tmp_path / norm, 1) for norm in ("0", "1e-3", "1e9"))
    assert_near(free, loose, 0)
    n_steps = 2
    moved = sum((free[name] - tight[name]).square().sum() for name in free).sqrt()
    assert moved > 1e-3
    start = small_run(tmp_path, *flags, "--learning_rate", "1e-12", result="start")
    assert start == 0
    origin = weights(tmp_path / "start", 1)
    distance = sum((origin[name] - tight[name]).square().sum() for name in origin).sqrt()
    assert distance <= 0.01 * 1e-3 * n_steps * 1.01


def test_augmented_clips_do_not_depend_on_workers(tmp_path):
    make_dataset(tmp_path)
    flags = ("--n_epochs", "1", "--no_val", "--rand_augment", "2", "9", "--random_erasing", "0.5")
    for n_threads in ("0", "2"):
        assert small_run(tmp_path, *flags, "--n_threads", n_threads, result=n_threads) == 0
    assert_near(weights(tmp_path / "0", 1), weights(tmp_path / "2", 1), 0)
    for left_out in (3, 6):
        assert small_run(tmp_path, *flags[:left_out], result="other") == 0
        one, other = weights(tmp_path / "0", 1), weights(tmp_path / "other", 1)
        assert not torch.equal(one["fc.weight"], other["fc.weight"])


def pretrained(root):
    make_dataset(root, train=6, val=3)
    assert small_run(root, "--n_epochs", "1", result="pre") == 0
    return ("--pretrain_path", "pre/save_1.pth", "--ft_begin_module", "fc", "--freeze_bn")


def test_cached_features_without_augmentation_train_as_clips_do(tmp_path):
    flags = pretrained(tmp_path)
    plain = ("--train_crop", "center", "--train_t_crop", "center", "--no_hflip")
    assert small_run(tmp_path, *flags, *plain, result="clips") == 0
    cached = ("--cache_features", "1", "--inference")
    assert small_run(tmp_path, *flags, *plain, *cached, result="features") == 0
    assert_near(weights(tmp_path / "clips"), weights(tmp_path / "features"), 1e-5)
    for name in ("train.log", "val.log"):
        rows, others = (
            read_table((tmp_path / run / name).read_text()) for run in ("clips", "features")
        )
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, abs=1e-4)
    assert len(json.loads((tmp_path / "features/val.json").read_text())["results"]) == 6


def test_cached_views_are_those_of_the_first_epochs(tmp_path):
    """As many views as epochs: each epoch sees what it would see without the cache."""
    flags = pretrained(tmp_path)
    assert small_run(tmp_path, *flags, result="clips") == 0
    assert small_run(tmp_path, *flags, "--cache_features", "2", result="features") == 0
    assert_near(weights(tmp_path / "clips"), weights(tmp_path / "features"), 1e-5)
    assert small_run(tmp_path, *flags, "--cache_features", "1", result="one") == 0
    rows, others = (
        read_table((tmp_path / run / "train.log").read_text()) for run in ("clips", "one")
    )
    assert rows[0]["loss"] == pytest.approx(others[0]["loss"], abs=1e-5)
    assert rows[1]["loss"] != pytest.approx(others[1]["loss"], abs=1e-5)


class NumberedClips:
    """A loader whose clips are the numbers of their videos."""

    video_id, skipped = str, ()

    def __init__(self, batches):
        self.batches, self.n_videos = batches, batches.n_videos

    def __iter__(self):
        for keys in self.batches:
            videos = torch.tensor([key.video for key in keys])
            labels = torch.from_numpy(self.batches.labels)[videos]
            yield ClipBatch(videos[:, None], labels, videos, [], [])


def test_a_balanced_sampler_on_cached_features_repeats_and_loses_no_clip():
    """9 videos of one class and 1 of the other: an epoch has other videos than view 1 drew."""
    batches = ShuffledBatches(10, 4, 1, labels=[0] * 9 + [1])
    cached = CachedTraining(NumberedClips(batches), torch.Tensor.float, 1)
    for epoch in range(1, 5):
        batches.begin(epoch)
        expected = [[key.video for key in keys] for keys in batches]
        found = list(cached)
        assert [batch.videos.tolist() for batch in found] == expected
        assert [batch.clips[:, 0].tolist() for batch in found] == expected
        assert sum(batch.labels.sum() for batch in found) == 5


def on_cpu():
    normalization = Normalization.of("kinetics")
    return choose_device(no_cuda=True, precision="fp32", normalization=normalization)


def empty_batch():
    nothing = torch.empty(0, dtype=torch.int64)
    return ClipBatch(torch.empty(0), nothing, nothing, [], [])


def test_padding_leaves_batch_norm_as_it_is():
    """A process without clips runs black ones; with shared statistics it is no use to the others,
    and they can't wait for it."""
    device, model = on_cpu(), build("resnet", 10, n_classes=2, resnet_widen_factor=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    black = torch.zeros(2, 3, 4, 32, 32, dtype=torch.uint8)
    world = World(size=2)
    trainer = make_trainer(model, optimizer, device, world=world, padding_clips=black)
    trainer.begin_epoch()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trainer.run_batch(empty_batch(), n_clips=3)
    assert_near(before, dict(model.named_buffers()), 0)
    assert all(module.training for module in model.modules())

    # Where the clips of all processes count, no process may wait for the others' statistics: on a
    # CPU a synchronised batch norm would fail here.
    trainer.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    trainer.network = clip_network(trainer.model, device)
    own = ClipBatch(black, torch.tensor([0, 1]), torch.tensor([0, 1]), [], [])
    trainer.run_batch(own, n_clips=2, others_lack_clips=True)
    assert_near(before, dict(trainer.model.named_buffers()), 0)


def test_the_sums_of_a_batch_without_clips_are_on_the_device():
    """Sums of several batches are fetched together, so they must be in one place."""
    model = nn.Linear(1, 1)
    trainer = make_trainer(model, torch.optim.SGD(model.parameters()), on_cpu())
    trainer.device = SimpleNamespace(torch_device=torch.device("meta"))
    sums = trainer.run_batch(empty_batch(), n_clips=0)
    assert {column.device.type for column in sums} == {"meta"}


@pytest.mark.parametrize(
    "flags", [(), ("--mixup", "0.8", "--label_smoothing", "0.1", "--dropout", "0.5")]
)
def test_a_run_on_cached_features_resumes(tmp_path, flags):
    flags = (*pretrained(tmp_path), *flags, "--cache_features", "2", "--checkpoint", "1")
    assert small_run(tmp_path, *flags, result="whole") == 0
    assert small_run(tmp_path, *flags, "--n_epochs", "1") == 0
    resumed = ("--resume_path", "res/save_1.pth")
    assert small_run(tmp_path, *flags[2:], *resumed) == 0
    assert_near(weights(tmp_path / "whole"), weights(tmp_path / "res"), 0)


def test_unreadable_clips_are_left_out_of_the_cache(tmp_path, capsys):
    flags = pretrained(tmp_path)
    for number in range(1, 21):
        (tmp_path / f"jpg/a/a_0/image_{number:05d}.jpg").write_bytes(b"x")
    skip = ("--on_bad_video", "skip", "--cache_features", "1")
    assert small_run(tmp_path, *flags, *skip) == 0
    assert "skipped 1 unreadable samples" in capsys.readouterr().out


def test_a_trace_is_written(tmp_path, capsys):
    make_dataset(tmp_path, train=12)
    assert small_run(tmp_path, "--batch_size", "2", "--profile", "--n_epochs", "1") == 0
    [trace] = (tmp_path / "res/profile").glob("*.json")
    assert json.loads(trace.read_text())["traceEvents"]
    assert "convolution" in capsys.readouterr().out


def test_too_few_steps_for_a_trace_are_told(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--profile", "--n_epochs", "1", "--no_val") == 0
    assert "--profile: no trace" in capsys.readouterr().out


def test_the_epoch_tells_where_its_time_went(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    assert "of it waiting for clips (bottleneck:" in capsys.readouterr().out


def test_out_of_memory_is_advice():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ):
        with pytest.raises(UserError) as raised, explain_torch_errors():
            raise error
        assert str(raised.value).startswith("out of memory: halve --batch_size")
    with pytest.raises(RuntimeError, match="other"), explain_torch_errors():
        raise RuntimeError("other")


@pytest.mark.parametrize(
    "flags", [("--mixup", "0.8"), ("--cutmix", "1"), ("--label_smoothing", "0.2")]
)
def test_regularisation_changes_training_and_resumes_to_the_bit(tmp_path, flags):
    make_dataset(tmp_path, train=3, val=1)
    flags = (*flags, "--sample_size", "16", "--no_val")
    assert small_run(tmp_path, *flags, "--checkpoint", "1", result="whole") == 0
    assert small_run(tmp_path, "--sample_size", "16", "--no_val", result="plain") == 0
    assert small_run(tmp_path, *flags, "--resume_path", "whole/save_1.pth", result="on") == 0
    assert_near(weights(tmp_path / "whole"), weights(tmp_path / "on"), 0)
    assert (tmp_path / "whole/train.log").read_text() != (tmp_path / "plain/train.log").read_text()
