"""Indexes of Kinetics and Moments in Time."""

import csv
import json

import pytest

from datasets.index import read_index
from datasets.selection import select_videos
from errors import UserError
from tests.runs import make_frames, small_run
from tests.videos import draw, link_frames, shared
from util_scripts.eval_accuracy import main as eval_accuracy
from util_scripts.generate_video_hdf5 import main as generate_video_hdf5
from util_scripts.generate_video_jpgs import main as generate_video_jpgs
from util_scripts.kinetics_json import main as kinetics_json
from util_scripts.mit_json import main as mit_json

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def touch_frames(folder, n_frames):
    folder.mkdir(parents=True)
    for number in range(1, n_frames + 1):
        (folder / f"image_{number:05d}.jpg").touch()


def write_lists(folder, *, mark="-", train=(), val=(), test=()):
    folder.mkdir(exist_ok=True)
    (folder / f"kinetics{mark}400_train.csv").write_text("\n".join([HEADER, *train]) + "\n")
    (folder / f"kinetics{mark}400_val.csv").write_text("\n".join([HEADER, *val]) + "\n")
    if test:
        lines = ["youtube_id,time_start,time_end,split", *test]
        (folder / f"kinetics{mark}400_test.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def build(tmp_path, *, kind="jpg"):
    arguments = [str(tmp_path / "lists"), "400", str(tmp_path / "jpg"), kind]
    assert kinetics_json([*arguments, str(tmp_path / "k.json")]) == 0
    return json.loads((tmp_path / "k.json").read_text())


@pytest.mark.parametrize("mark", "-_")
def test_kinetics(tmp_path, capsys, mark):
    write_lists(
        tmp_path / "lists",
        mark=mark,
        train=["zumba,-aB_1,3,13,train,0", '"a, b (c)",x,0,10,train,0', "zumba,lost,1,11,train,1"],
        val=["zumba,y,7,17,val,0"],
        test=["t,100,110,test"],
    )
    for name in ("zumba/-aB_1_000003_000013", "a, b (c)/x_000000_000010", "zumba/y_000007_000017"):
        touch_frames(tmp_path / "jpg" / name, 3)
    touch_frames(tmp_path / "jpg/test/t_000100_000110", 2)
    index = build(tmp_path)
    assert index["labels"] == ["zumba", "a, b (c)"]
    assert index["database"] == {
        "-aB_1_000003_000013": {
            "subset": "training",
            "annotations": {"label": "zumba", "segment": [1, 4]},
        },
        "x_000000_000010": {
            "subset": "training",
            "annotations": {"label": "a, b (c)", "segment": [1, 4]},
        },
        "lost_000001_000011": {"subset": "training", "annotations": {"label": "zumba"}},
        "y_000007_000017": {
            "subset": "validation",
            "annotations": {"label": "zumba", "segment": [1, 4]},
        },
        "t_000100_000110": {"subset": "testing", "annotations": {"segment": [1, 3]}},
    }
    assert "zumba/lost_000001_000011: no folder" in capsys.readouterr().out
    read = read_index(tmp_path / "k.json")
    for subset, count in (("training", 2), ("validation", 1), ("testing", 1)):
        assert len(select_videos(read, subset, tmp_path / "jpg").records) == count


def test_folders_with_underscores_are_found(tmp_path):
    write_lists(tmp_path / "lists", train=["air drumming,a,0,10,train,0"])
    touch_frames(tmp_path / "jpg/air_drumming/a_000000_000010", 2)
    index = build(tmp_path)
    assert index["labels"] == ["air drumming"]
    (entry,) = index["database"].values()
    assert entry["video_path"] == "air_drumming/a_000000_000010"


CVDF = "label,youtube_id,time_start,time_end,split"


def write_cvdf_lists(folder):
    """The lists that CVDF hosts: all three with labels."""
    folder.mkdir(parents=True)
    rows = {
        "train": ["riding a bike,a,1,11,train", "zumba,b,2,12,train", "zumba,broken,0,10,train"],
        "val": ["zumba,c,3,13,val"],
        "test": ["riding a bike,d,4,14,test", "zumba,gone,5,15,test"],
    }
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join([CVDF, *lines]) + "\n")


