"""The walk that all commands share: every folder once, and nothing skipped silently."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from datasets.optical_flow import find_frame_folders
from errors import UserError
from media.sources import find_inputs
from media.walking import walk
from tests.commands import run_util
from tests.videos import draw, names
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_jpgs import main


def extract(videos, jpg, *flags):
    return main([str(videos), str(jpg), "test", *flags])


def walked(root, excluded=None):
    """Return (files, {skipped: reason}) with paths below the root."""
    visits = list(walk(root, excluded))
    below = [(visit, visit.path.relative_to(root)) for visit in visits]
    files = [str(here / name) for visit, here in below for name in visit.files]
    skipped = {str(here / s.name): s.reason for visit, here in below for s in visit.skipped}
    return files, skipped


@pytest.fixture
def tree(tmp_path):
    """v/cat/a, v/dog/b."""
    for name in ("v/cat/a", "v/dog/b"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    return tmp_path / "v"


@contextmanager
def without_root():
    """Drop root's privileges, so that modes of folders matter."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_files_are_sorted_and_junk_is_skipped(tree):
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a"):
        (tree / "cat" / junk).write_text("x")
    for junk in ("@eaDir", "__MACOSX", "lost+found", ".hidden"):
        (tree / junk).mkdir()
        (tree / junk / "c").write_text("x")
    assert walked(tree) == (["cat/a", "dog/b"], {})


