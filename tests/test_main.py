"""main.py as a user runs it: phases, resume, seeds, and what happens to wrong input."""

import json
import shutil

import pytest
import torch

import main
from tests.commands import run_command
from tests.runs import frozen_norms, make_dataset, make_frames, read_table, small_flags, small_run


def run_files(folder):
    """What a run computed, without where and when it ran."""
    return {
        p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".log", ".json")
        and p.name not in ("opts.json", "time.log", "val.run.json")
    }  # fmt: skip


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root)
    return root


@pytest.fixture
def own(data, tmp_path):
    """A copy of the dataset that a test may spoil."""
    shutil.copytree(data / "jpg", tmp_path / "jpg")
    shutil.copy(data / "index.json", tmp_path / "index.json")
    return tmp_path


def test_all_phases(data, tmp_path, capsys):
    assert small_run(data, "--inference", "--tensorboard", result=str(tmp_path)) == 0
    assert [row["epoch"] for row in read_table((tmp_path / "train.log").read_text())] == [1, 2]
    assert len(read_table((tmp_path / "train_batch.log").read_text())) == 4
    assert len(read_table((tmp_path / "val.log").read_text())) == 2
    for row in read_table((tmp_path / "time.log").read_text()):
        assert 0 < row["waiting"] < row["train"]
        assert row["validation"] > 0
        assert row["clips_per_second"] * row["train"] == pytest.approx(6, rel=0.05)
    checkpoint = torch.load(tmp_path / "save_2.pth", weights_only=True)
    assert set(checkpoint) >= {"epoch", "arch", "state_dict", "optimizer", "scheduler"}
    assert checkpoint["arch"] == "resnet-10"
    assert checkpoint["class_names"] == ["a", "b"]
    assert (tmp_path / "best.pth").exists()
    assert list(tmp_path.glob("events*"))
    results = json.loads((tmp_path / "val.json").read_text())["results"]
    assert list(results) == ["a_3", "a_4", "b_3", "b_4"]
    for entries in results.values():
        assert sum(entry["score"] for entry in entries) == pytest.approx(1)
    assert "video top-1" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--precision", "bf16", "--colorjitter"]])
@pytest.mark.filterwarnings("error:This DataLoader will create")
def test_one_seed_one_result_whatever_the_workers(data, tmp_path, flags):
    for result, n_threads in (("one", "0"), ("two", "3")):
        small_run(
            data, "--inference", "--n_threads", n_threads, *flags, result=str(tmp_path / result)
        )
    assert run_files(tmp_path / "one") == run_files(tmp_path / "two")
    assert_same_weights(tmp_path / "one/save_2.pth", tmp_path / "two/save_2.pth")
    small_run(data, "--manual_seed", "2", *flags, result=str(tmp_path / "three"))
    assert run_files(tmp_path / "one")["train.log"] != run_files(tmp_path / "three")["train.log"]


@pytest.mark.parametrize("scheduler", ["multistep", "plateau"])
def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, scheduler):
    flags = ["--lr_scheduler", scheduler, "--multistep_milestones", "2", "--checkpoint", "1"]
    small_run(data, "--n_epochs", "4", *flags, result=str(tmp_path / "whole"))
    small_run(data, "--n_epochs", "2", *flags, result=str(tmp_path / "parts"))
    resume = ["--resume_path", "auto"]
    small_run(data, "--n_epochs", "4", *flags, *resume, result=str(tmp_path / "parts"))
    assert run_files(tmp_path / "whole") == run_files(tmp_path / "parts")
    assert_same_weights(tmp_path / "whole/save_4.pth", tmp_path / "parts/save_4.pth")


def test_fine_tuning_trains_the_head_alone_and_resumes(data, tmp_path):
    small_run(data, result=str(tmp_path / "pre"))
    tune = ["--pretrain_path", str(tmp_path / "pre/save_2.pth"), "--ft_begin_module", "fc"]
    assert small_run(data, *tune, result=str(tmp_path / "ft")) == 0
    before, after = weights(tmp_path / "pre/save_2.pth"), weights(tmp_path / "ft/save_2.pth")
    assert torch.equal(before["layer4.0.conv2.weight"], after["layer4.0.conv2.weight"])
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    state = torch.load(tmp_path / "ft/save_2.pth", weights_only=True)["optimizer"]
    assert len(state["param_groups"]) == 2  # one per parameter, as the original's
    resume = [*tune, "--resume_path", str(tmp_path / "ft/save_2.pth"), "--n_epochs", "3"]
    assert small_run(data, *resume, result=str(tmp_path / "ft")) == 0
    assert (tmp_path / "ft/save_3.pth").exists()