@pytest.mark.parametrize("form", ["jpg", "hdf5"])
@pytest.mark.parametrize("layout", ["{side}/{video}", "{side}/{label}/{video}", "{video}"])
def test_kinetics_in_cvdf_layout(tmp_path, capsys, layout, form):
    """From the videos to the first batch."""
    write_cvdf_lists(tmp_path / "k400/annotations")
    videos = {
        "a_000001_000011": ("train", "riding_a_bike"),
        "b_000002_000012": ("train", "zumba"),
        "broken_000000_000010": ("train", "zumba"),
        "c_000003_000013": ("val", "zumba"),
        "d_000004_000014": ("test", "riding_a_bike"),
    }
    for video, (side, label) in videos.items():
        path = layout.format(side=side, label=label, video=video)
        draw(tmp_path / f"k400/{path}.mp4", seconds=0.5)
    if layout.startswith("{side}"):
        replacement = "replacement/replacement_for_corrupted_k400/broken_000000_000010"
        draw(tmp_path / f"k400/{replacement}.mp4")
    jpg = tmp_path / "jpg"
    command = {"jpg": generate_video_jpgs, "hdf5": generate_video_hdf5}[form]
    assert command([str(tmp_path / "k400"), str(jpg), "kinetics"]) == 0
    words = [str(tmp_path / "k400"), "400", str(jpg), form, str(tmp_path / "k.json")]
    assert kinetics_json(words) == 0
    assert "gone_000005_000015: no folder" in capsys.readouterr().out
    index = read_index(tmp_path / "k.json")
    assert index.labels == ("riding a bike", "zumba")
    labels = {entry.video_id: index.labels[entry.label] for entry in index.entries}
    assert labels["d_000004_000014"] == "riding a bike"
    assert labels["gone_000005_000015"] == "zumba"
    chosen = {
        subset: select_videos(index, subset, jpg, file_type=form).records
        for subset in ("training", "validation", "testing")
    }
    assert [len(records) for records in chosen.values()] == [3, 1, 1]
    if layout.startswith("{side}"):  # the replacement is used
        (broken,) = [r for r in chosen["training"] if r.video_id.startswith("broken")]
        assert broken.n_frames == 10
        assert "replacement" in str(broken.path)


def test_accuracy_on_labelled_test_videos(tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    for name in ("train", "val", "test"):
        rows = [f"{label},{name}{label},0,10,{name}" for label in "ab"]
        (tmp_path / f"lists/{name}.csv").write_text("\n".join([CVDF, *rows]) + "\n")
        for label in "ab":
            make_frames(tmp_path / f"jpg/{name}/{name}{label}_000000_000010", 9)
    assert build(tmp_path)["database"]["testb_000000_000010"] == {
        "subset": "testing",
        "annotations": {"label": "b", "segment": [1, 10]},
        "video_path": "test/testb_000000_000010",
    }
    flags = ("--annotation_path", "k.json", "--inference", "--inference_subset", "test")
    assert small_run(tmp_path, *flags, "--dataset", "kinetics", "--batch_size", "2") == 0
    words = [str(tmp_path / "k.json"), str(tmp_path / "res/test.json"), "--subset", "test"]
    assert eval_accuracy(words) == 0
    assert "number of ground truth: 2" in capsys.readouterr().out


def test_video_with_two_labels_is_listed(tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    for name, video in (("train", "x"), ("val", "y")):
        rows = [f"{label},{video},0,10,{name}" for label in "ab"]
        (tmp_path / f"lists/{name}.csv").write_text("\n".join([CVDF, *rows]) + "\n")
        touch_frames(tmp_path / f"jpg/{name}/{video}_000000_000010", 2)
    assert len(build(tmp_path)["database"]) == 2
    out = capsys.readouterr().out
    assert "2 videos are listed with a second label and keep the first:" in out
    assert "  train/x_000000_000010: a, not b\n" in out


def test_lists_of_another_kinetics_are_refused(tmp_path):
    (tmp_path / "lists").mkdir()
    for name in ("train", "val"):
        rows = [f"label {number},{name}{number},0,10,{name}" for number in range(401)]
        (tmp_path / f"lists/{name}.csv").write_text("\n".join([CVDF, *rows]) + "\n")
    touch_frames(tmp_path / "jpg/label 0/train0_000000_000010", 2)
    with pytest.raises(UserError, match="has 401 labels, but Kinetics-400 has 400"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["a,x,zero,10,train,0"]}, "train.csv: line 2: times 'zero', '10' are no"),
        ({"train": ["a,x,0,10,train,0"], "val": ["b,y,0,1,val,0"]}, "'b' is not in the training"),
        ({"train": ["a,x"]}, "line 2: too few values"),
        ({"train": ["a,x,0,1e999,t,0"]}, "line 2: times .* are not seconds"),
        ({"train": ["a,x,zero,10,t,0"]}, "line 2: times .* are not seconds"),
        ({"train": ["a,x,0,10,t,0"], "val": ["a,x,0,10,v,0"]}, "is already a training video"),
    ],
)
def test_invalid_lists(tmp_path, lists, message):
    write_lists(tmp_path / "lists", **lists)
    touch_frames(tmp_path / "jpg/a/x_000000_000010", 2)
    with pytest.raises(UserError, match=message):
        build(tmp_path)


