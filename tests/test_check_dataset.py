"""The command check_dataset."""

import json
import shlex
import shutil

import pytest
from PIL import Image

from datasets.build import build_train_loader
from datasets.frame_checks import SAME_PICTURE
from datasets.frame_locations import FIRST_NUMBER
from datasets.index import read_index
from datasets.video_files import count_video
from errors import UserError
from media.ffmpeg import find_ffmpeg
from parsing import parse_opts
from tests.commands import run_command
from tests.runs import make_dataset, make_frames, small_run
from tests.test_activitynet import entry, part, write_index
from tests.test_hdf5 import hdf5_twin
from tests.videos import draw
from util_scripts.check_dataset import main
from util_scripts.csv_json import main as csv_json
from util_scripts.folder_json import main as folder_json


def check(root, *flags):
    return main([str(root / "index.json"), str(root / "jpg"), *flags])


def change_index(root, change):
    index = json.loads((root / "index.json").read_text())
    change(index)
    (root / "index.json").write_text(json.dumps(index))


def test_a_sound_dataset(tmp_path, capsys):
    make_dataset(tmp_path)
    assert check(tmp_path, "--all") == 0
    out = capsys.readouterr().out
    assert "wrong" not in out
    assert "2 labels; videos: 6 training, 4 validation; 10 have frames" in out


def copy_video(root):
    shutil.rmtree(root / "jpg/a/a_4")
    shutil.copytree(root / "jpg/a/a_0", root / "jpg/a/a_4")


def add_entry(name, subset, label="a"):
    def change(root):
        make_frames(root / "jpg" / label / name, 20, seed=999)
        entry = {"subset": subset, "annotations": {"label": label, "segment": [1, 21]}}
        change_index(root, lambda index: index["database"].update({name: entry}))

    return change


def other_labels(root):
    change_index(root, lambda index: index["labels"].extend(["A_ b", "a B"]))


def labels_in_two_forms(root):
    change_index(root, lambda index: index["labels"].extend(["caf\xe9", "cafe\u0301"]))


def resize_frame(root):
    path = root / "jpg/a/a_0/image_00007.jpg"
    Image.open(path).resize((20, 20)).save(path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda r: shutil.rmtree(r / "jpg/a/a_0"), "1 videos without frames\n  a_0: "),
        (lambda r: (r / "jpg/a/a_0/image_00005.jpg").unlink(), "a_0: frame 5 is missing"),
        (
            lambda r: (r / "jpg/a/a_0/image_00020.jpg").unlink(),
            "a_0: frames up to number 19, but up to 20",
        ),
        (
            lambda r: (r / "jpg/b/b_1/image_00003.jpg").write_bytes(b"x"),
            "image_00003.jpg: not a JPEG",
        ),
        (resize_frame, "1 videos whose frames differ in size\n  a_0: 20x20, 40x32"),
        (copy_video, "same middle frame in training and another subset\n  a_0 (training) and a_4"),
        (other_labels, "2 labels without training videos\n  A_ b"),
        (other_labels, "form of accents\n  A_ b, a B"),
        (labels_in_two_forms, "form of accents\n  caf\xe9, cafe\u0301"),
    ],
)
def test_what_is_wrong(tmp_path, capsys, damage, expected):
    make_dataset(tmp_path)
    damage(tmp_path)
    assert check(tmp_path, "--all") == 1
    assert expected in capsys.readouterr().out


def test_groups_in_training_and_validation(tmp_path, capsys):
    make_dataset(tmp_path)
    add_entry("v_Jump_g01_c01", "training")(tmp_path)
    add_entry("v_Jump_g01_c02", "validation")(tmp_path)
    assert check(tmp_path) == 1
    out = capsys.readouterr().out
    assert (
        "sources) in training and another subset\n  v_Jump_g01_c01 (training) and v_Jump_g01_c02"
        in out
    )


def test_notes_are_not_wrong(tmp_path, capsys):
    make_dataset(tmp_path)
    make_frames(tmp_path / "jpg/a/a_0", 25, seed=5)
    assert check(tmp_path) == 0
    assert "note: 1 videos with more frames than in the index" in capsys.readouterr().out


def test_training_reports_problems_of_the_index(tmp_path, capsys):
    make_dataset(tmp_path)
    add_entry("x/a_4", "training")(tmp_path)
    assert small_run(tmp_path, "--n_epochs", "1") == 0
    out = capsys.readouterr().out
    assert (
        "index: 1 videos of the same name in training and another subset: x/a_4 (training) and a_4"
        in out
    )


SEGMENTS = [  # of a video of 20 frames
    None, [0, 0], [0, 20], [0, 21], [1, 1], [1, 2], [1, 20], [1, 21], [1, 22], [3, 21], [5, 5],
    [19, 20], [20, 21], [21, 21], [21, 22], [25, 30],
]  # fmt: skip


