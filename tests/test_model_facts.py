"""What models cost: against figures computed by hand, and those of others."""

import re
from itertools import islice

import pytest
import torch
from torch import nn
from torchvision.models.video import R3D_18_Weights

from errors import UserError
from models.build import build
from models.catalog import FAMILIES
from models.facts import model_facts
from tests.commands import ROOT
from util_scripts import inspect_checkpoint, model_info

CLIP = (3, 4, 8, 8)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.fc(self.pool(x).flatten(1))


def test_a_tiny_model_by_hand():
    voxels = 4 * 8 * 8
    facts = model_facts(Tiny(), CLIP)
    assert facts.n_parameters == 3 * 5 * 27 + 5 * 2 + 2
    assert facts.flops == 2 * (3 * 5 * 27 * voxels + 5 * 2)
    clip, features, pooled = 4 * 3 * voxels, 4 * 5 * voxels, 4 * 5
    assert facts.inference_bytes == clip + 2 * features  # before and after ReLU
    assert facts.training_bytes == clip + features + pooled  # the inputs of conv and fc, and ReLU's


class Twice(nn.Module):
    """Saves the same tensor for three operations, and a view of it."""

    def forward(self, x):
        y = x.exp()
        return (y * y).sum() + (y[:, :1] * y[:, :1]).sum()


def test_shared_tensors_count_once():
    model = nn.Sequential(nn.Conv3d(3, 2, 1, bias=False), Twice())
    voxels = 4 * 8 * 8
    facts = model_facts(model, CLIP)
    assert facts.training_bytes == 4 * (3 * voxels + 2 * voxels)


def test_a_model_stays_as_it_was():
    model = build("resnet", 10, n_classes=3, resnet_widen_factor=0.25).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model_facts(model, (3, 8, 32, 32))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    model_facts(model.eval(), (3, 8, 32, 32))
    assert not model.training


def test_figures_of_torchvision():
    with torch.device("meta"):
        model = build("resnet", 18, n_classes=400, conv1_t_size=3, no_max_pool=True)
    facts = model_facts(model, (3, 16, 112, 112))
    meta = R3D_18_Weights.KINETICS400_V1.meta
    assert facts.n_parameters == meta["num_params"]
    assert facts.flops / 2e9 == pytest.approx(meta.get("_ops", 40.697), abs=1e-3)


def printed(capsys, *words):
    assert model_info.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


SMALL = ("--model_depth", 10, "--resnet_widen_factor", 0.25, "--sample_size", 32, "--no_cuda")


def test_the_command_prints_all_figures(capsys):
    lines = printed(capsys, *SMALL, "--sample_duration", 8, "--n_classes", 7).splitlines()
    assert lines[0] == "resnet-10: clips of 8 frames of 32 x 32 pixels, 7 classes"
    facts = model_facts(build("resnet", 10, n_classes=7, resnet_widen_factor=0.25), (3, 8, 32, 32))
    assert f"{facts.n_parameters:,}, " in lines[1]
    assert f"{facts.flops / 2e9:.2f} G multiply-adds" in lines[2]
    assert f"{facts.training_bytes / 1e6:.1f} MB in training" in lines[3]
    assert len(lines) == 4


def test_speed_is_measured_on_request(capsys, monkeypatch):
    monkeypatch.setattr("engine.speed.SECONDS", 0.0)
    lines = printed(capsys, *SMALL, "--speed").splitlines()[4:]
    for line, what in zip(lines, ("inference", "training"), strict=True):
        assert re.match(rf"  {what} +\d+\.\d\d clips/s in batches of [12], ", line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "densenet"], "densenet has depths 121"),
        (
            ["--model", "densenet", "--model_depth", "121", "--sample_size", "8"],
            "too small for densenet",
        ),
        (["--clips", "-1"], "--clips -1: must be from 1 to 4096"),
        (["--wide_resnet_k", "3"], "resnet has no such option"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(UserError, match=message):
        model_info.main(words)


def test_inspect_checkpoint_shows_them(tmp_path, capsys):
    model = build("resnet", 10, n_classes=3, resnet_widen_factor=0.25, no_max_pool=True)
    options = {"no_max_pool": True, "sample_size": 32, "sample_duration": 8}
    content = {"state_dict": model.state_dict(), "options": options}
    torch.save(content, tmp_path / "c.pth")
    assert inspect_checkpoint.main([str(tmp_path / "c.pth")]) == 0
    found = capsys.readouterr().out
    for subject, text in model_facts(model, (3, 8, 32, 32)).describe():
        assert f"  {subject:20} {text}\n" in found


def test_inspect_checkpoint_survives_a_model_that_cannot_be_built(tmp_path, capsys):
    weights = build("resnet", 10, n_classes=3, resnet_widen_factor=0.25).state_dict()
    weights["fc.weight"] = torch.zeros(3, 999)
    torch.save(weights, tmp_path / "c.pth")
    assert inspect_checkpoint.main([str(tmp_path / "c.pth")]) == 0
    assert re.search(r"  parameters +not computed: .*fc.weight", capsys.readouterr().out)


def test_the_page_has_the_table_that_the_command_prints():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    options = model_info.options_of({"sample_size": 112, "sample_duration": 16, "n_classes": 400})
    for line in islice(model_info.markdown(options, ("resnet",)), 4):  # depths 10 and 18
        assert f"{line}\n" in page
    for family, entry in FAMILIES.items():
        assert all(f"| `{family}` | {depth} | " in page for depth in entry.depths)
