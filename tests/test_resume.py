"""Runs that are interrupted and go on; checkpoints that settle what the flags leave open."""

import os
import re
import signal

import pytest
import torch

import main
from engine.checkpoint import load_checkpoint
from opts import FLAGS
from tests.commands import PATIENCE, run_command
from tests.runs import make_dataset, read_table, small_run
from utils.interruption import Interrupted

pytestmark = pytest.mark.numeric


def weights_of(path):
    return torch.load(path, weights_only=True)["state_dict"]


def same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "how", [("KILL",), ("TERM",), ("TERM", "--group", "--variant", "accumulate")]
)
def test_killed_runs_go_on_as_if_undisturbed(how):
    """A part of what `python -m tests.kill_and_resume` does in full."""
    flags = ("--kills", "4", "--workers", "1", "--signal", *how)
    ran = run_command("-W", "ignore", "-m", "tests.kill_and_resume", *flags, seconds=6 * PATIENCE)
    assert ran.status == 0, ran.text
    assert "kills" in ran.stdout
    assert "equal" in ran.stdout


class SignalAt:
    """Sends this process SIGTERM when the given row of a log is written."""

    def __init__(self, log, row):
        self.log, self.row = log, row

    def __call__(self, run_log, log, row):
        self.write(run_log, log, row)
        if log == self.log and all(row[key] == value for key, value in self.row.items()):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("log", "row", "saved"),
    [
        ("train_batch", {"epoch": 1, "batch": 1}, (0, 1)),
        ("train_batch", {"epoch": 2, "batch": 2}, (1, 2)),
        ("train", {"epoch": 2}, (1, 3)),  # found before the first batch of validation
        ("val", {"epoch": 1}, (1, 0)),
    ],
)
def test_sigterm_saves_and_tells_how_to_go_on(tmp_path, monkeypatch, log, row, saved):
    from engine.run_log import RunLog

    make_dataset(tmp_path, train=6)
    flags = ("--n_epochs", "3", "--multistep_milestones", "1")
    assert small_run(tmp_path, *flags, result="whole") == 0
    with monkeypatch.context() as patched:
        at = SignalAt(log, row)
        at.write = RunLog.write
        patched.setattr(RunLog, "write", lambda *arguments: at(*arguments))
        with pytest.raises(Interrupted, match="--resume_path auto") as raised:
            small_run(tmp_path, *flags)
    assert raised.value.exit_status == 128 + signal.SIGTERM
    checkpoint = load_checkpoint(tmp_path / "res/last.pth")
    position = checkpoint.position or {"batches": 0}
    assert (checkpoint.epoch, position["batches"]) == saved
    assert small_run(tmp_path, *flags, "--resume_path", "auto") == 0
    assert same_weights(tmp_path / "whole/save_3.pth", tmp_path / "res/save_3.pth")
    for name in ("train.log", "train_batch.log", "val.log"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "res" / name).read_text()


def test_a_signal_in_inference_tells_how_to_go_on(tmp_path, monkeypatch):
    make_dataset(tmp_path)
    monkeypatch.setattr(
        "engine.run_inference.infer", lambda *args, **named: os.kill(os.getpid(), signal.SIGTERM)
    )
    hint = "stopped in inference; the same command with --resume_path auto"
    with pytest.raises(Interrupted, match=hint) as raised:
        small_run(tmp_path, "--n_epochs", "1", "--inference")
    assert raised.value.exit_status == 128 + signal.SIGTERM


