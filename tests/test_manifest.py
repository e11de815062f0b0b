"""The manifest of extraction, and what a second run does with it."""

import fcntl
import json
import os
import socket
import time
from itertools import count

import pytest

from errors import UserError
from media.ffmpeg import find_ffmpeg
from media.manifest import DONE, Arguments, Manifest, Row, read_rows, target_of
from media.shard import Shard, parse_shard
from media.work_folders import LOCK, SETTINGS, UNTOUCHED, WorkFolder, remove_stale_work
from tests.commands import Command
from tests.videos import draw, kill_extractions, names
from util_scripts.generate_video_hdf5 import main as to_hdf5
from util_scripts.generate_video_jpgs import main


def extract(root, *flags, jpg="jpg"):
    return main([str(root / "v"), str(root / jpg), "test", *flags])


def rows(root, name="manifest.jsonl", jpg="jpg"):
    """{source: its last row}"""
    lines = (root / jpg / name).read_text(encoding="utf-8").splitlines()
    return {row["source"]: row for row in map(json.loads, lines)}


def frames(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jpg")}


@pytest.fixture
def broken_ffmpeg(monkeypatch, tmp_path):
    """Return a function that makes every later run of ffmpeg fail."""

    def break_it(text="#!/bin/sh\necho '[error] broken' >&2\nexit 1\n"):
        path = tmp_path / "broken-ffmpeg"
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("FFMPEG", str(path))
        find_ffmpeg.cache_clear()

    yield break_it
    find_ffmpeg.cache_clear()


def test_manifest_row(tmp_path):
    path = draw(tmp_path / "v/A/a.mp4", size="64x48", seconds=2, rate=10)
    (tmp_path / "v/A/notes.txt").write_text("no video\n")
    (tmp_path / "v/A/b.avi").touch()
    assert extract(tmp_path, "--size", "24", "--quality", "5") == 1
    found = rows(tmp_path)
    row = found["A/a.mp4"]
    assert row["n_bytes"] == path.stat().st_size
    assert row["mtime_ns"] == path.stat().st_mtime_ns
    assert row["arguments"] == {"size": 24, "fps": None, "quality": 5, "interpolate": False}
    assert (row["status"], row["frames"], row["width"], row["height"]) == ("done", 20, 32, 24)
    assert (row["rate"], row["seconds"]) == (10, 2)
    assert row["ffmpeg"]
    assert found["A/notes.txt"]["status"] == "left_out"
    assert found["A/b.avi"]["status"] == "failed"
    assert found["A/b.avi"]["reason"] == "an empty file"


def test_a_second_run_starts_no_ffmpeg(tmp_path, capsys, broken_ffmpeg):
    for name in "ab":
        draw(tmp_path / f"v/A/{name}.avi")
    assert extract(tmp_path) == 0
    before = (tmp_path / "jpg/manifest.jsonl").read_bytes()
    broken_ffmpeg()
    assert extract(tmp_path) == 0
    assert "0 done, 2 already there" in capsys.readouterr().out
    assert (tmp_path / "jpg/manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize("flags", [["--size", "16"], ["--fps", "5"], ["--quality", "31"]])
def test_changed_flags_extract_again(tmp_path, capsys, flags):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    before = frames(tmp_path / "jpg")
    capsys.readouterr()
    assert extract(tmp_path, *flags) == 0
    assert "1 done, 0 already there" in capsys.readouterr().out
    assert extract(tmp_path, *flags, jpg="fresh") == 0
    assert frames(tmp_path / "jpg") == frames(tmp_path / "fresh") != before


def test_changed_video_is_extracted_again(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/A/b.avi")
    assert extract(tmp_path) == 0
    draw(tmp_path / "v/A/a.avi", seconds=2)
    (tmp_path / "jpg/A/b/image_00003.jpg").unlink()  # the folder no longer matches
    capsys.readouterr()
    assert extract(tmp_path) == 0
    assert "2 done, 0 already there" in capsys.readouterr().out
    assert len(names(tmp_path / "jpg/A/a")) == 20
    assert len(names(tmp_path / "jpg/A/b")) == 10


def test_frames_older_than_the_manifest_are_adopted(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    (tmp_path / "jpg/manifest.jsonl").unlink()
    capsys.readouterr()
    assert extract(tmp_path) == 0
    assert "0 done, 1 already there" in capsys.readouterr().out
    row = rows(tmp_path)["A/a.avi"]
    assert row["frames"] == 10
    assert row["ffmpeg"] is None


@pytest.mark.parametrize("number", [1, 10])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_frames_that_a_power_loss_emptied_are_extracted_again(tmp_path, number, has_manifest):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    before = frames(tmp_path / "jpg")
    (tmp_path / f"jpg/A/a/image_{number:05d}.jpg").write_bytes(b"")
    if not has_manifest:
        (tmp_path / "jpg/manifest.jsonl").unlink()
    assert extract(tmp_path) == 0
    assert frames(tmp_path / "jpg") == before


def adopted(capsys):
    return "1 of 1 already there: without a row in the manifest" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--fps", "5"], ["--size", "24"]])
@pytest.mark.parametrize("n_left", [20, 17, 3])
def test_adopted_frames_have_to_fit_the_video(tmp_path, capsys, flags, n_left):
    """3 of 20 were left by an interrupted program; sound that is longer explains 17."""
    draw(tmp_path / "v/A/a.avi", seconds=2)
    assert extract(tmp_path) == 0
    (tmp_path / "jpg/manifest.jsonl").unlink()
    for number in range(n_left + 1, 21):
        (tmp_path / f"jpg/A/a/image_{number:05d}.jpg").unlink()
    (tmp_path / "jpg/A/a/notes.txt").write_text("mine")
    assert extract(tmp_path, *flags) == 0
    assert adopted(capsys) == (n_left > 3 and not flags)
    n_frames = n_left if n_left > 3 and not flags else 10 if "5" in flags else 20
    assert len(frames(tmp_path / "jpg/A/a")) == rows(tmp_path)["A/a.avi"]["frames"] == n_frames
    assert (tmp_path / "jpg/A/a/notes.txt").read_text() == "mine"
    assert extract(tmp_path, *flags) == 0
    assert not adopted(capsys)


def test_adopted_hdf5_files_are_never_replaced(tmp_path, capsys):
    pytest.importorskip("h5py")
    draw(tmp_path / "v/A/a.avi")
    words = [str(tmp_path / "v"), str(tmp_path / "jpg"), "test"]
    assert to_hdf5(words) == 0
    (tmp_path / "jpg/manifest.jsonl").unlink()
    before = (tmp_path / "jpg/A/a.hdf5").read_bytes()
    assert to_hdf5([*words, "--size", "24"]) == 1
    assert "a.hdf5 exists, but does not fit the video; move it away" in capsys.readouterr().out
    assert to_hdf5(words) == 0
    assert adopted(capsys)
    assert (tmp_path / "jpg/A/a.hdf5").read_bytes() == before


def test_failures_are_retried_only_on_request(tmp_path, capsys, broken_ffmpeg):
    draw(tmp_path / "v/A/good.avi")
    assert extract(tmp_path) == 0
    draw(tmp_path / "v/A/new.avi")
    broken_ffmpeg()
    assert extract(tmp_path) == 1
    capsys.readouterr()
    assert extract(tmp_path) == 1
    assert "A/new.avi: broken (earlier; --retry_failed" in capsys.readouterr().out
    os.environ.pop("FFMPEG")
    find_ffmpeg.cache_clear()
    assert extract(tmp_path) == 1  # nothing changed
    (tmp_path / "v/A/later.avi").write_bytes((tmp_path / "v/A/good.avi").read_bytes())
    capsys.readouterr()
    assert extract(tmp_path, "--retry_failed") == 0
    out = capsys.readouterr().out
    assert "1 done, 1 already there" in out
    assert "1 not tried" in out
    assert names(tmp_path / "jpg/A") == ["good", "new"]


def test_hanging_video_times_out(tmp_path, capsys, broken_ffmpeg):
    draw(tmp_path / "v/A/a.avi")
    broken_ffmpeg("#!/bin/sh\nsleep 60\n")
    assert extract(tmp_path, "--timeout", "0.3") == 1
    assert "A/a.avi: took longer than --timeout 0.3" in capsys.readouterr().out
    assert names(tmp_path / "jpg") == ["manifest.jsonl"]


def test_shards_cover_every_video_once(tmp_path):
    for number in range(9):
        draw(tmp_path / f"v/A/{number}.avi")
    for number in range(3):
        assert extract(tmp_path, "--shard", f"{number}/3") == 0
    parts = [rows(tmp_path, f"manifest-0000{number}-of-00003.jsonl") for number in range(3)]
    assert sorted(name for part in parts for name in part) == [f"A/{i}.avi" for i in range(9)]
    assert len(names(tmp_path / "jpg/A")) == 9
    assert extract(tmp_path) == 0  # a run without shards reads all of them
    assert (tmp_path / "jpg/manifest.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, Shard(1, 3)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, Shard(1, 3)),
        (  # torchrun inside a SLURM job
            {"RANK": "5", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
            Shard(5, 8),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            Shard(2, 4),
        ),
    ],
)
def test_shards_of_launchers(environment, expected):
    assert parse_shard("auto", environment) == expected


@pytest.mark.parametrize("text", ["3/3", "-1/3", "a/b", "1", "0/0", "auto"])
def test_wrong_shards(text):
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text, {})


def test_incomplete_last_line_is_skipped(tmp_path, capsys):
    for name in "ab":
        draw(tmp_path / f"v/A/{name}.avi")
    assert extract(tmp_path) == 0
    path = tmp_path / "jpg/manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert extract(tmp_path) == 0
    assert "0 done, 2 already there" in capsys.readouterr().out
    assert path.read_bytes().count(b"\n") == 3
    assert extract(tmp_path) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "fine"), ("frames", -1), ("source", 7), ("time", "now"), ("arguments", [240])],
)
def test_invalid_lines_are_skipped(tmp_path, capsys, field, value):
    draw(tmp_path / "v/A/a.avi")
    assert extract(tmp_path) == 0
    path = tmp_path / "jpg/manifest.jsonl"
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {field: value}) + '\n[]\n\n{}\n"text"\n\xff\n')
    capsys.readouterr()
    assert extract(tmp_path) == 0  # the frames are adopted
    assert "0 done, 1 already there" in capsys.readouterr().out
    assert len(list(read_rows(tmp_path / "jpg"))) == 1


