import pytest

from errors import UserError
from util_scripts.ffmpeg import Ffmpeg, find_ffmpeg


@pytest.fixture
def fresh():
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


def test_the_environment_comes_first(fresh, monkeypatch, tmp_path):
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\nexit 3\n")
    own.chmod(0o755)
    monkeypatch.setenv("FFMPEG", str(own))
    assert find_ffmpeg() == str(own)
    assert Ffmpeg().run([]).returncode == 3


def test_a_wrong_environment_is_told(fresh, monkeypatch):
    monkeypatch.setenv("FFMPEG", "/no/such/ffmpeg")
    with pytest.raises(UserError, match="/no/such/ffmpeg"):
        find_ffmpeg()


def test_complaints_and_format(tmp_path):
    from tests.videos import draw

    path = draw(tmp_path / "a.avi")
    ran = Ffmpeg().run(["-i", str(path), "-f", "null", "-"])
    assert (ran.returncode, ran.input_format, ran.complaints) == (0, "avi", [])
    ran = Ffmpeg().run(["-i", str(tmp_path / "none"), "-f", "null", "-"])
    assert ran.returncode != 0 and "No such file" in ran.complaints[0]


def test_nothing_runs_after_stop(tmp_path):
    ffmpeg = Ffmpeg()
    ffmpeg.stop()
    assert ffmpeg.run(["-version"]).complaints == ["interrupted"]
