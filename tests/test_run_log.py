import json

import pytest

from engine.run_log import Resumed, RunLog
from errors import UserError
from tests.runs import limit_file_size

OPTIONS = {"model": "resnet"}


def row(epoch, **values):
    return {"epoch": epoch, "loss": 0.5, "acc": 0.25, "lr": 0.1} | values


def test_rows_and_header(tmp_path):
    log = RunLog(tmp_path, options=OPTIONS)
    log.write("train", row(1))
    log.write("train", row(2, lr=0.01))
    assert (tmp_path / "train.log").read_text() == (
        "epoch\tloss\tacc\tlr\n1\t0.5\t0.25\t0.1\n2\t0.5\t0.25\t0.01\n"
    )
    assert json.loads((tmp_path / "opts.json").read_text()) == OPTIONS


def test_nothing_is_touched_before_the_first_row(tmp_path):
    (tmp_path / "train.log").write_text("earlier")
    RunLog(tmp_path, options=OPTIONS).close()
    assert [p.name for p in tmp_path.iterdir()] == ["train.log"]


def test_a_fresh_run_puts_earlier_logs_aside(tmp_path):
    (tmp_path / "train.log").write_text("earlier")
    RunLog(tmp_path, options=OPTIONS).write("train", row(1))
    assert (tmp_path / "earlier-1" / "train.log").read_text() == "earlier"
    assert (tmp_path / "train.log").read_text().count("\n") == 2


def test_resume_cuts_back_and_goes_on(tmp_path):
    log = RunLog(tmp_path, options=OPTIONS)
    for epoch in (1, 2, 3):
        log.write("train", row(epoch))
    RunLog(tmp_path, options=OPTIONS, start=Resumed(3, 0, tmp_path / "last.pth")).write(
        "train", row(3, loss=0.125)
    )
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines[1:]] == [
        ["1", "0.5"], ["2", "0.5"], ["3", "0.125"],
    ]  # fmt: skip


def test_resume_of_a_log_with_fewer_columns(tmp_path):
    (tmp_path / "val.log").write_text("epoch\tloss\tacc\n1\t0.7\t0.5\n")
    log = RunLog(tmp_path, options=OPTIONS, start=Resumed(2, 0, tmp_path / "last.pth"))
    log.write("val", {"epoch": 2, "loss": 0.6, "acc": 0.5, "video_acc": 1.0})
    assert (tmp_path / "val.log").read_text() == (
        "epoch\tloss\tacc\tvideo_acc\n1\t0.7\t0.5\t\n2\t0.6\t0.5\t1.0\n"
    )


def test_tensorboard_lr_is_the_learning_rate(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, options=OPTIONS, tensorboard=True)
    log.write("train", row(1, lr=0.03125))
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("train/lr")[0].value == 0.03125
    assert events.Scalars("train/acc")[0].value == 0.25


def test_a_full_disk_is_one_line_and_the_earlier_rows_go_on(tmp_path):
    log = RunLog(tmp_path, options=OPTIONS)
    log.write("train", row(1))
    size = (tmp_path / "train.log").stat().st_size
    with limit_file_size(size + 3), pytest.raises(UserError, match=r"train.log: the log can't be"):
        log.write("train", row(12))
    assert (tmp_path / "train.log").read_text().endswith("\n12\t")  # a part of the row
    RunLog(tmp_path, options=OPTIONS, start=Resumed(12, 1, tmp_path / "last.pth")).write(
        "train", row(12)
    )
    rows = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split("\t")[0] for line in rows[1:]] == ["1", "12"]


def test_options_that_find_no_room_leave_the_earlier_ones(tmp_path):
    RunLog(tmp_path, options=OPTIONS).begin()
    with limit_file_size(5), pytest.raises(UserError, match=r"opts.json: can't be written"):
        RunLog(tmp_path, options={"model": "densenet"}).begin()
    assert json.loads((tmp_path / "earlier-1" / "opts.json").read_text()) == OPTIONS
    assert [path.name for path in tmp_path.iterdir()] == ["earlier-1"]


def test_events_that_find_no_room_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)  # TensorBoard's own trace
    log = RunLog(tmp_path, options=OPTIONS, tensorboard=True)
    log.write("train", row(1))
    (events,) = tmp_path.glob("events*")
    with limit_file_size(events.stat().st_size), pytest.raises(UserError, match="TensorBoard"):
        log.board.scalars("train", row(2))
        log.board.scalars("train", row(3))  # it writes in a thread, and complains late


def test_rows_that_are_no_log_of_ours_are_cut_off_on_resume(tmp_path):
    header = "epoch\tbatch\titer\tloss\tacc\tlr\n"
    good = "1\t1\t1\t0.5\t0.5\t0.1\n"
    junk = ["²\t1\n", "1" * 5000 + "\t1\n", "\n", "x\n", "2\n", "2\tx\t1\n", "\udcff\n"]
    text = header + good + "".join(junk)
    (tmp_path / "train_batch.log").write_text(text, encoding="utf-8", errors="surrogateescape")
    log = RunLog(tmp_path, options={}, start=Resumed(2, 1, tmp_path / "last.pth"))
    log.write("train_batch", {"epoch": 2, "batch": 2, "iter": 4, "loss": 1, "acc": 0, "lr": 1})
    rows = (tmp_path / "train_batch.log").read_text(encoding="utf-8").splitlines()
    assert rows == [header.strip(), good.strip(), "2\t2\t4\t1\t0\t1"]
