import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint, load_weights, n_classes_of
from engine.checkpoint_file import save_checkpoint
from engine.results_folder import find_newest
from errors import UserError
from models.build import build
from tests.runs import limit_file_size


def small(depth=10, n_classes=3, **options):
    return build("resnet", depth, n_classes=n_classes, resnet_widen_factor=0.25, **options)


def content(model, epoch=1):
    return {"epoch": epoch, "arch": "resnet-10", "state_dict": model.state_dict()}


FORMS = [
    "whole", "bare", "legacy", "in model", "without counters", "module.", "model.", "_orig_mod.",
    "module._orig_mod.", "_orig_mod.module.",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_load(tmp_path, form):
    model = small()
    weights = model.state_dict()
    if form.endswith("."):
        weights = OrderedDict((f"{form}{name}", value) for name, value in weights.items())
    elif form == "without counters":  # as before torch 0.4.1
        weights = {n: value for n, value in weights.items() if "num_batches" not in n}
    key = "model" if form == "in model" else "state_dict"
    whole = {"epoch": 3, "arch": "resnet-10", key: weights}
    path = tmp_path / "c.pth"
    torch.save(
        weights if form == "bare" else whole,
        path,
        _use_new_zipfile_serialization=form != "legacy",
    )
    checkpoint = load_checkpoint(path)
    assert checkpoint.epoch == (None if form == "bare" else 3)
    other = small()
    load_weights(other, checkpoint)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_prefix_is_removed_only_where_a_network_shows(tmp_path):
    weights = build("densenet", 121, n_classes=1).state_dict()
    trunk = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    for prefix, weights in (("", trunk), ("a.b.", trunk), ("a.", {"x": torch.ones(1)})):
        torch.save({f"{prefix}{name}": tensor for name, tensor in weights.items()}, tmp_path / "c")
        names = load_checkpoint(tmp_path / "c").state_dict.keys()
        assert names == (trunk.keys() if weights is trunk else {"a.x"})


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_code_in_a_file_does_not_run(tmp_path):
    target = tmp_path / "created"
    torch.save({"state_dict": Bomb(target)}, tmp_path / "zip.pth")
    with pytest.raises(UserError, match=r"zip\.pth: refused: .* \(getattr\)"):
        load_checkpoint(tmp_path / "zip.pth")
    assert not target.exists()


class Shell:
    """torch has another message for modules that it blocks."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("as_zip", [True, False])
def test_shell_commands_in_a_file_do_not_run(tmp_path, as_zip):
    path, target = tmp_path / "c.pth", tmp_path / "created"
    content = {"state_dict": {"a": torch.ones(1)}, "x": Shell(target)}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UserError, match=r"would run code when loaded \((posix|nt)\.system\)"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_pickles_do_not_run(tmp_path, protocol, recwarn):
    path, target = tmp_path / "c.pth", tmp_path / "created"
    path.write_bytes(pickle.dumps({"state_dict": Shell(target)}, protocol))
    with pytest.raises(UserError, match=r"c\.pth: refused: .* run code"):
        load_checkpoint(path)
    assert not target.exists()
    assert not recwarn.list


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 nonsense", bytes(1000)])
def test_files_that_are_no_checkpoint(tmp_path, data):
    path = tmp_path / "c.pth"
    path.write_bytes(data)
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_checkpoint(tmp_path, share):
    path = tmp_path / "c.pth"
    torch.save(content(small()), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="only a part"):
        load_checkpoint(path)


def test_other_content(tmp_path):
    path = tmp_path / "c.pth"
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="contains a list"):
        load_checkpoint(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(UserError, match="no weights"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18}, "the checkpoint has model_depth 10; the flags say model_depth 18"),
        ({"n_classes": 5}, "the checkpoint has n_classes 3; the flags say n_classes 5"),
        ({"resnet_shortcut": "A"}, "resnet_shortcut B; the flags say resnet_shortcut A"),
        ({"n_input_channels": 2}, "n_input_channels 2 .--input_type flow has 2, rgb 3."),
        ({"conv1_t_size": 3}, "conv1_t_size 7; the flags say conv1_t_size 3"),
    ],
)
def test_what_differs_is_named(tmp_path, options, message):
    path = tmp_path / "c.pth"
    torch.save(content(small()), path)
    with pytest.raises(UserError, match=message):
        load_weights(small(**options), load_checkpoint(path))


def test_single_tensors_that_differ_are_named(tmp_path):
    model = small()
    weights = model.state_dict()
    del weights["layer3.0.bn1.bias"]
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"has no layer3\.0\.bn1\.bias"):
        load_weights(model, load_checkpoint(tmp_path / "c.pth"))


def test_head_size(tmp_path):
    torch.save(content(small(n_classes=9)), tmp_path / "c.pth")
    checkpoint = load_checkpoint(tmp_path / "c.pth")
    assert n_classes_of(checkpoint, "fc") == 9
    with pytest.raises(UserError, match="no head 'classifier': it is a resnet-10"):
        n_classes_of(checkpoint, "classifier")


def test_full_disk_keeps_the_previous_file(tmp_path):
    path = tmp_path / "save_1.pth"
    save_checkpoint(path, content(small(), epoch=1))
    message = "can't be written.*the previous file is unchanged"
    with limit_file_size(100_000), pytest.raises(UserError, match=message):
        save_checkpoint(path, content(small(), epoch=2))
    assert load_checkpoint(path).epoch == 1
    assert [p.name for p in tmp_path.iterdir()] == ["save_1.pth"]


def test_newest_whole_checkpoint(tmp_path):
    assert find_newest(tmp_path) is None
    for epoch in (1, 2):
        save_checkpoint(tmp_path / f"save_{epoch}.pth", content(small(), epoch))
    (tmp_path / "save_3.pth").write_bytes((tmp_path / "save_2.pth").read_bytes()[:5000])
    newest = find_newest(tmp_path)
    assert newest is not None
    assert newest.path.name == "save_2.pth"


def test_only_files_that_runs_write_are_found(tmp_path):
    save_checkpoint(tmp_path / "r3d50_K_200ep.pth", content(small(), epoch=200))
    save_checkpoint(tmp_path / "save_1.pth.pth", content(small(), epoch=1))
    assert find_newest(tmp_path) is None
    save_checkpoint(tmp_path / "best.pth", content(small(), epoch=3))
    save_checkpoint(tmp_path / "other.pth", content(small(), epoch=4))
    assert find_newest(tmp_path).path.name == "best.pth"


@pytest.mark.parametrize(
    "beside",
    [
        {"epoch": "nine", "optimizer": {"state": 5}, "scheduler": {"gamma": 1}},
        {"epoch": 2.5, "optimizer": [1], "scheduler": "cosine"},
        {"optimizer": None},
    ],
)
def test_what_other_programs_keep_beside_weights_does_not_matter(tmp_path, beside):
    torch.save({"state_dict": small().state_dict()} | beside, tmp_path / "c.pth")
    checkpoint = load_checkpoint(tmp_path / "c.pth")
    assert checkpoint.epoch is checkpoint.optimizer is None
    load_weights(small(), checkpoint)
