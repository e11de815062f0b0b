import json
import resource

import h5py
import numpy as np
import pytest
import torch

from datasets.frame_readers import JpgFolder, default_decoder
from errors import UserError
from evaluation.results import read_results
from models.build import build
from predict.classifier import load_classifier
from spatial_transforms import EvalView, apply_view
from tests.commands import run_util
from tests.golden.weights import weights_from_names
from tests.runs import make_dataset, make_frames, small_run
from util_scripts import extract_features
from utils.outputs import FEATURES

pytestmark = pytest.mark.numeric

FLAGS = ["--sample_size", "32", "--sample_duration", "8", "--inference_stride", "8"]
MACHINE = ["--no_cuda", "--precision", "fp32", "--n_threads", "0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two validation videos of 20 frames, each with 3 windows, and a tiny R3D-10's weights."""
    root = tmp_path_factory.mktemp("features")
    make_dataset(root, train=1, val=1)
    model = build("resnet", 10, n_classes=2, resnet_widen_factor=0.25)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights_from_names(shapes)}, root / "c.pth")
    (root / "names.txt").write_text("a\nb\n", encoding="utf-8")
    return root


def extract(root, out, *flags):
    model = ["--checkpoint", str(root / "c.pth"), "--labels", str(root / "names.txt")]
    files = [str(root / "index.json"), str(root / "jpg"), str(out)]
    return extract_features.main([*files, *model, *FLAGS, *MACHINE, *flags])


def test_the_head_turns_features_into_the_scores_of_inference(root, tmp_path, capsys):
    assert extract(root, tmp_path / "f.npz", "--per", "window") == 0
    assert "f.npz: 6 vectors of 128 numbers, one per window" in capsys.readouterr().out
    data = np.load(tmp_path / "f.npz")
    assert data["video_ids"].tolist() == ["a_1"] * 3 + ["b_1"] * 3
    assert data["labels"].tolist() == [0] * 3 + [1] * 3
    assert data["segments"].tolist() == [[1, 9], [9, 17], [17, 21]] * 2
    assert data["label_names"].tolist() == ["a", "b"]
    assert data["features"].dtype == np.float32

    resumed = ["--resume_path", str(root / "c.pth"), "--no_train", "--no_val", "--inference"]
    flags = [*resumed, "--inference_stride", "8", "--output_topk", "0"]
    assert small_run(root, *flags, "--inference_no_average", result=str(tmp_path)) == 0
    head = load_classifier(root / "c.pth").model.fc.cpu()
    scores = head(torch.from_numpy(data["features"])).softmax(1).detach().numpy()
    for video, entries in read_results(tmp_path / "val.json").items():
        for row, entry in zip(scores[data["video_ids"] == video], entries, strict=True):
            found = {score["label"]: score["score"] for score in entry["result"]}
            np.testing.assert_allclose(row, [found["a"], found["b"]], atol=1e-5)


def test_a_video_s_vector_is_the_mean_of_its_windows_also_in_hdf5(root, tmp_path):
    assert extract(root, tmp_path / "w.npz", "--per", "window") == 0
    assert extract(root, tmp_path / "made" / "v.h5") == 0
    windows = np.load(tmp_path / "w.npz")
    with h5py.File(tmp_path / "made" / "v.h5") as data:
        assert data["video_ids"].asstr()[:].tolist() == ["a_1", "b_1"]
        assert data["label_names"].asstr()[:].tolist() == ["a", "b"]
        assert data["labels"][:].tolist() == [0, 1]
        assert data["segments"][:].tolist() == [[1, 21]] * 2
        expected = windows["features"].reshape(2, 3, -1).mean(1)
        np.testing.assert_allclose(data["features"][:], expected, atol=1e-6)
        about = json.loads(data["about"].asstr()[()])
    assert (about["layer"], about["per"], about["subset"]) == ("input of fc", "video", "validation")
    assert about["sample_size"] == 32
    assert about["checkpoint"] == str(root / "c.pth")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["v.h5"]
    assert FEATURES.is_of(tmp_path / "w.npz")
    assert FEATURES.is_of(tmp_path / "made" / "v.h5")


