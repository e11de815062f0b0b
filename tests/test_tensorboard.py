import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.tensorboard import confusion_figure, sheet
from tests.runs import make_dataset, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    make_dataset(root)
    assert small_run(root, "--tensorboard", "--inference", "--n_epochs", "2") == 0
    return EventAccumulator(str(root / "res"), size_guidance={"images": 0}).Reload()


def test_scalars_tell_loss_accuracy_rate_and_time(run):
    tags = set(run.Tags()["scalars"])
    assert {"train/loss", "train/acc", "train/lr", "val/loss", "val/acc", "val/video_acc"} <= tags
    assert {"time/train", "time/waiting", "time/validation", "time/clips_per_second"} <= tags
    assert [event.step for event in run.Scalars("time/clips_per_second")] == [1, 2]


def test_pictures_show_the_first_clips_and_each_confusion_matrix(run):
    assert [event.step for event in run.Images("val/confusion")] == [1, 2]
    [clips] = run.Images("train/clips")
    assert (clips.width, clips.height) == (8 * 32, 4 * 32)  # frames of 4 clips: the first batch


def test_the_table_of_runs_has_the_result(run):
    tags = set(run.Tags()["scalars"])
    assert {"result/best_video_accuracy", "result/best_epoch", "result/val_top_1"} <= tags


def test_a_sheet_has_a_row_a_clip_and_evenly_spaced_frames():
    clips = torch.zeros((2, 3, 15, 4, 5), dtype=torch.uint8)
    clips += torch.arange(15, dtype=torch.uint8).view(1, 1, 15, 1, 1)
    clips[1, 2] += 100
    shown = sheet(clips)
    assert shown.shape == (2 * 4, 8 * 5, 3)
    assert shown[0, ::5, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert shown[4, 5].tolist() == [2, 2, 102]
    assert sheet(clips[:, :2]).shape == shown.shape  # flow: its first channel


@pytest.mark.parametrize("n_classes", [2, 30, 120])
def test_a_confusion_matrix_of_any_size_can_be_drawn(n_classes):
    labels = [f"class {i}" for i in range(n_classes)]
    axes = confusion_figure(np.eye(n_classes, dtype=int) * 3, labels).axes[0]
    named = [text.get_text() for text in axes.get_yticklabels()]
    assert (labels[1] in named) == (n_classes <= 40)
    assert axes.images[0].get_array().max() == 1
