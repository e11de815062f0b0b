"""Checkpoints are exchanged with the original program, which knows five of their keys."""

import pytest
import torch

import main
from engine.checkpoint import load_checkpoint
from tests.runs import make_dataset

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    "model",
    [
        ("resnet", "10", "--resnet_widen_factor", "0.25"),
        ("resnet2p1d", "10", "--resnet_widen_factor", "0.25"),
        ("preresnet", "10"),
        ("wideresnet", "50", "--wide_resnet_k", "1"),
        ("resnext", "50"),
        ("densenet", "121"),
    ],
    ids=lambda model: model[0],
)
def test_checkpoints_round_trip_through_the_original(tmp_path, model):
    """A program that knows five keys loads our files, and we resume its files."""
    make_dataset(tmp_path, train=2, val=1, n_frames=16)
    family, depth, *options = model
    flags = [
        "--root_path", str(tmp_path), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", "res", "--dataset", "folder", "--n_classes", "2", "--no_cuda",
        "--n_threads", "0", "--precision", "fp32", "--learning_rate", "0.001", "--batch_size", "4",
        "--sample_size", "32", "--model", family, "--model_depth", depth, *options, "--no_val",
    ]  # fmt: skip
    assert main.main([*flags, "--n_epochs", "1"]) == 0
    content = torch.load(tmp_path / "res/save_1.pth", weights_only=True)
    assert content["epoch"] == 1
    assert content["arch"] == f"{family}-{depth}"
    assert not any(name.startswith("module.") for name in content["state_dict"])
    theirs = torch.nn.Module()  # loads optimizer and scheduler as the original does
    theirs.weights = torch.nn.ParameterList(
        tensor.clone() for name, tensor in content["state_dict"].items() if is_parameter(name)
    )
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0, momentum=0.9)
    optimizer.load_state_dict(content["optimizer"])
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50, 100, 150])
    scheduler.load_state_dict(content["scheduler"])
    assert optimizer.param_groups[0]["lr"] == 0.001
    assert scheduler.last_epoch == 1
    five = ("epoch", "arch", "state_dict", "optimizer", "scheduler")
    torch.save({name: content[name] for name in five}, tmp_path / "theirs.pth")
    assert main.main([*flags, "--n_epochs", "2", "--resume_path", "theirs.pth"]) == 0
    assert load_checkpoint(tmp_path / "res/save_2.pth").epoch == 2


def is_parameter(name):
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
