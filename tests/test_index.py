import json
import os
import re

import pytest

from datasets.index import canonical_subset, read_index
from datasets.index_writer import entry_of, write_index
from datasets.records import VideoRecord
from datasets.selection import select_videos
from errors import UserError
from media.frame_names import FrameCount, count_frames

NAMES = ["plain", "a.b.c", "[x] & #1!", "naïve 猫", "two  spaces", "bytes\udcff"]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def make_video(folder, n_frames=3):
    folder.mkdir(parents=True)
    for number in range(1, n_frames + 1):
        (folder / f"image_{number:05d}.jpg").touch()


def index_of(**entry):
    return {"labels": ["A", "B"], "database": {"v1": entry}}


def test_writing_and_reading_keep_names_and_order(tmp_path):
    entries = {name: entry_of("training", "B", number) for number, name in enumerate(NAMES)}
    write_index(tmp_path / "new" / "index.json", ["B", "A"], entries)
    index = read_index(tmp_path / "new" / "index.json")
    assert index.labels == ("B", "A")
    assert [e.video_id for e in index.entries] == NAMES
    assert [e.segment for e in index.entries] == [(1, n + 1) for n in range(len(NAMES))]
    assert {(e.subset, e.label, e.video_path) for e in index.entries} == {("training", 0, None)}


def test_failed_write_leaves_no_traces(tmp_path):
    target = tmp_path / "index.json"
    target.mkdir()
    with pytest.raises(UserError, match="can't be written"):
        write_index(target, ["A"], {})
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["index.json", "folder"])
def test_missing_index(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"no such index|can't be read: Is a directory"):
        read_index(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"labels":\n ["A"', "not JSON: line 2"),
        ([], "no list 'labels'"),
        ({"labels": ["A"]}, "no object 'database'"),
        ({"labels": "AB", "database": {}}, "no list 'labels'"),
        ({"labels": ["A"], "database": []}, "no object 'database'"),
        ({"labels": ["A", 1], "database": {}}, r"labels: \[1\]: expected str, got int"),
        ({"labels": [], "database": {}}, "'labels' is empty"),
        ({"labels": ["A", "B", "A"], "database": {}}, "label 'A' occurs twice"),
        ({"taxonomy": [], "database": {}}, "ActivityNet"),
        (index_of(subset="training", annotations=[]), "v1: .*ActivityNet"),
        (index_of(subset="training", annotations={"label": "C"}), "v1: label 'C' is not among"),
        (
            index_of(subset="training", annotations={"label": ["A"]}),
            "v1: annotations.label: expected str",
        ),
        (index_of(subset="training", annotations={}), "v1: no label"),
        (index_of(subset="trial", annotations={"label": "A"}), "v1: subset 'trial'"),
        (index_of(annotations={"label": "A"}), "v1: object missing required field subset"),
        ({"labels": ["A"], "database": {"v1": 3}}, "v1: expected object, got int"),
        (index_of(subset="testing", video_path="\0"), "v1: video_path .* NUL"),
        ('{"labels": ["A"], "database": {}, "labels": ["B"]}', "'labels' occurs twice"),
        (
            '{"labels": ["A"], "database": {"v": {"subset": "testing"}, "v": {}}}',
            "'v' occurs twice",
        ),
        (
            '{"labels": ["A"], "database": {"v": {"subset": "testing", "s\\u0075bset": "a"}}}',
            "'subset' occurs twice",
        ),
        ('{"labels": ["A"], "database": {"v": {"subset": "testing", "fps": NaN}}}', "NaN is not"),
        (
            '{"labels": ["A"], "database": {"v": {"subset": %s}}}' % ("1" * 5000),
            "not JSON: .*digits",
        ),
        ('{"labels": ["A"], "database": {}, "n": %s}' % ("[" * 10000), "nested too deeply"),
        ({"labels": ["A"], "database": {"../v": {"subset": "testing"}}}, "leads out of the folder"),
        ({"labels": ["A"], "database": {"/etc/v": {"subset": "testing"}}}, "leads out of the"),
        ({"labels": ["A"], "database": {"a\0b": {"subset": "testing"}}}, "contains a NUL"),
        (
            {"labels": ["A"], "database": {"\ud800": {"subset": "testing"}}},
            "contains a lone surrogate",
        ),
        ({"labels": ["A/../../B"], "database": {}}, "label 'A/../../B' leads out"),
        ({"labels": ["A" * 5000], "database": {}}, "is longer than 4096"),
        (index_of(subset="testing", video_path=3), "v1: video_path: expected str"),
    ],
)
def test_bad_indexes(tmp_path, content, complaint):
    path = write(tmp_path / "index.json", content)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*{complaint}") as caught:
        read_index(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "segment", [[1], [1, 2, 3], [5, 4], [-1, 4], ["1", 4], [1.0, 4], [True, 4], 4, [1, 2**40]]
)
def test_bad_segments(tmp_path, segment):
    entry = {"subset": "training", "annotations": {"label": "A", "segment": segment}}
    with pytest.raises(UserError, match=r"v1: (annotations.)?segment"):
        read_index(write(tmp_path / "index.json", index_of(**entry)))


