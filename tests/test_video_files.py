"""Training and inference from the video files themselves, against extracted frames."""

import json
import shutil
import sys
from types import ModuleType

import pytest

from datasets import video_files
from datasets.annotation import read_index
from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.frames import FrameError, JpgFolder, VideoFiles, default_decoder
from datasets.video_files import count_video, require_torchcodec
from errors import UserError
from opts import parse_opts
from tests.runs import read_table, small_run
from tests.videos import SHARED, draw, draw_sound
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_hdf5 import main as generate_video_hdf5
from util_scripts.generate_video_jpgs import main as generate_video_jpgs
from util_scripts.ucf101_json import main as ucf101_json

try:
    require_torchcodec()
    ABSENT = ""
except UserError as error:
    ABSENT = str(error)
needs_torchcodec = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)
FORMS = ("jpg", "hdf5", "video")
NEAR = 6  # of 255, on average: what JPEG loses of hard edges that were enlarged


def extract(videos, jpg):
    assert generate_video_jpgs([str(videos), str(jpg), "own", "--quality", "2"]) == 0


@needs_torchcodec
@pytest.mark.parametrize(
    ("name", "size", "extra"),
    [
        ("small.avi", "64x48", ("-c:v", "mpeg4")),
        ("wide.mp4", "500x280", ("-c:v", "libx264", "-bf", "3")),
        (
            "hd.mp4",
            "320x240",
            ("-c:v", "libx264", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"),
        ),
        ("tall.mkv", "96x322", ("-c:v", "mpeg4")),
        (
            "two.mkv",
            "64x48",
            ("-f", "lavfi", "-i", "testsrc=s=96x96:d=1", *"-map 0 -map 1".split()),
        ),
    ],
)
def test_frames_are_those_of_extraction(tmp_path, name, size, extra):
    draw(tmp_path / "videos" / name, size=size, extra=extra)
    extract(tmp_path / "videos", tmp_path / "jpg")
    folder = next((tmp_path / "jpg").glob("[!.]*/"))
    numbers = [7, 1, 10]
    jpgs = JpgFolder(default_decoder()).read(folder, numbers)
    frames = VideoFiles().read(tmp_path / "videos" / name, numbers)
    for jpg, frame in zip(jpgs, frames, strict=True):
        assert jpg.shape == frame.shape
        assert (jpg.float() - frame.float()).abs().mean() < NEAR
    assert count_video(tmp_path / "videos" / name) == len(list(folder.iterdir()))


@needs_torchcodec
def test_what_is_no_video_is_told(tmp_path):
    draw_sound(tmp_path / "sound.mp4")
    (tmp_path / "noise.mp4").write_bytes(b"\x00\x01" * 5000)
    draw(tmp_path / "picture.png", extra=("-frames:v", "1"))
    for name in ("sound.mp4", "noise.mp4", "picture.png", "gone.mp4"):
        with pytest.raises(UserError, match=name):
            count_video(tmp_path / name)
    draw(tmp_path / "good.mp4")
    for numbers in ([0], [11], [5, 400]):
        with pytest.raises(FrameError, match="good.mp4: frame"):
            VideoFiles().read(tmp_path / "good.mp4", numbers)


@pytest.fixture(scope="module")
def three_forms(tmp_path_factory):
    """The same videos, half of them dark, as files, JPGs and HDF5, with an index of each."""
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


@needs_torchcodec
def test_a_trained_model_scores_all_forms_alike(three_forms):
    """Trained from video files with a worker; scores differ by the loss of JPEG."""
    index, other = (json.loads((three_forms / f"{f}.json").read_text()) for f in ("jpg", "video"))
    assert index == other  # one serves both
    steps = ("--batch_size", "3", "--n_epochs", "20")  # what batch norm's averages need
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
    for other_row, other_scores in found.values():
        assert other_row["acc"] == row["acc"] and other_row["video_acc"] == row["video_acc"]
        assert other_row["loss"] == pytest.approx(row["loss"], abs=0.02)
        assert other_scores == pytest.approx(scores, abs=0.02)


@needs_torchcodec
def test_all_forms_choose_the_same_frames(three_forms):
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


@needs_torchcodec
def test_lists_find_files_and_what_shares_a_name_stays_apart(tmp_path, capsys):
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


@needs_torchcodec
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_awkward_files_give_the_frames_of_extraction_or_a_line(tmp_path):
    """Where both read a file, they count the same; what only one of them reads is few."""
    extracted = tmp_path / "jpg"
    generate_video_jpgs([str(SHARED / "awkward"), str(extracted), "own"])
    differing = []
    for path in sorted((SHARED / "awkward").iterdir()):
        n_jpgs = len(list((extracted / path.stem).glob("*.jpg")))
        try:
            n_frames = count_video(path)
        except UserError:
            n_frames = 0
        if n_jpgs != n_frames and path.suffix != ".txt":
            differing.append((path.name, n_jpgs, n_frames))
    assert differing == [("corrupted.mp4", 49, 28)]  # torchcodec stops at the damage


@pytest.mark.parametrize("version", [None, RuntimeError, OSError])
def test_without_ffmpeg_s_libraries_one_line_says_what_to_install(monkeypatch, version):
    """torchcodec imports without them from 0.17 on; releases before fail."""

    class Package(ModuleType):
        def __getattr__(self, name):
            if name == "ffmpeg_major_version" and version is None:
                return None
            raise AttributeError(name) if version is None else version("no libavutil")

    package, decoders = Package("torchcodec"), ModuleType("torchcodec.decoders")
    package.__path__, package.__spec__, package.decoders = [], None, decoders
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    with pytest.raises(UserError, match="apt install ffmpeg"):
        require_torchcodec()


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    shutil.copytree(draw(tmp_path / "jpg/a/x.mp4").parent.parent, tmp_path / "jpg/b")
    content = {"labels": ["a"], "database": {}}
    entry = {"subset": "training", "annotations": {"label": "a", "segment": [1, 11]}}
    content["database"]["x"] = entry
    (tmp_path / "index.json").write_text(json.dumps(content))
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    video_files.open_video.cache_clear()
    assert small_run(tmp_path, "--no_val", "--file_type", "video") == 2
    assert "pip install -r requirements-extra.txt" in capsys.readouterr().err
