"""A server of util_scripts.serve with a tiny model, and a client that sends what the page sends."""

import glob
import http.client
import json
import re
import secrets
import threading
import time
from contextlib import contextmanager
from urllib.parse import quote

from predict.classifier import load_classifier
from serving.app import PageSettings
from serving.guard import own_names
from serving.server import listen, serving, url_of
from serving.worker import Settings
from tests.commands import PATIENCE

UPLOAD = {"Content-Type": "application/octet-stream"}
MAX_BYTES = 3_000_000


@contextmanager
def running(
    checkpoint, *, seconds=600.0, heat=True, max_bytes=MAX_BYTES, host_names=(), begin=None
):
    """Run a server, its worker in a thread, which waits for the event `begin` if it is given; yield
    (client, worker)."""
    flags = {"no_cuda": True, "precision": "fp32"}
    classifier = load_classifier(checkpoint, flags=flags)
    page = PageSettings(
        checkpoint.name, "resnet-10", classifier.labels, "8 frames", MAX_BYTES, seconds / 60
    )
    hosts = own_names("127.0.0.1", host_names)
    with listen("127.0.0.1", 0) as listening:
        url = url_of(listening)
        with serving(classifier, page, Settings(4, seconds, heat), listening, hosts) as worker:
            thread = threading.Thread(target=work, args=(worker, begin))
            thread.start()
            try:
                yield Client(url, worker.hub.folder), worker
            finally:
                worker.hub.close()
                if begin is not None:
                    begin.set()
                thread.join()


def work(worker, begin):
    if begin is not None:
        begin.wait()
    worker.run()


class Answer:
    """The answer to a request."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """Sends requests to a server, which keeps its files in `folder`; `open_page` starts a session,
    as the page does."""

    def __init__(self, url, folder=None):
        self.url, self.folder = url, folder
        self.place = re.fullmatch(r"http://(.+)/", url)[1]
        self.session = ""

    def request(self, method, path, body=None, headers=None, **how):
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {}, **how)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def raw(self, data):
        """Send bytes as they are, and return the status of the answer."""
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE)
        try:
            connection.connect()
            connection.sock.sendall(data)
            response = http.client.HTTPResponse(connection.sock)
            response.begin()
            return Answer(response)
        finally:
            connection.close()

    def open_page(self):
        page = self.request("GET", "/")
        assert page.status == 200
        self.session = self.request("POST", "/sessions").json["session"]
        return page

    def send(self, content, name="a.avi", **how):
        """Upload a video as the page does."""
        return self.request("POST", self.new_video(name), content, UPLOAD, **how)

    def new_video(self, name="a.mp4"):
        """Return an address to send a video to."""
        return f"{self.video(secrets.token_hex(16))}?name={quote(name)}"

    def folder_of(self, video):
        return self.folder / f"{self.session}-{video}"

    def scored(self, content, name="a.avi"):
        """Upload a video, wait for its scores and return its id."""
        video = self.send(content, name).json["video"]
        self.messages_until(video, "done")
        return video

    def uploads(self):
        """Return the uploads that the server keeps; it may remove folders meanwhile."""
        return glob.glob(f"{self.folder}/*/upload*")

    def video(self, video, file=""):
        return f"/{self.session}/videos/{video}{file and '/'}{file}"

    def messages(self, after=0):
        """Yield (number, message) of the event stream until it ends."""
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE)
        try:
            headers = {"Last-Event-ID": str(after)}
            connection.request("GET", f"/{self.session}/events", headers=headers)
            response = connection.getresponse()
            assert response.headers["content-type"].startswith("text/event-stream")
            number = 0
            for line in response:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "id":
                    number = int(value)
                elif key == "event":
                    yield number, {"event": value}
                elif key == "data" and value:
                    yield number, json.loads(value)
        finally:
            connection.close()

    def messages_until(self, video, *states, task="scores"):
        """Return all messages about a video up to one of these states of a task."""
        found = []
        for _, message in self.messages():
            if message.get("video") != video:
                continue
            found.append(message)
            if message.get("task") == task and message.get("state") in states:
                return found
        raise AssertionError(f"the stream ended: {found[-3:]}")


def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