@pytest.mark.parametrize(("layer", "width"), [("bn1", 16), ("layer2.0.conv1", 32), ("fc", 2)])
def test_the_output_of_a_layer_is_averaged_over_time_and_space(root, tmp_path, layer, width):
    assert extract(root, tmp_path / "f.npz", "--layer", layer, "--per", "window") == 0
    features = np.load(tmp_path / "f.npz")["features"]
    assert features.shape == (6, width)

    classifier = load_classifier(root / "c.pth", flags={"no_cuda": True, "precision": "fp32"})
    frames = JpgFolder(default_decoder()).read(root / "jpg" / "a" / "a_1", range(1, 9))
    view = EvalView(32).draw(*frames[0].shape[1:], None)
    model, clip = classifier.model, apply_view(frames, view).transpose(0, 1)[None]
    with torch.no_grad():
        x = model.conv1(classifier.device.model_input(clip))
        expected = normed = model.bn1(x)
        if layer != "bn1":
            x = model.layer1(model.maxpool(normed.relu()))
            expected = model.layer2[0].conv1(x)
        if layer == "fc":
            expected = model(classifier.device.model_input(clip))
    expected = expected.flatten(2).mean(2) if expected.ndim > 2 else expected
    np.testing.assert_allclose(features[0], expected[0].numpy(), atol=1e-5)


def test_unknown_layers(root, tmp_path):
    for layer, complaint in (
        ("layer7", "choose from conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4"),
        ("layer4.3", "layer4 contains layer4.0$"),
        ("layer4.0.conv1.weight", "layer4.0.conv1 contains no layers"),
    ):
        with pytest.raises(UserError, match=f"--layer {layer}: no such layer; {complaint}"):
            extract(root, tmp_path / "f.npz", "--layer", layer)
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_valid_utf8(root, tmp_path):
    index = make_dataset(tmp_path, train=1, val=1)
    index["database"]["b_\udcff"] = index["database"].pop("b_1")
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "jpg" / "b" / "b_1").rename(tmp_path / "jpg" / "b" / "b_\udcff")
    for name in ("c.pth", "names.txt"):
        (tmp_path / name).symlink_to(root / name)
    assert extract(tmp_path, tmp_path / "f.h5") == 0
    with h5py.File(tmp_path / "f.h5") as data:
        assert data["video_ids"][:].tolist() == [b"a_1", b"b_\xff"]
    assert extract(tmp_path, tmp_path / "f.npz") == 0
    assert np.load(tmp_path / "f.npz")["video_ids"].tolist() == ["a_1", "b_\udcff"]


def test_unreadable_videos_are_skipped_only_on_request(root, tmp_path, capsys):
    make_dataset(tmp_path, train=1, val=2)
    make_frames(tmp_path / "jpg" / "a" / "a_1", 10)
    (tmp_path / "jpg" / "a" / "a_1" / "image_00012.jpg").write_bytes(b"no picture")
    for name in ("c.pth", "names.txt"):
        (tmp_path / name).symlink_to(root / name)
    with pytest.raises(UserError, match=r"image_00012.jpg: not a JPEG.*--on_bad_video skip"):
        extract(tmp_path, tmp_path / "f.hdf5")
    assert not list(tmp_path.glob("*f.hdf5"))
    assert extract(tmp_path, tmp_path / "f.hdf5", "--on_bad_video", "skip") == 0
    assert "1 samples could not be read" in capsys.readouterr().out
    with h5py.File(tmp_path / "f.hdf5") as data:
        assert data["video_ids"].asstr()[:].tolist() == ["a_2", "b_1", "b_2"]
        assert data["features"].shape == (3, 128)


def test_an_unknown_suffix_is_rejected_before_loading(root, tmp_path):
    with pytest.raises(UserError, match=r"f.csv: the file name must end in .npz or .hdf5 or .h5"):
        extract(root, tmp_path / "f.csv", "--checkpoint", "gone.pth")


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_full_disk_gives_one_line_and_no_file(root, tmp_path, suffix):
    model = ("--checkpoint", root / "c.pth", "--labels", root / "names.txt")
    files = (root / "index.json", root / "jpg", tmp_path / f"f{suffix}")
    ended = run_util(
        "extract_features", *files, *model, *FLAGS, *MACHINE,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )  # fmt: skip
    assert ended.status == 2, ended.text
    assert f"f{suffix}: can't be written: File too large" in ended.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
