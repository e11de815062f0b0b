"""Frames whose video was moved, renamed, deleted or broken: listed, left out of indexes, pruned."""

import json
import os
import shutil
import time
from collections import Counter

import pytest

from datasets.optical_flow import find_frame_folders
from errors import UserError
from tests.commands import run_util
from tests.videos import draw, names
from util_scripts.check_dataset import main as check_dataset
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_hdf5 import main as to_hdf5
from util_scripts.generate_video_jpgs import main as to_jpgs
from util_scripts.ucf101_json import main as ucf101_json

FORMS = {"jpg": (to_jpgs, ""), "hdf5": (to_hdf5, ".hdf5")}


def extract(root, *flags, videos="v", form="jpg"):
    return FORMS[form][0]([str(root / videos), str(root / form), "test", *flags])


def indexed(root, form="jpg"):
    """{path of the frames: label} in the index of folder_json."""
    index = root / "index.json"
    assert folder_json([str(root / form), str(index)]) == 0
    database = json.loads(index.read_text())["database"]
    return {
        entry.get("video_path", f"{entry['annotations']['label']}/{name}"): (
            entry["annotations"]["label"]
        )
        for name, entry in database.items()
    }


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def videos(tmp_path, form):
    """Three extracted videos each of cat and dog."""
    for label in ("cat", "dog"):
        for number in range(3):
            draw(tmp_path / f"v/{label}/{label}{number}.avi", seconds=1 + number)
    assert extract(tmp_path, form=form) == 0
    assert Counter(indexed(tmp_path, form).values()) == {"cat": 3, "dog": 3}
    return tmp_path / "v"


def change(videos):
    """Add, move, rename, delete and break one video each; 6 are left, of which one fails."""
    draw(videos / "cat/new.avi")
    (videos / "cat/cat0.avi").rename(videos / "dog/cat0.avi")
    (videos / "cat/cat1.avi").rename(videos / "cat/renamed.avi")
    (videos / "dog/dog0.avi").unlink()
    (videos / "dog/dog1.avi").write_bytes(b"")


def test_moved_renamed_deleted_and_broken_videos(videos, tmp_path, form, capsys):
    change(videos)
    capsys.readouterr()
    assert extract(tmp_path, form=form) == 1  # dog1
    out = capsys.readouterr().out
    assert "3 done, 2 already there, 0 partial, 0 left out, 1 failed, 4 orphaned" in out
    assert "frames without a video, which indexes leave out (--prune removes them):" in out
    for name in ("cat/cat0", "cat/cat1", "dog/dog0"):
        assert f"  {name}: {name}.avi: its video no longer exists\n" in out
    assert "  dog/dog1: dog/dog1.avi: an empty file\n" in out
    expected = {
        "cat/cat2": "cat",
        "cat/new": "cat",
        "cat/renamed": "cat",
        "dog/cat0": "dog",
        "dog/dog2": "dog",
    }
    assert indexed(tmp_path, form) == expected
    out = capsys.readouterr().out
    assert "4 videos have frames but are left out" in out
    assert "  dog/dog0: dog/dog0.avi: " in out
    assert extract(tmp_path, "--prune", form=form) == 1
    out = capsys.readouterr().out
    assert "--prune: the frames of 4 videos removed" in out
    assert "orphaned" not in out
    suffix = FORMS[form][1]
    assert names(tmp_path / form / "cat") == [f"{n}{suffix}" for n in ("cat2", "new", "renamed")]
    assert names(tmp_path / form / "dog") == [f"{n}{suffix}" for n in ("cat0", "dog2")]
    assert indexed(tmp_path, form) == expected
    assert "left out" not in capsys.readouterr().out


def test_outdated_index_is_reported(videos, tmp_path, form, capsys):
    words = [str(tmp_path / "index.json"), str(tmp_path / form), "--file_type", form]
    check_dataset(words)
    assert "gone or broken" not in capsys.readouterr().out
    (videos / "dog/dog0.avi").unlink()
    assert extract(tmp_path, form=form) == 0
    assert check_dataset(words) == 1
    out = capsys.readouterr().out
    assert "wrong: 1 videos with frames, found gone or broken by the last extraction\n" in out
    assert "  dog0: dog/dog0.avi: its video no longer exists\n" in out


