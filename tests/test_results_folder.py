"""What runs do to what other runs left in a results folder."""

import json
import os
import shutil
import signal

import pytest

import main
from engine.checkpoint import load_checkpoint
from engine.checkpoint_file import save_checkpoint
from engine.results_folder import find_newest, holds_training, set_aside
from tests.commands import Command, run_command
from tests.runs import make_dataset, small_flags, small_run
from tests.test_checkpoint import content, small
from utils.locks import locked

BY_USER = ("notes.txt", "save_best.pth", "index.json", "val.csv")


def everything(folder):
    """Contents of the files below a folder, by their path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_second_run_moves_the_first_and_leaves_the_users_files(tmp_path, capsys):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--inference", "--tensorboard", report=True) == 0
    result = tmp_path / "res"
    before = everything(result)
    for name in BY_USER:
        (result / name).write_text(name)
    capsys.readouterr()
    assert small_run(tmp_path, "--n_epochs", "1", "--manual_seed", "2") == 0
    assert everything(result / "earlier-1") == before
    assert "of an earlier run moved to" in capsys.readouterr().out
    for name in BY_USER:
        assert (result / name).read_text() == name
    assert load_checkpoint(result / "save_1.pth").options["manual_seed"] == 2
    assert not (result / "save_2.pth").exists()
    assert not (result / "val.json").exists()
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    assert everything(result / "earlier-1") == before
    assert (result / "earlier-2").is_dir()


def test_a_run_that_fails_at_once_moves_nothing(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    before = everything(tmp_path / "res")
    for video in (tmp_path / "jpg" / "a").iterdir():
        (video / "image_00001.jpg").write_bytes(b"no picture")
    assert small_run(tmp_path, "--n_epochs", "1") == 2
    assert everything(tmp_path / "res") == before


def test_an_evaluation_leaves_logs_and_options_of_a_training_run(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path) == 0
    before = everything(tmp_path / "res")
    evaluate = (
        "--resume_path",
        "res/save_2.pth",
        "--no_train",
        "--inference",
        "--output_topk",
        "1",
    )
    assert small_run(tmp_path, *evaluate) == 0
    after = everything(tmp_path / "res")
    assert sorted(after.keys() - before.keys()) == ["val.json", "val.run.json"]
    assert {name: after[name] for name in before} == before
    # In a folder of its own it writes both.
    assert small_run(tmp_path, *evaluate, result="other") == 0
    assert {"opts.json", "val.log"} <= everything(tmp_path / "other").keys()


def test_going_back_to_an_older_checkpoint_keeps_the_later_ones(tmp_path, capsys):
    make_dataset(tmp_path)
    flags = ("--n_epochs", "3", "--checkpoint", "1")
    assert small_run(tmp_path, *flags) == 0
    result = tmp_path / "res"
    before = everything(result)
    again = ("--resume_path", "res/save_1.pth", "--overwrite_milestones")
    assert small_run(tmp_path, *flags, *again, "--multistep_milestones", "1") == 0
    aside = everything(result / "earlier-1")
    assert {"save_2.pth", "save_3.pth", "train.log"} <= aside.keys()
    assert all(before[name] == aside[name] for name in aside)
    assert everything(result)["save_1.pth"] == before["save_1.pth"]


def test_a_run_continues_from_a_link_to_its_checkpoint(tmp_path):
    make_dataset(tmp_path, train=2, val=1)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    saved, kept = tmp_path / "res/save_1.pth", tmp_path / "archive.pth"
    saved.rename(kept)
    saved.symlink_to(kept)
    (tmp_path / "res/best.pth").unlink()
    assert small_run(tmp_path, "--resume_path", "auto") == 0
    assert not list((tmp_path / "res").glob("earlier-*"))
    assert load_checkpoint(tmp_path / "res/best.pth").epoch
    assert load_checkpoint(tmp_path / "res/save_2.pth").epoch == 2
    assert len((tmp_path / "res/train.log").read_text().splitlines()) == 3
    assert saved.is_symlink()
    (tmp_path / "newest.pth").symlink_to(tmp_path / "res/save_2.pth")
    assert small_run(tmp_path, "--resume_path", "newest.pth", "--n_epochs", "3") == 0
    assert not list((tmp_path / "res").glob("earlier-*"))


def test_a_checkpoint_from_elsewhere_starts_a_run_of_its_own_here(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, result="one") == 0
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    before = everything(tmp_path / "res")
    assert small_run(tmp_path, "--resume_path", "one/save_2.pth", "--n_epochs", "3") == 0
    assert everything(tmp_path / "res" / "earlier-1") == before


def test_an_input_that_lies_there_stays(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    pretrained = ("--pretrain_path", "res/save_1.pth", "--n_epochs", "2", "--checkpoint", "2")
    assert small_run(tmp_path, *pretrained) == 0
    assert (tmp_path / "res" / "save_1.pth").exists()
    assert small_run(tmp_path, *pretrained) == 0


def test_the_newest_is_the_furthest_whatever_the_file_times(tmp_path):
    for name, epoch in (("save_2", 2), ("save_10", 10), ("best", 1)):
        save_checkpoint(tmp_path / f"{name}.pth", content(small(), epoch))
    inside = content(small(), 10) | {"position": {"batches": 3}}
    save_checkpoint(tmp_path / "last.pth", inside)
    for age, name in enumerate(("last", "save_10", "save_2", "best")):
        os.utime(tmp_path / f"{name}.pth", (10**9 + age, 10**9 + age))
    assert find_newest(tmp_path).path.name == "last.pth"
    (tmp_path / "last.pth").unlink()
    assert find_newest(tmp_path).path.name == "save_10.pth"
    copy = shutil.copytree(tmp_path, tmp_path.parent / "copy")
    assert find_newest(copy).path.name == "save_10.pth"


def test_two_runs_at_once(tmp_path):
    make_dataset(tmp_path)
    endless = small_flags(tmp_path, "--n_epochs", "100000")
    with Command("main.py", *endless) as first:
        first.wait_until(lambda: (tmp_path / "res" / "train.log").exists())
        second = run_command("main.py", *small_flags(tmp_path, "--n_epochs", "1"))
        assert second.status == 2
        assert "another run is training there (process" in second.stderr
        assert not list((tmp_path / "res").glob("earlier-*"))
        first.process.send_signal(signal.SIGKILL)
        first.finish(is_clean=False)
    third = run_command("main.py", *small_flags(tmp_path, "--n_epochs", "1"))
    assert third.status == 0, third.text
    assert not (tmp_path / "res" / ".lock").exists()


def test_a_lock_ends_with_its_block(tmp_path):
    with locked(tmp_path, flag="--out"):
        assert os.listdir(tmp_path) == [".lock"]
    with locked(tmp_path, flag="--out"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_has_nothing_to_move(tmp_path):
    assert set_aside(tmp_path) is None
    assert not holds_training(tmp_path)
    (tmp_path / "val.json").write_text("{}")
    assert not holds_training(tmp_path)
    assert set_aside(tmp_path) == tmp_path / "earlier-1"


CHANGES = [
    ("--batch_size", "3"),
    ("--manual_seed", "7"),
    ("--train_crop", "center"),
    ("--no_hflip",),
    ("--colorjitter",),
    ("--train_t_crop", "center"),
    ("--class_weights", "balanced"),
    ("--annotation_path", "fewer.json"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_another_run_is_not_resumed_inside_an_epoch(tmp_path, capsys, change):
    index = make_dataset(tmp_path, train=6)
    del index["database"]["a_0"]
    (tmp_path / "fewer.json").write_text(json.dumps(index))
    minutes = ("--checkpoint_minutes", "0.00001", "--n_epochs", "2", "--no_val")
    assert small_run(tmp_path, *minutes) == 0
    assert load_checkpoint(tmp_path / "res" / "last.pth").position is not None
    before = everything(tmp_path / "res")
    last = (*minutes, "--resume_path", "res/last.pth")
    assert small_run(tmp_path, *last, *change) == 2
    assert "was saved inside an epoch with" in capsys.readouterr().err
    assert everything(tmp_path / "res") == before
    # At the end of an epoch it is said.
    assert main.main([*small_flags(tmp_path, *minutes, "--n_epochs", "3"), "--resume_path",
                      "res/save_2.pth", *change]) == 0  # fmt: skip
    assert "was trained with" in capsys.readouterr().out
