import pytest

from errors import UserError
from media.ffmpeg import Ffmpeg, Stopped, find_ffmpeg


@pytest.fixture
def fresh():
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


def test_ffmpeg_from_the_environment_wins(fresh, monkeypatch, tmp_path):
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\nexit 3\n")
    own.chmod(0o755)
    monkeypatch.setenv("FFMPEG", str(own))
    assert find_ffmpeg() == str(own)
    assert Ffmpeg().run([]).returncode == 3


def test_wrong_ffmpeg_in_the_environment_is_an_error(fresh, monkeypatch):
    monkeypatch.setenv("FFMPEG", "/no/such/ffmpeg")
    with pytest.raises(UserError, match="/no/such/ffmpeg"):
        find_ffmpeg()


def test_errors_and_format(tmp_path):
    from tests.videos import draw

    path = draw(tmp_path / "a.avi")
    ran = Ffmpeg().run(["-i", str(path), "-f", "null", "-"])
    assert (ran.returncode, ran.input_format, ran.errors) == (0, "avi", [])
    ran = Ffmpeg().run(["-i", str(tmp_path / "none"), "-f", "null", "-"])
    assert ran.returncode != 0
    assert "No such file" in ran.errors[0]


def test_run_after_stop_raises(tmp_path):
    ffmpeg = Ffmpeg()
    ffmpeg.stop()
    with pytest.raises(Stopped):
        ffmpeg.run(["-version"])


def test_facts_from_the_log(tmp_path):
    from tests.videos import draw

    path = draw(tmp_path / "a.mp4", seconds=2, rate=12)
    ran = Ffmpeg().run(["-i", str(path), "-f", "null", "-"])
    assert (ran.seconds, ran.rate, ran.timed_out) == (2.0, 12.0, False)
    assert ran.version


def test_timeout_kills_the_process(fresh, monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60 & wait\n")
    slow.chmod(0o755)
    monkeypatch.setenv("FFMPEG", str(slow))
    ran = Ffmpeg().run([], timeout=0.2)
    assert ran.timed_out
    assert ran.returncode < 0


PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10")
RAW = ("-vf", "showinfo=checksum=0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")


def test_stream_gives_frames_and_times():
    stream = Ffmpeg().stream(["-t", "0.3", *PICTURE, *RAW])
    times = []
    while len(stream.pipe.read(64 * 48 * 3)) == 64 * 48 * 3:
        times.append(stream.next_time())
    ran = stream.finish()
    assert times == pytest.approx([0, 0.1, 0.2])
    assert (ran.returncode, ran.rate, ran.errors) == (0, 10.0, [])
    assert stream.next_time() is None  # and does not wait


@pytest.mark.parametrize("is_killed", [True, False])
def test_abandoned_stream_ends(is_killed):
    stream = Ffmpeg().stream([*PICTURE, *RAW])  # without end
    assert stream.pipe.read(1)
    if is_killed:
        stream.kill()
    assert stream.finish().returncode != 0


def test_feed_reports_output_errors(tmp_path):
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-i", "-"]
    feed = Ffmpeg().feed([*raw, str(tmp_path / "none/a.avi")])
    with pytest.raises(BrokenPipeError):
        for _ in range(1000):
            feed.pipe.write(bytes(64 * 48 * 3))
    assert "No such file" in feed.finish().errors[0]
