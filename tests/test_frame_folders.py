"""Only frames are counted, compared and removed; all other files in the folder are the user's."""

import os
from pathlib import Path

import pytest

from media.frame_folders import OLD, LostRace, keep_other_files, replace_frames, restore_frames
from media.work_folders import WORK_PREFIX
from tests.videos import draw, kill_extractions, names
from util_scripts.generate_video_jpgs import main

OTHERS = ("n_frames", "Thumbs.db", ".DS_Store", "notes.txt", "image_1.jpg", "image_00001.png")


def extract(root, *flags):
    return main([str(root / "v"), str(root / "jpg"), "test", *flags])


def add_others(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in OTHERS:
        (folder / name).write_text(f"the user's {name}")
    (folder / "masks/deep").mkdir(parents=True)
    (folder / "masks/deep/1").write_text("the user's mask")
    (folder / "link").symlink_to("notes.txt")


def check_others(folder):
    for name in OTHERS:
        assert (folder / name).read_text() == f"the user's {name}"
    assert (folder / "masks/deep/1").read_text() == "the user's mask"
    assert os.readlink(folder / "link") == "notes.txt"


def n_frames(folder):
    return sum(name.startswith("image_000") and name.endswith(".jpg") for name in names(folder))


def test_other_files_do_not_affect_the_status(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    add_others(tmp_path / "jpg/A/a")  # and no frames
    assert extract(tmp_path) == 0
    assert "1 done, 0 already there" in capsys.readouterr().out
    assert n_frames(tmp_path / "jpg/A/a") == 10
    check_others(tmp_path / "jpg/A/a")
    before = (tmp_path / "jpg/A/a/image_00001.jpg").stat()
    assert extract(tmp_path) == 0
    assert "0 done, 1 already there" in capsys.readouterr().out
    assert (tmp_path / "jpg/A/a/image_00001.jpg").stat() == before


def test_files_added_later_do_not_trigger_extraction(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    add_others(tmp_path / "jpg/A/a")
    capsys.readouterr()
    assert extract(tmp_path) == 0
    assert "0 done, 1 already there" in capsys.readouterr().out
    check_others(tmp_path / "jpg/A/a")


def test_other_files_stay_when_frames_are_replaced(tmp_path):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    add_others(tmp_path / "jpg/A/a")
    assert extract(tmp_path, "--fps", "5") == 0
    assert n_frames(tmp_path / "jpg/A/a") == 5
    check_others(tmp_path / "jpg/A/a")


def test_n_frames_file_of_the_original_is_not_a_frame(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    (tmp_path / "jpg/manifest.jsonl").unlink()
    (tmp_path / "jpg/A/a/n_frames").write_text("10")
    capsys.readouterr()
    assert extract(tmp_path) == 0
    assert "0 done, 1 already there" in capsys.readouterr().out
    assert '"frames": 10' in (tmp_path / "jpg/manifest.jsonl").read_text()


def make(folder, n_frames, *others):
    folder.mkdir(parents=True)
    for number in range(1, n_frames + 1):
        (folder / f"image_{number:05d}.jpg").write_text(str(n_frames))
    for name in others:
        (folder / name).write_text(name)
    return folder


def test_kill_between_two_renames_loses_nothing(tmp_path, monkeypatch):
    target = make(tmp_path / "jpg/A/a", 2, "notes")
    work = tmp_path / f"jpg/{WORK_PREFIX}0/7"
    frames = make(work / "frames", 3)

    class Killed(BaseException):
        pass

    def replace(self, other):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pathlib.Path.replace", replace)
        replace_frames(frames, target)
    assert not target.exists()
    assert names(work / OLD) == [
        "image_00001.jpg",
        "image_00002.jpg",
        "notes",
    ]
    restore_frames(work)
    assert names(target) == ["image_00001.jpg", "image_00002.jpg", "notes"]
    assert not (work / OLD).exists()


def test_restore_after_another_extraction_finished(tmp_path):
    work = tmp_path / "work"
    make(work / OLD, 2, "notes")
    target = make(tmp_path / "jpg/A/a", 5)
    (work / "place").write_bytes(os.fsencode(target))
    restore_frames(work)
    assert len(names(target)) == 6
    assert (target / "notes").read_text() == "notes"
    assert (target / "image_00001.jpg").read_text() == "5"


def test_lost_race_keeps_the_other_files(tmp_path, monkeypatch):
    target = make(tmp_path / "jpg/A/a", 2, "notes")
    frames = make(tmp_path / "work/frames", 3)
    rename = Path.rename

    def overtake(source, place):
        rename(source, place)
        make(target, 4)

    with monkeypatch.context() as patch, pytest.raises(LostRace):
        patch.setattr(Path, "rename", overtake)
        replace_frames(frames, target)
    assert len(names(target)) == 5
    assert (target / "notes").read_text() == "notes"


def test_files_are_copied_without_hard_links(tmp_path, monkeypatch):
    old, new = make(tmp_path / "old", 1, "notes"), make(tmp_path / "new", 2, "kept")

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    (old / "kept").write_text("older")
    keep_other_files(old, new)
    assert names(new) == ["image_00001.jpg", "image_00002.jpg", "kept", "notes"]
    assert (new / "kept").read_text() == "kept"
    assert (new / "notes").read_text() == "notes"


def test_random_kills_lose_no_user_files(tmp_path):
    videos = [draw(tmp_path / f"v/A/{number}.avi", seconds=4) for number in range(4)]
    assert extract(tmp_path) == 0
    for number in range(4):
        add_others(tmp_path / f"jpg/A/{number}")
    kill_extractions(tmp_path, videos, 8)
    assert extract(tmp_path) == 0
    for number in range(4):
        assert n_frames(tmp_path / f"jpg/A/{number}") == 40
        check_others(tmp_path / f"jpg/A/{number}")
    assert names(tmp_path / "jpg") == ["A", "manifest.jsonl"]