@pytest.mark.parametrize("form", ["jpg"], indirect=True)
def test_orphans_with_shards(videos, tmp_path, capsys):
    change(videos)
    with pytest.raises(UserError, match="--prune needs all videos"):
        extract(tmp_path, "--prune", "--shard", "0/3")
    for number in range(3):
        extract(tmp_path, "--shard", f"{number}/3")
    assert "4 orphaned" in capsys.readouterr().out
    assert len(indexed(tmp_path)) == 5
    assert extract(tmp_path) == 1
    assert "0 done, 5 already there" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["jpg"], indirect=True)
def test_restored_videos_are_no_orphans(videos, tmp_path, capsys):
    (videos / "cat").rename(tmp_path / "away")
    assert extract(tmp_path) == 0
    assert "3 already there, 0 partial, 0 left out, 0 failed, 3 orphaned" in capsys.readouterr().out
    (tmp_path / "away").rename(videos / "cat")
    assert extract(tmp_path) == 0
    out = capsys.readouterr().out
    assert "0 done, 6 already there" in out
    assert "orphaned" not in out
    (videos / "cat/cat0.avi").unlink()
    assert extract(tmp_path, "--prune") == 0  # extraction wrote the frames, so they may be pruned
    assert names(tmp_path / "jpg/cat") == ["cat1", "cat2"]


@pytest.mark.parametrize("form", ["jpg"], indirect=True)
def test_keep_gone(videos, tmp_path, capsys):
    shutil.rmtree(videos / "cat")
    assert extract(tmp_path, "--keep_gone") == 0
    assert "orphaned" not in capsys.readouterr().out
    assert len(indexed(tmp_path)) == 6
    assert extract(tmp_path) == 0
    assert len(indexed(tmp_path)) == 3
    assert extract(tmp_path, "--keep_gone") == 0
    assert len(indexed(tmp_path)) == 6
    with pytest.raises(UserError, match="--prune cannot be combined"):
        extract(tmp_path, "--keep_gone", "--prune")


def test_two_video_folders(tmp_path, capsys):
    draw(tmp_path / "train/cat/a.avi")
    draw(tmp_path / "val/cat/b.avi")
    for _ in range(2):
        for part in ("train", "val"):
            assert extract(tmp_path, "--prune", videos=part) == 0
            assert "orphaned" not in capsys.readouterr().out
    assert set(indexed(tmp_path)) == {"cat/a", "cat/b"}
    (tmp_path / "train/cat/a.avi").rename(tmp_path / "train/cat/c.avi")
    assert extract(tmp_path, videos="val") == 0  # reported whichever folder is extracted
    assert "  cat/a: cat/a.avi: its video no longer exists" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "train")  # now its content is unknown
    shutil.rmtree(tmp_path / "jpg")
    draw(tmp_path / "train/cat/a.avi")
    assert extract(tmp_path, videos="train") == 0
    shutil.rmtree(tmp_path / "train")
    assert extract(tmp_path, "--prune", videos="val") == 0
    assert set(indexed(tmp_path)) == {"cat/a", "cat/b"}


@pytest.mark.parametrize("later", ["a.avi", "a.mp4"])
def test_rows_of_a_clock_that_was_ahead(tmp_path, capsys, later):
    """The video is deleted while the clock is a year ahead, and comes back, maybe renamed."""
    draw(tmp_path / "v/cat/b.avi")
    path = draw(tmp_path / "v/cat/a.avi")
    assert extract(tmp_path) == 0
    path.rename(tmp_path / "a.avi")
    assert extract(tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "jpg/manifest.jsonl").open()]
    lines[-1]["time"] += 365 * 24 * 3600
    (tmp_path / "jpg/manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    (tmp_path / "a.avi").rename(tmp_path / "v/cat" / later)
    assert extract(tmp_path, "--prune") == 0
    assert set(indexed(tmp_path)) == {"cat/a", "cat/b"}
    assert "orphaned" not in capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "v/cat" / later).unlink()
    assert extract(tmp_path) == 0
    assert "1 orphaned" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_same_name_in_two_video_folders(tmp_path, capsys, name):
    draw(tmp_path / "train/cat/a.avi")
    draw(tmp_path / "val/cat" / name, seconds=2)
    assert extract(tmp_path, videos="train") == 0
    assert extract(tmp_path, videos="val") == 1
    message = f"cat/{name}: would replace the frames of {tmp_path}/train/cat/a.avi; give each"
    assert message in capsys.readouterr().out
    assert len(names(tmp_path / "jpg/cat/a")) == 10
    shutil.copytree(tmp_path / "train", tmp_path / "copy")  # keeps modification times
    assert extract(tmp_path, "--size", "24", videos="copy") == 0
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "copy")
    assert extract(tmp_path, videos="val") == 0
    assert len(names(tmp_path / "jpg/cat/a")) == 20