def test_files_of_the_original_step_their_schedule_on_loading(data, tmp_path):
    flags = ["--multistep_milestones", "1", "--checkpoint", "1"]
    small_run(data, "--n_epochs", "1", *flags, result=str(tmp_path))
    ours = torch.load(tmp_path / "save_1.pth", weights_only=True)
    # The original saves before the step: the rate has not dropped, the count lags by one.
    ours["scheduler"]["last_epoch"] -= 1
    for group in ours["optimizer"]["param_groups"]:
        group["lr"] = 0.01
    keys = ("epoch", "arch", "state_dict", "optimizer", "scheduler")
    torch.save({key: ours[key] for key in keys}, tmp_path / "theirs.pth")
    resume = ["--resume_path", str(tmp_path / "theirs.pth"), "--n_epochs", "2"]
    assert small_run(data, *resume, *flags, result=str(tmp_path / "on")) == 0
    rows = read_table((tmp_path / "on/train.log").read_text())
    assert [(row["epoch"], row["lr"]) for row in rows] == [(2, pytest.approx(0.001))]


@pytest.mark.parametrize(
    "flags",
    [
        ["--n_val_samples", "1"],
        ["--batch_size", "1", "--n_val_samples", "5", "--sample_size", "48"],
        ["--sample_t_stride", "3"],
        ["--train_crop", "corner", "--train_t_crop", "center"],
        ["--value_scale", "255", "--no_std_norm"],
        ["--n_classes", "5"],
    ],
)
def test_settings_that_must_work(data, tmp_path, flags):
    assert small_run(data, "--n_epochs", "1", "--inference", *flags, result=str(tmp_path)) == 0
    results = json.loads((tmp_path / "val.json").read_text())["results"]
    assert {entry["label"] for entries in results.values() for entry in entries} == {"a", "b"}


def n_outputs(path):
    return len(weights(path)["fc.bias"])


def test_the_head_has_an_output_per_label_unless_told_otherwise(data, tmp_path, capsys):
    def run(*flags, result):
        arguments = small_flags(data, *flags, result=result)
        place = arguments.index("--n_classes")
        return main.main([*arguments[:place], *arguments[place + 2 :]])

    assert run("--n_epochs", "1", result=str(tmp_path / "fresh")) == 0
    assert "--n_classes 2: the labels of " in capsys.readouterr().out
    assert n_outputs(tmp_path / "fresh/save_1.pth") == 2
    assert json.loads((tmp_path / "fresh/opts.json").read_text())["n_classes"] == 2
    # A fine-tuned head too; a resumed run keeps the head of its file.
    torch.save(wider(tmp_path / "fresh/save_1.pth"), tmp_path / "wide.pth")
    tune = ["--pretrain_path", str(tmp_path / "wide.pth"), "--n_epochs", "1"]
    assert run(*tune, result=str(tmp_path / "tuned")) == 0
    assert n_outputs(tmp_path / "tuned/save_1.pth") == 2
    capsys.readouterr()
    resume = ["--resume_path", str(tmp_path / "wide.pth"), "--n_epochs", "2"]
    assert run(*resume, result=str(tmp_path / "resumed")) == 0
    assert n_outputs(tmp_path / "resumed/save_2.pth") == 5
    assert "the labels of" not in capsys.readouterr().out


def wider(path):
    """A file of weights and epoch alone, with a head of five outputs."""
    content = torch.load(path, weights_only=True)
    head = {"fc.weight": torch.zeros(5, content["state_dict"]["fc.weight"].shape[1])}
    head["fc.bias"] = torch.zeros(5)
    return {"epoch": 1, "arch": content["arch"], "state_dict": content["state_dict"] | head}


