"""README.md, README.zh.md and docs/: files, links and flags exist.

The commands for optical flow, whose packages are optional, are run as written.
"""

import re
import shlex
from functools import cache

import pytest

from parsing import parse_opts
from tests.commands import ROOT, run_command, run_util
from tests.videos import draw

PAGES = sorted([ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"python (main\.py|-m util_scripts\.(\w+))([^\n`\"]*)")
SMALL = ["--no_cuda", "--n_epochs", "1", "--model_depth", "10", "--batch_size", "4"]


def commands_of(text):
    """Yield (script, arguments) for each command of a page; the script of main.py is None."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for match in COMMAND.finditer(joined):
        arguments = match[3].partition("#")[0].replace("[", "").replace("]", "")
        yield match[2], [word for word in shlex.split(arguments) if word != "…"]


@cache
def help_of(script):
    return run_util(script, "--help").stdout


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`(\w+/[\w/.-]+\.(?:py|md|sh))`", text):
        assert (ROOT / path).exists(), path
    for path, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", text):
        assert (page.parent / path).exists(), path
        assert not anchor or anchor in anchors_of(page.parent / path), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_flags_exist(page):
    for script, words in commands_of(page.read_text(encoding="utf-8")):
        if script is None:
            needed = ["--video_path", "v", "--annotation_path", "a", "--result_path", "r"]
            parse_opts([*needed, *(word for word in words if word not in ("-h", ">"))])
            continue
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", help_of(script)), f"{page.name}: {script} {flag}"


def test_the_commands_for_optical_flow_work_as_written(tmp_path):
    pytest.importorskip("cv2")
    pytest.importorskip("h5py")
    for name in ("fight/1", "fight/2", "noFight/3", "noFight/4"):
        draw(tmp_path / f"videos/{name}.avi", seconds=2)
    run_util("generate_video_jpgs", tmp_path / "videos", tmp_path / "data/jpg", "own")
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    section = page.partition("## Optical flow\n")[2].partition("\n## ")[0]
    commands = list(commands_of(section))
    assert [script for script, _ in commands] == ["generate_flow_hdf5", "folder_json", None]
    for script, words in commands:
        words = [word.replace("~", str(tmp_path)) for word in words]
        start = ["main.py", *SMALL] if script is None else ["-m", f"util_scripts.{script}"]
        finished = run_command(*start, *words)
        assert finished.status == 0, finished.text
    assert (tmp_path / "data/flow_results/best.pth").exists()


def test_an_index_of_jpgs_is_rejected_for_flow_with_advice(tmp_path):
    pytest.importorskip("cv2")
    for name in ("a/1", "a/2", "b/3", "b/4"):
        draw(tmp_path / f"videos/{name}.avi", seconds=2)
    run_util("generate_video_jpgs", tmp_path / "videos", tmp_path / "jpg", "own")
    run_util("folder_json", tmp_path / "jpg", tmp_path / "own.json")
    run_util("generate_flow_hdf5", tmp_path / "jpg", tmp_path / "flow")
    words = ["--root_path", tmp_path, "--video_path", "flow", "--annotation_path", "own.json"]
    words += ["--result_path", "r", "--dataset", "folder", "--n_classes", 2, *SMALL]
    finished = run_command("main.py", *words, "--file_type", "hdf5", "--input_type", "flow")
    assert finished.status == 2
    assert "no frame 20, but it is in the index: there are 19, from 0" in finished.stderr
    assert "write an index for these files" in finished.stderr
