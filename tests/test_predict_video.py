"""predict_video compared with main.py --inference on extracted frames; handling of bad input."""

import csv
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import main as main_program
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from media.sources import find_inputs
from models.build import build
from parsing import options_of
from tests.commands import run_util
from tests.runs import limit_file_size
from tests.test_program import standard_output
from tests.videos import draw, draw_sound, shared
from util_scripts.generate_video_jpgs import main as generate_video_jpgs
from util_scripts.predict_video import main as predict_video

pytestmark = pytest.mark.numeric

LABELS = ("a", "b", "c")
SAME = 0.02  # tolerance for the loss of JPEG in a score
CPU = ("--no_cuda", "--precision", "fp32")
MODEL = {
    "model_depth": 10, "resnet_widen_factor": 0.25, "sample_size": 32, "sample_duration": 8,
    "sample_t_stride": 2, "n_classes": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model with random weights and a scaled-up head, so that videos differ in their scores."""
    path = tmp_path_factory.mktemp("model") / "best.pth"
    write_checkpoint(path, **MODEL)
    return path


def write_checkpoint(path, **given):
    torch.manual_seed(1)
    options = options_of(given)
    model = build("resnet", 10, n_classes=3, n_input_channels=options.n_input_channels,
                  resnet_widen_factor=0.25)  # fmt: skip
    with torch.no_grad():
        model.fc.weight *= 10
    about = {"arch": options.arch, "class_names": list(LABELS), "options": options.as_plain()}
    torch.save({"epoch": 1, "state_dict": model.state_dict(), **about}, path)


def predict(checkpoint, *arguments):
    return predict_video([*map(str, arguments), "--checkpoint", str(checkpoint), *CPU])


def predicted(checkpoint, root, *arguments):
    """(status, {name: video of the JSON file})"""
    status = predict(checkpoint, *arguments, "--json", root / "out.json", "--topk", "0")
    content = json.loads((root / "out.json").read_text(encoding="utf-8"))
    assert content["labels"] == list(LABELS)
    return status, {Path(video["video"]).name: video for video in content["videos"]}


def inferred(checkpoint, root, videos, *flags):
    """Run main.py --inference on extracted frames: {file name without extension: entries}."""
    generate_video_jpgs([str(videos), str(root / "jpg"), "own"])
    database = {}
    for folder in (root / "jpg").iterdir():
        if folder.is_dir():
            segment = [1, len(list(folder.iterdir())) + 1]
            annotations = {"label": "a", "segment": segment}
            database[folder.name] = {
                "subset": "validation", "annotations": annotations, "video_path": folder.name
            }  # fmt: skip
    index = {"labels": LABELS, "database": database}
    (root / "index.json").write_text(json.dumps(index))
    arguments = [
        "--root_path", str(root), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", "res", "--dataset", "folder", "--n_classes", "3", "--no_train",
        "--no_val", "--inference", "--resume_path", str(checkpoint), "--n_threads", "0",
        "--output_topk", "0", *CPU, *flags,
    ]  # fmt: skip
    assert main_program.main(arguments) == 0
    return json.loads((root / "res/val.json").read_text())["results"]


def check_equal(videos, results):
    """Check that the same videos have scores, and that they are equal up to the loss of JPEG."""
    scored = {Path(name).stem: video for name, video in videos.items() if video["results"]}
    assert scored.keys() == results.keys()
    for name, entries in results.items():
        ours = {entry["label"]: entry["score"] for entry in scored[name]["results"]}
        assert scored[name]["results"][0]["label"] == entries[0]["label"], name
        for entry in entries:
            assert ours[entry["label"]] == pytest.approx(entry["score"], abs=SAME), name


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    draw(folder / "long.mp4", seconds=5, size="320x240", extra=("-c:v", "libx264", "-bf", "3"))
    draw(folder / "hd.mkv", seconds=2, size="640x360", extra=("-colorspace", "bt709"))
    draw(folder / "tall.avi", seconds=1, size="96x322", extra=("-q:v", "2"))
    draw(folder / "one.avi", seconds=0.1, size="64x48", extra=("-q:v", "2"))
    draw(folder / "odd.mp4", seconds=1, size="66x50", extra=("-vf", "setsar=16/9"))
    return folder


@pytest.mark.parametrize("stride", ["3", "16"])
def test_scores_equal_those_of_inference(checkpoint, videos, tmp_path, stride):
    status, ours = predicted(checkpoint, tmp_path, videos, "--stride", stride)
    assert status == 0
    check_equal(ours, inferred(checkpoint, tmp_path, videos, "--inference_stride", stride))
    firsts = [video["results"][0]["score"] for video in ours.values()]
    assert max(firsts) - min(firsts) > SAME  # otherwise the comparison proves nothing
    assert len(ours["long.mp4"]["windows"]) == (7 if stride == "3" else 2)


def test_windows_have_frame_numbers_and_times(checkpoint, videos, tmp_path, capsys):
    table = tmp_path / "out.csv"
    arguments = ("--stride", "0", "--csv", table, "--timeline")
    _, ours = predicted(checkpoint, tmp_path, videos / "long.mp4", *arguments)
    windows = ours["long.mp4"]["windows"]
    segments = [[1, 16], [17, 32], [33, 48], [49, 50]]  # 8 of every 2nd frame of 50
    assert [[w["segment"][0], w["segment"][1] - 1] for w in windows] == [
        [1, 15], [17, 31], [33, 47], [49, 49]
    ]  # fmt: skip
    assert [w["start"] for w in windows] == [(first - 1) / 10 for first, _ in segments]
    assert [w["end"] for w in windows] == [1.5, 3.1, 4.7, 4.9]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["end"]) for row in rows] == [1.5, 3.1, 4.7, 4.9]
    assert [[float(row[label]) for label in LABELS] for row in rows] == [
        w["scores"] for w in windows
    ]
    assert "0:00:03.20 - 0:00:04.70" in capsys.readouterr().out


def test_times_are_the_video_s_timestamps(checkpoint, tmp_path):
    """A pause of three seconds in the timestamps, as in videos of phones, is kept."""
    pause = ("-vf", "setpts=PTS+gt(N\\,9)*3/TB", "-fps_mode", "passthrough", "-c:v", "libx264")
    path = draw(tmp_path / "a.mp4", seconds=2, rate=10, extra=pause)
    _, ours = predicted(checkpoint, tmp_path, path)
    (window,) = ours["a.mp4"]["windows"]  # up to frame 15
    assert window["end"] == pytest.approx(4.5, abs=0.3)  # the pause slows the rate


def test_undecodable_videos_are_reported_and_the_others_scored(
    checkpoint, tmp_path, videos, capsys
):
    (videos / "noise.mp4").write_bytes(b"\x00\x01" * 5000)
    (videos / "empty.avi").write_bytes(b"")
    (videos / "readme.txt").write_text("not a video")
    draw(videos / "picture.png", extra=("-frames:v", "1"))
    draw(videos / "still.gif", seconds=0.1)
    draw_sound(videos / "sound.wav")
    status, ours = predicted(checkpoint, tmp_path, videos)
    printed = capsys.readouterr().err
    assert status == 1
    assert f"{videos}/empty.avi: an empty file" in printed
    assert f"{videos}/noise.mp4: " in printed
    assert "skipped 3 files that are not videos" in printed
    assert "no scores for 2 of 11 videos" in printed
    check_equal(ours, inferred(checkpoint, tmp_path, videos))


def test_a_picture_given_by_name_is_an_error(checkpoint, tmp_path, capsys):
    picture = draw(tmp_path / "picture.png", extra=("-frames:v", "1"))
    assert predict(checkpoint, picture) == 1
    assert f"{picture}: a picture, not a video" in capsys.readouterr().err


def test_rotated_videos_and_changing_sizes(checkpoint, tmp_path):
    videos = tmp_path / "videos"
    upright = draw(tmp_path / "upright.mp4", seconds=2)
    turn = ["-display_rotation:v:0", "90", *input_of(upright), "-c", "copy"]
    videos.mkdir()
    assert Ffmpeg().run([*turn, str(videos / "turned.mp4")]).returncode == 0
    parts = [draw(tmp_path / f"{s}.ts", size=s, rate=10) for s in ("64x48", "48x96")]
    (videos / "changing.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    _, ours = predicted(checkpoint, tmp_path, videos)
    check_equal(ours, inferred(checkpoint, tmp_path, videos))


def test_awkward_files_and_real_clips(checkpoint, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(shared("data/awkward"), videos)
    for label in ("fight", "noFight"):
        for clip in sorted(shared(f"data/fight/val/{label}").iterdir())[:2]:
            shutil.copy(clip, videos)
    status, ours = predicted(checkpoint, tmp_path, videos)
    assert status == 1
    assert sum(bool(video["results"]) for video in ours.values()) >= 24
    check_equal(ours, inferred(checkpoint, tmp_path, videos))


def test_inputs_are_found_by_kind(tmp_path):
    for name in ("d/b.avi", "d/sub/a.mp4", "d/.hidden", "x[1].mp4", "y1.mp4", "y2.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(*texts):
        inputs = find_inputs([str(tmp_path / text) for text in texts])
        return [str(Path(i.name).relative_to(tmp_path)) for i in inputs]

    assert found("d") == ["d/b.avi", "d/sub/a.mp4"]
    assert found("y*.mp4", "x[1].mp4") == ["y1.mp4", "y2.mp4", "x[1].mp4"]
    for text in ("z*.mp4", "gone.mp4"):
        with pytest.raises(UserError, match="no such file or folder"):
            found(text)


def test_urls_are_redacted_and_live_ones_recognised():
    (camera,) = find_inputs(["rtsp://me:secret@10.0.0.2:554/live?x=1"])
    assert camera.name == "rtsp://10.0.0.2:554/live?x=***"
    assert camera.is_live
    page = "https://example.org/a.mp4"
    assert not find_inputs([page])[0].is_live
    assert find_inputs([page], live=True)[0].is_live
    (device,) = find_inputs(["/dev/null"])
    assert device.is_live
    assert "v4l2" in device.arguments
    with pytest.raises(UserError, match="name no other videos"):
        find_inputs(["rtsp://a/b", page])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_url_gives_the_same_windows_as_its_file(checkpoint, tmp_path, capsys):
    local = shutil.copy(draw(tmp_path / "web/a.mkv", seconds=2), tmp_path / "local.mkv")
    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}"
        urls = [f"http://me:secret@{place}/{name}" for name in ("a.mkv", "none.mkv")]
        status, ours = predicted(checkpoint, tmp_path, *urls, local)
        server.shutdown()
    printed = capsys.readouterr()
    assert status == 1
    assert f"http://{place}/none.mkv: " in printed.err
    assert "404" in printed.err
    assert "secret" not in printed.out + printed.err + (tmp_path / "out.json").read_text()
    assert ours["a.mkv"]["windows"] == ours["local.mkv"]["windows"] != []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--stride", "-1"), "--stride -1"),
        (("--threshold", "1.5"), "--threshold 1.5"),
        (("--alert", "d"), "--alert d: the model has no such class; similar: "),
    ],
)
def test_wrong_flags_are_one_line(checkpoint, tmp_path, arguments, complaint):
    video = draw(tmp_path / "a.avi")
    with pytest.raises(UserError, match=complaint):
        predict(checkpoint, video, *arguments)


@pytest.mark.parametrize("flag", ["--csv", "--json", "--overlay"])
def test_no_output_replaces_an_input(checkpoint, tmp_path, flag):
    video = draw(tmp_path / "videos/a.mp4")
    other = draw(tmp_path / "videos/b.mp4")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    (tmp_path / "link.mp4").symlink_to(video)
    before = [path.read_bytes() for path in (video, other, labels, checkpoint)]
    for inputs, output in (
        ([video], video),
        ([video], labels),
        ([video], checkpoint),
        ([tmp_path / "link.mp4"], video),
        ([video], tmp_path / "link.mp4"),
        ([tmp_path / "videos/*.mp4"], other),
        ([tmp_path / "videos"], other),
    ):
        with pytest.raises(UserError, match=f"{flag} .*(is|lies in) the input"):
            predict(checkpoint, *inputs, "--labels", labels, flag, output, "--overwrite")
    assert [path.read_bytes() for path in (video, other, labels, checkpoint)] == before


def test_outputs_of_an_earlier_run_are_replaced(checkpoint, tmp_path):
    video = draw(tmp_path / "a.mp4")
    outputs = [tmp_path / name for name in ("a.csv", "a.json", "out.mp4", "out.mkv", "out.avi")]
    for output in outputs:
        flag = {".csv": "--csv", ".json": "--json"}.get(output.suffix, "--overlay")
        for _ in range(2):
            assert predict(checkpoint, video, flag, output) == 0
    assert sorted(tmp_path.iterdir()) == sorted([video, *outputs])


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.mp4"])
def test_a_full_disk_keeps_the_earlier_output(checkpoint, tmp_path, name):
    video = draw(tmp_path / "videos/v.mp4", seconds=3, size="320x240")
    flag = {".csv": "--csv", ".json": "--json"}.get(Path(name).suffix, "--overlay")
    assert predict(checkpoint, video, flag, tmp_path / name) == 0
    before = (tmp_path / name).read_bytes()
    limit = 50_000 if flag == "--overlay" else 200
    with limit_file_size(limit), pytest.raises(UserError, match=f"{name}: ") as caught:
        predict(checkpoint, video, flag, tmp_path / name, "--stride", "1")
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "videos"]


@pytest.mark.parametrize("more", [[], ["--timeline"], ["--threshold", "0.0001"]])
def test_files_are_complete_up_to_a_closed_stdout(checkpoint, tmp_path, more):
    for name in ("a.mp4", "b.mp4"):
        draw(tmp_path / "videos" / name, seconds=3)
    files = ["--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json"]
    arguments = [tmp_path / "videos", "--checkpoint", checkpoint, *CPU, *files, *more]
    with standard_output("closed") as before:
        done = run_util("predict_video", *arguments, before=before)
    written = "1 of 2 videos written, the last one in part"
    said = [f"{tmp_path / name}: {written}" for name in ("a.csv", "a.json")]
    assert (done.status, done.stderr.splitlines()) == (141, said)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
    (video,) = json.loads((tmp_path / "a.json").read_text())["videos"]
    assert video["video"].endswith("a.mp4")
    assert len(video["windows"]) == 1


def test_csv_is_written_to_a_pipe_row_by_row(checkpoint, tmp_path):
    video = draw(tmp_path / "a.mp4", seconds=3)
    arguments = [video, "--checkpoint", checkpoint, *CPU, "--topk", "1", "--csv"]
    done = run_util("predict_video", *arguments, "/dev/stdout")
    assert done.status == 0
    assert "\r\n".join(done.stdout.splitlines()).startswith("video,start,end")
    full = run_util("predict_video", *arguments, "/dev/full")
    assert full.status == 2
    assert full.stderr == "error: /dev/full: can't be written: No space left on device\n"


def test_a_flow_model_is_rejected(tmp_path):
    write_checkpoint(tmp_path / "flow.pth", input_type="flow", **MODEL)
    with pytest.raises(UserError, match="optical flow"):
        predict(tmp_path / "flow.pth", draw(tmp_path / "a.avi"))


def test_events_of_a_file(checkpoint, tmp_path, capsys):
    video = draw(tmp_path / "a.avi", seconds=3)
    _, ours = predicted(checkpoint, tmp_path, video, "--threshold", "0.0001", "--alert", "b")
    (event,) = ours["a.avi"]["events"]
    windows = ours["a.avi"]["windows"]
    assert (event["start"], event["end"]) == (windows[0]["start"], windows[-1]["end"])
    assert event["score"] == pytest.approx(max(w["scores"][1] for w in windows), abs=1e-5)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("event  0:00:00.00 - 0:00:0")
    assert line.endswith(f"  b  {video}")


def test_a_frame_rate_that_the_model_does_not_expect_is_reported_once(tmp_path, capsys):
    write_checkpoint(tmp_path / "c.pth", **MODEL | {"frame_rate": 10.0})
    for name in ("a.mp4", "b.mp4"):
        draw(tmp_path / "videos" / name, seconds=1)  # of 10 frames per second
    assert predict(tmp_path / "c.pth", tmp_path / "videos") == 0
    told = "clips have 5 frames per second, the weights expect 10: --sample_t_stride 1 gives 10"
    assert capsys.readouterr().err.count(told) == 1
    assert predict(tmp_path / "c.pth", tmp_path / "videos", "--sample_t_stride", "1") == 0
    assert "frames per second" not in capsys.readouterr().err
