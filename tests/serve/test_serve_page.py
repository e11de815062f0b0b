"""What the page of util_scripts.serve does by itself: sessions, retries, focus, the camera.

Skipped without Chromium or Chrome.
"""

import re

import pytest

from tests.browsers import expect, needs_browser, shows
from tests.serve.client import running, wait_until
from tests.serve.pages import ALARM, STATES, drop, opened, wait_for, wait_until_done

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")

from serving import hub
from serving.app import App

pytestmark = needs_browser

DONE = "#list li.done"
MOMENTS = "[...document.querySelectorAll('#moments button')].map(e => e.textContent).join()"
LIVE = """async () => (await Promise.all(opened)).flatMap(stream => stream.getTracks())
    .filter(track => track.readyState !== "ended").length"""
FOCUSED = "document.activeElement.closest('li')?.querySelector('b').textContent"


def test_a_server_that_does_not_answer_is_named(browser, site):
    with opened(browser, site.url, is_quiet=False) as page:
        page.route("**/events?*", lambda route: route.abort())
        page.reload()
        expect(page, ALARM).to_have_text(re.compile("^The server does not answer"))
        page.unroute("**/events?*")
        expect(page, "#alarm").to_be_hidden()


def test_a_proxy_without_its_server_is_no_restart(browser, site, videos):
    with opened(browser, site.url, is_quiet=False) as page:
        page.set_input_files("#files", videos["third.webm"])
        wait_until_done(page)
        n_windows = page.evaluate("videos[0].windows.length")
        page.route("**/events?*", lambda route: route.fulfill(status=502, body="<h1>bad</h1>"))
        page.evaluate("listen()")
        expect(page, ALARM).to_have_text(re.compile("^The server does not answer"))
        page.unroute("**/events?*")
        page.set_input_files("#files", videos["other.webm"])  # whose messages come after all others
        expect(page, DONE).to_have_count(2)
        expect(page, "#alarm").to_be_hidden()
        assert page.evaluate("videos[0].windows.length") == n_windows  # none comes twice


def test_a_page_that_the_server_has_forgotten_says_so(browser, checkpoint, videos):
    with (
        running(checkpoint, heat=False) as (client, worker),
        opened(browser, client.url, is_quiet=False) as page,
    ):
        forget(worker, page)  # without videos, it begins anew
        first = page.evaluate("home")
        page.evaluate("listen()")
        wait_for(page, f"home !== '{first}'")
        page.set_input_files("#files", videos["third.webm"])
        wait_until_done(page)
        forget(worker, page)
        page.evaluate("listen()")
        page.wait_for_selector("#alarm button")
        text = page.inner_text("#alarm")
        assert text.startswith("The server no longer knows this page. It was started again, or")
        assert "not connected for 30 minutes" in text
        expect(page, "#chart").to_be_visible()


def forget(worker, page):
    """End the session without telling the page, as a new server would."""
    wait_for(page, "home !== ''")
    page.evaluate("source.close()")
    worker.hub.end_session(worker.hub.session(page.evaluate("home")))


def test_leaving_the_page_ends_its_session(browser, checkpoint, videos):
    with (
        running(checkpoint, heat=False) as (client, worker),
        opened(browser, client.url) as page,
    ):
        page.set_input_files("#files", videos["third.webm"])
        wait_until_done(page)
        session = page.evaluate("home")
        assert worker.hub.session(session) is not None
        page.reload()
        wait_until(lambda: worker.hub.session(session) is None)
        wait_until(lambda: not list(client.folder.iterdir()))


def test_a_page_that_gets_no_session_says_why(browser, site, monkeypatch):
    with opened(browser, site.url, is_quiet=False) as page:
        page.route("**/sessions", lambda route: route.fulfill(status=403, body="refused"))
        page.reload()
        expect(page, ALARM).to_have_text(re.compile("^The server takes this page for one of an"))
        monkeypatch.setattr(hub, "MAX_SESSIONS", 0)
        page.unroute("**/sessions")
        page.reload()
        expect(page, ALARM).to_have_text("Too many pages are open; close some. Trying again …")
        monkeypatch.undo()
        expect(page, "#alarm").to_be_hidden()


def test_the_page_works_below_a_path(browser, checkpoint, videos, monkeypatch):
    """As behind a proxy that gives this server the addresses below /try/."""
    original = App.asgi

    def below(app, hosts):
        inner = original(app, hosts)

        async def outer(scope, receive, send):
            assert scope["path"].startswith("/try/")
            await inner({**scope, "path": scope["path"][4:]}, receive, send)

        return outer

    monkeypatch.setattr(App, "asgi", below)
    with (
        running(checkpoint, heat=False) as (client, _),
        opened(browser, f"{client.url}try/") as page,
    ):
        page.set_input_files("#files", videos["does not play.avi"])
        wait_until_done(page)
        wait_for(page, "document.getElementById('still').naturalWidth > 0")
        with page.expect_download() as download:
            page.click("#json")
        assert download.value.suggested_filename == "does not play.scores.json"


def test_videos_wait_on_the_page_while_the_queue_is_full(page, videos, monkeypatch):
    monkeypatch.setattr(hub, "MAX_WAITING", 0)
    drop(page, [videos[name] for name in ("third.webm", "does not play.avi")])
    full = "The queue of the server is full; this is sent when there is room."
    waiting = "waiting for its upload"
    shows(page, STATES, [["third.webm", full], ["does not play.avi", waiting]])
    expect(page, "#state").to_have_text(full)
    monkeypatch.setattr(hub, "MAX_WAITING", 1)
    expect(page, DONE).to_have_count(2)


