"""inspect_checkpoint and remove_dataparallel."""

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import load_checkpoint
from engine.checkpoint_file import ABOUT, save_checkpoint
from errors import UserError
from models.build import build
from tests.runs import make_dataset, small_run
from util_scripts.inspect_checkpoint import main as inspect
from util_scripts.remove_dataparallel import main as remove


def wrapped(path, **content):
    weights = build("resnet", 10, n_classes=3, resnet_widen_factor=0.25).state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_checkpoint(path, {"state_dict": prefixed, **content} if content else prefixed)
    return weights


def output(capsys):
    lines = capsys.readouterr().out.splitlines()[1:]
    return {line[2:22].strip(): line[23:] for line in lines}


def test_a_file_of_ours_tells_everything(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--conv1_t_size", "3", "--no_max_pool", "--n_epochs", "1") == 0
    capsys.readouterr()
    assert inspect([str(tmp_path / "res/save_1.pth")]) == 0
    found = output(capsys)
    assert found["model"] == "resnet-10"
    assert found["classes"] == "2"
    assert found["class names"] == "a, b"
    assert found["epoch"] == "1"
    assert found["to resume"] == "optimizer and scheduler"
    assert found["flags"] == (
        "--model resnet --model_depth 10 --conv1_t_size 3 --resnet_widen_factor 0.25 "
        "--no_max_pool --sample_size 32 --sample_duration 8"
    )


@pytest.mark.parametrize(
    ("model", "depth", "options", "flags"),
    [
        ("resnet", 18, {"resnet_shortcut": "A"}, "--resnet_shortcut A"),
        ("resnet2p1d", 18, {"resnet_widen_factor": 0.25}, "--resnet_widen_factor 0.25"),
        ("preresnet", 10, {}, ""),
        ("wideresnet", 50, {"wide_resnet_k": 1}, "--wide_resnet_k 1"),
        ("resnext", 50, {"resnext_cardinality": 16}, "--resnext_cardinality 16"),
        ("densenet", 121, {"conv1_t_size": 3}, "--conv1_t_size 3"),
        ("resnet", 10, {"n_input_channels": 2}, "--input_type flow"),
    ],
)
def test_families_are_told_by_their_tensors(tmp_path, capsys, model, depth, options, flags):
    with torch.device("meta"):
        built = build(model, depth, n_classes=7, **options)
    weights = {n: torch.zeros(t.shape, dtype=torch.half) for n, t in built.state_dict().items()}
    torch.save(weights, tmp_path / "bare.pth")
    assert inspect([str(tmp_path / "bare.pth")]) == 0
    found = output(capsys)
    assert found["classes"] == "7"
    assert found["model"] == f"{model}-{depth}"
    assert found["flags"] == f"--model {model} --model_depth {depth} {flags}".strip()


def test_the_width_is_the_one_that_was_asked_for(tmp_path, capsys):
    weights = build("resnet", 10, n_classes=3, resnet_widen_factor=0.3).state_dict()
    content = {"state_dict": weights, "options": {"resnet_widen_factor": 0.3}}
    save_checkpoint(tmp_path / "c.pth", content)
    assert inspect([str(tmp_path / "c.pth")]) == 0
    found = output(capsys)
    assert found["resnet_widen_factor"] == "0.3"
    assert "--resnet_widen_factor 0.3" in found["flags"].split(" --no")[0]
    assert "not computed" not in found["parameters"]


def test_stripping_in_place_keeps_the_old_file(tmp_path, capsys):
    path = tmp_path / "c.pth"
    weights = wrapped(path, epoch=4, arch="resnet-10", note="kept")
    before = path.read_bytes()
    assert remove([str(path)]) == 0
    assert (tmp_path / "c.pth.bak").read_bytes() == before
    content = torch.load(path, weights_only=True)
    assert list(content["state_dict"]) == list(weights)
    assert content["epoch"] == 4
    assert content["note"] == "kept"
    stripped = path.read_bytes()
    assert remove([str(path)]) == 0  # nothing to strip: nothing is written
    assert path.read_bytes() == stripped
    assert (tmp_path / "c.pth.bak").read_bytes() == before
    wrapped(path)
    assert remove([str(path)]) == 0
    assert (tmp_path / "c.pth.bak").read_bytes() == before
    assert (tmp_path / "c.pth.bak2").exists()


def test_stripping_into_another_file(tmp_path):
    weights = wrapped(tmp_path / "c.pth")
    before = (tmp_path / "c.pth").read_bytes()
    assert remove([str(tmp_path / "c.pth"), "--dst_file_path", str(tmp_path / "d.pth")]) == 0
    assert remove([str(tmp_path / "c.pth"), "--dst_file_path", str(tmp_path / "d.pth")]) == 0
    assert (tmp_path / "c.pth").read_bytes() == before
    assert list(load_checkpoint(tmp_path / "d.pth").state_dict) == list(weights)
    assert "module." not in "".join(torch.load(tmp_path / "d.pth", weights_only=True))


def test_stripping_what_is_no_checkpoint_changes_nothing(tmp_path):
    path = tmp_path / "c.pth"
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="no checkpoint"):
        remove([str(path)])
    assert path.read_bytes() == b"hello"
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


