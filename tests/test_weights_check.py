"""Weights that are not what a file says: wrong tensors, odd names, flipped bits."""

import os
import random
import re
import struct
import zipfile

import pytest
import torch

from engine.checkpoint import load_checkpoint
from errors import UserError
from models.arch_detect import identify
from predict.classifier import load_classifier
from tests.commands import run_util
from tests.strange_weights import FAMILIES, LAYOUTS, NAMES, STRUCTURE, base, mutate
from util_scripts.inspect_checkpoint import describe

# torch says so of what its makers may still change.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse CSR|torch.quantize|The PyTorch API of nested"
)
HARMLESS = {"transposed", "parameter", "more dimensions", "resized"}
CASES = 200


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind not in HARMLESS])
@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.bn1.running_var", "fc.bias"])
def test_a_tensor_that_no_weights_can_be_is_named(tmp_path, kind, name):
    draw = random.Random(0)
    weights = base("resnet")
    if kind == "fewer dimensions" and weights[name].ndim == 1:
        pytest.skip("has one dimension")
    whole = weights | {name: LAYOUTS[kind](weights[name], draw)}
    torch.save({"state_dict": whole}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=rf"c\.pth: .*{re.escape(name)}") as caught:
        load_classifier(tmp_path / "c.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_taken_for_no_part_of_a_network(name):
    shapes = {n: tuple(t.shape) for n, t in base("resnet").items()}
    assert identify({name: (1, 2)}) is None
    identity = identify(shapes | {name: ()})  # of a name that the family has, it may be None
    assert identity == identify(shapes) or name in STRUCTURE


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_weights_load_or_give_one_line(tmp_path, monkeypatch, family):
    path = tmp_path / "c.pth"
    path.touch()
    whole = base(family)
    for seed in range(CASES // len(FAMILIES)):
        weights = mutate(whole, random.Random(f"{family} {seed}"))
        monkeypatch.setattr(torch, "load", lambda *_, weights=weights, **__: weights)
        try:
            assert list(describe(load_checkpoint(path)))
            load_classifier(path)
        except UserError as error:
            assert str(error).isprintable(), seed
            assert len(str(error)) < 1000, seed


def test_a_small_file_can_not_ask_for_a_model_of_any_size(tmp_path):
    weights = base("resnet") | {"conv1.weight": torch.zeros(64 * 3000, 3, 7, 1, 1)}
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"has shape \(.*\) in the checkpoint"):
        load_classifier(tmp_path / "c.pth")


def test_a_network_for_pictures_is_recognised_as_such(tmp_path):
    weights = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(2, 512)}
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"conv1\.weight has 4 dimensions instead of 5"):
        load_classifier(tmp_path / "c.pth")


def test_names_with_and_without_prefix_are_not_mixed_up(tmp_path):
    torch.save({"a": torch.ones(1), "module.a": torch.zeros(1)}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="both with and without"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_noticed(tmp_path, monkeypatch, seed):
    path, draw = tmp_path / "c.pth", random.Random(seed)
    torch.save({"state_dict": {"w": torch.randn(1000), "v": torch.randn(1000)}}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        header = archive.getinfo("c/data/0").header_offset
    n_name, n_extra = struct.unpack_from("<HH", data, header + 26)
    data[header + 30 + n_name + n_extra + draw.randrange(4000)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: the checksum of c/data/0 is wrong"):
        load_checkpoint(path)
    monkeypatch.setenv("CHECK_CRC", "0")
    load_checkpoint(path)


def test_files_written_without_checksums_load(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "c.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert load_checkpoint(tmp_path / "c.pth").state_dict["w"].tolist() == [1, 1, 1]


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="larger than the file"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_named_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"c{suffix}")
    ended = run_util("inspect_checkpoint", tmp_path / f"c{suffix}")
    assert ended.status == 2
    assert "not a regular file" in ended.stderr