def test_an_upload_that_breaks_off_is_sent_again(browser, checkpoint, videos):
    broken = []

    def break_first(route):
        if route.request.method != "POST" or broken:
            route.continue_()
        else:
            broken.append(route.request.url)
            route.abort("connectionreset")

    with (
        running(checkpoint, heat=False) as (client, _),
        opened(browser, client.url, is_quiet=False) as page,  # the browser logs the lost connection
    ):
        page.route("**/videos/*", break_first)
        page.set_input_files("#files", videos["third.webm"])
        shows(page, STATES, [["third.webm", "The upload broke off; it will be sent again."]])
        wait_until_done(page)
    assert len(broken) == 1


def test_more_videos_than_the_page_lists_are_named(page, videos):
    page.evaluate("SETTINGS.max_videos = 1")
    drop(page, [videos[name] for name in ("third.webm", "does not play.avi")])
    expect(page, DONE).to_have_count(1)
    expect(page, "#note").to_have_text(
        "does not play.avi is left out: up to 1 videos are listed, remove some first."
    )


def test_removing_a_video_shows_the_moments_and_the_focus_of_the_next(page, videos):
    names = ["third.webm", "other.webm", "does not play.avi"]
    page.set_input_files("#files", [videos[name] for name in names])
    expect(page, DONE).to_have_count(3)
    page.click("#list li:nth-child(2) .pick")
    expect(page, "#name").to_have_text("other.webm")
    second = page.evaluate(MOMENTS)
    page.click("#list li:nth-child(1) .pick")
    wait_for(page, f"{MOMENTS} !== '{second}'")
    lengths = page.evaluate("videos.slice(0, 2).map(video => video.windows.length)")
    assert lengths[0] == lengths[1]
    page.focus("#list li:nth-child(1) .drop")
    page.keyboard.press("Enter")
    shows(page, FOCUSED, "other.webm")
    shows(page, MOMENTS, second)
    page.focus("#list li:nth-child(2) .drop")
    page.keyboard.press("Enter")
    shows(page, FOCUSED, "other.webm")
    page.focus("#list li .drop")
    page.keyboard.press("Enter")
    expect(page, "#choose").to_be_focused()


def test_a_video_removed_during_its_upload_is_not_scored(browser, checkpoint, videos):
    """Also if all of it has arrived, and only the answer has not."""
    with (
        running(checkpoint, heat=False) as (client, worker),
        opened(browser, client.url) as page,
    ):
        page.evaluate("Object.defineProperty(XMLHttpRequest.prototype, 'onloadend', {set() {}})")
        page.set_input_files("#files", videos["third.webm"])
        wait_until(lambda: list(client.folder.glob("*/scores.json")))
        page.click("#list .drop")
        wait_until(lambda: not list(client.folder.iterdir()))
        assert not worker.hub.session(page.evaluate("home")).videos


def test_the_note_on_a_file_that_does_not_play_comes_back(page, videos):
    page.set_input_files("#files", [videos[name] for name in ("does not play.avi", "third.webm")])
    expect(page, DONE).to_have_count(2)
    page.wait_for_selector("#playing")
    page.click("#list li:nth-child(2) .pick")
    page.wait_for_selector("#playing", state="hidden")
    page.click("#list li:nth-child(1) .pick")
    page.wait_for_selector("#playing")


def test_percentages_are_not_read_out(page, videos):
    page.set_input_files("#files", videos["third.webm"])
    wait_until_done(page)
    page.evaluate("""Object.assign(chosen.overlay, {state: "uploading", sent: 0.4});
        drawDownloads(chosen);
        Object.assign(chosen, {state: "uploading", sent: 0.4});
        drawResult();""")
    expect(page, "#state").to_have_text("Uploading.")
    expect(page, "#share").to_have_text("40%")
    expect(page, "#overlay-state").to_have_text("Uploading again.")
    expect(page, "#overlay-share").to_have_text("40%")


@pytest.mark.usefixtures("out_of_time")
def test_scores_until_a_limit_are_not_those_of_the_whole_video(browser, checkpoint, long_video):
    with (
        running(checkpoint, heat=False) as (client, _),
        opened(browser, client.url) as page,
    ):
        page.set_input_files("#files", str(long_video))
        wait_until_done(page)
        expect(page, "#state").to_have_text(re.compile("^Scored until 0:"))
        expect(page, "#about-whole").to_have_text(re.compile("^Until 0:"))
        expect(page, "#still").to_be_visible()
        page.evaluate("chosen.length = 120; go(110)")
        expect(page, "#still").to_be_hidden()
        expect(page, "#at").to_have_text("At 1:50.0: not scored")
        expect(page, "#now li").to_have_count(0)


def test_a_second_click_opens_no_second_camera(page):
    page.evaluate("""() => {
        self.opened = [];
        const media = navigator.mediaDevices, get = media.getUserMedia.bind(media);
        media.getUserMedia = what => { opened.push(get(what)); return opened.at(-1); };
        camera.click();
        camera.click();
    }""")
    page.wait_for_selector("#recorder:not([hidden])")
    assert page.evaluate("opened.length") == 1
    page.click("#close-camera")
    page.evaluate("document.getElementById('camera').click(); is_stopped = true;")
    shows(page, "opened.length", 2)
    shows(page, LIVE, 0)