def test_fewer_than_five_videos(tmp_path, capsys):
    make_dataset(tmp_path, train=1, val=1, n_frames=5)
    assert small_run(tmp_path, "--inference", "--n_epochs", "1") == 0
    out = capsys.readouterr().out
    warning = "only 2 validation videos, an accuracy of 50% can be anything from 9% to 91%"
    assert out.index(warning) < out.index("epoch 1 of 1")
    assert out.rindex("only 2 validation videos, ") < out.index("video top-1")


def spoil_missing_index(root):
    (root / "index.json").unlink()


def spoil_json(root):
    (root / "index.json").write_text('{"labels": [')


def spoil_label(root):
    text = (root / "index.json").read_text()
    (root / "index.json").write_text(text.replace('"label": "b"', '"label": "c"', 1))


def spoil_frames_folder(root):
    shutil.rmtree(root / "jpg")


def spoil_all_videos(root):
    shutil.rmtree(root / "jpg")
    (root / "jpg").mkdir()


def every_frame(root, change):
    for path in (root / "jpg").rglob("*.jpg"):
        change(path)


def spoil_truncated(root):
    every_frame(root, lambda path: path.write_bytes(path.read_bytes()[:200]))


def spoil_empty(root):
    every_frame(root, lambda path: path.write_bytes(b""))


def spoil_png(root):
    every_frame(root, lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)))


def spoil_gap(root):
    for folder in (root / "jpg").glob("*/*"):
        (folder / "image_00007.jpg").unlink()


def spoil_sizes(root):
    for folder in (root / "jpg").glob("*/*"):
        make_frames(folder / "x", 1, size=(20, 30))
        (folder / "x/image_00001.jpg").replace(folder / "image_00007.jpg")


BAD_DATA = {
    spoil_missing_index: "no such index",
    spoil_json: "is not JSON",
    spoil_label: "label 'c' is not among",
    spoil_frames_folder: "no such folder of frames",
    spoil_all_videos: "videos can be used",
    spoil_truncated: "can't be decoded",
    spoil_empty: "an empty file",
    spoil_png: "not a JPEG",
    spoil_gap: "no such frame",
    spoil_sizes: "frame 8 is 40x32, frame 7 20x30",
}


@pytest.mark.parametrize("n_threads", ["0", "2"])
@pytest.mark.parametrize("spoil", BAD_DATA, ids=lambda spoil: spoil.__name__)
def test_bad_data_is_one_line_and_nothing_is_overwritten(own, capsys, spoil, n_threads):
    (own / "res").mkdir()
    earlier = dict.fromkeys(("train.log", "val.log", "save_1.pth"), "earlier")
    earlier |= {"opts.json": '{"root_path": null}', "val.json": '{"results": {}}'}
    for name, text in earlier.items():
        (own / "res" / name).write_text(text)
    spoil(own)
    assert small_run(own, "--n_threads", n_threads, "--inference", "--train_t_crop", "center") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert BAD_DATA[spoil] in errors[0]
    assert {p.name: p.read_text() for p in (own / "res").iterdir()} == earlier


def test_unreadable_samples_can_be_left_out(own, capsys):
    (own / "jpg/a/a_0/image_00007.jpg").write_bytes(b"")
    (own / "jpg/b/b_3/image_00001.jpg").write_bytes(b"")
    flags = ["--on_bad_video", "skip", "--train_t_crop", "center", "--inference"]
    assert small_run(own, *flags) == 0
    out = capsys.readouterr().out
    assert "epoch 1: skipped 1 unreadable samples" in out
    assert "an empty file" in out
    assert "1 of 4 videos have no result, counted as wrong: b_3" in out