def test_the_row_that_is_appended_last_is_the_latest(tmp_path, monkeypatch):
    """Whichever extraction began last: its frames may be replaced by one that began before."""
    monkeypatch.setattr("time.time", count(1).__next__)
    with Manifest(tmp_path) as manifest, Manifest(tmp_path) as other:
        began, began_later = (
            Row("a", 1, 1, Arguments(720), DONE),
            Row("a", 1, 1, Arguments(32), DONE),
        )
        other.append(began_later)
        manifest.append(began)
    latest = max(read_rows(tmp_path), key=lambda row: row.time)
    assert latest.arguments.size == 720


def test_two_runs_with_different_flags_at_once(tmp_path):
    draw(tmp_path / "v/A/a.avi")
    (tmp_path / "jpg").mkdir()
    other = WorkFolder(tmp_path / "jpg", "--size 720")
    with pytest.raises(UserError, match=r"another extraction writes to it with --size 720, this"):
        extract(tmp_path)
    assert list((tmp_path / "jpg").iterdir()) == [other.path]
    other.remove()
    assert extract(tmp_path) == 0
    other = WorkFolder(tmp_path / "jpg", "--size 240")
    assert extract(tmp_path) == 0
    other.remove()


def test_a_killed_run_with_other_flags_refuses_no_other(tmp_path):
    """Also not while one process removes its folder and another one reads its settings."""
    draw(tmp_path / "v/A/a.avi")
    (tmp_path / "jpg").mkdir()
    killed = WorkFolder(tmp_path / "jpg", "--size 720")
    for lock in killed._locks:
        os.close(lock)
    with (killed.path / LOCK).open() as removed, (killed.path / SETTINGS).open() as read:
        fcntl.flock(removed, fcntl.LOCK_EX)
        fcntl.flock(read, fcntl.LOCK_SH)
        assert extract(tmp_path) == 0
    assert killed.path.is_dir()
    assert extract(tmp_path) == 0
    assert names(tmp_path / "jpg") == ["A", "manifest.jsonl"]


