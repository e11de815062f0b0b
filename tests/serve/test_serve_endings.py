"""Start and end of util_scripts.serve: flags, the port, missing packages, signals."""

import http.client
import re
import signal
import sys

import pytest

from errors import UserError
from serving.server import listen
from tests.commands import Command
from tests.serve.client import UPLOAD, Client
from util_scripts import serve

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port 70000: must be from 0"),
        (["--stride", "-1"], "--stride -1: must not be negative"),
        (["--max_minutes", "0"], "--max_minutes 0: must be above 0"),
        (["--max_megabytes", "nan"], "--max_megabytes nan: must be above 0"),
        (["--host_name", "a:80"], "--host_name a:80: not the name of a machine"),
        (["--host", "no such host", "--port", "0"], "--host no such host --port 0: can't listen"),
    ],
)
def test_a_wrong_flag_is_one_line(checkpoint, flags, message):
    with pytest.raises(UserError) as caught:
        serve.main([*flags, "--checkpoint", str(checkpoint), "--no_cuda"])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_one_line(checkpoint):
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=f"--port {port}: can't listen: .*; choose another"):
            serve.main(["--port", port, "--checkpoint", str(checkpoint)])


def test_a_missing_package_is_one_line(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match="needs more packages: pip install starlette uvicorn"):
        serve.main(["--port", "0", "--checkpoint", str(checkpoint)])


def test_names_of_a_server_that_others_can_open(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Box.lan")
    assert serve.own_names("127.0.0.1", []) == {"localhost"}
    assert serve.own_names("0.0.0.0", ["x"]) == {"localhost", "x", "box.lan", "box.local"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_during_work(checkpoint, long_video, number):
    """With a video being scored, another waiting and a third being uploaded, and no files or
    processes left."""

    flags = ("--port", "0", "--checkpoint", checkpoint, "--no_cuda", "--no_heat", "--stride", "1")
    with Command("-m", "util_scripts.serve", *flags) as command:
        command.wait_until(lambda: "http://" in command.stdout)
        client = Client(re.search(r"http://\S+/", command.stdout)[0])
        client.open_page()
        sent = client.send(long_video.read_bytes()).json["video"]
        client.send(long_video.read_bytes())
        head = f"POST {client.new_video()} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: {UPLOAD['Content-Type']}\r\nContent-Length: 100000\r\n\r\n"
        connection = http.client.HTTPConnection(client.place)
        connection.connect()
        connection.sock.sendall(head.encode() + bytes(1000))
        events = []
        for _, message in client.messages():
            if message.get("video") == sent and "window" in message and not events:
                command.process.send_signal(number)
                events.append("signal")
            elif events:
                events.append(message)
        done = command.finish()
        connection.close()
    assert events[-1] == {"event": "stopped"}
    assert done.status == 0, done.text
    assert "Traceback" not in done.text
    assert done.stderr.splitlines()[-1].endswith("stopped")
