"""Evenly spaced clips, three crops and mirror images in inference."""

import json
import shlex
from random import Random

import numpy as np
import pytest
import torch

import main
from datasets.build import build_inference_loader
from datasets.frame_readers import JpgFolder, default_decoder
from datasets.index import read_index
from datasets.samplers import SampleKey, WindowBatches
from datasets.video_dataset import InferenceWindows
from engine.provenance import read_provenance
from errors import UserError
from parsing import options_of, parse_opts
from predict.classifier import load_classifier
from spatial_transforms import EvalView, apply_view, apply_views
from tests.commands import Command
from tests.runs import make_dataset, read_results, small_flags, small_run
from tests.test_report import Page
from util_scripts import extract_features

pytestmark = pytest.mark.numeric

VIEWS = ("--inference_clips", "2", "--inference_crops", "3", "--inference_flip")
PATHS = ["--video_path", "v", "--annotation_path", "a", "--result_path", "r"]


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8)])
def test_three_crops_are_the_centre_and_both_ends_of_the_longer_side(height, width):
    frame = torch.arange(height * width, dtype=torch.uint8).reshape(1, height, width)
    views = EvalView(8, crops=3).views(height, width, Random(0))
    center, start, end = (pixels[0] for pixels in apply_views([frame], views))
    across = (lambda x: x) if width > height else (lambda x: x.transpose(1, 2))
    whole = across(frame)
    assert torch.equal(across(center), whole[:, :, 6:14])
    assert torch.equal(across(start), whole[:, :, :8])
    assert torch.equal(across(end), whole[:, :, 12:])
    assert torch.equal(center, apply_view([frame], EvalView(8).draw(height, width, Random(0)))[0])


def test_each_view_is_followed_by_its_mirror_image():
    frame = torch.arange(2 * 8 * 10, dtype=torch.uint8).reshape(2, 8, 10)
    views = EvalView(8, crops=3, flip=True).views(8, 10, Random(0))
    pixels = apply_views([frame], views)
    assert len(pixels) == EvalView(8, crops=3, flip=True).n_views == 6
    for plain, mirrored in zip(pixels[::2], pixels[1::2], strict=True):
        assert torch.equal(mirrored, plain.flip(-1))


def test_a_mirror_image_of_flow_moves_the_other_way():
    frame = torch.stack([torch.full((8, 8), 40), torch.full((8, 8), 200)]).to(torch.uint8)
    views = EvalView(8, flip=True, is_flow=True).views(8, 8, Random(0))
    plain, mirrored = (pixels[0, :, 0, 0].tolist() for pixels in apply_views([frame], views))
    assert (plain, mirrored) == ([40, 200], [215, 200])


def test_evenly_spaced_clips_lie_inside_the_video():
    """A clip past the end would jump back to its start, which looks like another motion."""
    windows = InferenceWindows(4, 1, n_clips=3)
    assert windows(21, Random(0)) == [[0, 1, 2, 3], [8, 9, 10, 11], [17, 18, 19, 20]]
    assert windows.part(21, 1, 3) == windows(21, Random(0))[1:]
    assert [windows.count(n) for n in (21, 6, 5, 4, 3)] == [3, 3, 2, 1, 1]
    assert windows(4, Random(0)) == [[0, 1, 2, 3]]
    assert windows(3, Random(0)) == [[0, 1, 2, 0]]
    assert InferenceWindows(4, 1, n_clips=1)(21, Random(0)) == [[8, 9, 10, 11]]


