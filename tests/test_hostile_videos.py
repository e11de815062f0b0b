"""No command follows playlists that are named like videos, to files or servers; URLs open no files;
passwords appear in no message, output or process list."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from datasets.frame_readers import FrameError, VideoFiles, default_decoder
from datasets.video_files import count_video
from errors import UserError
from media.ffmpeg import Ffmpeg, find_ffmpeg
from media.ffmpeg_inputs import (
    CONTAINERS,
    PICTURES,
    PROTOCOLS,
    STREAMED,
    input_of,
    input_of_url,
    redacted,
    secrets_of,
    shown_url,
)
from media.rates import read_timings
from media.sources import find_inputs
from predict import video_reader
from tests.commands import Command
from tests.playlists import concat, dash, ffmetadata, hls, sdp, vobsub
from tests.servers import dripping, serving
from tests.test_predict_video import CPU, MODEL, predict, predicted, write_checkpoint
from tests.videos import draw
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_hdf5 import main as to_hdf5
from util_scripts.generate_video_jpgs import main as to_jpgs

SYSTEM = "/usr/bin/ffmpeg"  # another version than the one in the environment


@pytest.fixture(params=["own", "system"], autouse=True)
def binary(request, monkeypatch):
    if request.param == "system":
        if not os.access(SYSTEM, os.X_OK):
            pytest.skip("there is no other ffmpeg here")
        monkeypatch.setenv("FFMPEG", SYSTEM)
    find_ffmpeg.cache_clear()
    yield find_ffmpeg()
    find_ffmpeg.cache_clear()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "best.pth"
    write_checkpoint(path, **MODEL)
    return path


@pytest.fixture
def web(tmp_path):
    """A server for a folder with a video and pictures that no command may read."""
    secret = tmp_path / "secret"
    draw(secret / "a.ts", extra=["-c:v", "libx264"])
    draw(secret / "a.mp4", extra=["-c:v", "libx264"])
    draw(secret / "i%03d.jpg")
    with serving(secret) as server:
        yield server


PLAYLISTS = {
    "hls": (hls, ("m3u8", "mp4")),
    "concat": (concat, ("avi", "txt")),
    "dash": (dash, ("mpd", "mkv")),
    "sdp": (sdp, ("mp4",)),
    "vobsub": (vobsub, ("idx",)),
    "ffmetadata": (ffmetadata, ("mp4",)),
    "avisynth": (lambda target: f'FFmpegSource2("{target}")\xe9\n', ("avs",)),
}


def lay_out(web, videos):
    """Write playlists into a folder of videos; they point to files beside, above and elsewhere, and
    to a server. None looks like a text file."""
    secret = web.RequestHandlerClass.keywords["directory"]
    videos.mkdir()
    shutil.copy(Path(secret, "a.ts"), videos / "beside.ts")
    targets = {
        "beside": "beside.ts",
        "above": "../secret/a.ts",
        "file": f"file:{secret}/a.mp4",
        "web": f"{web.url}/a.ts",
        "part": f"subfile,,start,0,end,9999,,:{secret}/a.ts",
    }
    for kind, (content, suffixes) in PLAYLISTS.items():
        for name, target in targets.items():
            for suffix in suffixes:
                data = content(target).encode("latin-1")
                (videos / f"{kind}_{name}_{suffix}.{suffix}").write_bytes(data)
    (videos / "i%03d.jpg").write_bytes(b"\xff\xd8\xff\x01")
    return sorted(path for path in videos.iterdir() if path.name != "beside.ts")


def test_unrestricted_ffmpeg_follows_these_playlists(binary, web, tmp_path):
    lay_out(web, tmp_path / "v")
    led = set()
    for path in (tmp_path / "v").glob("*_*.*"):
        if path.name.startswith("sdp"):
            continue  # would wait for packets
        web.requests.clear()
        everything = ["-protocol_whitelist", "file,http,tcp,crypto,data", "-i", f"file:{path}"]
        ended = subprocess.run(
            [binary, "-v", "quiet", "-nostdin", *everything, "-f", "rawvideo", "-"],
            capture_output=True, timeout=120,
        )  # fmt: skip
        if ended.stdout or web.requests:
            led.add(path.name)
    assert {"hls_file_m3u8.m3u8", "hls_web_m3u8.m3u8", "concat_beside_avi.avi"} <= led
    assert {"dash_above_mkv.mkv", "dash_file_mpd.mpd", "dash_web_mkv.mkv"} <= led


def test_commands_do_not_follow_playlists(binary, web, tmp_path, checkpoint, capsys):
    videos = tmp_path / "v"
    hostile = lay_out(web, videos)
    draw(videos / "good.mp4", seconds=2)
    forms = (("jpg", to_jpgs), ("hdf5", to_hdf5))
    for name, command in forms[:1] if binary == SYSTEM else forms:
        command([str(videos), str(tmp_path / name), "test"])
        rows = [json.loads(line) for line in (tmp_path / name / "manifest.jsonl").open()]
        frames = {row["source"]: row["frames"] for row in rows if row["frames"]}
        assert frames == {"beside.ts": 10, "good.mp4": 20}
        assert not any(len(row["reason"] or "") > 200 for row in rows)
    status, results = predicted(checkpoint, tmp_path, videos)
    assert status == 1  # those with a video's suffix count as damaged
    assert {name for name, video in results.items() if video["windows"]} == {
        "beside.ts",
        "good.mp4",
    }
    assert web.requests == []
    if binary == SYSTEM:
        return  # the other commands open files in the same way
    for path in hostile:
        with pytest.raises(UserError):
            count_video(path)
        with pytest.raises(FrameError):
            VideoFiles(default_decoder()).read(path, [1])
    assert {timing for timing, _ in read_timings(hostile)} == {None}
    (tmp_path / "own").mkdir()
    videos.rename(tmp_path / "own/label")
    folder_json([str(tmp_path / "own"), str(tmp_path / "own.json")])
    index = json.loads((tmp_path / "own.json").read_text())
    assert {Path(name).name for name in index["database"]} == {"beside", "good"}
    assert web.requests == []


def test_format_comes_from_the_content(tmp_path):
    for number, (suffix, form) in enumerate((("m3u8", "mp4"), ("jpg", "matroska"), ("avs", "avi"))):
        path = draw(tmp_path / f"{number}.mkv", extra=["-c:v", "mpeg4", "-f", form])
        path = path.rename(tmp_path / f"{number}.{suffix}")
        assert count_video(path) == 10


def test_pictures_are_recognised_and_not_read_as_sequences(tmp_path):
    for suffix in ("png", "bmp", "tiff", "webp", "ppm"):
        draw(tmp_path / f"a.{suffix}", extra=["-frames:v", "1"])
        with pytest.raises(UserError, match="picture"):
            count_video(tmp_path / f"a.{suffix}")
    draw(tmp_path / "i%03d.png")
    shutil.copy(tmp_path / "i001.png", tmp_path / "i%03d.mp4")
    shutil.copy(tmp_path / "i001.png", tmp_path / "i%03d.png")
    for name in ("i%03d.mp4", "i%03d.png"):
        with pytest.raises(UserError, match="picture"):
            count_video(tmp_path / name)


def test_lists_match_ffmpegs_demuxers_and_protocols(binary):
    listed = subprocess.run(
        [binary, "-hide_banner", "-demuxers"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^ *D[ d]* +(\S+)", listed, re.MULTILINE))
    names = {name for group in known for name in group.split(",")}
    assert {"mov", "matroska", "avi", "mpegts"} <= names
    wanted = f"{CONTAINERS},{PICTURES},{STREAMED}".split(",")
    newer = {"evc", "vvc", "jpegxl_anim", "webp_anim", "hdr_pipe", "jpegxs_pipe"}
    assert set(wanted) - newer <= names
    assert len(wanted) == len(set(wanted))


def test_urls_open_no_files(web, tmp_path, checkpoint, capsys):
    folder = Path(web.RequestHandlerClass.keywords["directory"])
    secret = draw(tmp_path / "elsewhere/b.ts", extra=["-c:v", "libx264"])
    (folder / "own.m3u8").write_text(hls("a.ts"), "latin-1")
    for name, content in {"hls.m3u8": hls, "concat.mp4": concat, "dash.mpd": dash}.items():
        for number, target in enumerate((f"file://{secret}", f"file:{secret}", str(secret))):
            (folder / f"{number}{name}").write_text(content(target), "latin-1")
    urls = [f"{web.url}/{path.name}" for path in folder.iterdir() if path.name[0].isdigit()]
    status, results = predicted(checkpoint, tmp_path, f"{web.url}/own.m3u8", *urls)
    assert status == 1
    assert len(results) == 10
    assert [name for name, video in results.items() if video["windows"]] == ["own.m3u8"]


@pytest.mark.parametrize(
    "url",
    [
        "concat://a|b", "subfile://a", "data://a", "pipe://0", "fd://0", "unix:///tmp/a",
        "cache://http://a", "async://a", "concatf://a", "crypto://a", "bluray:///a",
        "http://a/b c", "http://a/'b'", "http://a/\\b", "http://a/\nfile /etc/passwd",
        "http://a/" + "b" * 9000,
    ],
)  # fmt: skip
def test_non_network_urls_are_refused(url):
    with pytest.raises(UserError) as caught:
        find_inputs([url])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert "file" not in PROTOCOLS.split(",")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:secret@10.0.0.2:554/live?x=1", "rtsp://10.0.0.2:554/live?x=***"),
        ("http://a/b.mp4?token=abcdef&id=3#part", "http://a/b.mp4?token=***&id=***#***"),
        ("srt://a:9000?passphrase=abcdefghijk", "srt://a:9000?passphrase=***"),
        ("rtsp://me:pass/word@a:554/b", "rtsp://a:554/b"),
        ("rtsp://me:password/b", "rtsp://***"),
        ("http://[::1]:80/a@b.mp4", "http://[::1]:80/a@b.mp4"),
        ("http://a/@me/b.mp4", "http://a/@me/b.mp4"),
        ("http://a/b?secret", "http://a/b?***"),
        ("rtsp://a", "rtsp://a"),
    ],
)
def test_shown_url(url, shown):
    assert shown_url(url) == redacted(url) == shown
    assert redacted(f"no '{url}': gone") == f"no '{shown}': gone"
    for secret in secrets_of(url):
        assert secret not in redacted(f"{secret} {url} {secret}", secrets_of(url))


def command_line(pid):
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_passwords_do_not_leak(binary, checkpoint, tmp_path, scheme):
    if binary == SYSTEM and scheme != "http":
        pytest.skip("as with the other ffmpeg")
    password, token = "pass" + "word47", "tok" + "en4711"
    with dripping(b"", b"", pause=0.05) as place:
        url = f"{scheme}://user47:{password}@{place}/a.mp4?key={token}"
        outputs = ("--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
        arguments = (url, "--checkpoint", checkpoint, *outputs, *CPU)
        with Command("-m", "util_scripts.predict_video", *arguments) as command:
            command.wait_until(
                lambda: any(b"ffmpeg" in command_line(p) for p in command.processes())
            )
            seen = b"\n".join(command_line(f.name) for f in Path("/proc").iterdir())
            for secret in (password, token, "user47"):
                assert secret.encode() not in seen
            assert place.encode() in seen  # the command itself was seen
            command.process.terminate()
            ended = command.finish()
    for text in (ended.text, *(path.read_text() for path in tmp_path.glob("a.*"))):
        assert password not in text
        assert token not in text
        assert "user47" not in text


def test_server_errors_hide_secrets_of_the_url(checkpoint, tmp_path, capsys, web):
    folder = Path(web.RequestHandlerClass.keywords["directory"])
    (folder / "list.m3u8").write_text(hls("none.ts?token=other4711"), "latin-1")
    (folder / "text.mp4").write_text("nothing")
    place = web.url.removeprefix("http://")
    names = ("none.mp4", "list.m3u8", "text.mp4", "a.ts")
    urls = [f"http://user47:password47@{place}/{name}?key=token4711" for name in names]
    urls.append("srt://127.0.0.1:1?passphrase=passphrase47&connect_timeout=50")
    status, results = predicted(checkpoint, tmp_path, *urls[:4])
    assert status == 1
    assert results["a.ts?key=***"]["windows"]
    assert "404" in results["none.mp4?key=***"]["problem"]
    assert predict(checkpoint, urls[4]) == 1
    said = "".join(capsys.readouterr()) + (tmp_path / "out.json").read_text()
    for secret in ("password47", "token4711", "user47", "passphrase47", "other4711"):
        assert secret not in said
    assert web.requests.count("/a.ts?key=token4711") >= 1


def test_urls_that_differ_only_in_secrets_are_numbered():
    found = find_inputs(["http://a/b?id=1", "http://a/b?id=2", "http://a/c"])
    assert [video.name for video in found] == ["http://a/b?id=***", "http://a/b?id=*** (2)",
                                               "http://a/c"]  # fmt: skip


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n"],
)
def test_slow_server_times_out(checkpoint, tmp_path, monkeypatch, capsys, start):
    monkeypatch.setattr(video_reader, "PATIENCE", 2)
    with dripping(start, b"x", pause=0.1) as place:
        assert predict(checkpoint, f"http://{place}/a.mp4") == 1
    assert "no frame for 2 s" in capsys.readouterr().err


def test_stalled_stream_keeps_its_results(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video_reader, "PATIENCE", 3)
    video = draw(tmp_path / "a.ts", seconds=40, extra=["-c:v", "libx264", "-g", "10"])
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    with dripping(head + video.read_bytes(), b"", pause=0.1) as place:
        _, results = predicted(checkpoint, tmp_path, f"http://{place}/a.ts")
    assert results["a.ts"]["windows"]
    assert "no frame for 3 s" in results["a.ts"]["problem"]


def test_a_live_stream_that_breaks_off_is_an_error(checkpoint, tmp_path, capsys):
    video = draw(tmp_path / "a.ts", seconds=4, extra=["-c:v", "libx264", "-g", "10"])
    head = b"HTTP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    with dripping(head + video.read_bytes(), b"", pause=0.1, ends=True) as place:
        url = f"http://{place}/a.ts"
        assert predicted(checkpoint, tmp_path, url)[0] == 0  # a damaged video
        status, results = predicted(checkpoint, tmp_path, url, "--live")
    assert status == 1
    assert results["a.ts"]["windows"]
    problem = results["a.ts"]["problem"]
    assert problem.startswith("the stream broke off: ")
    assert f"a.ts: {problem}" in capsys.readouterr().err


def test_network_and_pipe_wait_equally_long():
    [script] = [word for word in input_of_url("rtsp://a/b") if not isinstance(word, str)]
    assert f"option timeout {video_reader.PATIENCE}000000\n" in script.content


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Videos, one of them rotated, which older versions can't write."""
    folder = tmp_path_factory.mktemp("drawn")
    extra = ["-c:v", "libx264", "-bf", "3"]
    upright = draw(folder / "up.mp4", seconds=3, rate=12, extra=extra)
    draw(folder / "up.ts", extra=extra)
    turn = ["-display_rotation:v:0", "90", *input_of(upright), "-c", "copy"]
    if Ffmpeg().run(["-y", *turn, f"file:{folder}/turned.mp4"]).returncode:
        (folder / "turned.mp4").unlink(missing_ok=True)
    return folder