def trains_on_all(root, form):
    """Whether main.py trains on all videos of the index."""
    options = parse_opts(
        ["--root_path", str(root), "--video_path", form, "--annotation_path", "index.json",
         "--result_path", "res", "--dataset", "folder", "--n_classes", "2", "--file_type", form,
         "--n_threads", "0", "--no_cuda"]
    )  # fmt: skip
    index = read_index(root / "index.json")
    try:
        loader = build_train_loader(options, index)
        loader.probe()
    except UserError:
        return False
    return len(loader.dataset.records) == 2


@pytest.mark.parametrize("form", ["jpg", "hdf5"])
def test_main_accepts_exactly_what_is_not_wrong(tmp_path, capsys, form):
    make_dataset(tmp_path, train=1, val=0)
    hdf5_twin(tmp_path)
    name = "index.json" if form == "jpg" else "hdf5.json"
    content = json.loads((tmp_path / name).read_text())
    words = [str(tmp_path / "index.json"), str(tmp_path / form), "--file_type", form]
    for segment in SEGMENTS:
        annotation = content["database"]["a_0"]["annotations"]
        annotation.pop("segment", None)
        if segment is not None:
            annotation["segment"] = segment
        (tmp_path / "index.json").write_text(json.dumps(content))
        is_right = main(words) == 0
        assert trains_on_all(tmp_path, form) == is_right, segment
        main([*words, "--fix"])
        begin, end = segment or (0, 0)
        is_fixed = (
            begin == end or begin < FIRST_NUMBER[form] + 20
        )  # not a part after the last frame
        assert (main(words) == 0) == is_fixed, segment
        assert trains_on_all(tmp_path, form) == is_fixed, segment
    assert "the index has no frame numbers" in capsys.readouterr().out


def test_an_hdf5_index_is_refused_for_jpgs(tmp_path, capsys):
    make_dataset(tmp_path)
    first = {"a_0": [0, 20]}
    change_index(
        tmp_path,
        lambda index: [
            index["database"][name]["annotations"].update(segment=s) for name, s in first.items()
        ],
    )
    assert small_run(tmp_path, "--n_epochs", "1") == 2
    message = (
        "a_0: starts at frame 0 in the index, but jpg frames start at 1; to correct all: python -m"
    )
    assert message in capsys.readouterr().err


def rename_frames(folder, pattern, n_frames=20):
    for number in range(1, n_frames + 1):
        path = folder / f"image_{number:05d}.jpg"
        if pattern.endswith(".png"):
            Image.open(path).save(folder / (pattern % number))
            path.unlink()
        else:
            path.rename(folder / (pattern % number))


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("img_%05d.jpg", "ffmpeg -start_number 1 -i 'img_%05d.jpg' -c copy image_%05d.jpg"),
        ("%d.jpeg", "ffmpeg -start_number 1 -i '%d.jpeg' -c copy image_%05d.jpg"),
        ("image_%05d.png", "ffmpeg -start_number 1 -i 'image_%05d.png' -q:v 2 image_%05d.jpg"),
        ("image_%04d.jpg", "ffmpeg -start_number 1 -i 'image_%04d.jpg' -c copy image_%05d.jpg"),
        ("%d-a.png", "ffmpeg -start_number 1 -i '%d-a.png' -q:v 2 image_%05d.jpg"),
        ("a%%b_%02d.JPG", "ffmpeg -start_number 1 -i 'a%%b_%02d.JPG' -c copy image_%05d.jpg"),
    ],
)
def test_misnamed_pictures_come_with_a_rename_command(tmp_path, capsys, pattern, command):
    make_dataset(tmp_path)
    folder_names = sorted(path for path in (tmp_path / "jpg").glob("*/*"))
    for folder in folder_names:
        rename_frames(folder, pattern)
    message = f"20 pictures such as {pattern % 1}; frames are JPEG files named image_00001.jpg"
    assert small_run(tmp_path, "--n_epochs", "1") == 2
    err = capsys.readouterr().err
    assert message in err
    assert command in err
    assert check(tmp_path) == 1
    assert message in (out := capsys.readouterr().out)
    assert command in out
    with pytest.raises(UserError) as raised:
        folder_json([str(tmp_path / "jpg"), str(tmp_path / "own.json")])
    assert message in str(raised.value)
    assert command in str(raised.value)
    binary, *words = shlex.split(command)
    for folder in folder_names:
        words_there = [word.replace("'", "") for word in words]
        ran = run_command(*words_there, program=find_ffmpeg(), cwd=folder)
        assert binary == "ffmpeg", ran.text
        assert ran.status == 0, ran.text
    assert check(tmp_path) == 0, capsys.readouterr().out


