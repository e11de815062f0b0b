import json
import os
from collections import Counter

import pytest

from datasets.index import read_index
from datasets.selection import select_videos
from errors import UserError
from tests.videos import link_frames, shared
from util_scripts import folder_json, hmdb51_json, ucf101_json


def make_frames(jpg, *videos, n_frames=2):
    """Make folders of empty frame files."""
    for video in videos:
        (jpg / video).mkdir(parents=True)
        for number in range(1, n_frames + 1):
            (jpg / video / f"image_{number:05d}.jpg").touch()


def write_lists(folder, **lists):
    folder.mkdir(exist_ok=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_bytes("\r\n".join(lines).encode("utf-8") + b" \r\n\r\n")
    return str(folder)


def read(path):
    return json.loads(path.read_text("utf-8"))


def videos_of(path):
    """{id: (subset, label, segment's end - 1, video_path)} of an index file."""
    read_index(path)
    return {
        video_id: (
            entry["subset"],
            entry["annotations"].get("label"),
            entry["annotations"]["segment"][1] - 1,
            entry.get("video_path"),
        )
        for video_id, entry in read(path)["database"].items()
    }


# UCF-101


def test_official_ucf101_lists(tmp_path, capsys):
    lists = shared("data/ucfTrainTestlist")
    lines = [
        line
        for name in ("trainlist01.txt", "testlist01.txt")
        for line in (lists / name).read_text().split("\n")
    ]
    link_frames(tmp_path, [line.split()[0].removesuffix(".avi") for line in lines if line.strip()])
    assert ucf101_json.main([str(lists), str(tmp_path / "jpg"), str(tmp_path / "out")]) == 0
    expected = {"01": (9537, 3783), "02": (9586, 3734), "03": (9624, 3696)}
    for number, (n_train, n_val) in expected.items():
        index = read(tmp_path / "out" / f"ucf101_{number}.json")
        counts = Counter(entry["subset"] for entry in index["database"].values())
        assert counts == {"training": n_train, "validation": n_val}
        named = (lists / "classInd.txt").read_text().split()[1::2]
        assert index["labels"] == named
        assert len(named) == 101
    assert "left out" not in capsys.readouterr().out
    chosen = select_videos(read_index(tmp_path / "out" / "ucf101_01.json"), "val", tmp_path / "jpg")
    assert (len(chosen.records), chosen.omitted) == (3783, [])


def test_fight_recipe_of_one_split(tmp_path, capsys):
    lists = write_lists(
        tmp_path / "lists",
        classInd=["1 fight", "2 noFight"],
        trainlist01=["fight/fi001.mp4 1", "noFight/nofi001.mp4 2", "fight/fi003.mp4 1"],
        testlist01=["fight/fi002.mp4 1", "noFight/nofi002.mp4"],
    )
    jpg = tmp_path / "jpg"
    make_frames(jpg, "fight/fi001", "fight/fi002", "noFight/nofi001", n_frames=12)
    make_frames(jpg, "fight/fi003", n_frames=0)
    assert ucf101_json.main([lists, str(jpg), str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ucf101_01.json"]
    index = read(tmp_path / "out" / "ucf101_01.json")
    assert index == {
        "labels": ["fight", "noFight"],
        "database": {
            "fi001": {"subset": "training", "annotations": {"label": "fight", "segment": [1, 13]}},
            "nofi001": {
                "subset": "training",
                "annotations": {"label": "noFight", "segment": [1, 13]},
            },
            "fi002": {
                "subset": "validation",
                "annotations": {"label": "fight", "segment": [1, 13]},
            },
        },
    }
    out = capsys.readouterr().out
    assert "2 videos without frames are left out:" in out
    assert "fight/fi003: no frames" in out
    assert "noFight/nofi002: no folder" in out


def test_ucf101_names_survive(tmp_path):
    names = ["a.b.c", "[x] & #1!", "two  spaces 3", "naïve", "v (1)"]
    lists = write_lists(
        tmp_path / "lists",
        classInd=["1 Long Jump", "2 same"],
        trainlist07=[f"Long Jump/{name}.avi 1   " for name in names],
        testlist07=["same/a.b.c.avi", "same/deep/er.mp4"],
    )
    jpg = tmp_path / "jpg"
    make_frames(jpg, *(f"Long Jump/{name}" for name in names), "same/a.b.c", "same/deep/er")
    assert ucf101_json.main([lists, str(jpg), str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / "ucf101_07.json"
    assert list(videos_of(path)) == [
        "Long Jump/a.b.c", *names[1:], "same/a.b.c", "er"
    ]  # fmt: skip
    assert videos_of(path)["same/a.b.c"] == ("validation", "same", 2, "same/a.b.c")
    chosen = select_videos(read_index(path), "val", jpg)
    assert [r.path.relative_to(jpg).as_posix() for r in chosen.records] == [
        "same/a.b.c", "same/deep/er"
    ]  # fmt: skip
    assert len(select_videos(read_index(path), "train", jpg).records) == len(names)


@pytest.mark.parametrize(
    ("lists", "complaint"),
    [
        ({"classInd": ["fight"]}, "classInd.txt: line 1: 'fight' is not"),
        ({"classInd": ["1 a", "2 a"]}, "a label occurs twice"),
        ({"trainlist01": ["b/x.avi 1"]}, "trainlist01.txt: line 1: label 'b' is not in"),
        ({"trainlist01": ["", "x.avi 1"]}, "trainlist01.txt: line 2: 'x.avi 1' is not"),
        ({"testlist01": ["a/x.avi"]}, "testlist01.txt: line 1: a/x is already a training video"),
    ],
)
def test_bad_ucf101_lists(tmp_path, lists, complaint):
    good = {"classInd": ["1 a"], "trainlist01": ["a/x.avi 1"], "testlist01": ["a/y.avi"]}
    folder = write_lists(tmp_path / "lists", **good | lists)
    make_frames(tmp_path / "jpg", "a/x", "a/y")
    with pytest.raises(UserError, match=complaint):
        ucf101_json.main([folder, str(tmp_path / "jpg"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_missing_frames_and_gaps_write_nothing(tmp_path):
    lists = write_lists(
        tmp_path / "lists",
        classInd=["1 a"],
        trainlist01=["a/x.avi 1", "a/z.avi 1"],
        testlist01=["a/y.avi"],
    )
    jpg, out = tmp_path / "jpg", tmp_path / "out"
    with pytest.raises(UserError, match="jpg: no such folder"):
        ucf101_json.main([lists, str(jpg), str(out)])
    make_frames(jpg, "a/x", n_frames=0)
    with pytest.raises(UserError, match="no frames in any of 3 video folders"):
        ucf101_json.main([lists, str(jpg), str(out)])
    make_frames(jpg, "a/y", "a/z", n_frames=9)
    (jpg / "a/z/image_00004.jpg").unlink()
    with pytest.raises(UserError, match=r"1 videos lack a frame .*: a/z: frame 4$"):
        ucf101_json.main([lists, str(jpg), str(out)])
    assert not out.exists()
    with pytest.raises(UserError, match=r"trainlist02|testlist02"):
        write_lists(tmp_path / "lists", trainlist02=["a/x.avi 1"])
        ucf101_json.main([lists, str(jpg), str(out)])
    with pytest.raises(UserError, match="classInd"):
        ucf101_json.main([str(jpg), str(jpg), str(out)])


# HMDB-51


def test_official_hmdb51_splits(tmp_path, capsys):
    splits = shared("data/testTrainMulti_7030_splits")
    names = [
        f"{path.name.removesuffix('_test_split1.txt')}/{line.strip()[:-2].removesuffix('.avi')}"
        for path in splits.glob("*_test_split1.txt")
        for line in path.read_text().splitlines()
    ]
    link_frames(tmp_path, names)
    assert hmdb51_json.main([str(splits), str(tmp_path / "jpg"), str(tmp_path / "out")]) == 0
    for number in (1, 2, 3):
        path = tmp_path / "out" / f"hmdb51_{number}.json"
        index = read_index(path)
        counts = Counter(entry.subset for entry in index.entries)
        assert counts == {"training": 3570, "validation": 1530}
        assert len(index.labels) == 51
        assert list(index.labels) == sorted(index.labels)
        assert select_videos(index, "train", tmp_path / "jpg").omitted == []
    assert "left out" not in capsys.readouterr().out


def test_hmdb51_names_and_codes(tmp_path, capsys):
    splits = write_lists(
        tmp_path / "splits",
        shake_hands_test_split1=["[x]_&_#1!.avi 1", "a.b.c.avi 2 ", "unused.avi 0", "gone.avi 1"],
        b_test_split1=["one two.avi 1"],
        readme=["nothing"],
    )
    jpg = tmp_path / "jpg"
    make_frames(jpg, "shake_hands/[x]_&_#1!", "shake_hands/a.b.c", "shake_hands/unused")
    make_frames(jpg, "b/one two")
    assert hmdb51_json.main([splits, str(jpg), str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / "hmdb51_1.json"
    assert read(path)["labels"] == ["b", "shake_hands"]
    assert videos_of(path) == {
        "one two": ("training", "b", 2, None),
        "[x]_&_#1!": ("training", "shake_hands", 2, None),
        "a.b.c": ("validation", "shake_hands", 2, None),
    }
    assert "shake_hands/gone: no folder" in capsys.readouterr().out


def test_bad_hmdb51_splits(tmp_path):
    jpg, out = str(tmp_path / "jpg"), str(tmp_path / "out")
    with pytest.raises(UserError, match="splits: no such folder"):
        hmdb51_json.main([str(tmp_path / "splits"), jpg, out])
    splits = write_lists(tmp_path / "splits", readme=["nothing"])
    with pytest.raises(UserError, match=r"no files like LABEL_test_split1.txt"):
        hmdb51_json.main([splits, jpg, out])
    write_lists(tmp_path / "splits", a_test_split1=["x.avi 3"])
    with pytest.raises(UserError, match=r"split1.txt: line 1: 'x.avi 3' is not"):
        hmdb51_json.main([splits, jpg, out])


# folder_json


def folder_index(tmp_path, *flags):
    path = tmp_path / "index.json"
    assert folder_json.main([str(tmp_path / "jpg"), str(path), *flags]) == 0
    return path


def test_subset_folders(tmp_path, capsys):
    jpg = tmp_path / "jpg"
    make_frames(jpg, "train/a/x", "train/b/x", "train/b/deep/er/y", "val/a/z", "val/b/x")
    make_frames(jpg, "train/a/empty", n_frames=0)
    make_frames(jpg, ".partial/a/q", "train/a/.tmp123")
    path = folder_index(tmp_path)
    assert read(path)["labels"] == ["a", "b"]
    assert videos_of(path) == {
        "train/a/x": ("training", "a", 2, "train/a/x"),
        "y": ("training", "b", 2, "train/b/deep/er/y"),
        "train/b/x": ("training", "b", 2, "train/b/x"),
        "z": ("validation", "a", 2, "val/a/z"),
        "val/b/x": ("validation", "b", 2, "val/b/x"),
    }
    out = capsys.readouterr().out
    assert "1 videos without frames are left out:\n  train/a/empty: no frames" in out
    assert len(select_videos(read_index(path), "train", jpg).records) == 3


def test_test_folder_replaces_a_missing_val_folder(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "train/a/x", "test/a/y")
    assert videos_of(folder_index(tmp_path))["y"][0] == "validation"
    assert "test videos become validation videos" in capsys.readouterr().out
    make_frames(tmp_path / "jpg", "validation/a/z", "test/blind")
    path = folder_index(tmp_path)
    assert videos_of(path) == {
        "blind": ("testing", None, 2, None),
        "y": ("testing", "a", 2, "test/a/y"),
        "x": ("training", "a", 2, "train/a/x"),
        "z": ("validation", "a", 2, "validation/a/z"),
    }
    assert len(select_videos(read_index(path), "test", tmp_path / "jpg").records) == 2


def test_split_is_stratified_and_reproducible(tmp_path):
    for label, count in {"a": 20, "b": 10, "c": 2, "d": 5}.items():
        make_frames(tmp_path / "jpg", *(f"{label}/{label}{i}" for i in range(count)))
    first = videos_of(folder_index(tmp_path))
    counts = Counter((subset, label) for subset, label, _, _ in first.values())
    assert [counts["validation", x] for x in "abcd"] == [4, 2, 1, 1]
    assert [counts["training", x] for x in "abcd"] == [16, 8, 1, 4]
    assert {video_path for *_, video_path in first.values()} == {None}
    assert videos_of(folder_index(tmp_path, "--seed", "1")) == first
    assert videos_of(folder_index(tmp_path, "--seed", "2")) != first
    half = videos_of(folder_index(tmp_path, "--val_fraction", "0.5"))
    assert Counter(subset for subset, *_ in half.values())["validation"] == 10 + 5 + 1 + 2


def test_groups_are_not_split(tmp_path, capsys):
    jpg = tmp_path / "jpg"
    for source in range(12):  # each source has clips of both classes
        make_frames(jpg, *(f"a/s{source}_clip{i}" for i in range(1 + source % 3)))
        make_frames(jpg, *(f"b/sub/s{source}_b{i}" for i in range(2)))
    make_frames(jpg, "a/other")
    for seed in range(5):
        videos = videos_of(folder_index(tmp_path, "--group_by", r"(s\d+)_", "--seed", str(seed)))
        sides = {}
        for video_id, (subset, *_) in videos.items():
            sides.setdefault(video_id.partition("_")[0], set()).add(subset)
        assert all(len(side) == 1 for side in sides.values())
        counts = Counter((subset, label) for subset, label, *_ in videos.values())
        assert 3 <= counts["validation", "a"] <= 7
        assert 3 <= counts["validation", "b"] <= 7
    out = capsys.readouterr().out
    assert "13 sources of 49 videos" in out
    assert "matches nothing in 1 videos" in out


def test_one_sided_classes_are_listed(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "a/x", "b/y_1", "b/y_2", "c/1_1", "c/2_1", "c/3_1")
    folder_index(tmp_path, "--group_by", "^[^_]+")
    assert "2 classes have training videos only: a, b" in capsys.readouterr().out


def test_one_sided_folders_are_listed(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "train/a/x", "train/b/x", "val/b/y", "val/c/y")
    folder_index(tmp_path)
    out = capsys.readouterr().out
    assert "1 classes have training videos only: a\n" in out
    assert "1 classes have validation videos only: c\n" in out


def test_few_videos_work(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "a/x", "b/y")
    assert {subset for subset, *_ in videos_of(folder_index(tmp_path)).values()} == {"training"}
    assert "no validation videos: train with --no_val" in capsys.readouterr().out


def test_class_may_be_called_train(tmp_path):
    make_frames(tmp_path / "jpg", "train/x", "train/y", "bus/x")
    labels = {label for _, label, *_ in videos_of(folder_index(tmp_path)).values()}
    assert labels == {"train", "bus"}


@pytest.mark.parametrize(
    ("videos", "flags", "complaint"),
    [
        (["train/a/x", "val/a/y", "extra/a/z"], [], r"\(train, val\) beside others \(extra\)"),
        (["train/x", "val/a/y"], [], "train/x: has frames, but is not train/CLASS/VIDEO"),
        (["train/a/x", "val/a/y"], ["--seed", "3"], "--seed: .* already split into train, val"),
        (["a"], [], "a: has frames, but is not CLASS/VIDEO"),
        (["."], [], "has frames, but is not CLASS/VIDEO"),
        (["a/x"], ["--val_fraction", "1"], "--val_fraction 1.0"),
        (["a/x"], ["--val_fraction", "nan"], "--val_fraction nan"),
        (["a/x"], ["--group_by", "("], "not a regular expression"),
        (["a/x"], ["--group_by", "z"], "matches none of the videos: a/x"),
    ],
)
def test_folder_mistakes(tmp_path, videos, flags, complaint):
    jpg = tmp_path / "jpg"
    if videos == ["."]:
        jpg.mkdir()
        (jpg / "image_00001.jpg").touch()
    else:
        make_frames(jpg, *videos)
    with pytest.raises(UserError, match=complaint):
        folder_json.main([str(jpg), str(tmp_path / "index.json"), *flags])
    assert not (tmp_path / "index.json").exists()


def test_folder_without_frames_or_with_gaps(tmp_path):
    jpg, path = tmp_path / "jpg", str(tmp_path / "index.json")
    with pytest.raises(UserError, match="jpg: no such folder"):
        folder_json.main([str(jpg), path])
    (jpg / "a" / "x").mkdir(parents=True)
    (jpg / "a" / "x" / "clip.avi").touch()
    with pytest.raises(UserError, match=r"no frames in any of 1 video folders \(for example a/x\)"):
        folder_json.main([str(jpg), path])
    make_frames(jpg, "a/y", n_frames=5)
    (jpg / "a/y/image_00001.jpg").unlink()
    with pytest.raises(UserError, match=r"a/y: frame 1$"):
        folder_json.main([str(jpg), path])


def test_unreadable_names_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    make_frames(tmp_path / "jpg", f"a/{name}", "a/b", "a/[x] & #1!", "a/.hidden")
    path = folder_index(tmp_path)
    assert set(videos_of(path)) == {name, "b", "[x] & #1!"}
    sides = [select_videos(read_index(path), s, tmp_path / "jpg").records for s in ("train", "val")]
    assert sum(map(len, sides)) == 3
