"""The server of util_scripts.serve over HTTP: scores as they are computed, the queue, limits."""

import csv
import http.client
import io
import json
import re
from contextlib import suppress

import pytest

from tests.serve.client import UPLOAD, running, wait_until
from tests.test_predict_video import LABELS, MODEL, predicted, write_checkpoint
from utils.outputs import OVERLAY_MARK

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")

from serving import hub


def test_scores_are_streamed_and_equal_those_of_predict_video(client, checkpoint, video, tmp_path):
    sent = client.send(video.read_bytes(), "my video.avi")
    assert sent.status == 201
    messages = client.messages_until(sent.json["video"], "done", "failed")
    assert messages[0] | {"video": ""} == {
        "video": "", "task": "scores", "state": "waiting", "ahead": 0
    }  # fmt: skip
    assert (messages[-1]["state"], messages[-1]["problem"]) == ("done", "")
    windows = [message["window"] for message in messages if "window" in message]
    _, ours = predicted(checkpoint, tmp_path, video, "--stride", "4")
    expected = ours["a.avi"]["windows"]
    assert len(windows) == len(expected) > 4
    for window, other in zip(windows, expected, strict=True):
        assert (window["start"], window["end"]) == (other["start"], other["end"])
        scores = [score for _, score in sorted(window["scores"])]
        assert scores == pytest.approx(other["scores"], abs=1e-3)
    [strips] = [message["strips"] for message in messages if "strips" in message]
    assert {strip["label"] for strip in strips} <= set(LABELS)
    assert all(strip["frames"] and strip["heat"] for strip in strips)

    scores = client.request("GET", client.video(sent.json["video"], "scores.json"))
    content = scores.json
    assert content["checkpoint"] == "best.pth"
    assert content["videos"][0]["video"] == "my video.avi"
    assert len(content["videos"][0]["windows"]) == len(windows)
    assert scores.headers["content-disposition"].endswith("my%20video.scores.json")
    table = client.request("GET", client.video(sent.json["video"], "scores.csv")).body.decode()
    assert len(list(csv.DictReader(io.StringIO(table)))) == len(windows)
    assert not client.uploads()


def test_an_overlay_is_drawn_on_a_second_upload(client, video, tmp_path):
    sent = client.send(video.read_bytes()).json["video"]
    early = client.request("POST", client.video(sent, "overlay"), b"x", UPLOAD)
    assert early.status in (201, 409)  # scored already, or refused
    client.messages_until(sent, "done")
    if early.status == 201:
        client.messages_until(sent, "failed", task="overlay")
    assert client.request("GET", client.video(sent, "overlay.mp4")).status == 404
    again = client.request("POST", client.video(sent, "overlay"), video.read_bytes(), UPLOAD)
    assert again.status == 201
    client.messages_until(sent, "done", task="overlay")
    overlay = client.request("GET", client.video(sent, "overlay.mp4"))
    assert overlay.headers["content-type"] == "video/mp4"
    assert OVERLAY_MARK.encode() in overlay.body
    wait_until(lambda: not client.uploads())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.mp4", b"no video at all", "This can't be used: text, not a video."),
        ("a.mp4", bytes(range(256)) * 20, "This can't be used: moov atom not found."),
        ("b.txt", b"\x89PNG\r\n\x1a\n" + bytes(100), "This can't be used: "),
    ],
)
def test_a_bad_file_is_a_sentence_and_the_server_goes_on(client, video, name, content, problem):
    bad = client.send(content, name).json["video"]
    good = client.send(video.read_bytes()).json["video"]
    last = client.messages_until(bad, "done", "failed")[-1]
    assert last["state"] == "failed"
    assert last["problem"].startswith(problem)
    assert client.messages_until(good, "done", "failed")[-1]["state"] == "done"
    assert client.request("GET", client.video(bad, "overlay.mp4")).status == 404


def test_another_frame_rate_than_the_model_expects_is_named(video, tmp_path):
    write_checkpoint(tmp_path / "best.pth", **MODEL | {"sample_t_stride": 1, "frame_rate": 5.0})
    with running(tmp_path / "best.pth", heat=False) as (client, _):
        client.open_page()
        sent = client.send(video.read_bytes()).json["video"]
        last = client.messages_until(sent, "done", "failed")[-1]
        assert last["problem"].startswith("Clips have 10 frames per second, the weights expect 5: ")


def test_an_empty_upload_is_a_sentence(client):
    sent = client.send(b"").json["video"]
    assert client.messages_until(sent, "failed")[-1]["problem"] == (
        "This can't be used: an empty file."
    )


