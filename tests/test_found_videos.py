"""What train_videos finds in a folder or table, leaves out, groups and warns of."""

import os
import shutil
import unicodedata
from dataclasses import replace

import pytest

from datasets.listed_videos import ListedVideo, read_listed_videos
from errors import UserError
from media.listed import read_listed
from own_videos import look
from own_videos.found import find_videos, group_by_names, write_table
from tests.videos import draw


@pytest.fixture
def videos(tmp_path):
    """Class folders with junk among the videos."""
    root = tmp_path / "my videos"
    one = draw(root / "cat/a.mp4", size="32x32")
    draw(root / "cat/sub folder/猫.MP4", size="32x32", seconds=2)
    draw(root / "dog/a.avi", size="32x32", seconds=3)
    draw(root / "dog/b.mkv", size="32x32", seconds=4)
    shutil.copy(one, root / "cat/copy.mp4")
    shutil.copy(root / "dog/b.mkv", root / "dog/b.mp4")
    shutil.copy(root / "dog/b.mkv", root / "dog/x.mkv")
    shutil.copy(root / "dog/b.mkv", root / "cat/wrong.mkv")
    (root / "cat/empty.mp4").touch()
    (root / "cat/notes.txt").write_text("nothing")
    (root / "dog/page.mp4").write_text("<html>not found</html>")
    (root / "top.txt").write_text("nothing")
    return root


def test_junk_copies_and_contradicting_labels_are_left_out(videos, tmp_path, capsys):
    found, opened = look.look_into(find_videos(videos, tmp_path / "out"))
    assert found.paths == ["cat/a.mp4", "cat/sub folder/猫.MP4", "dog/a.avi"]
    assert found.left_out == {
        "cat/copy.mp4": "the same file as cat/a.mp4",
        "cat/empty.mp4": "an empty file",
        "cat/notes.txt": "text, not a video",
        "cat/wrong.mkv": "the same file as dog/b.mkv, which has another label",
        "dog/b.mkv": "the same file as cat/wrong.mkv, which has another label",
        "dog/b.mp4": "same output folder as b.mkv; rename one of the two",
        "dog/page.mp4": "text, not a video",
        "dog/x.mkv": "the same file as cat/wrong.mkv, which has another label",
        "top.txt": "not in the folder of a class",
    }
    look.print_findings(found)
    out = capsys.readouterr().out
    assert "9 files are left out" in out
    assert "3 videos of 2 classes\n  cat: 2\n  dog: 1\n" in out
    data = look.data_of(found, opened, 0)
    assert (data.n_train, data.n_val, data.rate, data.seconds) == (2, 1, 10, 6)


def test_folders_that_are_split_keep_their_split(tmp_path):
    for name in ("train/a/1", "train/b/2", "val/a/3", "val/b/4"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / f"{name}.mp4").write_text(name)
    found = find_videos(tmp_path / "v", tmp_path / "out")
    assert [(v.subset, v.label) for v in found.videos] == [
        ("training", "a"), ("training", "b"), ("validation", "a"), ("validation", "b")
    ]  # fmt: skip
    look.check_enough(found, 0)
    with pytest.raises(UserError, match="--folds: the videos are split"):
        look.check_enough(found, 3)


