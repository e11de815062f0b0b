import json

import pytest
import torch

from engine.scoring import make_scorer
from errors import UserError
from models.build import build
from predict.classifier import load_classifier, read_labels
from tests.runs import make_dataset, small_run

pytestmark = pytest.mark.numeric

CLIPS = torch.arange(2 * 3 * 8 * 32 * 32, dtype=torch.int64).remainder(251).to(torch.uint8)
CLIPS = CLIPS.view(2, 3, 8, 32, 32)


@pytest.fixture
def bare(tmp_path):
    """A file like the released ones of the original: no class names, no options."""
    model = build("resnet", 10, n_classes=3, resnet_widen_factor=0.25)
    torch.save({"arch": "resnet-10", "state_dict": model.state_dict()}, tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


def test_a_checkpoint_of_a_run_needs_no_flags(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1", "--no_max_pool", "--value_scale", "255") == 0
    classifier = load_classifier(tmp_path / "res" / "save_1.pth", flags={"no_cuda": True})
    options = classifier.options
    assert classifier.labels == ("a", "b")
    assert (options.sample_size, options.sample_duration) == (32, 8)
    assert options.no_max_pool
    assert classifier.device.normalization.value_scale == 255
    assert not classifier.model.training
    logits = make_scorer(classifier.model, classifier.device)(CLIPS)
    assert logits.shape == (2, 2)


def test_flags_and_labels_provide_what_a_released_file_does_not_hold(bare, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("1 walk\n2 run fast\n3 7 up\n", encoding="utf-8")
    classifier = load_classifier(bare, labels=names, flags={"sample_size": 40, "no_cuda": True})
    assert classifier.labels == ("walk", "run fast", "7 up")
    assert classifier.options.sample_size == 40
    assert classifier.options.model_depth == 10  # from the tensors, not the default
    assert load_classifier(bare).labels == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\r\n\r\n b c \n", ("a", "b c")),
        ("0 a\n1 b\n", ("a", "b")),
        ("7 days\n9 lives\n", ("7 days", "9 lives")),
        ("\ufeff1 a\n2 b", ("a", "b")),
    ],
)
def test_line_numbers_are_removed_from_names(tmp_path, text, names):
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "names.txt") == names


def test_class_names_of_an_index(tmp_path):
    index = {"labels": ["x", "y"], "database": {}}
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    assert read_labels(tmp_path / "index.json") == ("x", "y")


@pytest.mark.parametrize(
    ("names", "flags", "complaint"),
    [
        ("a\nb\nc\nd\n", {}, "names.txt: holds 4 class names for 3 outputs"),
        ("a\nb\na\n", {}, "names.txt: class name 'a' occurs twice"),
        ("", {}, "holds no class names"),
        ("a\nb\nc\n", {"model_depth": 18}, "model_depth 10; the flags say model_depth 18"),
        ("a\nb\nc\n", {"sample_size": 0}, "--sample_size 0: must be from 1 to 4096"),
        ("a\nb\nc\n", {"model": "densenet", "model_depth": 121}, "resnet"),
    ],
)
def test_a_contradiction_is_one_line(bare, tmp_path, names, flags, complaint):
    (tmp_path / "names.txt").write_text(names, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        load_classifier(bare, labels=tmp_path / "names.txt", flags=flags)


def test_class_names_in_another_order_are_rejected(tmp_path):
    make_dataset(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    (tmp_path / "names.txt").write_text("b\na\n", encoding="utf-8")
    with pytest.raises(UserError, match="class 0 is 'a' in the checkpoint and 'b'"):
        load_classifier(tmp_path / "res" / "save_1.pth", labels=tmp_path / "names.txt")
