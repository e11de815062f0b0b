"""ActivityNet's index format: trimmed training and validation, untrimmed inference."""

import json
import shutil

import pytest

from datasets.activitynet import Part, frame_range, read_any_index, select_parts, select_whole
from errors import UserError
from tests.runs import make_frames, small_run
from tests.videos import draw, names
from util_scripts.add_fps_into_activitynet_json import main as add_fps
from util_scripts.eval_accuracy import main as eval_accuracy

TAXONOMY = [
    {"nodeId": 0, "nodeName": "Root", "parentName": None, "parentId": None},
    {"nodeId": 1, "nodeName": "Sports", "parentName": "Root", "parentId": 0},
    {"nodeId": 2, "nodeName": "Surfing", "parentName": "Sports", "parentId": 1},
    {"nodeId": 3, "nodeName": "Archery", "parentName": "Sports", "parentId": 1},
]


def part(label, start, end):
    return {"label": label, "segment": [start, end]}


def write_index(path, database, **changes):
    path.write_text(json.dumps({"taxonomy": TAXONOMY, "database": database, **changes}))
    return path


def entry(subset, *parts, fps=10.0):
    return {"subset": subset, "duration": 3.0, "url": "", "annotations": list(parts), "fps": fps}


def test_labels_are_the_leaves(tmp_path):
    index = read_any_index(write_index(tmp_path / "a.json", {}))
    assert index.labels == ("Surfing", "Archery")


@pytest.mark.parametrize(
    ("start", "end", "fps", "n_frames", "expected"),
    [
        (0, 1, 10, 30, (1, 11)),
        (0.55, 1.29, 10, 30, (6, 13)),
        (2, 9, 10, 30, (21, 31)),
        (-1, 1, 10, 30, (1, 11)),
        (1, 2, 29.97, 100, (30, 60)),
    ],
)
def test_seconds_to_frames(start, end, fps, n_frames, expected):
    assert frame_range(Part(0, start, end), fps, n_frames) == expected


def test_parts_and_whole_videos(tmp_path):
    database = {
        "one": entry("training", part("Archery", 0, 1), part("Surfing", 1.5, 9)),
        "short": entry("training", part("Archery", 2.5, 9)),
        "gone": entry("training", part("Archery", 0, 1)),
        "other": entry("validation", part("Surfing", 0, 2)),
    }
    index = read_any_index(write_index(tmp_path / "a.json", database))
    for name in ("one", "short", "other"):
        make_frames(tmp_path / "jpg" / f"v_{name}", 30)
    parts, omitted = select_parts(index, "training", tmp_path / "jpg")
    found = [(r.video_id, r.path.name, r.first, r.last, r.label) for r in parts]
    assert found == [("one", "v_one", 1, 10, 1), ("one", "v_one", 16, 30, 0)]
    assert [name for name, _ in omitted] == ["short", "gone"]
    whole, omitted = select_whole(index, "training", tmp_path / "jpg")
    assert [(r.video_id, r.first, r.last, r.label) for r in whole] == [
        ("one", 1, 30, 1),
        ("short", 1, 30, 1),
    ]
    assert [name for name, _ in omitted] == ["gone"]


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"x": {"subset": "nothing"}}, "x: subset 'nothing' is not"),
        ({"x": entry("training", part("Root", 0, 1))}, "'Root' is not a leaf"),
        ({"x": entry("training", {"label": "Surfing"})}, "x: .*missing required field segment"),
        ({"x": entry("training", fps=-1)}, "x: fps: expected float > 0"),
    ],
)
def test_entries_that_are_wrong(tmp_path, database, message):
    with pytest.raises(UserError, match=message):
        read_any_index(write_index(tmp_path / "a.json", database))


def test_missing_fps_names_the_script_to_run(tmp_path):
    database = {"x": entry("training", part("Surfing", 0, 1), fps=None)}
    index = read_any_index(write_index(tmp_path / "a.json", database))
    make_frames(tmp_path / "jpg/v_x", 12)
    with pytest.raises(
        UserError, match=r"run python -m util_scripts.add_fps_into_activitynet_json"
    ):
        select_parts(index, "training", tmp_path / "jpg")


def test_a_run_end_to_end(tmp_path, capsys):
    database = {}
    for number in range(6):
        label = ("Surfing", "Archery")[number % 2]
        subset = "training" if number < 4 else "validation"
        database[f"id{number}"] = entry(subset, part(label, 0.5, 2.5))
        make_frames(tmp_path / "jpg" / f"v_id{number}", 30, seed=number)
    write_index(tmp_path / "index.json", database)
    assert small_run(tmp_path, "--inference") == 2
    assert "--dataset folder: " in capsys.readouterr().err
    flags = ("--dataset", "activitynet", "--inference", "--inference_stride", "8")
    assert small_run(tmp_path, *flags, "--inference_no_average") == 0
    results = json.loads((tmp_path / "res/val.json").read_text())["results"]
    windows = [entry["segment"] for entry in results["id4"]]
    assert windows == [[1, 9], [9, 17], [17, 25], [25, 31]]  # the whole video, not its part
    assert small_run(tmp_path, *flags, result="mean") == 0
    assert list(json.loads((tmp_path / "mean/val.json").read_text())["results"]) == ["id4", "id5"]
    capsys.readouterr()
    assert eval_accuracy([str(tmp_path / "index.json"), str(tmp_path / "mean/val.json")]) == 0
    assert "number of ground truth: 2" in capsys.readouterr().out


def test_fps_of_videos(tmp_path, capsys):
    parts = (part("Surfing", 0, 1),)
    database = {name: entry("training", *parts, fps=None) for name in ("a", "b", "c", "d")}
    path = write_index(tmp_path / "index.json", database)
    draw(tmp_path / "videos/v_a.mp4", rate=10)
    draw(tmp_path / "videos/v_b.mkv", rate=25)
    (tmp_path / "videos/v_c.mp4").write_bytes(b"nothing")
    before = path.read_bytes()
    arguments = [str(tmp_path / "videos"), str(path)]
    assert add_fps([*arguments, str(tmp_path / "new.json")]) == 0
    assert path.read_bytes() == before
    out = capsys.readouterr().out
    assert "c: " in out
    assert "d: no file" in out
    assert "2 videos have a frame rate, 2 have none" in out
    assert add_fps(arguments) == 0
    assert (tmp_path / "index.json.bak").read_bytes() == before
    for more in ([], [str(path)], [str(tmp_path / "new.json")]):  # again, with nothing to change
        assert add_fps([*arguments, *more]) == 0
    assert names(tmp_path) == ["index.json", "index.json.bak", "new.json", "videos"]
    assert path.read_bytes() == (tmp_path / "new.json").read_bytes()
    index = read_any_index(path)
    assert [video.fps for video in index.videos] == [10, 25, None, None]


def test_rates_are_of_videos_alone(tmp_path, capsys):
    database = {name: entry("training", fps=None) for name in ("a", "picture", "text")}
    path = write_index(tmp_path / "index.json", database)
    videos = tmp_path / "videos"
    draw(videos / "v_a.mp4", rate=10)
    picture = draw(videos / "v_picture.png", extra=("-frames:v", "1"))
    shutil.copy(picture, videos / "v_a.webp")
    for name in ("v_a.srt", "v_text.txt"):
        (videos / name).write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    assert add_fps([str(videos), str(path)]) == 0
    out = capsys.readouterr().out
    assert "picture: a picture, not a video" in out
    assert "text: text, not a video" in out
    assert [video.fps for video in read_any_index(path).videos] == [10, None, None]
