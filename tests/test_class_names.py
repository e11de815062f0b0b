"""Class names: those of an index or a labels file against those of a checkpoint."""

import logging
import unicodedata
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint
from engine.checkpoint_file import save_checkpoint
from engine.class_names import check_class_names
from errors import UserError
from models.build import build
from predict.classifier import load_classifier


def small(n_classes=3):
    return build("resnet", 10, n_classes=n_classes, resnet_widen_factor=0.25)


def content(model):
    return {"epoch": 1, "arch": "resnet-10", "state_dict": model.state_dict()}


def test_class_names(tmp_path):
    save_checkpoint(tmp_path / "c.pth", content(small()) | {"class_names": ["a", "b", "c"]})
    checkpoint = load_checkpoint(tmp_path / "c.pth")
    check_class_names(checkpoint, ("a", "b", "c"), Path("i.json"))
    with pytest.raises(UserError, match=r"class 1 is 'b' in the checkpoint and 'c' in i.json"):
        check_class_names(checkpoint, ("a", "c", "b"), Path("i.json"))
    with pytest.raises(UserError, match="class 2 is 'c' in the checkpoint and None"):
        check_class_names(checkpoint, ("a", "b"), Path("i.json"))


def test_accents_in_another_form_are_the_same_name(tmp_path):
    names = ["a", unicodedata.normalize("NFD", "Café"), "c"]
    save_checkpoint(tmp_path / "c.pth", content(small()) | {"class_names": names})
    composed = [unicodedata.normalize("NFC", name) for name in names]
    assert names != composed
    check_class_names(load_checkpoint(tmp_path / "c.pth"), composed, Path("i.json"))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a", "b", "c", "d"], "holds 4 class names for 3 outputs"),
        (["a", "b", "a"], "class name 'a' occurs twice"),
    ],
)
def test_class_names_that_the_outputs_of_their_file_cannot_have(tmp_path, caplog, names, fault):
    saved = content(small()) | {"class_names": names, "versions": {"torch": "2"}}
    save_checkpoint(tmp_path / "c.pth", saved)
    with pytest.raises(UserError, match=rf"^\S*c\.pth: {fault}$"):
        load_checkpoint(tmp_path / "c.pth")
    del saved["versions"]  # as of another program
    save_checkpoint(tmp_path / "c.pth", saved)
    assert load_checkpoint(tmp_path / "c.pth").class_names is None
    assert f"c.pth: {fault}: its class names are not used" in caplog.text


ALPHABETICAL = [f"class {number:04d}" for number in range(700)]
AS_LISTED = [*ALPHABETICAL[1:], ALPHABETICAL[0]]
WARNING = "in alphabetical order"


def write_labels(path, names):
    path.write_text("\n".join(names), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("n_classes", "names", "warns"),
    [
        (700, ALPHABETICAL, True),
        (700, AS_LISTED, False),
        (1039, [*ALPHABETICAL, *(f"M_{number}" for number in range(339, 0, -1))], True),
        (699, ALPHABETICAL[:699], False),
        (701, [*ALPHABETICAL, "one more"], False),
    ],
)
def test_alphabetical_names_for_kinetics_700_are_a_warning(
    n_classes, names, warns, tmp_path, caplog
):
    torch.save(content(small(n_classes)), tmp_path / "c.pth")
    labels = write_labels(tmp_path / "labels.txt", names)
    classifier = load_classifier(tmp_path / "c.pth", labels=labels, flags={"no_cuda": True})
    assert list(classifier.labels) == names
    assert (WARNING in caplog.text) == warns


def test_upper_case_counts_as_lower_case(tmp_path, caplog):
    torch.save(content(small(700)), tmp_path / "c.pth")
    names = ["abseiling", "ABC", *ALPHABETICAL[2:]]  # ABC before abseiling: not in order
    check_class_names(load_checkpoint(tmp_path / "c.pth"), names, Path("l.txt"))
    assert WARNING not in caplog.text
    names = ["abc", "ABseiling", *ALPHABETICAL[2:]]
    check_class_names(load_checkpoint(tmp_path / "c.pth"), names, Path("l.txt"))
    assert WARNING in caplog.text


def test_checkpoints_written_here_keep_their_own_order(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    names = {"class_names": ALPHABETICAL, "versions": {"torch": "2"}}
    save_checkpoint(tmp_path / "c.pth", content(small(700)) | names)
    check_class_names(load_checkpoint(tmp_path / "c.pth"), ALPHABETICAL, Path("l.txt"))
    assert not caplog.text