LINKS = {  # link -> target, and the message
    "loop to the root": ("cat/up", "..", "which contains this folder"),
    "loop above the root": ("up", "..", "which contains this folder"),
    "a folder of the walk": ("ape", "dog", "the same folder as dog"),
    "inside a folder of the walk": ("cat/ape", "../dog", "the same folder as dog"),
    "nothing": ("gone", "nowhere", "a broken link"),
    "itself": ("self", "self", "can't be read: Too many levels"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_without_new_content(tree, kind):
    link, target, message = LINKS[kind]
    (tree / link).symlink_to(target)
    files, skipped = walked(tree)
    assert files == ["cat/a", "dog/b"]
    assert list(skipped) == [link]
    assert message in skipped[link]


def test_second_link_to_a_folder_is_skipped(tree, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/c").write_text("x")
    for link in ("bee", "cow"):
        (tree / link).symlink_to(tmp_path / "pool")
    files, skipped = walked(tree)
    assert files == ["bee/c", "cat/a", "dog/b"]
    assert skipped == {"cow": "the same folder as bee"}


def test_links_into_hidden_folders_are_followed(tree):
    (tree / "dog").rename(tree / ".pool")
    (tree / "dog").symlink_to(".pool")
    assert walked(tree) == (["cat/a", "dog/b"], {})


def test_links_to_a_file_are_visited_and_reported(tree, tmp_path):
    (tmp_path / "c").write_text("x")
    (tree / "cat/again").symlink_to("a")
    for folder in ("cat", "dog"):
        (tree / folder / "c").symlink_to(tmp_path / "c")
    aliases = {}
    for visit in walk(tree):
        aliases |= {str(visit.path.relative_to(tree) / k): v for k, v in visit.aliases.items()}
    assert aliases == {"cat/again": "cat/a", "dog/c": "cat/c"}
    assert walked(tree)[0] == ["cat/a", "cat/again", "cat/c", "dog/b", "dog/c"]


def test_excluded_folder(tree, tmp_path):
    assert walked(tree, tree / "dog") == (["cat/a"], {})
    (tree / "ape").symlink_to(tree / "dog")
    assert walked(tree, tree / "dog") == (["cat/a"], {})
    (tree / "ape").unlink()
    assert walked(tree, tmp_path / "none") == (["cat/a", "dog/b"], {})


def test_pipes_are_skipped(tree):
    os.mkfifo(tree / "pipe")
    assert walked(tree)[1] == {"pipe": "neither a file nor a folder"}


def test_unreadable_folder():
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders belong to root
        root = Path(folder)
        root.chmod(0o755)
        for name in ("closed", "no_entry", "open"):
            (root / name / "sub").mkdir(parents=True)
            (root / name / "a").touch()
        (root / "closed").chmod(0)
        (root / "no_entry").chmod(0o444)
        try:
            with without_root():
                files, skipped = walked(root)
                with pytest.raises(UserError, match="closed: can't be read: Permission denied"):
                    walked(root / "closed")
        finally:
            for name in ("closed", "no_entry"):
                (root / name).chmod(0o755)
    assert files == ["no_entry/a", "open/a"]
    denied = "can't be read: Permission denied"
    assert skipped == {"closed": denied, "no_entry/sub": denied}


@pytest.fixture
def unreadable(monkeypatch):
    """Make folders of this name unreadable, like those of another user."""
    listed = os.scandir

    def scandir(path="."):
        if isinstance(path, str | Path) and Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_extraction_lists_what_it_skips(tmp_path, capsys, unreadable):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/locked/b.avi")
    (tmp_path / "v/B").symlink_to("A")
    (tmp_path / "v/A/gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "v/A/gone.txt").symlink_to("nowhere.txt")
    (tmp_path / "v/A/twice.avi").symlink_to("a.avi")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 1
    out = capsys.readouterr().out
    assert "2 done, 0 already there, 0 partial, 2 left out, 2 failed" in out
    assert "  B: the same folder as A\n" in out
    assert "  locked: can't be read: Permission denied\n" in out
    assert "  A/gone.mp4: a broken link\n" in out
    assert "  A/twice.avi: the same file as A/a.avi\n" in out
    assert out.index("left out:") < out.index("A/gone.txt") < out.index("failed:")
    assert names(tmp_path / "jpg/A") == ["a", "twice"]


@pytest.mark.parametrize(
    ("videos", "jpg", "message"),
    [
        ("v", "v", "JPG_DIR is the same folder as VIDEO_DIR"),
        ("v", "link", "JPG_DIR is the same folder as VIDEO_DIR"),
        ("v/A", "v", "JPG_DIR contains VIDEO_DIR"),
    ],
)
def test_frames_among_videos_are_refused(tmp_path, videos, jpg, message):
    video = draw(tmp_path / "v/A/a.avi")
    (tmp_path / "link").symlink_to("v")
    with pytest.raises(UserError, match=message):
        extract(tmp_path / videos, tmp_path / jpg)
    assert [path for path in (tmp_path / "v").rglob("*") if path.is_file()] == [video]


def test_jpg_dir_below_video_dir_is_reported(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path / "v", tmp_path / "v/jpg") == 0
    assert "JPG_DIR lies in VIDEO_DIR; videos in it are ignored" in capsys.readouterr().out


def make_frames(*folders):
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "image_00001.jpg").touch()


def test_index_counts_every_folder_once(tmp_path, capsys):
    jpg = tmp_path / "jpg"
    make_frames(*(jpg / f"{label}/{label}{n}" for label in "ab" for n in range(6)))
    (jpg / "a/loop").symlink_to(jpg)
    (jpg / "b/again").symlink_to("../a")
    (jpg / "gone").symlink_to("nowhere")
    assert folder_json([str(jpg), str(tmp_path / "i.json")]) == 0
    assert len(json.loads((tmp_path / "i.json").read_text())["database"]) == 12
    out = capsys.readouterr().out
    assert "3 files and folders are skipped:" in out
    assert f"  a/loop: a link to {jpg}, which contains this folder\n" in out
    assert "  b/again: the same folder as a\n" in out
    assert "  gone: a broken link\n" in out


def test_index_of_an_unreadable_folder_is_refused(tmp_path, unreadable):
    make_frames(tmp_path / "jpg/a/x", tmp_path / "jpg/a/locked")
    with pytest.raises(UserError, match="a/locked: can't be read: Permission denied"):
        folder_json([str(tmp_path / "jpg"), str(tmp_path / "i.json")])


def test_flow_and_prediction_skip_links(tmp_path, capsys):
    make_frames(tmp_path / "jpg/a/x", tmp_path / "pool/y")
    (tmp_path / "jpg/b").symlink_to(tmp_path / "pool")
    (tmp_path / "jpg/a/loop").symlink_to(tmp_path / "jpg")
    assert find_frame_folders(tmp_path / "jpg") == [tmp_path / "jpg/a/x", tmp_path / "jpg/b/y"]
    assert "a/loop: skipped: a link to" in capsys.readouterr().out
    draw(tmp_path / "v/A/a.avi")
    (tmp_path / "v/A/loop").symlink_to(tmp_path / "v")
    (tmp_path / "v/A/Thumbs.db").write_bytes(b"\0")
    assert [found.path for found in find_inputs([str(tmp_path / "v")])] == [tmp_path / "v/A/a.avi"]
    assert "v/A/loop: skipped: a link to" in capsys.readouterr().err


def test_loop_of_links_ends(tmp_path):
    draw(tmp_path / "v/A/a.avi")
    (tmp_path / "v/A/loop").symlink_to(tmp_path / "v")
    ran = run_util("generate_video_jpgs", tmp_path / "v", tmp_path / "jpg", "test")
    assert ran.status == 0, ran.text
    assert "1 done, 0 already there, 0 partial, 1 left out, 0 failed" in ran.stdout