def test_label_may_equal_a_key(tmp_path):
    entry = {"subset": "training", "annotations": {"label": "subset"}}
    content = {"labels": ["subset", "label"], "database": {"v1": entry, "labels": entry}}
    index = read_index(write(tmp_path / "index.json", content))
    assert [(e.video_id, e.label) for e in index.entries] == [("v1", 0), ("labels", 0)]


def test_named_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_index(tmp_path / "index.json")


def test_other_encodings(tmp_path):
    (tmp_path / "latin.json").write_bytes('{"labels": ["é"]}'.encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_index(tmp_path / "latin.json")
    text = json.dumps({"labels": ["é"], "database": {}}, ensure_ascii=False)
    (tmp_path / "marked.json").write_text(text, encoding="utf-8-sig")
    assert read_index(tmp_path / "marked.json").labels == ("é",)


def test_subset_names():
    names = ["train", "training", "val", "validation", "test", "testing"]
    assert [canonical_subset(name) for name in names] == [
        *["training"] * 2, *["validation"] * 2, *["testing"] * 2
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'trial'.*train"):
        canonical_subset("trial")


def select(tmp_path, entries, subset="train"):
    write_index(tmp_path / "index.json", ["A", "B"], entries)
    return select_videos(read_index(tmp_path / "index.json"), subset, tmp_path / "jpg")


def test_selection_lists_omitted_videos(tmp_path):
    for name in ("A/good", "B/also", "A/other"):
        make_video(tmp_path / "jpg" / name)
    (tmp_path / "jpg/A/empty").mkdir()
    (tmp_path / "jpg/A/file").touch()
    no_segment = {"subset": "training", "annotations": {"label": "A"}}
    records, omitted = select(
        tmp_path,
        {
            "good": entry_of("training", "A", 3),
            "gone": entry_of("training", "A", 3),
            "empty": entry_of("training", "A", 3),
            "uncounted": no_segment,
            "other": entry_of("validation", "A", 3),
            "zero": entry_of("training", "A", 0),
            "file": entry_of("training", "A", 3),
            "also": entry_of("training", "B", 2),
        },
    )
    jpg = tmp_path / "jpg"
    assert list(records) == [
        VideoRecord("good", jpg / "A/good", 1, 3, 0),
        VideoRecord("also", jpg / "B/also", 1, 2, 1),
    ]
    assert records[0].n_frames == 3
    reasons = dict(omitted)
    assert list(reasons) == ["gone", "empty", "uncounted", "zero", "file"]
    assert reasons["gone"] == f"no folder {jpg / 'A/gone'}"
    assert reasons["empty"] == f"no frames in {jpg / 'A/empty'}"
    assert reasons["uncounted"] == reasons["zero"] == "the index has no frame numbers"
    assert "no folder" in reasons["file"]


def test_frame_locations(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in ("jpg/test/blind", "jpg/sub/x", "here/near", "far", "here/both", "jpg/both"):
        make_video(tmp_path / folder)
    records, omitted = select(
        tmp_path,
        {
            "blind": entry_of("testing", None, 3),
            "x": entry_of("testing", "A", 3, video_path="sub/x"),
            "near": entry_of("testing", "A", 3, video_path="near"),
            "far": entry_of("testing", "A", 3, video_path=str(tmp_path / "far")),
            "both": entry_of("testing", "A", 3, video_path="both"),
            "gone": entry_of("testing", "A", 3, video_path="gone"),
        },
        "testing",
    )
    assert [r.path.resolve().relative_to(tmp_path).as_posix() for r in records] == [
        "jpg/test/blind", "jpg/sub/x", "here/near", "far", "jpg/both"
    ]  # fmt: skip
    assert [r.label for r in records] == [-1, 0, 0, 0, 0]
    assert omitted == [("gone", f"no folder {tmp_path / 'jpg/gone'}")]


def test_no_usable_videos(tmp_path):
    (tmp_path / "jpg").mkdir()
    gone = {f"gone{i}": entry_of("training", "A", 3) for i in range(9)}
    with pytest.raises(UserError, match="none of its 9 training videos") as caught:
        select(tmp_path, gone)
    assert str(tmp_path / "jpg/A/gone0") in str(caught.value)
    assert "gone8" not in str(caught.value)
    with pytest.raises(UserError, match="has no validation videos; --no_val trains without"):
        select(tmp_path, gone, "val")
    (tmp_path / "jpg").rmdir()
    with pytest.raises(UserError, match="jpg: no such folder"):
        select(tmp_path, gone)


def test_unreadable_folder_is_not_reported_as_missing(tmp_path, monkeypatch):
    """root may open any folder, so the error is simulated."""
    make_video(tmp_path / "jpg/A/there")

    locked, stat = tmp_path / "jpg/A/locked", os.stat

    def refuse(path, **named):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied")
        return stat(path, **named)

    monkeypatch.setattr("datasets.selection.os.stat", refuse)
    entries = {name: entry_of("training", "A", 3) for name in ("there", "locked")}
    _, omitted = select(tmp_path, entries)
    assert omitted == [("locked", f"{locked} can't be read: Permission denied")]


def test_large_index_lists_only_label_folders(tmp_path, monkeypatch):
    (tmp_path / "jpg" / "A" / "empty").mkdir(parents=True)
    entries = {name: entry_of("training", "A", 3) for name in ("empty", "gone")}
    with pytest.raises(UserError, match="no frames in"):
        select(tmp_path, entries)
    monkeypatch.setattr("datasets.selection.MAX_OPENED", 1)
    records, omitted = select(tmp_path, entries)
    assert [record.video_id for record in records] == ["empty"]
    assert omitted == [("gone", f"no folder {tmp_path / 'jpg' / 'A' / 'gone'}")]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], FrameCount(0, None)),
        ([1, 2, 3], FrameCount(3, None)),
        ([0, 1, 2], FrameCount(2, None)),
        ([1, 2, 4, 5], FrameCount(2, 3)),
        ([2, 3], FrameCount(0, 1)),
        (range(1, 100_002), FrameCount(100_001, None)),
    ],
)
def test_counting_frames(numbers, expected):
    names = [f"image_{number:05d}.jpg" for number in numbers]
    assert count_frames([*names, "Thumbs.db", "image_00009.png", "image_3.jpg"]) == expected


def test_video_path_outside_is_logged_once(tmp_path, caplog):
    make_video(tmp_path / "elsewhere" / "v1")
    (tmp_path / "jpg").mkdir()
    entry = entry_of("training", "A", 3, video_path="../elsewhere/v1")
    write_index(tmp_path / "index.json", ["A"], {"v1": entry, "v2": entry})
    index = read_index(tmp_path / "index.json")
    assert len(select_videos(index, "training", tmp_path / "jpg").records) == 2
    assert "leads out of" in caplog.text
    assert caplog.text.count("\n") == 1
    caplog.clear()
    inside = entry_of("training", "A", 3, video_path="elsewhere/v1")
    write_index(tmp_path / "index.json", ["A"], {"v1": inside})
    select_videos(read_index(tmp_path / "index.json"), "training", tmp_path)
    assert not caplog.text
