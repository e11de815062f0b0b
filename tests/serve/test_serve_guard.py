"""What the server of util_scripts.serve refuses: other hosts, other sites, paths, odd names."""

import json
import os
import re
import tempfile

import pytest

from tests.serve.client import UPLOAD, running

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")

from serving import hub, server

FOREIGN = "http://evil.example"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("192.168.1.7", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("127.0.0.1@evil.example", 400),
        ("localhost:80:80", 400),
        ("localhost/", 400),
        ("", 400),
    ],
)
def test_only_known_hosts_are_served(site, host, status):
    """A foreign name means DNS rebinding: a page of another site that became this server."""
    answer = site.raw(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status == status


def test_two_hosts_are_refused(site):
    assert site.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n").status == 400
    assert site.raw(b"GET / HTTP/1.0\r\n\r\n").status == 400


def test_more_names_can_be_given(checkpoint):
    with running(checkpoint, heat=False, host_names=("Lab.example",)) as (client, _):
        assert client.request("GET", "/", headers={"Host": "lab.example:8000"}).status == 200
        assert client.request("GET", "/", headers={"Host": "example"}).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_posts_of_other_sites_are_refused(client, headers):
    path = client.new_video()
    assert client.request("POST", path, b"x", {**UPLOAD, **headers}).status == 403
    assert client.request("DELETE", path, None, headers).status == 403
    own = {"Origin": client.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.request("POST", path, b"x", {**UPLOAD, **own}).status == 201


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_forms_are_refused(client, kind):
    path = client.new_video()
    assert client.request("POST", path, b"x", {"Content-Type": kind}).status == 415


def test_other_sites_can_link_to_the_page_but_read_nothing(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.request("GET", "/", headers=link).status == 200
    assert client.request("GET", "/", headers=link | {"Sec-Fetch-Mode": "no-cors"}).status == 403
    assert client.request("GET", "/", headers=link | {"Sec-Fetch-Dest": "document"}).status == 200
    assert client.request("GET", "/", headers=link | {"Sec-Fetch-Dest": "iframe"}).status == 403
    events = f"/{client.session}/events"
    assert client.request("GET", events, headers=link).status == 403
    answer = client.request("GET", "/nothing", headers={"Origin": FOREIGN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(site, method):
    assert site.request(method, "/").status in (400, 404, 405)


PATHS = [
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd",
    "/{s}/videos/../../../etc/passwd", "/{s}/videos/..%2f..%2f..%2fetc/passwd",
    "/{s}/videos/{v}/../scores.json", "/{s}/videos/{v}/..%2fscores.json",
    "/{s}/videos/{v}/%2fetc%2fpasswd", "/{s}/videos/{v}/upload", "/{s}/videos/{v}/.",
    "/{s}/videos/{v}/scores.json%00", "/{s}/videos/./{v}/scores.json", "/page.js",
    "/static/page.js", "/{s}/videos/{v}/scores.csv/",
    "/{s}/videos/{v}", "/{s}/videos/{v}/..jpg", "/{s}/videos/{v}/" + "9" * 300 + ".jpg",
    "/..\\..\\windows\\win.ini", "/%ff%fe",
]  # fmt: skip


def test_no_path_leads_to_a_file_of_the_machine(client, video):
    sent = client.send(video.read_bytes()).json["video"]
    client.messages_until(sent, "done")
    for path in PATHS:
        path = path.format(s=client.session, v=sent)
        answer = client.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.status in (400, 403, 404, 405, 307), path
        assert b"root:" not in answer.body, path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\a.mp4", "a.mp4"),
        ("a\r\nSet-Cookie: x\0.mp4", "aSet-Cookie: x.mp4"),
        ("..", ".."),
        ("", "video"),
        ('";<b>.mp4', '";<b>.mp4'),
        ("打架 🥊.mp4", "打架 🥊.mp4"),
        ("x" * 500 + ".mp4", "x" * 100 + "…" + "x" * 15 + ".mp4"),
    ],
)
def test_names_are_only_shown(client, video, name, shown):
    sent = client.send(video.read_bytes(), name).json["video"]
    client.messages_until(sent, "done")
    scores = client.request("GET", client.video(sent, "scores.json"))
    assert scores.json["videos"][0]["video"] == shown
    assert "set-cookie" not in scores.headers
    assert "\n" not in scores.headers["content-disposition"]


def test_nothing_tells_where_files_lie(client, checkpoint, video):
    page = client.open_page()
    texts = [page.body.decode(), str(page.headers)]
    broken = client.send(bytes(range(256)) * 20, "a.mp4").json["video"]
    good = client.send(video.read_bytes()).json["video"]
    texts += map(str, client.messages_until(broken, "failed"))
    texts += map(str, client.messages_until(good, "done"))
    texts += [client.request("GET", client.video(good, f"scores.{x}")).body.decode()
              for x in ("json", "csv")]  # fmt: skip
    for place in (f"{tempfile.gettempdir()}/", server.PREFIX, str(checkpoint.parent), os.getcwd()):
        assert not [text for text in texts if place in text]


def test_the_page_asks_nothing_of_other_servers(client):
    page = client.open_page()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"""(src|href|url)\W{1,3}(https?:)?//""", page.body.decode())
    assert client.request("HEAD", "/").status == 200


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    from serving.page import render_page

    labels = ["\udcff", "b"]
    page = render_page({"labels": labels, "model": "\udce4.pth", "arch": "a", "clip": "c"}, "n")
    page.encode("utf-8")
    assert "Try \\udce4.pth" in page
    log = hub.EventLog()
    log.add("v", {"strips": labels})
    [(_, line)] = log.after(0)
    assert json.loads(line.encode("utf-8"))["strips"] == labels


def test_names_of_labels_cannot_end_the_script():
    labels = ("</script><script>alert(1)</script>", "<!--", "&amp;", "\u2028")
    from serving.page import render_page

    page = render_page({"labels": labels, "model": "<i>", "arch": "a", "clip": "c"}, "n")
    assert page.count("</script>") == 2
    assert "<i>" not in page
    data = re.search(r'id="settings">(.*)</script>', page)[1]
    assert tuple(json.loads(data)["labels"]) == labels