def test_videos_wait_in_order(tmp_path):
    """Positions in the queue, which changes as tasks end and are removed."""
    queue = hub.Hub(tmp_path)
    session = queue.open_session()
    tasks = []
    for number in range(4):
        video = queue.add_video(session, str(number), f"{number}.avi")
        tasks.append(hub.Task(hub.SCORES, video, video.folder / "upload"))
        queue.add_task(session, tasks[-1])

    def ahead():
        lines = [json.loads(line) for _, line in session.log.after(0)]
        last = {line["video"]: line for line in lines}
        return [last[t.video.id].get("ahead", "-") for t in tasks if t.video.id in last]

    assert ahead() == [0, 1, 2, 3]
    with queue.next_task() as task:
        assert task is tasks[0]
        assert ahead() == ["-", 1, 2, 3]
        queue.remove(session, tasks[1].video)
        assert ahead() == ["-", 1, 2]
    assert ahead() == ["-", 0, 1]
    with queue.next_task() as task:
        assert task is tasks[2]
    with pytest.raises(hub.Refused, match="being done already"):
        queue.add_task(session, tasks[3])
    for number in range(hub.MAX_WAITING - 2):
        video = queue.add_video(session, f"more{number}", "more.avi")
        queue.add_task(session, hub.Task(hub.SCORES, video, video.folder / "upload"))
    with queue.place():  # an upload has a place before it has arrived
        assert queue.why_full.startswith("The queue of the server is full")
        with pytest.raises(hub.Full), queue.place():
            pass
    assert not queue.why_full


def test_the_log_of_messages_can_be_resumed(client, video):
    sent = client.send(video.read_bytes()).json["video"]
    client.messages_until(sent, "done")
    stream = client.messages()
    first = [next(stream) for _ in range(4)]
    stream.close()
    again = client.messages(after=2)
    assert [next(again), next(again)] == first[2:]
    again.close()


def test_a_video_of_2_gb_is_refused_before_it_is_sent(client):
    head = f"POST {client.new_video()} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: {2 << 30}\r\n\r\n"
    answer = client.raw(head.encode())
    assert answer.status == 413
    assert answer.json["error"] == "The video has 2.1 GB; at most 3 MB are accepted."


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣"])
def test_a_length_that_is_none_is_refused(client, length):
    head = f"POST {client.new_video()} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: {length}\r\n\r\n"
    assert client.raw(head.encode()).status == 400


def test_more_than_was_declared_is_cut_off(client):
    chunks = (bytes(1 << 20) for _ in range(4))
    with suppress(ConnectionError, http.client.HTTPException):  # it does not read the rest
        assert client.send(chunks).status == 413
    assert not client.uploads()


def test_an_upload_that_breaks_off_leaves_nothing(client):
    """And as long as the server has not noticed, the page has to wait before it sends it again."""
    address = client.new_video()
    head = f"POST {address} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: 100000\r\n\r\n"
    connection = http.client.HTTPConnection(client.place)
    connection.connect()
    connection.sock.sendall(head.encode() + bytes(1000))
    wait_until(client.uploads)
    again = client.request("POST", address, b"x", UPLOAD)
    assert (again.status, again.json["error"].partition(";")[0]) == (503, "The upload broke off")
    connection.close()
    wait_until(lambda: not client.uploads())
    assert client.request("POST", address, b"x", UPLOAD).status == 201


def test_a_video_that_takes_too_long_keeps_its_scores_so_far(checkpoint, long_video, out_of_time):
    with running(checkpoint, seconds=600.0, heat=False) as (client, _):
        client.open_page()
        sent = client.send(long_video.read_bytes()).json["video"]
        messages = client.messages_until(sent, "done", "failed")
        assert messages[-1]["problem"].startswith("Stopped after 10 minutes of computing")
        assert [timer.seconds for timer in out_of_time] == [600.0]
        [scores] = client.request("GET", client.video(sent, "scores.json")).json["videos"]
        assert re.fullmatch(r"scored until 0:0\d:.*: --max_minutes 10", scores["problem"])
        [totals] = [m["totals"] for m in messages if "totals" in m]
        assert totals["is_cut"]
        assert totals["seconds"] == scores["windows"][-1]["end"] < 120


def test_removing_a_video_ends_its_work(client, long_video, video):
    sent = client.send(long_video.read_bytes()).json["video"]
    client.messages_until(sent, "running")
    assert client.request("DELETE", client.video(sent)).status == 200
    assert client.request("GET", client.video(sent, "scores.json")).status == 404
    after = client.send(video.read_bytes()).json["video"]
    client.messages_until(after, "done")
    assert client.folder_of(after).is_dir()
    assert not client.folder_of(sent).exists()
