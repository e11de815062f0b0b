"""NaN and infinity: refused where they are read, named where they arise, never written."""

import ast
from pathlib import Path

import pytest
import torch

from engine.checkpoint_file import save_checkpoint
from engine.results_folder import find_newest
from tests.commands import run_util
from tests.runs import make_dataset, small_run
from tests.videos import draw
from utils.files import write_json

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).parent.parent
HOW = ("--no_cuda", "--precision", "fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a dataset and, in res/, a run of one epoch."""
    root = tmp_path_factory.mktemp("trained")
    make_dataset(root)
    assert small_run(root, "--n_epochs", "1") == 0
    return root


def content_of(path):
    return torch.load(path, weights_only=True)


def changed(trained, path, **values):
    """A copy of the trained checkpoint with all elements of some tensors set to a value."""
    content = content_of(trained / "res/save_1.pth")
    for name, value in values.items():
        content["state_dict"][name.replace("_", ".", 1)].fill_(value)
    torch.save(content, path)
    return path


def one_line(capsys):
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


INFERENCE = ("--no_train", "--no_val", "--inference")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("flag", ["--resume_path", "--pretrain_path"])
def test_weights_that_are_not_finite_are_refused(trained, tmp_path, capsys, flag, value):
    path = changed(trained, tmp_path / "c.pth", bn1_running_var=value)
    assert small_run(trained, flag, str(path), result=str(tmp_path / "on")) == 2
    assert "c.pth: bn1.running_var contains NaN or infinity" in one_line(capsys)


def test_auto_passes_over_weights_that_are_not_finite(trained, tmp_path):
    save_checkpoint(tmp_path / "save_1.pth", content_of(trained / "res/save_1.pth"))
    changed(trained, tmp_path / "save_2.pth", fc_weight=torch.nan)
    assert find_newest(tmp_path).path.name == "save_1.pth"


@pytest.mark.parametrize("flags", [INFERENCE, (*INFERENCE, "--inference_no_average")])
def test_scores_that_are_not_finite_end_inference(trained, tmp_path, capsys, flags):
    path = changed(trained, tmp_path / "c.pth", fc_weight=3e38)  # finite, but its sums are not
    flags = ("--resume_path", str(path), *flags)
    assert small_run(trained, *flags, result=str(tmp_path / "on")) == 2
    assert "a_3: the model outputs NaN or infinity" in one_line(capsys)
    assert not (tmp_path / "on/val.json").exists()


def test_scores_that_are_not_finite_end_validation(trained, tmp_path, capsys):
    path = changed(trained, tmp_path / "c.pth", fc_weight=3e38)
    flags = ("--resume_path", str(path), "--no_train")
    assert small_run(trained, *flags, result=str(tmp_path / "on")) == 2
    assert "validation 1: a_3: the model outputs NaN or infinity" in one_line(capsys)


def test_scores_that_are_not_finite_end_a_prediction(trained, tmp_path):
    path = changed(trained, tmp_path / "c.pth", fc_weight=3e38)
    video = draw(tmp_path / "bars.mp4", seconds=2)
    outputs = ("--json", tmp_path / "out.json")
    done = run_util("predict_video", video, "--checkpoint", path, *HOW, *outputs)
    assert done.status == 2, done.text
    assert f"error: {video}: the model outputs NaN or infinity" in done.stderr


def test_features_that_are_not_finite_are_not_written(trained, tmp_path):
    path = changed(trained, tmp_path / "c.pth", fc_weight=3e38)
    out = tmp_path / "out.npz"
    how = ("--checkpoint", path, "--subset", "val", "--layer", "fc", *HOW)
    done = run_util("extract_features", trained / "index.json", trained / "jpg", out, *how)
    assert done.status == 2, done.text
    assert "error: a_3: the model outputs NaN or infinity" in done.stderr
    assert not out.exists()


def test_weights_that_are_not_finite_are_not_saved(trained, tmp_path, capsys):
    """The last step of an epoch can spoil them without a loss that shows it."""
    content = content_of(trained / "res/save_1.pth")
    optimizer = content["optimizer"]
    optimizer["param_groups"][0]["lr"] = 1e6
    optimizer["state"][0]["momentum_buffer"].fill_(3e38)
    torch.save(content, tmp_path / "c.pth")
    flags = ("--resume_path", str(tmp_path / "c.pth"), "--batch_size", "64", "--no_val")
    assert small_run(trained, *flags, result=str(tmp_path / "on")) == 2
    assert "save_2.pth: not saved: conv1.weight contains NaN or infinity" in one_line(capsys)
    assert not list((tmp_path / "on").glob("*.pth"))


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "out.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_every_writer_of_json_refuses_nan():
    """json.dumps writes NaN by default, which no other reader of JSON takes."""
    left_out = ("tests", "build", "demo", "runs")
    folders = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in left_out and not path.name.startswith(".")
    ]
    sources = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    calls = [
        (path.name, node)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump")
    ]
    assert len(calls) > 5
    lax = [
        f"{name}:{call.lineno}"
        for name, call in calls
        if "allow_nan=False" not in ast.unparse(call)
    ]
    assert not lax