def test_safetensors(tmp_path, capsys):
    weights = wrapped(tmp_path / "c.safetensors")
    assert remove([str(tmp_path / "c.safetensors")]) == 0
    assert set(load_checkpoint(tmp_path / "c.safetensors").state_dict) == set(weights)
    capsys.readouterr()
    assert inspect([str(tmp_path / "c.safetensors")]) == 0
    assert output(capsys)["model"] == "resnet-10"
    (tmp_path / "d.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"d.safetensors: can't be read"):
        load_checkpoint(tmp_path / "d.safetensors")


def test_a_whole_checkpoint_as_safetensors_is_the_same_network(tmp_path):
    """Tensors of a run are laid out channels last, which safetensors refuses."""
    make_dataset(tmp_path)
    unseen = ("--no_max_pool", "--mean_dataset", "0.5", "--eval_resize", "40", "36")
    assert small_run(tmp_path, "--n_epochs", "1", "--no_val", *unseen) == 0
    source, copy = tmp_path / "res/save_1.pth", tmp_path / "d.safetensors"
    assert remove([str(source), "--dst_file_path", str(copy)]) == 0
    again = tmp_path / "e.safetensors"
    assert remove([str(copy), "--dst_file_path", str(again)]) == 0
    ours, theirs = load_checkpoint(source), load_checkpoint(again)
    assert ours.state_dict.keys() == theirs.state_dict.keys()
    assert all(torch.equal(t, theirs.state_dict[name]) for name, t in ours.state_dict.items())
    assert theirs.options == ours.options
    assert theirs.class_names == ["a", "b"]
    assert theirs.extras.versions == ours.extras.versions


def test_options_that_no_run_wrote_are_not_copied(tmp_path):
    content = {"state_dict": {"fc.weight": torch.ones(2, 2)}, "options": {"x": torch.ones(1)}}
    save_checkpoint(tmp_path / "c.pth", content)
    with pytest.raises(UserError, match="the options of the checkpoint can't be written as JSON"):
        remove([str(tmp_path / "c.pth"), "--dst_file_path", str(tmp_path / "d.safetensors")])
    assert not (tmp_path / "d.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [("{", "is not JSON"), ("[]", "expected object"), ('{"options": {"n_epochs": 0}}', "n_epochs")],
)
def test_damaged_metadata_of_safetensors_is_one_line(tmp_path, text, fault):
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "c.safetensors", {ABOUT: text})
    with pytest.raises(UserError, match=rf"^\S*c\.safetensors: .*{fault}"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_metadata_of_another_program_does_not_matter(tmp_path):
    weights = {"fc.weight": torch.ones(2, 2)}
    save_file(weights, tmp_path / "c.safetensors", {"about": "a network", "format": "pt"})
    assert load_checkpoint(tmp_path / "c.safetensors").options == {}
