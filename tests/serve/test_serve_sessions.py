"""How long the server of util_scripts.serve keeps a page and its videos, and room in its queue."""

import asyncio
import http.client
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tests.serve.client import UPLOAD, running, wait_until
from tests.serve.timers import Timer

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")

from serving import app, hub


@contextmanager
def connected(client):
    """A page that receives messages inside the block, from its first bytes on."""
    page = http.client.HTTPConnection(client.place)
    page.request("GET", f"/{client.session}/events")
    response = page.getresponse()
    assert response.headers["x-accel-buffering"] == "no"
    response.readline()
    yield
    response.close()
    page.close()


def is_known(client):
    return client.request("GET", f"/{client.session}").status == 200


@pytest.fixture
def timers(monkeypatch):
    """The timers that end sessions, in the order they were set."""
    timers = []

    def call_later(seconds, function, *arguments):
        timers.append(Timer(seconds, function, arguments))
        timers[-1].start()
        return timers[-1]

    loop = SimpleNamespace(call_later=call_later)
    fake = SimpleNamespace(get_running_loop=lambda: loop, sleep=asyncio.sleep)
    monkeypatch.setattr(app, "asyncio", fake)
    return timers


def test_a_page_without_videos_is_kept_for_less_time(checkpoint, timers):
    with running(checkpoint, heat=False) as (client, _):
        client.open_page()
        [timer] = timers
        assert timer.seconds == app.GRACE < app.KEPT
        timer.fire()
        assert not is_known(client)
        answer = client.send(b"x")
        assert answer.json["error"] == "The server no longer knows this page; reload it."


def test_videos_of_a_page_that_does_not_come_back_are_removed(checkpoint, video, timers):
    """The time begins again whenever the connection is lost."""
    with running(checkpoint, heat=False) as (client, _):
        client.open_page()
        with connected(client):
            assert timers[0].is_cancelled
            client.scored(video.read_bytes())
        wait_until(lambda: len(timers) == 2)
        with connected(client):
            assert timers[1].is_cancelled
        wait_until(lambda: len(timers) == 3)
        assert [timer.seconds for timer in timers[1:]] == [app.KEPT] * 2
        assert is_known(client)
        timers[2].fire()
        assert not is_known(client)
        wait_until(lambda: not list(client.folder.iterdir()))


def test_a_page_that_says_goodbye_is_removed_at_once(client, video):
    client.scored(video.read_bytes())
    with connected(client):
        assert client.request("POST", f"/{client.session}/bye").status == 200
        assert not is_known(client)
    wait_until(lambda: not list(client.folder.glob(f"{client.session}*")))


def test_opening_the_page_keeps_nothing(client, monkeypatch):
    """A frame of another site must not use up the sessions."""
    monkeypatch.setattr(hub, "MAX_SESSIONS", 0)
    assert client.request("GET", "/").status == 200
    refused = client.request("POST", "/sessions")
    assert (refused.status, refused.json["error"]) == (503, "Too many pages are open; close some.")
    foreign = client.request("POST", "/sessions", headers={"Origin": "http://evil.example"})
    assert foreign.status == 403


def test_a_full_queue_refuses_a_video_before_it_is_sent(checkpoint, video, monkeypatch):
    monkeypatch.setattr(hub, "MAX_WAITING", 1)
    begin = threading.Event()
    with running(checkpoint, heat=False, begin=begin) as (client, _):
        client.open_page()
        state = f"/{client.session}"
        assert client.request("GET", state).json == {"full": ""}
        sent = client.send(video.read_bytes()).json["video"]
        full = client.request("GET", state).json["full"]
        assert full == "The queue of the server is full; this is sent when there is room."
        head = f"POST {client.new_video()} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: 1000\r\n\r\n"
        answer = client.raw(head.encode())
        assert (answer.status, answer.json["error"]) == (503, full)
        begin.set()
        client.messages_until(sent, "done")
        wait_until(lambda: client.request("GET", state).json == {"full": ""})
        client.scored(video.read_bytes())


def test_a_video_can_be_removed_before_it_arrives(client, video):
    address = client.new_video()
    assert client.request("DELETE", address).status == 200
    late = client.request("POST", address, video.read_bytes(), UPLOAD)
    assert (late.status, late.json["error"]) == (
        409,
        "This video has been sent or removed already.",
    )


def test_a_video_that_is_removed_while_it_arrives_is_not_scored(client):
    address = client.new_video()
    head = f"POST {address} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: 2000\r\n\r\n"
    connection = http.client.HTTPConnection(client.place)
    connection.connect()
    connection.sock.sendall(head.encode() + bytes(1000))
    wait_until(client.uploads)
    assert client.request("DELETE", address).status == 200
    connection.sock.sendall(bytes(1000))
    response = http.client.HTTPResponse(connection.sock)
    response.begin()
    assert response.status == 409
    connection.close()
    assert not list(client.folder.glob(f"{client.session}*"))


@pytest.mark.parametrize("number", ["x", "..", "A" * 32, "a" * 33])
def test_odd_ids_are_refused(client, number):
    answer = client.request("POST", f"{client.video(number)}?name=a.mp4", b"x", UPLOAD)
    assert answer.status in (404, 405)


def test_an_id_is_used_once(client, video):
    sent = client.send(video.read_bytes()).json["video"]
    assert client.request("POST", client.video(sent), video.read_bytes(), UPLOAD).status == 409
    client.messages_until(sent, "done")