def test_a_table_is_reduced_to_the_folder_of_its_videos(tmp_path):
    for name in ("deep/a/1.mp4", "deep/b/2.mp4", "deep/b/unlisted.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    table = tmp_path / "list.csv"
    table.write_text(
        "label;path;group;start;end\nx;deep\\a\\1.mp4;g;1,5;2\ny;deep/b/2.mp4;;;\nx;gone.mp4;;;\n"
    )
    found = find_videos(table, tmp_path / "out")
    assert found.folder == tmp_path / "deep"
    assert [(v.path, v.label, v.group, v.start, v.end) for v in found.videos] == [
        ("a/1.mp4", "x", "g", 1.5, 2), ("b/2.mp4", "y", "", 0, None)
    ]  # fmt: skip
    assert list(found.left_out) == ["line 4: gone.mp4"]


def touch(root, *names):
    """Write files of different contents that are no videos."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_only_folders_that_lead_to_listed_videos_are_looked_into(tmp_path, monkeypatch):
    """The common folder may be /home, with the files of all users."""
    for name in ("ann/v/1.mp4", "ann/v/more/x.mp4", "bob/2.mp4", "eve/private/y.mp4"):
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(name)
    table = tmp_path / "table.csv"
    home = tmp_path / "home"
    table.write_text(f"path,label\n{home}/ann/v/1.mp4,a\n{home}/bob/2.mp4,b\n")
    looked_into, scandir = set(), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked_into.add(str(path)) or scandir(path))
    found = find_videos(table, tmp_path / "out")
    write_table(tmp_path / "written.csv", found.videos)
    listed = read_listed(tmp_path / "written.csv", found.folder, tmp_path / "out")
    assert (found.folder, found.paths) == (home, ["ann/v/1.mp4", "bob/2.mp4"])
    assert listed.names == {*found.paths}
    assert {path for path in looked_into if path.startswith(str(home))} == {
        str(home / name) for name in ("", "ann", "ann/v", "bob")
    }


def test_files_beside_subset_folders_are_left_out(tmp_path):
    touch(tmp_path / "v", "train/a/1.mp4", "val/a/2.mp4", "README.txt")
    found = find_videos(tmp_path / "v", tmp_path / "out")
    assert [(v.subset, v.label) for v in found.videos] == [("training", "a"), ("validation", "a")]
    assert found.left_out == {"README.txt": "not in the folder of a class"}


def test_no_row_of_a_table_vanishes(tmp_path):
    nfd = unicodedata.normalize("NFD", "é")
    out = tmp_path / "run"
    touch(tmp_path, "a/1.mp4", f"a/{nfd}.mp4", ".old/3.mp4", "b/4.mp4", "b/5.mp4", "run/6.mp4")
    (tmp_path / "link").symlink_to("b")
    paths = ["a/1.mp4", "a/é.mp4", ".old/3.mp4", "link/4.mp4", "run/6.mp4"]
    rows = [f"{path},x,train" for path in paths] + ["b/5.mp4,,test"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    found = find_videos(tmp_path / "list.csv", out)
    assert found.paths == ["a/1.mp4", f"a/{nfd}.mp4"]
    assert found.left_out == {
        "line 4: .old/3.mp4": "is hidden: a part of its path begins with a dot",
        "line 5: link/4.mp4": f"is reached by a link; list it as {tmp_path}/b/4.mp4",
        "line 6: run/6.mp4": "lies in the folder of the run (--out)",
        "line 7: b/5.mp4": "has no label",
    }


def test_rows_that_contradict_each_other_are_named_by_the_users_lines(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "list.csv").write_text("path,label\na/1.mp4,x\na\\1.mp4,y\n")
    with pytest.raises(UserError, match=r"list.csv: line 3: 1.mp4 is listed in line 2 already"):
        find_videos(tmp_path / "list.csv", tmp_path / "out")


def test_a_table_of_the_whole_disk_is_refused(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "list.csv").write_text(f"path,label\na/1.mp4,x\n{shutil.which('sh')},y\n")
    with pytest.raises(UserError, match="the videos have no folder in common, for example"):
        find_videos(tmp_path / "list.csv", tmp_path / "out")


def test_parts_outside_of_their_video_are_named_before_extraction(tmp_path):
    draw(tmp_path / "1.mp4", size="32x32", seconds=3)
    (tmp_path / "list.csv").write_text("path,label,start,end\n1.mp4,x,0,3.5\n1.mp4,y,1,9\n")
    with pytest.raises(UserError, match=r"^line 3: 1.mp4: the part ends at 9 s, but the video"):
        look.look_into(find_videos(tmp_path / "list.csv", tmp_path / "out"))


def test_the_table_that_is_written_is_read_back(tmp_path):
    names = ['a, "b"; c', " blank ", "猫\n2", "d  e"]
    videos = [
        ListedVideo(n, f"x/{name}.mp4", f"label {n}, /", "training", f"g{n}", 1e-7, 12345.678)
        for n, name in enumerate(names, 2)
    ]
    write_table(tmp_path / "videos.csv", videos)
    read = read_listed_videos(tmp_path / "videos.csv")
    assert [vars(v) | {"line": 0} for v in read] == [vars(v) | {"line": 0} for v in videos]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["m1_clip1", "m1_clip2", "m2_clip1", "m2_clip2", "m3_clip1"],
         ["m1", "m1", "m2", "m2", "m3"]),
        (["fi_001", "fi_002", "fi_003", "fi_004", "fi_005"], [""] * 5),
        (["v_Run_g01_c01", "v_Run_g01_c02", "v_Run_g02_c01", "v_Run_g03_c01", "x"],
         ["v_Run_g01", "v_Run_g01", "v_Run_g02", "v_Run_g03", ""]),
    ],
)  # fmt: skip
def test_recordings_are_guessed_from_names(tmp_path, names, groups):
    for name in names:
        for label in "ab":
            path = tmp_path / "v" / label / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    assert [v.group for v in found.videos if v.label == "a"] == groups
    assert found.is_grouped_by_names == any(groups)


def test_only_the_class_with_a_single_recording_is_cut_up(tmp_path, capsys):
    """A and C have six recordings of five clips each, B has one."""
    names = [f"{label}/{stem}{n}_clip{clip}.mp4" for label, stem in (("A", "match"), ("C", "game"))
             for n in range(1, 7) for clip in range(1, 6)]  # fmt: skip
    touch(tmp_path / "v", *names, *(f"B/match9_clip{clip}.mp4" for clip in range(1, 6)))
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    groups = {label: {v.group for v in found.videos if v.label == label} for label in "ABC"}
    assert groups["A"] == {f"match{n}" for n in range(1, 7)}
    assert groups["B"] == {""}
    assert groups["C"] == {f"game{n}" for n in range(1, 7)}
    sides = {video.path.partition("_")[0]: set() for video in look.split_of(found, 0)}
    for video in look.split_of(found, 0):
        sides[video.path.partition("_")[0]].add(video.subset)
    assert [name for name, side in sides.items() if len(side) > 1] == ["B/match9"]
    look.print_findings(found)
    assert "too high: all videos of B (match9) seem to be of one rec" in capsys.readouterr().out


def test_a_recording_with_most_of_the_videos_is_a_group_too(tmp_path):
    names = [f"{label}/{label}{n}_clip{clip}.mp4" for label in "ab" for n, last in ((1, 9), (2, 2))
             for clip in range(last)]  # fmt: skip
    touch(tmp_path / "v", *names, *(f"a/b1_clip{clip}.mp4" for clip in range(10, 20)))
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    assert {v.group for v in found.videos} == {"a1", "a2", "b1", "b2"}
    assert not found.cut_up


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_split_that_takes_recordings_apart_is_said(tmp_path, capsys, other):
    touch(tmp_path / "v", *(f"{side}/{label}/{label}{n}_clip{clip}.mp4" for label in "ab"
          for n in range(3) for clip, side in enumerate(("train", other))))  # fmt: skip
    found = find_videos(tmp_path / "v", tmp_path / "out")
    look.print_findings(found)
    assert "6 recordings or groups are both in training and in" in capsys.readouterr().out
    found = replace(found, videos=tuple(replace(v, group="g") for v in found.videos))
    assert look.describe(found)[-1] == "1 groups"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no videos in class folders"),
        (["x.mp4"], "no videos in class folders"),
        (["a/x.mp4", "a/y.mp4"], "all videos are of one class"),
        (["a/x.mp4", "b/y.mp4"], "too few videos"),
    ],
)
def test_too_little_to_learn_from(tmp_path, names, complaint):
    (tmp_path / "v").mkdir()
    for name in names:
        (tmp_path / "v" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "v" / name).write_text(name)
    with pytest.raises(UserError, match=complaint):
        look.check_enough(find_videos(tmp_path / "v", tmp_path / "out"), 0)
