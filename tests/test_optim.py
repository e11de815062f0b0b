"""Optimisers, schedules, rates by depth, averaged weights, early stopping, balanced sampling."""

import json
import math

import numpy as np
import pytest
import torch

from datasets.samplers import ShuffledBatches
from engine.ema import WeightAverage
from engine.optim import OPTIMIZERS, WarmupCosine, build_optimization
from model import build_model
from parsing import parse_opts
from tests.runs import frozen_norms, make_dataset, read_table, small_run

pytestmark = pytest.mark.numeric

PATHS = ("--video_path", "v", "--annotation_path", "a", "--result_path", "r")
SMALL = ("--model_depth", "10", "--resnet_widen_factor", "0.1", "--n_classes", "2")
TINY = ("--sample_size", "16", "--sample_duration", "4", "--n_epochs", "2", "--no_val")


def optimization(*flags, n_updates=5):
    options = parse_opts([*PATHS, *SMALL, "--sample_size", "32", *flags])
    model = build_model(options)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return model, build_optimization(options, model, scaler, n_updates=n_updates)


def content(path):
    return torch.load(path, weights_only=True)


def assert_equal(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_rates_of_cosine_with_warm_up(tmp_path):
    """12 videos in batches of 4: 3 updates an epoch, 1.5 epochs of warm-up, 9 updates in all."""
    make_dataset(tmp_path, train=6, val=1)
    flags = ("--lr_scheduler", "cosine", "--warmup_epochs", "1.34", "--learning_rate", "0.08")
    assert small_run(tmp_path, *flags, *TINY, "--n_epochs", "3") == 0
    rates = [row["lr"] for row in read_table((tmp_path / "res/train_batch.log").read_text())]
    rising = [0.02, 0.04, 0.06, 0.08]
    falling = [0.04 * (1 + math.cos(math.pi * i / 5)) for i in range(5)]
    assert rates == pytest.approx(rising + falling, abs=1e-7)


def test_cosine_ends_at_0():
    schedule = WarmupCosine(0, 10)
    assert schedule(0) == 1
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == schedule(99) == 0


def test_cosine_with_accumulation_counts_updates(tmp_path):
    make_dataset(tmp_path, train=6, val=1)
    flags = ("--lr_scheduler", "cosine", "--accumulate", "2", "--learning_rate", "0.08")
    assert small_run(tmp_path, *flags, *TINY) == 0
    rates = [row["lr"] for row in read_table((tmp_path / "res/train_batch.log").read_text())]
    expected = [0.04 * (1 + math.cos(math.pi * i / 4)) for i in (0, 0, 1, 2, 2, 3)]
    assert rates == pytest.approx(expected, abs=1e-7)


def test_another_length_of_cosine_is_not_resumed(tmp_path, capsys):
    make_dataset(tmp_path, train=2, val=1)
    cosine = ("--lr_scheduler", "cosine", "--checkpoint", "1")
    assert small_run(tmp_path, *cosine, *TINY) == 0
    longer = ("--n_epochs", "4", "--resume_path", "res/save_1.pth")
    assert small_run(tmp_path, *cosine, *TINY, *longer, result="on") == 2
    error = capsys.readouterr().err
    assert "another number of updates: resume with the training videos, --n_epochs" in error
    assert error.count("\n") == 1
    grouped = ("--ft_begin_module", "conv1", "--resume_path", "res/save_1.pth")
    assert small_run(tmp_path, *cosine, *TINY, *grouped, result="on") == 2
    assert "other groups of parameters: resume with" in capsys.readouterr().err


def test_rates_fall_with_depth_and_the_head_has_its_own():
    model, optim = optimization("--layer_decay", "0.5", "--head_lr_factor", "3")
    rates = {
        name: group["lr"]
        for (name, _), group in zip(
            model.named_parameters(), optim.optimizer.param_groups, strict=True
        )
    }
    expected = {"conv1": 1 / 32, "bn1": 1 / 32, "layer1": 1 / 16, "layer3": 1 / 4, "layer4": 1 / 2}
    for name, rate in rates.items():
        if (module := name.split(".")[0]) in expected:
            assert rate == pytest.approx(0.1 * expected[module])
    assert rates["fc.weight"] == rates["fc.bias"] == pytest.approx(0.3)
    assert optim.learning_rate == pytest.approx(0.3)


def test_norms_and_biases_without_weight_decay():
    model, optim = optimization("--no_norm_decay", "--weight_decay", "0.01")
    for (name, parameter), group in zip(
        model.named_parameters(), optim.optimizer.param_groups, strict=True
    ):
        is_weight = parameter.ndim > 1
        assert group["weight_decay"] == (0.01 if is_weight else 0), name
    assert len(optimization()[1].optimizer.param_groups) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_keeps_what_its_row_says(name):
    model, optim = optimization("--optimizer", name)
    model(torch.randn(2, 3, 16, 32, 32)).sum().backward()
    optim.optimizer.step()
    row = OPTIMIZERS[name]
    for parameter in model.parameters():
        state = optim.optimizer.state[parameter]
        assert set(state) == {*row.buffers, *row.counters}
        assert all(state[key].shape == parameter.shape for key in row.buffers)
        assert all(state[key].shape == () for key in row.counters)


RECIPE = (
    "--optimizer", "adamw", "--learning_rate", "0.001", "--lr_scheduler", "cosine",
    "--warmup_epochs", "0.5", "--layer_decay", "0.8", "--no_norm_decay", "--ema", "0.5",
)  # fmt: skip


def test_a_run_with_all_of_it_resumes_to_the_bit(tmp_path):
    make_dataset(tmp_path, train=3, val=1)
    flags = (*RECIPE, *TINY, "--checkpoint", "1")
    assert small_run(tmp_path, *flags, result="whole") == 0
    assert small_run(tmp_path, *flags, "--resume_path", "whole/save_1.pth", result="on") == 0
    whole, resumed = (content(tmp_path / run / "save_2.pth") for run in ("whole", "on"))
    for key in ("state_dict", "trained_state_dict"):
        assert_equal(whole[key], resumed[key])
    assert whole["optimizer"]["param_groups"] == resumed["optimizer"]["param_groups"]
    assert whole["scheduler"] == resumed["scheduler"]


def test_another_optimiser_than_the_file_has_is_refused(tmp_path, capsys):
    make_dataset(tmp_path, train=2, val=1)
    assert small_run(tmp_path, *TINY, "--optimizer", "adamw", "--learning_rate", "1e-3") == 0
    resumed = ("--n_epochs", "3", "--resume_path", "res/save_2.pth")
    assert small_run(tmp_path, *TINY, *resumed, result="on") == 2
    assert "--optimizer sgd: " in (error := capsys.readouterr().err)
    assert "was trained with adamw" in error


def test_averaged_weights_by_hand():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = WeightAverage(model, 0.75)
    for _ in range(4):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.add_(torch.randn_like(tensor))
        average.update(model)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = 0.75 * expected[name] + 0.25 * tensor
    for name, tensor in average.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])