def test_renamed_video_folder(tmp_path, capsys):
    for number in range(2):
        draw(tmp_path / f"v/cat/{number}.avi")
    assert extract(tmp_path) == 0
    path = tmp_path / "jpg/manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps({k: v for k, v in row.items() if k != "video_dir"}) for row in rows]
    path.write_text("\n".join(lines) + "\n")  # the format of earlier versions
    assert extract(tmp_path) == 0
    (tmp_path / "v").rename(tmp_path / "w")
    assert extract(tmp_path, videos="w") == 0
    before = path.read_bytes()
    assert extract(tmp_path, videos="w") == 0
    assert path.read_bytes() == before
    (tmp_path / "w/cat/0.avi").unlink()
    capsys.readouterr()
    assert extract(tmp_path, videos="w") == 0
    assert "0 done, 1 already there" in (out := capsys.readouterr().out)
    assert "1 orphaned" in out


def test_new_video_replaces_an_orphan(tmp_path, capsys):
    video = draw(tmp_path / "v/cat/a.avi")
    assert extract(tmp_path) == 0
    video.rename(tmp_path / "v/cat/a.mpg")  # the same file, so nothing to do
    assert extract(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.endswith("0 done, 1 already there, 0 partial, 0 left out, 0 failed\n")
    (tmp_path / "v/cat/a.mpg").unlink()
    draw(tmp_path / "v/cat/a.mkv", seconds=2)
    assert extract(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.endswith("1 done, 0 already there, 0 partial, 0 left out, 0 failed\n")
    assert len(names(tmp_path / "jpg/cat/a")) == 20
    assert indexed(tmp_path) == {"cat/a": "cat"}


def test_only_extracted_frames_are_pruned(tmp_path, capsys):
    for name in ("ours", "theirs", "more"):
        draw(tmp_path / f"v/cat/{name}.avi")
    draw(tmp_path / "v/dog/stays.avi")
    assert extract(tmp_path) == 0
    manifest = tmp_path / "jpg/manifest.jsonl"
    kept = [x for x in manifest.read_text().splitlines(keepends=True) if "theirs" not in x]
    manifest.write_text("".join(kept))  # now these frames have no row
    assert extract(tmp_path) == 0
    (tmp_path / "jpg/cat/ours/notes.txt").write_text("mine")
    shutil.copy(
        tmp_path / "jpg/cat/more/image_00010.jpg", tmp_path / "jpg/cat/more/image_00011.jpg"
    )  # the user's own frames
    shutil.rmtree(tmp_path / "v/cat")
    capsys.readouterr()
    assert extract(tmp_path, "--prune") == 0
    out = capsys.readouterr().out
    assert "--prune: the frames of 1 videos removed" in out
    assert "1 orphaned" in out
    assert "frames whose extraction is not in the manifest are not removed" in out
    assert names(tmp_path / "jpg/cat/ours") == ["notes.txt"]
    assert len(names(tmp_path / "jpg/cat/theirs")) == 10
    assert len(names(tmp_path / "jpg/cat/more")) == 11
    assert set(indexed(tmp_path)) == {"cat/more", "dog/stays"}


def test_interrupted_pruning_continues(tmp_path):
    draw(tmp_path / "v/cat/a.avi")
    draw(tmp_path / "v/cat/b.avi")
    assert extract(tmp_path) == 0
    (tmp_path / "v/cat/a.avi").unlink()
    assert extract(tmp_path) == 0
    removed = []

    class Stopped(BaseException):
        pass

    def unlink(path, missing_ok=False):
        if len(removed) == 4:
            raise Stopped
        removed.append(path.name)
        os.unlink(path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("pathlib.Path.unlink", unlink)
        extract(tmp_path, "--prune")
    assert set(indexed(tmp_path)) == {"cat/b"}
    assert extract(tmp_path, "--prune") == 0
    assert names(tmp_path / "jpg/cat") == ["b"]


def test_row_outside_the_folder_prunes_nothing(tmp_path):
    draw(tmp_path / "v/cat/a.avi")
    assert extract(tmp_path) == 0
    shutil.copytree(tmp_path / "jpg/cat/a", tmp_path / "elsewhere")
    manifest = tmp_path / "jpg/manifest.jsonl"
    row = json.loads(manifest.read_text())
    for source in ("../elsewhere.avi", f"{tmp_path}/elsewhere.avi", "cat/../../elsewhere.avi"):
        with manifest.open("a") as file:
            file.write(json.dumps(row | {"source": source}) + "\n")
    assert extract(tmp_path, "--prune") == 0
    assert len(names(tmp_path / "elsewhere")) == 10


def test_empty_class_folders_are_removed(tmp_path):
    draw(tmp_path / "v/cat/deep/a.avi")
    draw(tmp_path / "v/dog/b.avi")
    assert extract(tmp_path) == 0
    shutil.rmtree(tmp_path / "v/cat")
    assert extract(tmp_path, "--prune") == 0
    assert names(tmp_path / "jpg") == ["dog", "manifest.jsonl"]


def test_lists_leave_orphans_out(tmp_path, capsys):
    for name in ("a", "b", "c"):
        draw(tmp_path / f"v/cat/{name}.avi")
    assert extract(tmp_path) == 0
    (tmp_path / "v/cat/b.avi").write_bytes(b"broken")
    assert extract(tmp_path) == 1
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classInd.txt").write_text("1 cat\n")
    (tmp_path / "lists/trainlist01.txt").write_text("cat/a.avi 1\ncat/b.avi 1\n")
    (tmp_path / "lists/testlist01.txt").write_text("cat/c.avi\n")
    capsys.readouterr()
    assert ucf101_json([str(tmp_path / name) for name in ("lists", "jpg", "out")]) == 0
    out = capsys.readouterr().out
    assert "1 videos have frames but are left out" in out
    assert "cat/b: cat/b.avi: " in out
    database = json.loads((tmp_path / "out/ucf101_01.json").read_text())["database"]
    assert list(database) == ["a", "c"]
    assert [path.name for path in find_frame_folders(tmp_path / "jpg")] == ["a", "c"]


def test_users_frames_of_a_failed_video_are_kept(tmp_path):
    draw(tmp_path / "v/cat/a.avi")
    (tmp_path / "v/cat/b.avi").write_bytes(b"\x01\x02 an odd codec")
    assert extract(tmp_path) == 1
    shutil.copytree(tmp_path / "jpg/cat/a", tmp_path / "jpg/cat/b")
    assert extract(tmp_path, "--prune") == 1
    assert set(indexed(tmp_path)) == {"cat/a", "cat/b"}


def test_whole_sequence_of_commands(tmp_path):
    """Extraction, index, changes, and the same again; twice each."""
    for label in ("cat", "dog"):
        for number in range(3):
            draw(tmp_path / f"v/{label}/{label}{number}.avi")
    words = (tmp_path / "v", tmp_path / "jpg", "own")
    for _ in range(2):
        assert run_util("generate_video_jpgs", *words).status == 0
    change(tmp_path / "v")
    time.sleep(0.01)
    for _ in range(2):
        ran = run_util("generate_video_jpgs", *words)
        assert ran.status == 1
        assert "4 orphaned" in ran.stdout
    ran = run_util("folder_json", tmp_path / "jpg", tmp_path / "own.json")
    assert ran.status == 0
    assert "2 labels; videos: 3 training, 2 validation" in ran.stdout
    os.remove(tmp_path / "v/dog/dog1.avi")
    ran = run_util("generate_video_jpgs", *words, "--prune")
    assert ran.status == 0
    assert "4 videos removed" in ran.stdout