def test_weights_alone_have_no_epoch_to_tell(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    torch.save(weights_of(tmp_path / "res/save_1.pth"), tmp_path / "bare.pth")
    assert small_run(tmp_path, "--resume_path", "bare.pth", "--n_epochs", "1", result="on") == 0
    out = capsys.readouterr().out
    assert "bare.pth: loaded, weights only" in out
    assert "the optimiser starts afresh" in out


def test_handlers_are_put_back(tmp_path):
    make_dataset(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_inside_an_epoch_the_batches_must_be_the_same(tmp_path, capsys):
    make_dataset(tmp_path, train=6)
    minutes = ("--checkpoint_minutes", "0.00001")
    assert small_run(tmp_path, *minutes) == 0
    last = ("--resume_path", "res/last.pth")
    assert small_run(tmp_path, *last, "--batch_size", "3") == 2
    error = capsys.readouterr().err
    assert "--batch_size 3" in error
    assert "with 4" in error


def test_old_checkpoints_are_dropped(tmp_path):
    make_dataset(tmp_path)
    flags = ("--checkpoint", "1", "--keep_checkpoints", "2", "--n_epochs", "4")
    assert small_run(tmp_path, *flags) == 0
    names = {path.name for path in (tmp_path / "res").glob("*.pth")}
    assert names == {"save_3.pth", "save_4.pth", "best.pth"}


def test_a_run_killed_before_best_was_written_mends_it(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--checkpoint", "1", "--n_epochs", "1") == 0
    best, first = tmp_path / "res/best.pth", tmp_path / "res/save_1.pth"
    best.unlink()  # the first epoch is always the best so far
    assert small_run(tmp_path, "--resume_path", "auto", "--n_epochs", "1") == 0
    assert same_weights(best, first)
    assert load_checkpoint(best).epoch == 1


def test_the_best_epoch_stays_however_the_folder_is_written(tmp_path, monkeypatch):
    """Without best.pth, only the resumed file in the run's own folder has the best weights."""
    make_dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert small_run(tmp_path, "--checkpoint", "1", "--n_epochs", "1") == 0
    (tmp_path / "res/best.pth").unlink()
    flags = ["--root_path", ".", "--resume_path", str(tmp_path / "res/save_1.pth")]
    assert small_run(tmp_path, *flags, "--n_epochs", "1") == 0
    assert load_checkpoint(tmp_path / "res/best.pth").epoch == 1


def test_a_best_epoch_whose_weights_are_not_there_does_not_count(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--checkpoint", "1", "--n_epochs", "3") == 0
    content = torch.load(tmp_path / "res/save_3.pth", weights_only=True)
    content["best"] = {"epoch": 2, "video_accuracy": 1.0}  # no later one can be better
    torch.save(content, tmp_path / "res/save_3.pth")
    capsys.readouterr()
    resume = ("--resume_path", "res/save_3.pth", "--n_epochs", "4")
    assert small_run(tmp_path, *resume, result="other") == 0
    out = capsys.readouterr().out
    assert "other/best.pth: does not hold epoch 2, the best before" in out
    assert "best of 4 epochs: 4, with a video accuracy" in out
    assert load_checkpoint(tmp_path / "other/best.pth").epoch == 4


def test_a_run_killed_before_old_files_were_dropped_drops_them(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--checkpoint", "1") == 0
    keep = ("--keep_checkpoints", "1", "--resume_path", "auto")
    assert small_run(tmp_path, "--checkpoint", "1", *keep) == 0
    assert [path.name for path in (tmp_path / "res").glob("save_*.pth")] == ["save_2.pth"]


def test_a_truncated_last_is_passed_over_by_name(tmp_path, capsys):
    make_dataset(tmp_path, train=6)
    assert small_run(tmp_path, "--checkpoint", "1", "--checkpoint_minutes", "0.00001") == 0
    last = tmp_path / "res/last.pth"
    last.write_bytes(last.read_bytes()[:2000])
    (tmp_path / "res/best.pth").unlink()
    assert small_run(tmp_path, "--resume_path", "auto", "--n_epochs", "3") == 0
    out = capsys.readouterr().out
    assert "skipped" in out
    assert "last.pth: is no checkpoint that torch can read" in out
    assert "save_2.pth: loaded, epoch 2" in out


def test_a_file_tells_what_the_flags_leave_open(tmp_path):
    """Nothing but the paths and the phase: model, stem, classes, clips come from the file."""
    make_dataset(tmp_path)
    shape = ("--conv1_t_size", "3", "--conv1_t_stride", "2", "--mean_dataset", "0.5")
    assert small_run(tmp_path, *shape, "--inference") == 0
    with_flags = (tmp_path / "res/val.json").read_text()
    arguments = [
        "--root_path", str(tmp_path), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", "again", "--resume_path", "res/save_2.pth", "--no_train", "--no_val",
        "--inference", "--no_cuda", "--n_threads", "0", "--precision", "fp32",
    ]  # fmt: skip
    assert main.main(arguments) == 0
    assert (tmp_path / "again/val.json").read_text() == with_flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--conv1_t_stride", "1"), "--conv1_t_stride 1: .*save_2.pth was trained with 2"),
        (("--model_depth", "18"), "model_depth 10; the flags say model_depth 18"),
        (("--conv1_t_size", "7"), "conv1_t_size 3; the flags say conv1_t_size 7"),
        (("--n_classes", "3"), "n_classes 2; the flags say n_classes 3"),
        (("--model", "resnet2p1d"), "model resnet, model_depth 10; the flags say model resnet2p1d"),
        (("--model", "densenet", "--model_depth", "121"), "flags say model densenet"),
        (("--ft_begin_module", "classifier"), "the modules of resnet are conv1 bn1"),
    ],
)
def test_flags_that_contradict_the_file(tmp_path, capsys, flags, message):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--conv1_t_size", "3", "--conv1_t_stride", "2") == 0
    capsys.readouterr()
    arguments = [
        "--root_path", str(tmp_path), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", "again", "--resume_path", "res/save_2.pth", "--no_train", "--no_val",
        "--inference", "--no_cuda", "--n_threads", "0", *flags,
    ]  # fmt: skip
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1


def test_other_pixels_than_the_file_was_trained_with_are_told(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--mean_dataset", "0.5") == 0
    resume = ("--resume_path", "res/save_2.pth", "--no_train", "--inference", "--no_val")
    assert small_run(tmp_path, *resume, "--mean_dataset", "kinetics") == 0
    assert "--mean_dataset kinetics: " in capsys.readouterr().out


def test_a_kept_head(tmp_path, capsys):
    index = make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    keep = ("--pretrain_path", "res/save_2.pth", "--keep_head", "--ft_begin_module", "fc")
    slow = ("--learning_rate", "1e-12", "--weight_decay", "0")
    assert small_run(tmp_path, *keep, *slow, result="kept") == 0
    before, after = (weights_of(tmp_path / r / "save_2.pth") for r in ("res", "kept"))
    assert torch.allclose(before["fc.weight"], after["fc.weight"])
    capsys.readouterr()
    assert small_run(tmp_path, *keep, "--n_classes", "3", result="other") == 2
    assert "has 2 classes, --n_classes is 3" in capsys.readouterr().err
    text = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(
        text.replace('"labels": ["a", "b"]', '"labels": ["b", "a"]')
    )
    assert index["labels"] == ["a", "b"]
    assert small_run(tmp_path, *keep, result="other") == 2
    assert "class 0 is 'a' in the checkpoint and 'b' in" in capsys.readouterr().err
    plain = ("--pretrain_path", "res/save_2.pth")
    assert small_run(tmp_path, *plain, result="other") == 0
    assert "classes: 2 (a, b) in the checkpoint, now 2 (b, a)" in capsys.readouterr().out


@pytest.mark.parametrize("begin", ["", "layer4"])
def test_frozen_batch_norm_keeps_its_statistics(tmp_path, begin):
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    flags = ["--pretrain_path", "res/save_2.pth", "--freeze_bn"]
    flags += ["--ft_begin_module", begin] if begin else []
    assert small_run(tmp_path, *flags, result="frozen") == 0
    before, after = (weights_of(tmp_path / r / "save_2.pth") for r in ("res", "frozen"))
    changed = {n for n in before if "running" in n and not torch.equal(before[n], after[n])}
    if begin:
        assert changed
        assert all(name.startswith("layer4") for name in changed)
    else:
        assert not changed
        assert not torch.equal(before["bn1.weight"], after["bn1.weight"])


def test_fine_tuning_resumes(tmp_path, capsys):
    make_dataset(tmp_path, train=6)
    assert small_run(tmp_path) == 0
    flags = (
        "--pretrain_path",
        "res/save_2.pth",
        "--ft_begin_module",
        "layer4",
        "--checkpoint",
        "1",
    )
    assert small_run(tmp_path, *flags, "--n_epochs", "3", result="whole") == 0
    assert small_run(tmp_path, *flags, "--n_epochs", "2", result="part") == 0
    resume = ("--resume_path", "part/save_2.pth")
    assert small_run(tmp_path, *flags, "--n_epochs", "3", *resume, result="part") == 0
    assert same_weights(tmp_path / "whole/save_3.pth", tmp_path / "part/save_3.pth")
    rows = read_table((tmp_path / "part/train.log").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    capsys.readouterr()
    assert small_run(tmp_path, "--n_epochs", "4", *resume, result="part") == 2
    assert "resume with --ft_begin_module layer4" in capsys.readouterr().err


def test_a_read_only_results_folder(tmp_path, capsys, monkeypatch):
    """root writes anywhere, so the refusal of the system is played."""
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    before = (tmp_path / "res/save_2.pth").read_bytes()

    def refuse(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert small_run(tmp_path, "--resume_path", "auto", "--n_epochs", "3") == 2
    assert "res: can't be written: Permission denied" in capsys.readouterr().err
    assert (tmp_path / "res/save_2.pth").read_bytes() == before


def test_another_schedule_than_the_file_has_is_an_error(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    resume = ("--resume_path", "auto", "--n_epochs", "3")
    assert small_run(tmp_path, *resume, "--lr_scheduler", "plateau") == 2
    error = capsys.readouterr().err
    assert "--lr_scheduler plateau: " in error
    assert "was trained with multistep" in error


RATES = {"head_lr_factor": "10", "layer_decay": "0.5", "no_norm_decay": ""}


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """Runs of one epoch: res/ with one rate for all, several/ with the flags of RATES."""
    root = tmp_path_factory.mktemp("resumable")
    make_dataset(root, train=2, val=1)
    words = [word for name, value in RATES.items() for word in (f"--{name}", value) if word]
    assert small_run(root, "--n_epochs", "1") == 0
    assert small_run(root, "--n_epochs", "1", *words, result="several") == 0
    content = torch.load(root / "res/save_1.pth", weights_only=True)
    keys = ("epoch", "arch", "state_dict", "optimizer", "scheduler")
    torch.save({key: content[key] for key in keys}, root / "original.pth")
    return root


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("source", ["res/save_1.pth", "original.pth"])
def test_a_resumed_run_gets_no_other_rates(resumable, capsys, name, source):
    flags = [f"--{name}", *([RATES[name]] if RATES[name] else [])]
    assert small_run(resumable, *flags, "--resume_path", source, result="on") == 2
    error = capsys.readouterr().err
    assert re.search(rf"--{name} \S+: \S*{source} was trained with (1\.0|False), and its", error)
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", RATES)
def test_a_resumed_run_does_not_lose_its_rates(resumable, capsys, name):
    kept = [word for n, value in RATES.items() if n != name for word in (f"--{n}", value) if word]
    flags = [*kept, "--resume_path", "several/save_1.pth"]
    assert small_run(resumable, *flags, result="on") == 2
    assert f"--{name} {FLAGS[name].default}: " in capsys.readouterr().err


def test_a_finished_run_is_scored_whatever_the_rates(resumable):
    flags = ("--resume_path", "auto", "--n_epochs", "1", "--inference", "--lr_scheduler", "cosine")
    assert small_run(resumable, *flags, result="several") == 0
    assert (resumable / "several/val.json").exists()


def test_weights_without_an_optimiser_take_any_rates(resumable, tmp_path, capsys):
    content = torch.load(resumable / "several/save_1.pth", weights_only=True)
    del content["optimizer"]
    torch.save(content, tmp_path / "c.pth")
    resume = ("--resume_path", str(tmp_path / "c.pth"), "--no_val", "--momentum", "0.5")
    assert small_run(resumable, *resume, result=str(tmp_path / "on")) == 0
    assert "--momentum 0.5: " in (out := capsys.readouterr().out)
    assert "c.pth was trained with 0.9" in out


def test_other_settings_of_a_resumed_run_are_logged(resumable, tmp_path, capsys):
    changed = {"clip_grad": "1", "n_val_samples": "2", "early_stopping": "3", "precision": "bf16",
               "sample_size": "40", "warmup_epochs": "1", "lr_scheduler": "cosine"}  # fmt: skip
    content = torch.load(resumable / "res/save_1.pth", weights_only=True)
    del content["scheduler"]
    torch.save(content, tmp_path / "c.pth")
    flags = [word for name, value in changed.items() for word in (f"--{name}", value)]
    resume = ("--resume_path", str(tmp_path / "c.pth"), "--checkpoint", "1")
    assert small_run(resumable, *flags, *resume, result=str(tmp_path / "on")) == 0
    out = capsys.readouterr().out
    named = re.findall(r"^--(\w+) \S+: \S+ was trained with ", out, re.MULTILINE)
    assert sorted(named) == sorted(changed)


def test_flags_that_the_file_overrules_are_told(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    capsys.readouterr()
    flags = ("--learning_rate", "0.5", "--momentum", "0.9", "--multistep_milestones", "1", "2")
    assert small_run(tmp_path, *flags, "--resume_path", "auto", "--n_epochs", "3") == 0
    out = capsys.readouterr().out
    assert "--learning_rate 0.5: the resumed run continues with 0.01" in out
    assert "--multistep_milestones (1, 2): the resumed run continues with (50, 100, 150)" in out
    assert "--momentum" not in out
    decayed = ("--layer_decay", "0.5", "--head_lr_factor", "3", "--learning_rate", "0.02")
    assert small_run(tmp_path, *decayed, "--n_epochs", "1", result="decayed") == 0
    again = ("--resume_path", "decayed/save_1.pth", "--n_epochs", "2")
    assert small_run(tmp_path, *decayed, *again, result="decayed") == 0
    assert "the resumed run continues with" not in capsys.readouterr().out
    assert small_run(tmp_path, *decayed, *again, "--learning_rate", "0.04", result="other") == 0
    out = capsys.readouterr().out
    assert "--learning_rate 0.04: the resumed run continues with 0.02" in out
    overwrite = ("--overwrite_milestones", "--resume_path", "auto", "--n_epochs", "4")
    assert small_run(tmp_path, *flags, *overwrite) == 0
    assert "--multistep_milestones" not in capsys.readouterr().out