def test_averaged_weights_are_validated_saved_and_used(tmp_path):
    make_dataset(tmp_path, train=4, val=2)
    flags = ("--n_epochs", "2", "--sample_size", "16", "--ema", "0.9")
    assert small_run(tmp_path, *flags, "--inference", "--output_topk", "0") == 0
    saved = content(tmp_path / "res/save_2.pth")
    assert any(
        not torch.equal(tensor, saved["trained_state_dict"][name])
        for name, tensor in saved["state_dict"].items()
    )
    evaluated = ("--resume_path", "res/save_2.pth", "--no_train", "--inference")
    assert small_run(tmp_path, *flags, *evaluated, "--output_topk", "0", result="again") == 0
    first, again = ((tmp_path / run / "val.json").read_text() for run in ("res", "again"))
    assert first == again
    logs = [read_table((tmp_path / run / "val.log").read_text()) for run in ("res", "again")]
    assert logs[0][-1]["loss"] == pytest.approx(logs[1][-1]["loss"], abs=1e-6)


def test_damaged_trained_weights_are_one_line(tmp_path, capsys):
    make_dataset(tmp_path, train=2, val=1)
    assert small_run(tmp_path, *TINY, "--ema", "0.9") == 0
    saved = content(tmp_path / "res/save_2.pth")
    for wrong in ([], {"fc.weight": torch.ones(2)}, {"fc.weight": 5}):
        torch.save(saved | {"trained_state_dict": wrong}, tmp_path / "c.pth")
        resumed = ("--resume_path", "c.pth", "--n_epochs", "3")
        assert small_run(tmp_path, *TINY, "--ema", "0.9", *resumed, result="on") == 2
        assert "trained_state_dict" in (error := capsys.readouterr().err)
        assert error.count("\n") == 1