def test_missing_lists_and_columns(tmp_path):
    with pytest.raises(
        UserError,
        match=r"has no list of training videos: none of kinetics-400_train.csv, kinetics_400",
    ):
        build(tmp_path)
    write_lists(tmp_path / "lists")
    (tmp_path / "lists/kinetics-400_val.csv").write_text("label,id\n")
    with pytest.raises(
        UserError, match="missing columns in the first line: youtube_id, time_start, time_end"
    ):
        build(tmp_path)


def test_kinetics_on_real_lists(tmp_path, capsys):
    """The training list is a part of the validation list; every third video has frames."""
    real = shared("data/kinetics")
    with (real / "kinetics-400_val.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    lists = tmp_path / "lists"
    lists.mkdir()
    n_train = len(rows) * 4 // 5
    order = sorted(rows, key=lambda row: row[1])
    for name, part in (("train", order[:n_train]), ("val", order[n_train:])):
        with (lists / f"kinetics-400_{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *part])
    (lists / "kinetics-400_test.csv").write_bytes((real / "kinetics-400_test.csv").read_bytes())
    kept = order[::3]
    names = [f"{label}/{v}_{int(start):06d}_{int(end):06d}" for label, v, start, end, *_ in kept]
    link_frames(tmp_path, names)
    index = build(tmp_path)
    assert len(index["labels"]) == 400
    with_frames = [e for e in index["database"].values() if "segment" in e["annotations"]]
    assert len(with_frames) == len(kept)
    subsets = [e["subset"] for e in index["database"].values()]
    assert subsets.count("training") == n_train
    assert subsets.count("validation") == len(rows) - n_train
    assert "videos without frames" in capsys.readouterr().out


def test_unlabelled_test_videos_are_scored(tmp_path):
    train = [f"{label},{i},0,10,train,0" for label in "ab" for i in range(3)]
    val = [f"{label},v,{i},10,val,0" for i, label in enumerate("ab")]
    write_lists(tmp_path / "lists", train=train, val=val, test=["t,0,10,test", "u,0,10,test"])
    for line in train + val:
        label, video, start, _ = line.split(",", 3)
        make_frames(tmp_path / "jpg" / label / f"{video}_{int(start):06d}_000010", 9)
    for video in "tu":
        make_frames(tmp_path / "jpg/test" / f"{video}_000000_000010", 9)
    build(tmp_path)
    flags = ("--annotation_path", "k.json", "--inference", "--inference_subset", "test")
    assert small_run(tmp_path, *flags, "--dataset", "kinetics", "--batch_size", "3") == 0
    results = json.loads((tmp_path / "res/test.json").read_text())["results"]
    assert list(results) == ["t_000000_000010", "u_000000_000010"]


def test_moments_in_time(tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "moments_categories.txt").write_text("zipping,0\nadult+female+singing,1\n")
    (lists / "trainingSet.csv").write_text(
        "zipping/a.1.mp4,zipping,3,0\nzipping/b.mp4,zipping,2,1\n"
    )
    (lists / "validationSet.csv").write_text(
        "adult+female+singing/c.mp4,adult+female+singing,1,0\n"
    )
    (lists / "testingSet.csv").write_text("d.mp4\n")
    for name in ("zipping/a.1", "adult+female+singing/c", "test/d"):
        touch_frames(tmp_path / "jpg" / name, 2)
    arguments = [str(lists), str(tmp_path / "jpg"), str(tmp_path / "m.json")]
    assert mit_json(arguments) == 0
    index = json.loads((tmp_path / "m.json").read_text())
    assert index["labels"] == ["zipping", "adult+female+singing"]
    assert {video: entry["subset"] for video, entry in index["database"].items()} == {
        "a.1": "training",
        "c": "validation",
        "d": "testing",
    }
    assert "zipping/b: no folder" in capsys.readouterr().out
    (lists / "validationSet.csv").write_text("other/c.mp4,other,1,0\n")
    with pytest.raises(UserError, match=r"label 'other' is not in moments_categories.txt"):
        mit_json(arguments)
