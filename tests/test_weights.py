"""The table of hosted weights, its command and its page."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import torchvision.models
from torchvision.models import get_weight

from errors import UserError
from models.arch_detect import identify
from models.namings import NAMINGS, Inflation, find_naming
from models.weights import WEIGHTS, find_weights, is_weights_name, weights_of_file
from parsing import parse_opts
from tests.commands import ROOT
from util_scripts import weights as command

PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
MIB = 1.048576  # torchvision gives sizes in these


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_says_what_is_needed_to_use_and_cite_it(name):
    row = WEIGHTS[name]
    assert row.url.startswith("https://")
    assert row.url.endswith(f"/{row.file}")
    assert re.fullmatch("[0-9a-f]{8}", row.sha256)
    assert find_weights(Path(name)) is weights_of_file(row.file) is row
    assert row.origin.licence
    assert row.cite.url.startswith("https://arxiv.org/abs/")
    texts = [v for v in vars(row).values() if isinstance(v, str)]
    assert not any("|" in text or "\n" in text for text in texts)  # cells of a table


def test_names_and_files_are_unique():
    assert len({row.file for row in WEIGHTS.values()}) == len(WEIGHTS)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.startswith("torchvision:")])
def test_the_table_agrees_with_torchvision(name):
    row = WEIGHTS[name]
    is_video = row.n_frames > 0
    enum = torchvision.models.get_model_weights(row.key.removesuffix("_v2"))
    [theirs] = [weights for weights in enum if weights.url == row.url]
    assert theirs.name.endswith("V2" if row.key.endswith("_v2") else "V1")
    assert len(theirs.meta["categories"]) == row.n_classes
    if row.categories != "R3D_18_Weights.KINETICS400_V1":
        assert get_weight(row.categories) is theirs
    assert row.class_names() == tuple(theirs.meta["categories"])
    data = "Kinetics-400" if is_video else "ImageNet-1K"
    if "_metrics" in theirs.meta:
        top1 = theirs.meta["_metrics"][data]["acc@1"]
        assert abs(float(row.accuracy.split()[0]) - top1) <= 0.0501
    if "_file_size" in theirs.meta:
        assert row.megabytes == round(theirs.meta["_file_size"] * MIB)
    if is_video:
        assert "5 clips" in row.accuracy
        assert "clips_per_video=5" in theirs.meta["_docs"]


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.startswith("torchvision:")])
def test_their_tensors_are_recognised_as_what_the_table_says(name):
    row = WEIGHTS[name]
    with torch.device("meta"):
        model = torchvision.models.get_model(row.key.removesuffix("_v2"))
    tensors = model.state_dict()
    naming = find_naming({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    assert naming is NAMINGS[row.naming]
    translated = naming.translate(tensors, Inflation())
    identity = identify({name: tuple(tensor.shape) for name, tensor in translated.items()})
    assert (identity.arch, identity.n_classes) == (row.arch, row.n_classes)


def test_class_names_come_with_kinetics_only_where_they_are_known():
    assert len(WEIGHTS["ig65m:r2plus1d_34_32_kinetics"].class_names()) == 400
    assert WEIGHTS["ig65m:r2plus1d_34_32_ig65m"].class_names() is None


def test_an_unknown_name_lists_those_of_its_host_closest_first():
    with pytest.raises(UserError) as caught:
        find_weights(Path("torchvision:r3d_19"))
    assert "torchvision:r3d_19: no such weights; torchvision has torchvision:r3d_18, " in str(
        caught.value
    )
    for name in WEIGHTS:
        assert (name in str(caught.value)) == name.startswith("torchvision:")


@pytest.mark.parametrize(
    "path", ["r3d_18.pth", "/a/torchvision:r3d_18", "C:/x.pth", "a:b", "x/xdc:y"]
)
def test_paths_are_no_names(path):
    assert not is_weights_name(Path(path))
    assert find_weights(Path(path)) is None


NEEDED = ["--video_path", "v", "--annotation_path", "a", "--result_path", "r"]


@pytest.mark.parametrize("flag", ["pretrain_path", "resume_path"])
def test_a_name_is_not_joined_with_the_root(flag):
    words = [*NEEDED, "--root_path", "/data", f"--{flag}", "torchvision:r3d_18"]
    assert getattr(parse_opts(words), flag) == Path("torchvision:r3d_18")
    words[-1] = "x.pth"
    assert getattr(parse_opts(words), flag) == Path("/data/x.pth")


def test_an_unknown_name_is_reported_with_the_command_line():
    with pytest.raises(UserError, match="torchvision:r3d_19: no such weights"):
        parse_opts([*NEEDED, "--pretrain_path", "torchvision:r3d_19"])


def test_a_name_elsewhere_is_a_path():
    assert parse_opts([*NEEDED[:-1], "torchvision:x"]).result_path == Path("torchvision:x")


def test_the_command_lists_all_with_licence_and_citation(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints" / WEIGHTS["torchvision:mc3_18"].file
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert command.main([]) == 0
    entries = re.split(r"\n(?=\w)", capsys.readouterr().out.strip())
    assert len(entries) == len(WEIGHTS)
    for entry, row in zip(entries, WEIGHTS.values(), strict=True):
        assert entry.startswith(f"{row.name}: ")
        assert all(text in entry for text in (row.origin.licence, str(row.cite), row.url))
        assert ("downloaded" in entry) == (row.name == "torchvision:mc3_18")


def test_the_page_has_the_table_that_the_command_prints(capsys):
    assert command.main(["--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed in PAGE
    for row in WEIGHTS.values():
        assert row.name in printed
        assert row.origin.licence in printed
        assert row.cite.url in printed


@pytest.mark.parametrize("words", [["r3d_18"], ["torchvision:"], ["a:b"], ["xdc:é\udcff"]])
def test_unknown_names_of_the_command(words):
    with pytest.raises(UserError, match="no such weights"):
        command.main(words)


def test_size_and_accuracy_that_nobody_published_are_not_made_up():
    row = dataclasses.replace(WEIGHTS["xdc:r2plus1d_18_fs_kinetics"], accuracy="", megabytes=None)
    text = "\n".join(command.describe(row, is_downloaded=False))
    assert "size not known" in text
    assert "no classes" in text
    assert "accuracy not published" in text