def test_early_stopping_ends_after_epochs_without_a_better_one(tmp_path, capsys):
    """A rate of 0 in effect: the first epoch stays the best."""
    make_dataset(tmp_path, train=2, val=1)
    flags = ("--learning_rate", "1e-30", "--early_stopping", "2", "--sample_size", "16")
    flags += ("--n_epochs", "9", *frozen_norms(tmp_path), "--checkpoint", "5", "--inference")
    assert small_run(tmp_path, *flags) == 0
    out = capsys.readouterr().out
    assert "early stopping after epoch 3: no better epoch since 1" in out
    assert len(read_table((tmp_path / "res/train.log").read_text())) == 3
    assert content(tmp_path / "res/save_3.pth")["epoch"] == 3
    provenance = json.loads((tmp_path / "res/val.run.json").read_text())
    assert provenance["epoch"] == 3
    assert provenance["checkpoint"].endswith("save_3.pth")
    assert small_run(tmp_path, *flags, "--resume_path", "auto") == 0
    assert len(read_table((tmp_path / "res/train.log").read_text())) == 3


def test_balanced_sampling_evens_the_classes_out():
    labels = [0] * 9 + [1] * 2 + [2]
    batches = ShuffledBatches(12, 5, 1, labels=labels)
    for epoch in (1, 2):
        batches.begin(epoch)
        keys = [key for batch in batches for key in batch]
        assert np.bincount([labels[key.video] for key in keys]).tolist() == [4, 4, 4]
        assert len({(key.video, key.repeat) for key in keys}) == 12
    shares = [ShuffledBatches(12, 5, 1, labels=labels, rank=rank, size=2) for rank in range(2)]
    together = [sorted(a + b) for a, b in zip(*shares, strict=True)]
    assert together == [sorted(batch) for batch in ShuffledBatches(12, 5, 1, labels=labels)]


def test_a_repeated_video_is_drawn_anew(tmp_path):
    index = make_dataset(tmp_path, train=3, val=1)
    for video in ("b_0", "b_1"):
        index["database"][video]["subset"] = "testing"
    (tmp_path / "index.json").write_text(json.dumps(index))
    flags = ("--n_epochs", "1", "--no_val", "--sample_size", "16")
    assert small_run(tmp_path, *flags, result="plain") == 0
    assert small_run(tmp_path, *flags, "--sampler", "balanced", result="even") == 0
    plain, even = ((tmp_path / run / "train.log").read_text() for run in ("plain", "even"))
    assert plain != even


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--warmup_epochs", "1"), "--warmup_epochs needs --lr_scheduler cosine"),
        (("--early_stopping", "1", "--no_val"), "--early_stopping needs the validation accuracy"),
        (("--optimizer", "adamw", "--nesterov"), "--nesterov needs --optimizer sgd"),
    ],
)
def test_flags_that_cannot_be_combined(tmp_path, capsys, flags, message):
    assert small_run(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err
