"""Names that are not UTF-8, from the videos to every output: JSON files keep their bytes, and
outputs that must be UTF-8 show them as \\udcff."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from datasets.index import read_index
from datasets.optical_flow import find_frame_folders
from datasets.selection import select_videos
from tests.commands import run_command, run_util
from tests.runs import small_run
from tests.videos import draw
from util_scripts.export_model import main as export_model
from util_scripts.extract_features import main as extract_features
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_hdf5 import main as generate_video_hdf5
from util_scripts.report import main as report
from utils.files import as_utf8

LABELS = (os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xb0 b"))
SHOWN = ("caf\\udce9", "\\udcb0 b")


def name_of(label, number):
    return os.fsdecode(os.fsencode(label) + b"\xff%d" % number)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos, frames, an index and a trained model, made by the commands."""
    root = tmp_path_factory.mktemp("odd")
    for label in LABELS:
        (root / "v" / label).mkdir(parents=True)
        for number in range(3):
            drawn = draw(root / "drawn.avi", seconds=1 + number)
            os.rename(drawn, root / "v" / label / f"{name_of(label, number)}.avi")
    (root / "v" / LABELS[0] / os.fsdecode(b"broken\xff.avi")).touch()
    words = ("generate_video_jpgs", root / "v", root / "jpg", "own")
    for message in ("6 done", "0 done, 6 already there"):
        ran = run_util(*words)
        assert ran.status == 1
        assert message in ran.stdout
        assert r"caf\udce9/broken\udcff.avi': an empty file" in ran.stdout
    ran = run_util("folder_json", root / "jpg", root / "index.json")
    assert ran.status == 0, ran.text
    flags = ("--inference", "--tensorboard", "--output_topk", "0")
    assert small_run(root, *flags, report=True) == 0
    return root


def test_index_finds_the_frames(root):
    index = read_index(root / "index.json")
    assert set(index.labels) == set(LABELS)
    found = {
        record.video_id
        for subset in ("training", "validation")
        for record in select_videos(index, subset, root / "jpg").records
    }
    assert found == {name_of(label, number) for label in LABELS for number in range(3)}
    assert len(find_frame_folders(root / "jpg")) == 6


def test_hdf5_files_have_the_same_frames(root):
    assert generate_video_hdf5([str(root / "v"), str(root / "hdf5"), "own"]) == 1
    assert folder_json([str(root / "hdf5"), str(root / "hdf5.json")]) == 0
    index = read_index(root / "hdf5.json")
    chosen = select_videos(index, "training", root / "hdf5", file_type="hdf5")
    assert len(chosen.records) == 4


def test_results_and_report(root):
    results = json.loads((root / "res/val.json").read_text(encoding="utf-8"))["results"]
    assert {entry["label"] for entries in results.values() for entry in entries} == set(LABELS)
    assert all(name.startswith(LABELS) for name in results)
    page = (root / "res/report.html").read_text(encoding="utf-8")
    assert all(shown in page for shown in SHOWN)
    assert report([str(root / "res")]) == 0
    for log in (root / "res").glob("*.log"):
        log.read_text(encoding="utf-8")
    ran = run_util("eval_accuracy", root / "index.json", root / "res/val.json", "-k", "1")
    assert ran.status == 0, ran.text


def test_tensorboard(root):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    events = event_accumulator.EventAccumulator(str(root / "res"))
    events.Reload()
    (text,) = events.Tensors("train/clips/text_summary")
    shown = text.tensor_proto.string_val[0].decode("utf-8")
    assert all(label in shown for label in SHOWN)


def test_check_dataset_and_scripts_of_a_checkpoint(root):
    assert (
        "Traceback"
        not in (ran := run_util("check_dataset", root / "index.json", root / "jpg")).text
    )
    assert ran.status in (0, 1)
    ran = run_util("inspect_checkpoint", root / "res/best.pth")
    assert ran.status == 0, ran.text


def test_features(root):
    words = [str(root / "index.json"), str(root / "jpg"), "", "--checkpoint"]
    for file in ("f.npz", "f.hdf5"):
        words[2] = str(root / file)
        assert extract_features([*words, str(root / "res/best.pth"), "--no_cuda"]) == 0
    with np.load(root / "f.npz") as features:
        assert all(name.startswith(LABELS) for name in features["video_ids"].tolist())


def test_predictions(root):
    words = (root / "v", "--checkpoint", root / "res/best.pth", "--no_cuda")
    outputs = ("--csv", root / "p.csv", "--json", root / "p.json")
    ran = run_util("predict_video", *words, *outputs)
    assert ran.status == 1
    assert "Traceback" not in ran.text
    with (root / "p.csv").open(encoding="utf-8", newline="") as file:
        header, *_ = csv.reader(file)
    assert set(header) >= set(SHOWN)
    json.loads((root / "p.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_exported_models(root, form):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    checkpoint = ["--checkpoint", str(root / "res/best.pth"), "--no_cuda", "--n_clips", "2"]
    assert export_model([*checkpoint, f"--{form}", str(root / f"m.{form}")]) == 0


def test_messages(root):
    missing = root / os.fsdecode(b"none\xff")
    ran = run_command("main.py", "--video_path", missing, "--annotation_path", missing,
                      "--result_path", root / "none", "--no_cuda")  # fmt: skip
    assert ran.status == 2
    assert r"none\udcff" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_as_utf8():
    odd = os.fsdecode(b"\xe9 \xc3\xa9 \xff")
    assert as_utf8(odd) == "\\udce9 é \\udcff"
    text = json.dumps({"é": odd}, ensure_ascii=False)
    assert json.loads(as_utf8(text)) == {"é": odd}
    assert Path(odd).name == odd
