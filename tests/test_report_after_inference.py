"""The report that main.py --inference writes, and the one that is made of its folder later."""

import json
import shutil

import pytest

from engine.provenance import read_provenance
from reporting import page
from tests.runs import make_dataset, small_run
from tests.test_report import Page
from util_scripts import report


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root)
    assert small_run(root, "--inference", "--n_epochs", "1", report=True) == 0
    return root


def pictures(found):
    return [target for target in found.targets if target.startswith("data:image/jpeg")]


def test_inference_writes_a_report_with_film_strips(trained):
    found = Page(trained / "res" / "report.html")
    assert not found.unnamed
    assert "resnet-10 on" in found.text
    assert "save_1.pth, epoch 1" in found.text
    assert "Grad-CAM, layer1" in found.text
    assert "the highest score of 2 tried" in found.text
    assert len(pictures(found)) == 2 * 4  # frames and heat of each of the 4 videos
    made = read_provenance(trained / "res" / "val.json")
    assert made.epoch == 1
    assert made.seconds > 0
    assert not made.checkpoint_changed
    assert made.options["sample_size"] == 32
    assert "torch" in made.versions


def test_a_report_of_the_folder_has_the_same_pictures(trained, tmp_path):
    out = tmp_path / "again.html"
    assert report.main([str(trained / "res"), "--out", str(out), "--strips", "4", "--no_cuda"]) == 0
    first, second = Page(trained / "res" / "report.html"), Page(out)
    assert sorted(pictures(first)) == sorted(pictures(second))
    assert second.text.count("window") >= 4


def test_a_report_decodes_frames_as_the_run_did(trained, tmp_path):
    flags = ["--sample_size", "16", "--n_epochs", "1", "--inference", "--inference_stride", "4"]
    seen = []
    for more in ([], ["--scaled_decode"]):
        result = tmp_path / f"res{len(more)}"
        assert small_run(trained, *flags, *more, result=str(result), report=True) == 0
        seen.append(sorted(pictures(Page(result / "report.html"))))
        assert report.main([str(result), "--no_cuda"]) == 0
        assert sorted(pictures(Page(result / "report.html"))) == seen[-1]
    assert seen[0] != seen[1]


def test_moved_files_are_named_or_given_by_flags(trained, tmp_path):
    moved = tmp_path / "res"
    shutil.copytree(trained / "res", moved)
    run_details = json.loads((moved / "val.run.json").read_text())
    run_details |= {"checkpoint": str(tmp_path / "gone.pth")}
    run_details["options"] |= {"video_path": str(tmp_path / "gone"), "annotation_path": "gone.json"}
    (moved / "val.run.json").write_text(json.dumps(run_details))
    index = ["--index", str(trained / "index.json"), "--no_cuda"]
    assert report.main([str(moved), *index]) == 0
    text = Page(moved / "report.html").text
    assert "gone.pth: no such checkpoint" in text
    assert "gone: no such folder" in text
    frames = ["--frames", str(trained / "jpg"), "--strips", "1"]
    assert report.main([str(moved), *index, *frames]) == 0
    assert len(pictures(Page(moved / "report.html"))) == 2
    weights = ["--checkpoint", str(moved / "save_1.pth"), "--layer", "layer3.0.conv1"]
    assert report.main([str(moved), *index, *frames, *weights]) == 0
    found = Page(moved / "report.html")
    assert len(pictures(found)) == 4
    assert "layer3.0.conv1" in found.text


def test_a_changed_checkpoint_is_reported(trained, tmp_path):
    moved = tmp_path / "res"
    shutil.copytree(trained / "res", moved)
    run_details = json.loads((moved / "val.run.json").read_text())
    (moved / "val.run.json").write_text(json.dumps(run_details | {"checkpoint_stamp": [1, 2.0]}))
    assert report.main([str(moved), "--strips", "0"]) == 0
    assert "the file has changed since" in Page(moved / "report.html").text


def test_no_report_with_the_flag_or_after_an_error(trained, tmp_path, monkeypatch, capsys):
    resume = ["--no_train", "--no_val", "--resume_path", str(trained / "res" / "save_1.pth")]
    flags = [*resume, "--inference", "--inference_no_average"]
    assert small_run(trained, *flags, "--no_report", result=str(tmp_path)) == 0
    assert (tmp_path / "val.json").exists()
    assert not (tmp_path / "report.html").exists()

    def broken(*arguments, **named):
        raise ImportError("No module named 'jinja2'")

    monkeypatch.setattr(page, "_headline", broken)
    assert small_run(trained, *flags, result=str(tmp_path), report=True) == 0
    out = capsys.readouterr().out
    assert out.count("no report: ImportError: No module named 'jinja2'") == 1
    assert not (tmp_path / "report.html").exists()