def test_random_kills(tmp_path):
    """Kill twenty times during extraction; all videos are changed before each run."""
    videos = [draw(tmp_path / f"v/A/{number}.avi", seconds=6) for number in range(6)]
    kill_extractions(tmp_path, videos, 20)
    assert extract(tmp_path) == 0
    assert extract(tmp_path, jpg="undisturbed") == 0
    assert frames(tmp_path / "jpg") == frames(tmp_path / "undisturbed")
    assert names(tmp_path / "jpg") == ["A", "manifest.jsonl"]


def test_stale_work_is_removed_while_ffmpeg_still_writes(tmp_path):
    work = tmp_path / f".extracting-{socket.gethostname()}-1-00000000/0/frames"
    work.mkdir(parents=True)
    (work.parent.parent / LOCK).touch()
    lines = ("import time", "n = 0", "while True:", " open(str(n), 'w').close()", " n += 1",
             " if n > 3000: time.sleep(0.001)")  # fmt: skip
    with Command("-c", "\n".join(lines), cwd=work) as writing:
        writing.wait_until((work / "3000").exists)
        remove_stale_work(tmp_path)
        assert writing.finish().status != 0  # its folder is gone
    assert not any(tmp_path.iterdir())


def test_work_folders_of_running_extractions_are_kept(tmp_path):
    """Another container may have the same host name and process number."""
    one, other = WorkFolder(tmp_path), WorkFolder(tmp_path)
    unknown = tmp_path / f".extracting-{socket.gethostname()}-1"
    (unknown / "0/frames").mkdir(parents=True)
    (one.path / "0/old").mkdir(parents=True)
    remove_stale_work(tmp_path)
    assert (one.path / "0/old").is_dir()
    assert other.path.is_dir()
    assert unknown.is_dir()
    other.remove()
    before = time.time() - UNTOUCHED - 1
    for folder in (unknown / "0/frames", unknown / "0", unknown, one.path / "0/old", one.path):
        os.utime(folder, (before, before))
    remove_stale_work(tmp_path)
    assert list(tmp_path.iterdir()) == [one.path]
    one.remove()


def test_names_that_are_not_utf8(tmp_path, capsys):
    draw(tmp_path / "a.avi")
    folder = os.fsencode(tmp_path / "v/A")
    os.makedirs(folder)
    os.rename(os.fsencode(tmp_path / "a.avi"), folder + b"/a\xff.avi")
    (tmp_path / "v/A/x.avi").touch()
    for _ in range(2):
        assert extract(tmp_path) == 1
    assert "1 already there" in capsys.readouterr().out
    assert os.listdir(os.fsencode(tmp_path / "jpg/A")) == [b"a\xff"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("A/a.avi", "A/a"),
        ("A.b/a", "A.b/a"),
        ("a.b.c", "a.b"),
        ("A/a.", "A/a."),
        ("A/.a", "A/.a"),
        ("A/a..b", "A/a."),
        ("a", "a"),
    ],
)
def test_where_frames_go(source, target):
    assert target_of(source) == target