def test_missing_videos_are_counted_and_named(own, capsys):
    shutil.rmtree(own / "jpg/a/a_0")
    assert small_run(own, "--n_epochs", "1", "--batch_size", "5") == 0
    out = capsys.readouterr().out
    assert "training: 5 videos" in out
    assert "1 videos left out" in out
    assert "a_0: " in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n_classes", "1"], "has 2 labels"),
        (["--batch_size", "0"], "--batch_size 0: must be from 1 to a million"),
        (["--resume_path", "save_2.pth", "--model_depth", "18"], "has model_depth 10"),
        (["--resume_path", "save_2.pth", "--n_classes", "4"], "n_classes 2; the flags say"),
        (["--resume_path", "save_2.pth", "--n_epochs", "1"], "past --n_epochs 1"),
        (["--pretrain_path", "save_2.pth", "--n_pretrain_classes", "7"], "has 2 classes"),
        (["--pretrain_path", "save_2.pth", "--ft_begin_module", "head"], "conv1 bn1 layer1"),
        (["--pretrain_path", "none.pth"], "no such checkpoint"),
        (["--resume_path", "cut.pth"], "only a part"),
        (["--resume_path", "index.json"], "no checkpoint"),
        (["--result_path", "index.json"], "can't be written"),
        (["--accimage"], "accimage is not installed"),
        (["--resume_path", "auto", "--no_train", "--result_path", "empty"], "no checkpoint in"),
    ],
)
def test_bad_flags_and_checkpoints(trained, capsys, flags, message):
    before = run_files(trained / "res")
    assert small_run(trained, *flags) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert run_files(trained / "res") == before


@pytest.fixture(scope="module")
def trained(data):
    """The dataset with a trained checkpoint beside it, whole and cut short."""
    small_run(data, "--inference")
    shutil.copy(data / "res/save_2.pth", data / "save_2.pth")
    whole = (data / "save_2.pth").read_bytes()
    (data / "cut.pth").write_bytes(whole[: len(whole) // 2])
    return data


def test_validation_alone_runs_once_and_keeps_the_logs(trained, tmp_path):
    shutil.copytree(trained / "res", tmp_path / "res")
    flags = ["--no_train", "--resume_path", str(trained / "save_2.pth")]
    for result in ("res", "own"):
        assert small_run(trained, *flags, result=str(tmp_path / result)) == 0
    of_training = (trained / "res/val.log").read_text()
    assert (tmp_path / "res/val.log").read_text() == of_training
    (row,) = read_table((tmp_path / "own/val.log").read_text())
    assert row == pytest.approx(read_table(of_training)[1], rel=1e-5)


def test_a_batch_too_small_for_batch_norm_is_told_before_training(data, tmp_path, capsys):
    result = str(tmp_path / "res")
    assert small_run(data, "--batch_size", "5", result=result) == 2  # 5 + 1 clips
    error = capsys.readouterr().err
    assert "--batch_size 5: of 6 training videos it makes a batch of one clip" in error
    assert not (tmp_path / "res/train_batch.log").exists()
    for flags in (["--batch_size", "6"], ["--batch_size", "5", *frozen_norms(data)]):
        assert small_run(data, *flags, "--n_epochs", "1", result=result) == 0


def test_clips_too_small_for_the_model_are_told(data, tmp_path, capsys):
    flags = small_flags(data, "--model", "densenet", result=str(tmp_path / "res"))
    at = flags.index("--resnet_widen_factor")
    assert main.main([*flags[:at], *flags[at + 2 :], "--model_depth", "121"]) == 2
    error = capsys.readouterr().err
    assert "--sample_size 32 --sample_duration 8: too small for densenet-121: " in error
    assert len(error.splitlines()) == 1


def test_another_order_of_classes_is_an_error(trained, tmp_path, capsys):
    index = json.loads((trained / "index.json").read_text())
    (tmp_path / "i.json").write_text(json.dumps(index | {"labels": ["b", "a"]}))
    flags = ["--annotation_path", str(tmp_path / "i.json"), "--resume_path", "save_2.pth"]
    assert small_run(trained, *flags) == 2
    assert "class 0 is 'a' in the checkpoint and 'b' in" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, capsys):
    flags = ["--learning_rate", "1e30", "--weight_decay", "0", "--n_epochs", "9"]
    assert small_run(data, *flags, result=str(tmp_path)) == 2
    message = capsys.readouterr().err
    assert "the loss is" in message
    assert "batch" in message
    assert "a_" in message


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
import engine.runner, main, model
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (400 << 20),) * 2)
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_model_that_memory_does_not_hold_is_one_line(tmp_path):
    make_dataset(tmp_path)
    flags = small_flags(tmp_path, "--resnet_widen_factor", "8", "--model_depth", "34")
    done = run_command("-c", LITTLE_MEMORY, *flags)
    assert done.status == 2, done.text
    assert done.stderr.startswith("error: out of memory: ")
    assert done.stderr.count("\n") == 1
