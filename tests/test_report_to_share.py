"""A report must not reveal the paths of the machine it was made on."""

import json
import os
from pathlib import Path

import pytest

from reporting.page import _data_name
from reporting.short_paths import ShortPaths
from tests.commands import run_command, run_util
from tests.runs import make_dataset, small_flags
from tests.test_report import Page


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run in a folder whose path names a user and a client."""
    root = tmp_path_factory.mktemp("home") / "alice/client"
    make_dataset(root)
    flags = small_flags(root, "--inference", "--n_epochs", "1", report=True)
    finished = run_command("main.py", *flags, environ={"HOME": str(root.parent)})
    assert finished.status == 0, finished.text
    return root


def test_no_absolute_path_is_in_the_page(root):
    page = (root / "res/report.html").read_text(encoding="utf-8")
    assert str(root.parent) not in page
    assert "alice" not in page
    text = Page(root / "res/report.html").text
    assert "index.json" in text
    assert "res/save_1.pth, epoch 1" in text
    assert "pictures of them" in text
    assert "--strips 0" in text


def test_paths_elsewhere_and_missing_files_are_shortened_too(root, tmp_path):
    results = root / "res"
    run_details = json.loads((results / "val.run.json").read_text(encoding="utf-8"))
    elsewhere = tmp_path / "bob/secret"
    elsewhere.mkdir(parents=True)
    run_details["options"]["video_path"] = str(elsewhere / "frames/jpg")
    run_details["checkpoint"] = str(elsewhere / "runs/gone.pth")
    (results / "val.run.json").write_text(json.dumps(run_details), encoding="utf-8")
    out = tmp_path / "page.html"
    assert run_util("report", results, "--out", out, "--no_cuda").status == 0
    page = out.read_text(encoding="utf-8")
    assert "secret" not in page
    assert "bob" not in page
    assert "…/runs/gone.pth: no such checkpoint" in page
    assert "…/frames/jpg" in page


def test_neither_the_folder_of_the_index_nor_a_machine_is_named(root, tmp_path):
    results = root / "res"
    index = root.parent / "own.json"  # in the folder of a user
    index.write_bytes((root / "index.json").read_bytes())
    run_details = json.loads((results / "val.run.json").read_text(encoding="utf-8"))
    run_details["options"]["dist_url"] = "tcp://gpu07.example:23456"
    (results / "val.run.json").write_text(json.dumps(run_details), encoding="utf-8")
    out = tmp_path / "page.html"
    command = ("report", results, "--index", index, "--out", out, "--no_cuda")
    assert run_util(*command, environ={"HOME": str(root.parent)}).status == 0
    page = out.read_text(encoding="utf-8")
    assert "alice" not in page
    assert "gpu07" not in page
    assert "on own: report" in page
    assert _data_name(Path("/home/alice/own.json")) == "own"
    assert _data_name(Path("/srv/client/runs/own.json")) == "runs/own"


def test_without_strips_no_video_is_named_or_shown(root, tmp_path):
    out = tmp_path / "page.html"
    assert run_util("report", root / "res", "--out", out, "--strips", "0").status == 0
    page = out.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page
    assert "a_3" not in page
    assert "pictures of them" not in page


def test_paths_are_shortened_by_their_prefix(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/alice"))
    paths = [Path("/data/ucf/jpg"), Path("/x"), Path("/home/alice/a/b/c.pth")]
    shorten = ShortPaths(Path("/srv/project/results"), paths)
    for path, short in {
        "/srv/project/results/val.json": "results/val.json",
        "/srv/project": "/srv/project",
        "/data/ucf/jpg": "…/jpg",  # ucf may be a user
        "/data/ucf/list.json: no such index": "…/list.json: no such index",
        "/home/alice/a/b/c.pth, epoch 3": "…/b/c.pth, epoch 3",
        "/home/alice/other": "~/other",
        "/x": "/x",
        "a/b": "a/b",
    }.items():
        assert shorten(path.replace("/", os.sep)) == short.replace("/", os.sep)