def test_url_gives_the_same_frames_as_the_file(drawn, binary, tmp_path):
    """Opened through a playlist, as URLs are, a video keeps rotation, rate and last frames."""
    with serving(drawn) as web:
        for path in drawn.iterdir():
            runs = []
            for number, source in enumerate(
                (input_of(path), input_of_url(f"{web.url}/{path.name}"))
            ):
                raw = tmp_path / f"{number}.rgb"
                output = ["-map", "0:V:0", "-fps_mode", "passthrough", "-f", "rawvideo", str(raw)]
                runs.append(Ffmpeg().run(["-y", *source, *output]))
            assert runs[0].rate == runs[1].rate
            assert runs[0].n_frames == runs[1].n_frames > 0
            assert (tmp_path / "0.rgb").read_bytes() == (tmp_path / "1.rgb").read_bytes()


def test_overlay_of_a_url_has_sound(checkpoint, tmp_path):
    sound = ["-f", "lavfi", "-i", "sine=d=2", "-c:v", "libx264", "-shortest"]
    draw(tmp_path / "web/a.mp4", seconds=2, size="128x96", extra=sound)
    with serving(tmp_path / "web") as web:
        url = f"{web.url}/a.mp4?token=token4711"
        assert predict(checkpoint, url, "--overlay", tmp_path / "out.mp4") == 0
    source = ["-i", str(tmp_path / "out.mp4"), "-map", "0:a", "-f", "null", "-"]
    assert Ffmpeg().run(source).returncode == 0
    assert count_video(tmp_path / "out.mp4") == 20
