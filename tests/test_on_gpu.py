"""What needs a GPU. GPU_TESTS_ON_CPU=1 rehearses most of it on a CPU."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.gpu_check import correctness, golden
from benchmarks.gpu_check.setting import NAMES, Setting, backends_restored, run_main
from datasets.video_dataset import ClipBatch
from engine.batch_augment import BatchAugment
from engine.device import Normalization, choose_device, tune_process
from engine.ema import WeightAverage
from engine.prefetch import prefetch
from engine.scoring import make_scorer
from errors import UserError
from models.build import build
from models.catalog import FAMILIES
from tests.golden.weights import with_golden_weights
from tests.runs import make_dataset, make_trainer, read_results, read_table, small_flags
from tests.videos import draw
from util_scripts.extract_features import main as extract_features
from util_scripts.predict_video import main as predict_video

HAS_GPU = torch.cuda.is_available()
CPU_FLAGS = [] if HAS_GPU else ["--no_cuda"]
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (HAS_GPU or "GPU_TESTS_ON_CPU" in os.environ), reason="needs a GPU"),
]


def device_of(precision, *, cpu=False):
    normalization = Normalization.of("kinetics")
    no_cuda = cpu or not HAS_GPU
    return choose_device(no_cuda=no_cuda, precision=precision, normalization=normalization)


@pytest.fixture(autouse=True)
def exact_fp32():
    with backends_restored():
        tune_process(device_of("fp32"))
        yield


SMALL = {
    "resnet": (10, {"resnet_widen_factor": 0.25}),
    "resnet2p1d": (10, {"resnet_widen_factor": 0.25}),
    "preresnet": (10, {}),
    "wideresnet": (50, {"wide_resnet_k": 1}),
    "resnext": (50, {}),
    "densenet": (121, {}),
}


def small(family="resnet", **options):
    torch.manual_seed(1)
    depth, sizes = SMALL[family]
    return build(family, depth, n_classes=9, **(sizes | options))


def clips(n, *, side=32):
    draw = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (n, 3, 16, side, side), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_match_the_cpu_s(family):
    side = 64 if family == "densenet" else 32  # the smallest that it takes
    model, pixels = with_golden_weights(small(family)), clips(2, side=side)
    expected = make_scorer(model, device_of("fp32", cpu=True))(pixels)
    largest = expected.abs().max()
    exact = make_scorer(model, device_of("fp32"))(pixels).cpu()
    assert (exact - expected).abs().max() <= 1e-4 * largest
    rounded = make_scorer(model, device_of("bf16"))(pixels).cpu()
    assert (rounded - expected).abs().max() <= 0.06 * largest


@pytest.mark.parametrize("family", NAMES)
def test_a_training_step_matches_the_cpu_s(family, tmp_path):
    setting = Setting(
        work=tmp_path, out=tmp_path, frames=tmp_path, on_cpu=not HAS_GPU,
        depth=10, width=0.25, side=32, n_classes=9,
    )  # fmt: skip
    rows = list(correctness.rows_of(setting, family))
    assert len(rows) >= 4
    assert [row for row in rows if not row["passed"]] == []


GOLDEN_CASES = list(golden.cases())


@pytest.mark.parametrize(
    ("folder", "case"),
    [(folder, case) for folder, _, case in GOLDEN_CASES],
    ids=[name for _, name, _ in GOLDEN_CASES],
)
def test_golden_command_lines(folder, case, tmp_path):
    found = dict(golden.differences(case, folder, tmp_path / "run", on_cpu=not HAS_GPU))
    assert found
    assert {name: x for name, x in found.items() if not x <= golden.limit_of(name)} == {}


EVERYTHING = (
    "--optimizer", "adamw", "--learning_rate", "0.001", "--lr_scheduler", "cosine", "--ema", "0.9",
    "--mixup", "0.5", "--cutmix", "0.5", "--dropout", "0.3", "--label_smoothing", "0.1",
    "--clip_grad", "1", "--accumulate", "2", "--class_weights", "balanced", "--rand_augment", "1",
    "5", "--random_erasing", "0.3", "--tensorboard", "--checkpoint", "1",
)  # fmt: skip


def run_here(root, *flags, result="res", precision="fp32", **how):
    """Run main.py on the device."""
    words = small_flags(root, *flags, "--precision", precision, result=result, **how)
    words.remove("--no_cuda")
    run_main([*words, *CPU_FLAGS])
    return root / result


def test_a_run_with_everything_resumes(tmp_path):
    make_dataset(tmp_path)
    whole = run_here(tmp_path, *EVERYTHING, "--n_epochs", "3", result="whole")
    run_here(tmp_path, *EVERYTHING, "--n_epochs", "3", "--profile", "--inference", report=True)
    resumed = ("--resume_path", str(whole / "save_1.pth"))
    parts = run_here(tmp_path, *EVERYTHING, *resumed, "--n_epochs", "3", result="parts")
    states = [torch.load(run / "save_3.pth", weights_only=True) for run in (whole, parts)]
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor, rtol=1e-2, atol=1e-3)
    assert (tmp_path / "res" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_lower_precision(precision, tmp_path):
    if precision == "fp16" and not HAS_GPU:
        pytest.skip("fp16 needs a GPU")
    make_dataset(tmp_path)
    run = run_here(tmp_path, "--n_epochs", "3", "--inference", precision=precision)
    rows = read_table((run / "train.log").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(0 < row["loss"] < 3 for row in rows)
    assert len(read_results(run)) == 4


def test_cached_features_train_a_head(tmp_path):
    make_dataset(tmp_path)
    start = run_here(tmp_path, "--n_epochs", "1", result="start")
    head = ("--pretrain_path", str(start / "save_1.pth"), "--ft_begin_module", "fc", "--freeze_bn")
    run = run_here(tmp_path, *head, "--cache_features", "2", "--n_epochs", "3")
    assert len(read_table((run / "val.log").read_text())) == 3


def test_commands_on_a_checkpoint_match_the_cpu_s(tmp_path, capsys):
    make_dataset(tmp_path)
    run = run_here(tmp_path, "--n_epochs", "1")
    video = draw(tmp_path / "v.avi", seconds=2)
    model = ["--checkpoint", str(run / "save_1.pth"), "--precision", "fp32"]
    index = [str(tmp_path / "index.json"), str(tmp_path / "jpg")]
    features, texts = [], []
    for name, flags in (("cpu", ["--no_cuda"]), ("gpu", CPU_FLAGS)):
        out = tmp_path / f"{name}.npz"
        assert extract_features([*index, str(out), *model, "--n_threads", "0", *flags]) == 0
        features.append(np.load(out)["features"])
        capsys.readouterr()
        assert predict_video([str(video), *model, *flags]) == 0
        texts.append(capsys.readouterr().out)
    np.testing.assert_allclose(features[1], features[0], rtol=1e-3, atol=1e-4)
    assert len(texts[0].splitlines()) == len(texts[1].splitlines())


def test_prefetched_batches_arrive_whole_and_in_order():
    """While the device is busy, so that copies overlap with it."""
    device = device_of("fp32").torch_device
    given = [torch.full((1, 3, 16, 64, 64), n, dtype=torch.uint8) for n in range(30)]
    labels = torch.tensor([0])
    batches = [
        ClipBatch(pixels.pin_memory() if HAS_GPU else pixels, labels, labels, [], [])
        for pixels in given
    ]
    work, sums = torch.ones(1024, 1024, device=device), []
    for batch in prefetch(batches, device):
        for _ in range(5):
            work = work @ work / 1024
        sums.append((batch.clips.float().min(), batch.clips.float().max()))
    assert [(int(low), int(high)) for low, high in sums] == [(n, n) for n in range(30)]


EXTRAS = {
    "plain": {},
    "everything": {
        "class_weights": torch.ones(9),
        "label_smoothing": 0.1,
        "dropout_seed": 1,
        "accumulate": 2,
        "augment": BatchAugment(9, seed=1, mixup=0.5, cutmix=0.5),
    },
}


@needs_gpu
@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_does_not_synchronise(precision, extras):
    gpu = device_of(precision)
    model = gpu.place(small())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    fields = {name: _on(gpu, value) for name, value in EXTRAS[extras].items()}
    if extras == "everything":
        fields["average"] = WeightAverage(model, 0.9)
    trainer = make_trainer(model, optimizer, gpu, **fields)
    trainer = replace(trainer, optim=replace(trainer.optim, clip_grad=1.0))
    trainer.begin_epoch()
    labels = torch.tensor([0, 1, 2, 3]).pin_memory()
    batch = ClipBatch(clips(4).pin_memory(), labels, labels, [], [])
    for number in range(8):  # the first ones prepare, and draw each kind of mixing
        trainer.run_batch(batch, n_clips=4, number=number)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, ready in enumerate(prefetch([batch] * 8, gpu.torch_device)):
            trainer.run_batch(ready, n_clips=4, number=number)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _on(device, value):
    return value.to(device.torch_device) if isinstance(value, torch.Tensor) else value


@needs_gpu
def test_scoring_does_not_synchronise():
    gpu = device_of("bf16")
    score, pixels = make_scorer(small(), gpu), clips(4).pin_memory()
    score(pixels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        score(pixels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def little_memory():
    """Leave torch half a GiB of the GPU's memory."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**29 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@needs_gpu
def test_a_lack_of_memory_is_explained_in_training(little_memory):
    gpu = device_of("fp32")
    model = gpu.place(small(resnet_widen_factor=1.0))
    trainer = make_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01, fused=True), gpu)
    trainer.begin_epoch()
    labels = torch.zeros(64, dtype=torch.int64)
    batch = ClipBatch(clips(64, side=112), labels, labels, [], [])
    with pytest.raises(UserError, match="halve --batch_size"):
        trainer.run_batch(batch, n_clips=64)


@needs_gpu
def test_scoring_goes_on_with_less_memory(little_memory, caplog):
    score = make_scorer(small(resnet_widen_factor=1.0), device_of("fp32"))
    pixels = clips(64, side=112)
    found = score(pixels)
    assert "clips at a time from now on" in caplog.text
    torch.testing.assert_close(found[:2], score(pixels[:2]), rtol=1e-4, atol=1e-4)
