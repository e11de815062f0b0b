"""A server of util_scripts.serve with a tiny model, and videos for it."""

import os
from types import SimpleNamespace

import pytest

from serving import hub, worker
from tests.browsers import running_browser
from tests.serve.client import running
from tests.serve.pages import opened
from tests.serve.timers import Timer
from tests.test_predict_video import MODEL, write_checkpoint
from tests.videos import draw

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret-model-place") / "best.pth"
    write_checkpoint(path, **MODEL | {"sample_t_stride": 1})
    return path


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "a.avi"
    return draw(path, seconds=3, size="64x48", extra=("-q:v", "2"))


@pytest.fixture(scope="session")
def long_video(tmp_path_factory):
    """A video whose scores take some seconds."""
    path = tmp_path_factory.mktemp("videos") / "long.avi"
    return draw(path, seconds=120, rate=25, size="64x48", extra=("-q:v", "9"))


@pytest.fixture
def out_of_time(monkeypatch):
    """The limit of computing time for a video is reached at its first window."""
    timers, original = [], hub.Task.publish

    def make(seconds, function, arguments):
        timers.append(Timer(seconds, function, arguments))
        return timers[-1]

    def publish(task, state, **content):
        original(task, state, **content)
        if "window" in content and not timers[-1].is_cancelled:
            timers[-1].fire()

    monkeypatch.setattr(worker, "threading", SimpleNamespace(Timer=make))
    monkeypatch.setattr(hub.Task, "publish", publish)
    return timers


@pytest.fixture(scope="module")
def site(checkpoint):
    with running(checkpoint) as (client, _):
        yield client


@pytest.fixture
def client(site):
    """A client with a page of its own."""
    site.open_page()
    return site


@pytest.fixture(scope="module")
def browser():
    with running_browser(*CAMERA) as browser:
        yield browser


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Files that the browser can play, that it can't, and that are no videos."""
    folder = tmp_path_factory.mktemp("videos")
    draw(folder / "plays.webm", seconds=4, rate=15, size="96x64", extra=("-c:v", "libvpx"))
    draw(folder / "does not play.avi", seconds=2, extra=("-c:v", "mpeg4"))
    draw(folder / "third.webm", seconds=1, rate=15, extra=("-c:v", "libvpx"))
    draw(folder / "other.webm", seconds=1, rate=15, extra=("-vf", "negate", "-c:v", "libvpx"))
    (folder / "broken.mp4").write_bytes(bytes(range(256)) * 20)
    with (folder / "large.mp4").open("wb") as file:
        os.truncate(file.fileno(), 2 << 30)
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture
def page(browser, site):
    with opened(browser, site.url) as page:
        yield page