def test_misnamed_pictures_are_listed_as_left_out(tmp_path, capsys):
    make_dataset(tmp_path)
    rename_frames(tmp_path / "jpg/a/a_0", "img_%05d.jpg")
    assert folder_json([str(tmp_path / "jpg"), str(tmp_path / "own.json")]) == 0
    out = capsys.readouterr().out
    assert "1 videos without frames are left out:\n  a/a_0: no frames, but 20 pictures" in out


def test_miscounted_frames_stop_a_run_before_training(tmp_path, capsys):
    make_dataset(tmp_path)
    (tmp_path / "jpg/b/b_0/image_00020.jpg").unlink()
    assert small_run(tmp_path) == 2
    assert "image_00020.jpg: no such frame" in capsys.readouterr().err
    assert not (tmp_path / "res/train.log").exists()


def test_hdf5_and_video_files(tmp_path, capsys):
    make_dataset(tmp_path)
    hdf5_twin(tmp_path)
    arguments = [str(tmp_path / "hdf5.json"), str(tmp_path / "hdf5"), "--file_type", "hdf5"]
    assert main(arguments) == 0
    assert "10 have frames" in capsys.readouterr().out
    (tmp_path / "hdf5/a/a_0.hdf5").write_bytes(b"nothing")
    assert main(arguments) == 1
    assert "a_0.hdf5: can't be read" in capsys.readouterr().out


def test_parts_of_a_video_are_compared_by_their_own_frames(tmp_path, capsys):
    make_frames(tmp_path / "jpg/m", 20)
    parts = {"m_1": ("training", [1, 11]), "m_2": ("validation", [11, 21])}
    database = {
        name: {
            "subset": subset,
            "annotations": {"label": "a", "segment": segment},
            "video_path": "m",
        }
        for name, (subset, segment) in parts.items()
    }
    (tmp_path / "index.json").write_text(json.dumps({"labels": ["a"], "database": database}))
    assert check(tmp_path) == 0
    assert SAME_PICTURE not in capsys.readouterr().out
    (tmp_path / "jpg/m/image_00017.jpg").write_bytes(b"not a picture")
    change_index(tmp_path, lambda index: index["database"].pop("m_2"))
    assert check(tmp_path, "--all") == 0  # the frame is in no entry
    shutil.copy(tmp_path / "jpg/m/image_00005.jpg", tmp_path / "jpg/m/image_00015.jpg")
    change_index(tmp_path, lambda index: index["database"].update(m_2=database["m_2"]))
    assert check(tmp_path, "--all") == 1
    out = capsys.readouterr().out
    assert f"{SAME_PICTURE}\n  m_1 (training) and m_2" in out
    assert "image_00017.jpg: not a JPEG" in out


def test_a_video_of_several_parts_is_counted_once(tmp_path, capsys, monkeypatch):
    draw(tmp_path / "videos/m.mp4", seconds=2)
    rows = "".join(f"m.mp4,a,{second / 4},{second / 4 + 0.25}\n" for second in range(8))
    (tmp_path / "list.csv").write_text(f"path,label,start,end\n{rows}")
    arguments = [str(tmp_path / "index.json"), str(tmp_path / "videos")]
    assert csv_json([str(tmp_path / "list.csv"), arguments[1], arguments[0]]) == 0
    counted = []

    def count(path, *more):
        counted.append(path.name)
        return count_video(path, *more)

    monkeypatch.setattr("datasets.survey.count_video", count)
    main([*arguments, "--file_type", "video"])
    assert "8 have frames" in capsys.readouterr().out
    assert counted == ["m.mp4"]


def test_activitynet(tmp_path, capsys):
    database = {
        "sound": entry("training", part("Surfing", 0, 2)),
        "short": entry("validation", part("Surfing", 0, 9)),
        "gone": entry("validation", part("Archery", 0, 1)),
        "rateless": entry("training", part("Archery", 0, 1), fps=None),
    }
    path = write_index(tmp_path / "index.json", database)
    for number, name in enumerate(("sound", "short", "rateless")):
        make_frames(tmp_path / "jpg" / f"v_{name}", 20, seed=number)
    assert main([str(path), str(tmp_path / "jpg")]) == 1
    out = capsys.readouterr().out
    for line in ("gone: ", "short: 2.0 s of frames, annotated to 9.0 s", "frame rate", "3 have"):
        assert line in out
    assert "sound" not in out
    with pytest.raises(UserError, match="has no frame counts"):
        main([str(path), str(tmp_path / "jpg"), "--fix"])


def test_no_frames_folder(tmp_path):
    make_dataset(tmp_path)
    with pytest.raises(UserError, match="no such folder of frames"):
        main([str(tmp_path / "index.json"), str(tmp_path / "none")])
