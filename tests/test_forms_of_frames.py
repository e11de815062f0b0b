"""Training and inference give the same from JPGs, HDF5 files and the video files themselves."""

import json

import pytest

from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.index import read_index
from datasets.selection import select_videos
from parsing import parse_opts
from tests.runs import read_table, small_run
from tests.videos import draw
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_hdf5 import main as generate_video_hdf5
from util_scripts.generate_video_jpgs import main as generate_video_jpgs
from util_scripts.ucf101_json import main as ucf101_json

FORMS = ("jpg", "hdf5", "video")


def extract(videos, jpg):
    assert generate_video_jpgs([str(videos), str(jpg), "own", "--quality", "2"]) == 0


@pytest.fixture(scope="module")
def three_forms(tmp_path_factory):
    """The same videos, half of them dark, in all formats, with an index for each."""
    root = tmp_path_factory.mktemp("forms")
    for number in range(10):
        label, side = "ab"[number % 2], "train" if number < 6 else "val"
        dark = ("-vf", "lutyuv=y=val/4") if label == "b" else ()
        extra = (*dark, "-q:v", "2")
        path = root / "video" / side / label / f"{number}.avi"
        draw(path, seconds=2 + number % 3, size="320x240", extra=extra)
    (root / "video" / "readme.txt").write_text("not a video")
    extract(root / "video", root / "jpg")
    arguments = [str(root / "video"), str(root / "hdf5"), "own", "--quality", "2"]
    assert generate_video_hdf5(arguments) == 0
    for form in FORMS:
        assert folder_json([str(root / form), str(root / f"{form}.json")]) == 0
    return root


def flags_of(form):
    return ("--file_type", form, "--video_path", form, "--annotation_path", f"{form}.json")


def test_all_formats_give_the_same_scores(three_forms):
    """Training reads video files in a worker; the frames are the same, so the scores are too."""
    index, other = (json.loads((three_forms / f"{f}.json").read_text()) for f in ("jpg", "video"))
    assert index == other  # the same index works for both
    steps = ("--batch_size", "3", "--n_epochs", "20")  # enough for batch norm's running averages
    settle = (*steps, "--multistep_milestones", "10", "--no_val")
    training = ("--n_threads", "1", *settle, *flags_of("video"))
    assert small_run(three_forms, *training, result="trained") == 0
    found = {}
    for form in FORMS:
        score = ("--resume_path", "trained/save_20.pth", "--no_train", "--inference")
        assert small_run(three_forms, *score, *flags_of(form), result=f"of_{form}") == 0
        [row] = read_table((three_forms / f"of_{form}/val.log").read_text())
        results = json.loads((three_forms / f"of_{form}/val.json").read_text())["results"]
        scores = {
            (video, entry["label"]): entry["score"]
            for video, entries in results.items()
            for entry in entries
        }
        found[form] = row, scores
    row, scores = found["jpg"]
    assert row["acc"] == 1
    assert all(other == (row, scores) for other in found.values())


def test_all_formats_select_the_same_frames(three_forms):
    def chosen(form, build):
        given = ["--root_path", str(three_forms), *flags_of(form), "--dataset", "folder"]
        given += ["--n_classes", "2", "--sample_duration", "8", "--sample_t_stride", "2"]
        given += ["--sample_size", "16", "--n_threads", "0", "--inference", "--result_path", "x"]
        options = parse_opts(given)
        loader = build(options, read_index(options.annotation_path))
        count_from = 0 if form == "hdf5" else 1
        return [
            (loader.video_id(int(video)), first - count_from, end - count_from)
            for batch in loader
            for video, (first, end) in zip(batch.videos, batch.segments, strict=True)
        ]

    for build in (build_train_loader, build_val_loader, build_inference_loader):
        jpg, hdf5, video = (chosen(form, build) for form in FORMS)
        assert jpg == hdf5 == video
        assert len({first for _, first, _ in jpg}) > 1


def test_lists_find_video_files_and_keep_same_names_apart(tmp_path, capsys):
    videos = tmp_path / "videos"
    for name in ("a/x.avi", "a/y.mp4", "b/x.mkv", "b/z.avi", "b/z.mp4"):
        draw(videos / name)
    (videos / "b/broken.avi").write_bytes(b"\x00" * 999)
    assert folder_json([str(videos), str(tmp_path / "own.json"), "--val_fraction", "0.4"]) == 0
    assert "b/broken: " in capsys.readouterr().out
    entries = json.loads((tmp_path / "own.json").read_text())["database"]
    assert {name: entry.get("video_path") for name, entry in entries.items()} == {
        "a/x": "a/x", "y": None, "b/x": "b/x", "z.avi": None, "z.mp4": None
    }  # fmt: skip
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 a\n2 b\n")
    (lists / "trainlist01.txt").write_text("a/x.avi 1\nb/x.avi 2\n")
    (lists / "testlist01.txt").write_text("a/y.avi\nb/gone.avi\n")
    assert ucf101_json([str(lists), str(videos), str(tmp_path)]) == 0
    entries = json.loads((tmp_path / "ucf101_01.json").read_text())["database"]
    assert [e["annotations"]["segment"] for e in entries.values()] == [[1, 11]] * 3
    assert "b/gone: no folder" in capsys.readouterr().out


def test_files_beside_videos_are_passed_over(tmp_path):
    """Thumbnails, subtitles and files without a suffix: the index names what main.py finds."""
    videos = tmp_path / "videos"
    for name in ("a/1.mp4", "a/2.avi", "b/3.mkv", "b/4.mp4", "b/4.webm"):
        draw(videos / name)
    draw(videos / "a/1.jpg", extra=("-frames:v", "1"))
    (videos / "a/2.srt").write_text("Hello")
    draw(videos / "b/bare.mkv").rename(videos / "b/3")
    assert folder_json([str(videos), str(tmp_path / "own.json")]) == 0
    index = read_index(tmp_path / "own.json")
    assert {entry.video_id for entry in index.entries} == {
        "1", "2", "3", "3.mkv", "4.mp4", "4.webm"
    }  # fmt: skip
    found = [
        select_videos(index, subset, videos, file_type="video")
        for subset in ("training", "validation")
    ]
    assert not any(omitted for _, omitted in found)
    assert sorted(record.path.name for records, _ in found for record in records) == [
        "1.mp4", "2.avi", "3", "3.mkv", "4.mp4", "4.webm"
    ]  # fmt: skip