def test_the_number_of_clips_per_read_is_bounded():
    batches = list(WindowBatches({0: 12, 1: 1}, 128, clips_per_window=6))
    assert [sum(stop - start for _, _, (start, stop), _ in b) for b in batches] == [5, 5, 3]
    assert WindowBatches({0: 12, 1: 1}, 128, clips_per_window=6).n_clips == 78


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset and a trained model: frames of 40 x 32 pixels, so that crops of 32 differ."""
    root = tmp_path_factory.mktemp("views")
    make_dataset(root, n_frames=20)
    assert small_run(root, "--n_epochs", "1", "--no_val") == 0
    return root


def score(root, result, *flags, report=False):
    checkpoint = ("--resume_path", str(root / "res/save_1.pth"))
    how = ("--no_train", "--no_val", "--inference", "--output_topk", "0")
    status = small_run(root, *checkpoint, *how, *flags, result=str(result), report=report)
    return status, read_results(result) if status == 0 else {}


def by_hand(root, video, first):
    """The mean score of class a over 3 crops and their mirror images of 8 frames."""
    classifier = load_classifier(
        root / "res/save_1.pth", flags={"no_cuda": True, "precision": "fp32"}
    )
    numbers = range(first, first + 8)
    frames = torch.stack(JpgFolder(default_decoder()).read(root / "jpg/a" / video, numbers))
    squares = [frames[..., left : left + 32] for left in (0, 4, 8)]  # they need no resizing
    clips = torch.stack([*squares, *(square.flip(-1) for square in squares)]).transpose(1, 2)
    with torch.no_grad():
        logits = classifier.model(classifier.device.model_input(clips))
    return float(logits.softmax(1)[:, 0].double().mean())


def score_of_a(entries):
    return {entry["label"]: entry["score"] for entry in entries}["a"]


def test_a_video_s_score_is_the_mean_over_all_views(root, tmp_path):
    status, results = score(root, tmp_path, *VIEWS)
    assert status == 0
    expected = np.mean([by_hand(root, "a_3", first) for first in (1, 13)])
    assert score_of_a(results["a_3"]) == pytest.approx(expected, abs=1e-5)
    _, plain = score(root, tmp_path / "plain")
    assert score_of_a(plain["a_3"]) != pytest.approx(expected, abs=1e-5)


def test_without_averaging_there_is_an_entry_per_clip_in_time(root, tmp_path):
    _, results = score(root, tmp_path, *VIEWS, "--inference_no_average")
    entries = results["a_3"]
    assert [entry["segment"] for entry in entries] == [[1, 9], [13, 21]]
    for entry in entries:
        expected = by_hand(root, "a_3", entry["segment"][0])
        assert score_of_a(entry["result"]) == pytest.approx(expected, abs=1e-5)


def test_frames_are_decoded_once_for_all_views(root, monkeypatch):
    clips = {"sample_size": 32, "sample_duration": 8}
    views = {"inference_crops": 3, "inference_flip": True, "inference_stride": 4}
    options = options_of({"video_path": root / "jpg", "n_threads": 0, **clips, **views})
    dataset = build_inference_loader(options, read_index(root / "index.json")).dataset
    read, numbers = JpgFolder.read, []

    def counted(self, path, wanted):
        numbers.extend(wanted)
        return read(self, path, wanted)

    monkeypatch.setattr(JpgFolder, "read", counted)
    sample = dataset[SampleKey(0, 0, (0, 2))]
    assert sample.clips.shape == (12, 3, 8, 32, 32)
    assert len(sample.segments) == 12
    assert numbers == [*range(1, 13)]


def test_workers_and_batches_change_nothing(root, tmp_path):
    _, expected = score(root, tmp_path / "one", *VIEWS)
    flags = ("--n_threads", "2", "--inference_batch_size", "1")
    assert score(root, tmp_path / "other", *VIEWS, *flags) == (0, expected)


def test_two_processes_score_what_one_does(root, tmp_path):
    _, expected = score(root, tmp_path / "one", *VIEWS)
    arguments = small_flags(root, *VIEWS, "--output_topk", "0", result=str(tmp_path / "two"))
    resumed = ("--resume_path", root / "res/save_1.pth", "--no_train", "--no_val", "--inference")
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    logs = ("--log_dir", tmp_path / "torchrun")
    with Command("-m", *launcher, *logs, "main.py", *arguments, *resumed) as command:
        done = command.finish()
    assert done.status == 0, done.text
    found = read_results(tmp_path / "two")
    assert list(found) == list(expected)
    for video, entries in expected.items():
        assert score_of_a(found[video]) == pytest.approx(score_of_a(entries), abs=1e-5)


def test_the_views_are_recorded_and_reported(root, tmp_path):
    assert score(root, tmp_path, *VIEWS, report=True)[0] == 0
    saved = read_provenance(tmp_path / "val.json").options
    names = ("inference_clips", "inference_crops", "inference_flip")
    assert [saved[name] for name in names] == [2, 3, True]
    text = Page(tmp_path / "report.html").text
    assert "2 clips per video x 3 crops, each mirrored, too" in text
    assert "window 1 of 2" in text or "window 2 of 2" in text


def test_the_suggested_command_repeats_the_views(root, tmp_path, capsys):
    assert small_run(root, "--n_epochs", "1", "--no_val", *VIEWS, result=str(tmp_path)) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert " ".join(VIEWS) in line
    assert main.main(shlex.split(line)[2:]) == 0
    assert read_provenance(tmp_path / "val.json").options["inference_crops"] == 3


def test_features_of_evenly_spaced_clips(root, tmp_path):
    flags = ["--inference_clips", "2", "--per", "window", "--no_cuda", "--precision", "fp32"]
    files = [str(root / "index.json"), str(root / "jpg"), str(tmp_path / "f.npz")]
    checkpoint = ["--checkpoint", str(root / "res/save_1.pth"), "--n_threads", "0"]
    assert extract_features.main([*files, *checkpoint, *flags]) == 0
    data = np.load(tmp_path / "f.npz")
    assert data["segments"].tolist() == [[1, 9], [13, 21]] * 4
    assert json.loads(str(data["about"]))["inference_clips"] == 2


def test_three_crops_of_whole_frames_are_refused():
    flags = ["--inference_crops", "3", "--inference_crop", "nocrop"]
    with pytest.raises(UserError, match="--inference_crops 3 cannot be combined"):
        parse_opts([*PATHS, *flags])
