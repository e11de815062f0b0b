"""Suggestions for what to do next."""

import shlex

import pytest
import torch

import main
from engine.checkpoint import load_checkpoint
from errors import UserError
from tests.commands import run_command
from tests.runs import make_dataset, read_results, small_flags, small_run
from tests.videos import draw


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("two words")
    make_dataset(root)
    return root


def commands(text):
    """The suggested commands of a log, as words."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]


def test_a_resumed_run_without_validation_names_no_best_epoch(data, tmp_path, capsys):
    result = str(tmp_path / "res")
    assert small_run(data, "--n_epochs", "1", result=result) == 0
    resumed = ("--n_epochs", "2", "--no_val", "--resume_path", "auto")
    capsys.readouterr()
    assert small_run(data, *resumed, result=result) == 0
    assert (
        f"trained for 2 epochs without validation: {result}/save_2.pth" in capsys.readouterr().out
    )


def test_training_ends_with_the_best_epoch_and_an_inference_command(data, tmp_path, capsys):
    result = tmp_path / "$my result"
    assert small_run(data, "--n_epochs", "3", result=str(result)) == 0
    out = capsys.readouterr().out
    best = out.splitlines()[-3]
    assert best.startswith("best of 3 epochs: ")
    assert best.endswith(f": {result}/best.pth")
    [[_, script, *flags]] = commands(out)
    assert script == "main.py"
    assert main.main(flags) == 0
    assert len(read_results(result)) == 4
    # The inference suggests a command for any video.
    assert_predicts(capsys.readouterr().out, draw(tmp_path / "a.mp4"))


def assert_predicts(text, video):
    """The suggested command of a log works on a video."""
    [[_, *words]] = commands(text)
    words[words.index("VIDEO.mp4")] = video
    done = run_command(*words)
    assert done.status == 0, done.text
    assert f"{video}: 10 frames" in done.stdout


def test_the_command_names_the_labels_of_a_checkpoint_without_class_names(data, tmp_path, capsys):
    assert small_run(data, "--n_epochs", "1", result=str(tmp_path)) == 0
    state = torch.load(tmp_path / "save_1.pth", weights_only=True)["state_dict"]
    torch.save({"state_dict": state}, tmp_path / "bare.pth")
    capsys.readouterr()
    flags = ["--resume_path", str(tmp_path / "bare.pth"), "--no_train", "--no_val", "--inference"]
    assert small_run(data, *flags, result=str(tmp_path / "res")) == 0
    out = capsys.readouterr().out
    assert f" --labels '{data}/index.json' " in out
    assert " --sample_size 32 " in out
    assert_predicts(out, draw(tmp_path / "a.mp4"))


def test_the_command_repeats_flags_that_the_checkpoint_does_not_hold(data, tmp_path, capsys):
    flags = ["--n_epochs", "1", "--no_val", "--on_bad_video", "skip", "--output_topk", "1"]
    assert small_run(data, *flags, result=str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert f"trained for 1 epochs without validation: {tmp_path}/save_1.pth" in out
    [words] = commands(out)
    text = " ".join(words)
    for given in ("--dataset folder", "--on_bad_video skip", "--output_topk 1", "--n_threads 0",
                  "--precision fp32", "--batch_size 4", "--no_cuda"):  # fmt: skip
        assert f" {given} " in text
    assert not {"--learning_rate", "--model_depth", "--sample_size", "--n_epochs"} & {*words}


def test_the_command_leaves_out_what_the_checkpoint_holds(data, tmp_path, capsys):
    assert small_run(data, "--n_epochs", "1", "--no_val", result=str(tmp_path)) == 0
    capsys.readouterr()
    weights = ["--resume_path", str(tmp_path / "save_1.pth"), "--no_train", "--no_val"]
    assert small_run(data, *weights, "--inference", result=str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "validation: 4 videos, for inference\n" in out
    [words] = commands(out)
    assert not {"--model_depth", "--sample_size", "--resnet_widen_factor"} & {*words}
    assert "--no_cuda" in words
    flags = [*weights, "--sample_duration", "4", "--inference"]
    assert small_run(data, *flags, result=str(tmp_path)) == 0
    [words] = commands(capsys.readouterr().out)
    assert words[words.index("--sample_duration") + 1] == "4"


def test_a_missing_checkpoint_lists_those_that_exist(tmp_path):
    for name in (*(f"save_{epoch}.pth" for epoch in range(10, 80, 10)), "best.pth", "train.log"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / "save_55.pth")
    message = str(caught.value)
    there = message.partition(" holds ")[2]
    assert message.startswith(f"{tmp_path}/save_55.pth: no such checkpoint; {tmp_path} holds ")
    assert there.startswith("save_50.pth, ")
    assert there.endswith(" and 3 more")
    assert "train.log" not in there


@pytest.mark.parametrize("name", ["save_1.pth", "w.safetensors"])
def test_a_missing_checkpoint_without_others(tmp_path, name):
    with pytest.raises(UserError, match=f"no such checkpoint, and no others in {tmp_path}$"):
        load_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match=f"the folder {tmp_path}/results does not exist"):
        load_checkpoint(tmp_path / "results" / name)


def test_a_missing_pretrained_file_comes_with_an_alternative(data, tmp_path, capsys):
    flags = ["--pretrain_path", str(tmp_path / "r3d50_K_200ep.pth"), "--ft_begin_module", "fc"]
    assert small_run(data, *flags, result=str(tmp_path / "res")) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "docs/recipes.md" in error
    assert "leave out --pretrain_path and --ft_begin_module" in error
    assert small_run(data, *flags[2:], result=str(tmp_path / "res")) == 2  # half the advice
    [error] = capsys.readouterr().err.splitlines()
    assert "without a checkpoint leave it out" in error
    assert "--learning_rate 0.01" in error


def test_a_warning_about_the_default_rate_with_random_weights(data, tmp_path, capsys):
    arguments = small_flags(data, "--n_epochs", "1", result=str(tmp_path))
    place = arguments.index("--learning_rate")
    assert main.main([*arguments[:place], *arguments[place + 2 :]]) == 0
    out = capsys.readouterr().out
    warning = "training starts from random weights at --learning_rate 0.1"
    assert out.index(warning) < out.index("epoch 1 of 1: ")
    assert "for 6 videos in batches of 4 use --learning_rate 0.01" in out
    assert main.main(arguments) == 0  # which gives a rate
    resumed = ["--resume_path", str(tmp_path / "save_1.pth"), "--n_epochs", "2"]
    assert main.main([*arguments[:place], *arguments[place + 2 :], *resumed]) == 0
    assert "random weights" not in capsys.readouterr().out
