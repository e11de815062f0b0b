import errno
import os
import shutil
import signal
import unicodedata

import pytest
from PIL import Image

from errors import UserError
from media.ffmpeg import find_ffmpeg
from media.ffmpeg_log import FfmpegRun
from media.manifest import FAILED, PARTIAL
from media.verdicts import judge, judge_whole
from tests.commands import PATIENCE, Command
from tests.videos import draw, draw_sound, names, shared
from util_scripts.generate_video_hdf5 import main as to_hdf5
from util_scripts.generate_video_jpgs import main


def extract(videos, jpg, *flags):
    return main([str(videos), str(jpg), "test", *flags])


def tree(folder):
    """{relative path: bytes} of all frames."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jpg")}


def folders(jpg):
    """The content of JPG_DIR except the manifest."""
    return [name for name in names(jpg) if name != "manifest.jsonl"]


@pytest.fixture
def set_ffmpeg(monkeypatch, tmp_path):
    """Return a function that replaces ffmpeg by a shell script."""

    def set_it(script):
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        monkeypatch.setenv("FFMPEG", str(program))
        find_ffmpeg.cache_clear()

    yield set_it
    find_ffmpeg.cache_clear()


def test_layout_and_size(tmp_path, capsys):
    draw(tmp_path / "v/A/wide.avi", size="64x48")
    draw(tmp_path / "v/A/deep/er/tall.MP4", size="48x64")
    draw(tmp_path / "v/top.mkv")
    draw(tmp_path / "v/A/none.avi").rename(tmp_path / "v/A/none")
    assert extract(tmp_path / "v", tmp_path / "jpg", "--size", "24") == 0
    assert "4 done, 0 already there" in capsys.readouterr().out
    assert names(tmp_path / "jpg/A/wide") == [f"image_{i:05d}.jpg" for i in range(1, 11)]
    assert Image.open(tmp_path / "jpg/A/wide/image_00001.jpg").size == (32, 24)
    assert Image.open(tmp_path / "jpg/A/deep/er/tall/image_00001.jpg").size == (24, 32)
    assert len(names(tmp_path / "jpg/top")) == len(names(tmp_path / "jpg/A/none")) == 10
    assert folders(tmp_path / "jpg") == ["A", "top"]


def test_huge_numbers_are_no_overflow(tmp_path):
    draw(tmp_path / "v/A/a.avi")
    huge = "99999999999999999999"
    assert extract(tmp_path / "v", tmp_path / "jpg", "--n_jobs", huge, "--timeout", huge) == 0


def test_second_run_does_nothing(tmp_path, capsys):
    for name in ("a", "b"):
        draw(tmp_path / f"v/A/{name}.avi")
    (tmp_path / "jpg/A/b").mkdir(parents=True)
    extract(tmp_path / "v", tmp_path / "jpg")
    before = tree(tmp_path / "jpg")
    assert len(before) == 20
    capsys.readouterr()
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    assert "0 done, 2 already there" in capsys.readouterr().out
    assert tree(tmp_path / "jpg") == before


@pytest.mark.parametrize(
    "name", ["-y", "100%d", "a b'\"c", "naïve 視", "two\nlines", "a.b.c", "[x]&#!(1)", "a:b"]
)
def test_odd_names(tmp_path, name):
    draw(tmp_path / "in.avi").rename(tmp_path / "x")
    (tmp_path / "v/A").mkdir(parents=True)
    (tmp_path / "x").rename(tmp_path / "v/A" / f"{name}.avi")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    assert names(tmp_path / "jpg/A") == [name]
    assert len(names(tmp_path / "jpg/A" / name)) == 10


def test_a_name_is_not_read_as_an_error(tmp_path, capsys):
    full = os.strerror(errno.ENOSPC)
    draw(tmp_path / "in.avi").rename(tmp_path / "x")
    for folder in ("A", f"B\n[error] {full}\n[fatal] {full}", f"C\r[error] {full}"):
        (tmp_path / "v" / folder).mkdir(parents=True)
        shutil.copy(tmp_path / "x", tmp_path / "v" / folder / f"x\n[error] {full}.avi")
    (tmp_path / f"v/A/{full}.avi").write_bytes(bytes(range(256)) * 40)
    assert extract(tmp_path / "v", tmp_path / "jpg") == 1
    out = capsys.readouterr().out
    assert "3 done, 0 already there, 0 partial, 0 left out, 1 failed" in out
    assert f"A/{full}.avi: Invalid data found" in out


def test_non_videos_are_listed(tmp_path, capsys):
    folder = tmp_path / "v/A"
    draw(folder / "good.avi")
    draw(folder / "picture.png", extra=["-frames:v", "1"])
    draw(folder / "photo.jpg", extra=["-frames:v", "1"])
    (folder / "notes.txt").write_text("no video at all\n" * 50)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\ngood.avi\n")
    (folder / "empty.avi").touch()
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    draw_sound(folder / "sound.wav")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 1
    out = capsys.readouterr().out
    assert "1 done, 0 already there, 0 partial, 5 left out, 2 failed" in out
    assert "A/picture.png: a picture" in out
    assert "A/photo.jpg: a picture" in out
    assert "A/notes.txt: text" in out
    assert "A/list.m3u8: text" in out
    assert "A/empty.avi: an empty file" in out
    assert "A/sound.wav: not a video but audio" in out
    assert names(tmp_path / "jpg/A") == ["good"]


def test_junk_and_other_files_are_not_failures(tmp_path, capsys):
    draw(tmp_path / "v/A/good.avi")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "A/Thumbs.db", "A/.DS_Store"):
        (tmp_path / "v" / name).write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    (tmp_path / "v/A/empty").touch()
    (tmp_path / "v/A/archive.zip").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4)
    (tmp_path / "v/A/README").write_text("where these are from\n")
    for _ in range(2):
        assert extract(tmp_path / "v", tmp_path / "jpg") == 0
        out = capsys.readouterr().out
        assert "0 partial, 3 left out, 0 failed" in out
        assert "A/empty: not a video: an empty file" in out
        assert "A/archive.zip: not a vid" in out
        assert "A/README: text, not a video" in out
        assert "Thumbs" not in out
        assert "DS_Store" not in out
        assert "desktop" not in out
    assert "0 done, 1 already there" in out
    rows = (tmp_path / "jpg/manifest.jsonl").read_text()
    assert "Thumbs" not in rows
    assert rows.count("left_out") == 3


@pytest.mark.parametrize("content", [b"", b"<html>no such video</html>", "a picture"])
def test_non_video_with_a_video_suffix_fails(tmp_path, capsys, content):
    video = tmp_path / "v/A/a.mp4"
    if isinstance(content, bytes):
        video.parent.mkdir(parents=True)
        video.write_bytes(content)
    else:
        draw(tmp_path / "v/A/a.jpg", extra=["-frames:v", "1"]).rename(video)
    for _ in range(2):
        assert extract(tmp_path / "v", tmp_path / "jpg") == 1
        assert "0 left out, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[error] Error opening input: Input/output error", 1),
        ("[error] Error opening input: Invalid data found when processing input", 0),
    ],
)
def test_system_errors_do_not_make_a_file_a_non_video(tmp_path, set_ffmpeg, text, status):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/bare").write_bytes(bytes(range(256)))
    set_ffmpeg(f"echo '{text}' >&2\nexit 1\n")
    assert extract(tmp_path / "v", tmp_path / "jpg") == status


def test_files_beside_a_video_of_the_same_name(tmp_path, capsys):
    draw(tmp_path / "v/A/a.mp4")
    draw(tmp_path / "v/A/a.jpg", extra=["-frames:v", "1"])
    for name in ("a.json", "a.srt", "a", "a.zip"):
        (tmp_path / "v/A" / name).write_text("about a\n")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    out = capsys.readouterr().out
    assert "1 done, 0 already there, 0 partial, 5 left out, 0 failed" in out
    assert "A/a.json: not a video: shares its name with a.mp4" in out
    assert len(names(tmp_path / "jpg/A/a")) == 10


def test_a_truncated_video_is_partial(tmp_path, capsys):
    path = draw(tmp_path / "v/A/cut.mp4", seconds=4, extra=["-movflags", "+faststart", "-g", "5"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    out = capsys.readouterr().out
    assert "1 partial" in out
    assert "A/cut.mp4:" in out
    assert 0 < len(names(tmp_path / "jpg/A/cut")) < 40


def test_videos_with_the_same_output_folder(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/A/a.mp4", seconds=2)
    draw(tmp_path / "v/A/b.avi")
    draw(tmp_path / "v/A/b/c.avi")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 1
    out = capsys.readouterr().out
    assert "A/a.mp4: same output folder as a.avi" in out
    assert "A/b.avi: same name as the folder of videos b" in out
    assert len(names(tmp_path / "jpg/A/a")) == 10
    assert names(tmp_path / "jpg/A/b") == ["c"]


def test_fps_repeats_and_drops(tmp_path):
    draw(tmp_path / "v/A/a.avi", seconds=2, rate=10)
    for fps, expected in (("5", 10), ("20", 40)):
        assert extract(tmp_path / "v", tmp_path / fps, "--fps", fps) == 0
        assert abs(len(names(tmp_path / fps / "A/a")) - expected) <= 1


@pytest.mark.parametrize("flags", [[], ["--interpolate"]])
@pytest.mark.parametrize("form", ["jpgs", "hdf5"])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.avi"])
def test_fps_keeps_one_frame_of_a_short_clip(tmp_path, capsys, name, form, flags):
    draw(tmp_path / "v/A" / name, seconds=0.34, rate=30)  # 10 frames, less than half a second
    command = {"jpgs": main, "hdf5": to_hdf5}[form]
    for _ in range(2):
        assert (
            command([str(tmp_path / "v"), str(tmp_path / "out"), "test", "--fps", "1", *flags]) == 0
        )
    assert "0 done, 1 already there" in capsys.readouterr().out
    assert '"frames": 1,' in (tmp_path / "out/manifest.jsonl").read_text()


def test_fps_of_a_broken_video_reports_the_cause(tmp_path, capsys):
    (tmp_path / "v/A").mkdir(parents=True)
    (tmp_path / "v/A/a.mp4").write_bytes(bytes(range(256)) * 40)
    assert extract(tmp_path / "v", tmp_path / "jpg", "--fps", "1") == 1
    assert "A/a.mp4: moov atom not found" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--fps", "5"]])
def test_a_photo_in_the_form_of_an_mp4_is_a_picture(tmp_path, capsys, flags):
    for name, seconds, brand in (("still", 0.1, b"heic"), ("burst", 1, b"mif1"), ("v", 0.1, b"")):
        path = draw(tmp_path / f"v/A/{name}.mp4", seconds=seconds)
        content = path.read_bytes()
        path.write_bytes(content[:8] + (brand or content[8:12]) + content[12:])
        path.rename(path.with_suffix(f".{brand.decode() or 'mp4'}"))
    assert extract(tmp_path / "v", tmp_path / "jpg", *flags) == 0
    out = capsys.readouterr().out
    assert "A/still.heic: a picture, not a video" in out
    assert "2 done, 0 already there, 0 partial, 1 left out, 0 failed" in out


def test_gif_of_one_frame_is_a_video(tmp_path, capsys):
    for name in ("a.gif", "b.avi"):
        draw(tmp_path / "v/A" / name, seconds=0.1)
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    assert "2 done" in capsys.readouterr().out
    assert names(tmp_path / "jpg/A/a") == names(tmp_path / "jpg/A/b") == ["image_00001.jpg"]


def test_frames_inside_the_video_folder_are_ignored(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    for _ in range(2):
        assert extract(tmp_path / "v", tmp_path / "v/jpg") == 0
    assert "0 done, 1 already there, 0 partial, 0 left out" in capsys.readouterr().out


def test_wrong_flags(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        extract(tmp_path / "none", tmp_path / "jpg")
    (tmp_path / "v").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        extract(tmp_path / "v", tmp_path / "jpg")
    draw(tmp_path / "v/a.avi")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: is not a folder"):
        extract(tmp_path / "v", tmp_path / "file")


def command_words(root):
    videos, jpg = root / "v", root / "jpg"
    return ("-m", "util_scripts.generate_video_jpgs", videos, jpg, "test", "--n_jobs", "1")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_run_can_be_continued(tmp_path, capsys, number):
    """Interrupted inside the third video, which ffmpeg would not finish."""
    for i in range(4):
        draw(tmp_path / f"v/A/{i}.avi")
    jpg, is_inside, ffmpeg = (tmp_path / name for name in ("jpg", "is inside", "ffmpeg"))
    ffmpeg.write_text(f"""#!/bin/sh
        case "$*" in */A/2.avi*)
            echo half > image_00001.jpg
            touch '{is_inside}'
            exec sleep {PATIENCE} ;;
        esac
        exec '{find_ffmpeg()}' "$@"
        """)
    ffmpeg.chmod(0o755)
    with Command(*command_words(tmp_path), environ={"FFMPEG": str(ffmpeg)}) as command:
        command.wait_until(is_inside.exists)
        command.process.send_signal(number)
        if number == signal.SIGKILL:
            assert command.finish(is_clean=False).status == -number
        else:
            assert command.finish().status == 128 + number
    whole = {folder.name: len(names(folder)) for folder in (jpg / "A").iterdir()}
    assert whole == {"0": 10, "1": 10}  # never half a video under its final name
    if number != signal.SIGKILL:
        assert folders(jpg) == ["A"]
    assert extract(tmp_path / "v", jpg) == 0
    assert "2 done, 2 already there" in capsys.readouterr().out
    assert folders(jpg) == ["A"]
    extract(tmp_path / "v", tmp_path / "undisturbed")
    assert tree(jpg) == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_full_disk_ends_the_run(number):
    ran = FfmpegRun(1, "avi", [f"av_interleaved_write_frame(): {os.strerror(number)}"])
    with pytest.raises(UserError, match="the disk is full"):
        judge(ran, n_frames=7)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_lost_disk_does_not_truncate_a_video(number):
    ran = FfmpegRun(0, "avi", ["damaged", f"Error during demuxing: {os.strerror(number)}"])
    assert judge_whole(ran, n_frames=57, timeout=0, name="a").status == FAILED
    assert judge(ran, n_frames=57).status == PARTIAL  # of a stream that is read once
    ran = FfmpegRun(0, "avi", ["damaged"])
    assert judge_whole(ran, n_frames=57, timeout=0, name="a").status == PARTIAL


def test_advice_of_ffmpeg_after_an_error_of_the_system():
    advice = "Try to increase `ulimit -v` or decrease `ulimit -s`."
    error = f"pthread_create failed: {os.strerror(errno.EAGAIN)}. {advice}"
    assert judge_whole(FfmpegRun(1, "avi", [error]), n_frames=3, timeout=0, name="a") == (
        FAILED,
        f"{error} after 3 frames",
    )


def test_frames_before_a_disk_error_are_not_kept(tmp_path, set_ffmpeg, capsys):
    draw(tmp_path / "v/A/a.avi")
    set_ffmpeg("echo frame > image_00001.jpg\necho '[error] Stale file handle' >&2\n")
    assert extract(tmp_path / "v", tmp_path / "jpg") == 1
    assert "A/a.avi: Stale file handle after 1 frames" in capsys.readouterr().out
    assert folders(tmp_path / "jpg") == []


def test_ucf101_clips(tmp_path):
    assert extract(shared("data/ucf101_samples"), tmp_path / "jpg") == 0
    jpg = tmp_path / "jpg"
    counts = {name: len(names(jpg / name)) for name in folders(jpg)}
    assert counts == {"v_ApplyEyeMakeup_g01_c01": 164, "v_BaseballPitch_g01_c01": 107}
    image = Image.open(tmp_path / "jpg/v_BaseballPitch_g01_c01/image_00001.jpg")
    assert image.size == (320, 240)


def test_two_runs_at_once(tmp_path):
    for i in range(4):
        draw(tmp_path / f"v/A/{i}.avi", seconds=4)
    words = command_words(tmp_path)
    with Command(*words) as one, Command(*words) as other:
        assert [command.finish().status for command in (one, other)] == [0, 0]
    assert [len(names(tmp_path / f"jpg/A/{i}")) for i in range(4)] == [40] * 4
    assert folders(tmp_path / "jpg") == ["A"]
    extract(tmp_path / "v", tmp_path / "undisturbed")
    assert tree(tmp_path / "jpg") == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_jpg_dir_must_not_be_the_video_folder(tmp_path, monkeypatch, folder):
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path / "videos")
    with pytest.raises(UserError, match="give the frames their own, such as /"):
        main([folder, folder, "kinetics"])


def test_only_the_videos_of_a_table(tmp_path, capsys):
    """Others are neither extracted nor, if they were earlier, taken for deleted."""
    for name in ("A/a", "A/b 1", "B/c"):
        draw(tmp_path / f"v/{name}.avi", size="32x32")
    (tmp_path / "v/A/notes.txt").write_text("nothing")
    table = tmp_path / "list.csv"
    table.write_text("\ufefflabel;path\nx;A/b 1.avi\ny;./B/c.avi\n", encoding="utf-8")
    assert extract(tmp_path / "v", tmp_path / "jpg", "--only", str(table)) == 0
    assert folders(tmp_path / "jpg") == ["A", "B"]
    assert names(tmp_path / "jpg/A") == ["b 1"]
    assert "2 done, 0 already there, 0 partial, 0 left out" in capsys.readouterr().out
    table.write_text("path\nA/a.avi\n")
    assert extract(tmp_path / "v", tmp_path / "jpg", "--only", str(table)) == 0
    assert extract(tmp_path / "v", tmp_path / "jpg") == 0
    out = capsys.readouterr().out
    assert "orphaned" not in out
    assert "0 done, 3 already there" in out
    with pytest.raises(UserError, match="--prune needs all videos: run it without --only"):
        extract(tmp_path / "v", tmp_path / "jpg", "--only", str(table), "--prune")


def test_spellings_of_a_table(tmp_path, capsys):
    """Rows that match no file are listed; without a suffix, the video is meant."""
    for name in ("A/a.avi", "A/b.MP4", "B/é.avi", "B/d.mkv", "B/e.avi"):
        draw(tmp_path / "v" / unicodedata.normalize("NFD", name), size="32x32")
    (tmp_path / "v/B/d.dat").write_text("about d")
    table = tmp_path / "list.csv"
    rows = ["A\\a.avi", "A/b.mp4", "B/é.avi ", "B/d", f"{tmp_path}/v/B/e.avi", "a/a.avi", "A/b.avi"]
    table.write_text("\n".join(["path", *rows, "gone"]), encoding="utf-8")
    assert extract(tmp_path / "v", tmp_path / "jpg", "--only", str(table)) == 1
    out = capsys.readouterr().out
    assert "5 done, 0 already there, 0 partial, 0 left out, 0 failed, 3 without a file" in out
    assert "matches:\n  line 7: a/a.avi\n  line 8: A/b.avi\n  line 9: gone\n5 done" in out
