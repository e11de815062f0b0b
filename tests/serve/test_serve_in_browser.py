"""The page of util_scripts.serve in Chromium, with a tiny model behind it.

Skipped without Chromium or Chrome.
"""

import importlib.util
import json
import threading
from pathlib import Path

import pytest

from tests.browsers import COLOURS, DESKTOP, OVERFLOWING, PHONE, needs_browser
from tests.serve.client import running, wait_until
from tests.serve.pages import STATES, drop, opened, wait_for, wait_until_done
from tests.test_predict_video import LABELS
from utils.outputs import OVERLAY_MARK

pytest.importorskip("starlette", reason="pip install -r requirements-extra.txt")
pytest.importorskip("uvicorn", reason="pip install -r requirements-extra.txt")
pytestmark = needs_browser


def test_a_chosen_video_is_scored_and_its_moments_can_be_visited(page, videos):
    with page.expect_file_chooser() as choosing:
        page.focus("#choose")
        page.keyboard.press("Enter")
    choosing.value.set_files(videos["plays.webm"])
    wait_until_done(page)
    assert {*page.locator("#whole .label").all_inner_texts()} == {*LABELS}
    scores = [float(text) for text in page.locator("#whole .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#chart polyline").count() == 3
    assert page.locator("#strips figure").count() >= 1
    assert page.locator("#strips img").count() == 2 * page.locator("#strips figure").count()
    assert page.evaluate("document.getElementById('player').videoWidth") == 96

    box = page.locator("#chart svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 40)
    wait_for(page, "Math.abs(document.getElementById('player').currentTime - 2) < 0.3")
    assert page.inner_text("#at").startswith(("At 0:01.9", "At 0:02.0", "At 0:02.1"))
    last = int(page.get_attribute("#chart", "aria-valuemax"))
    page.focus("#chart")
    for key, place in (("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", last)):
        page.keyboard.press(key)
        assert int(page.get_attribute("#chart", "aria-valuenow")) == place
    assert page.get_attribute("#chart", "aria-valuetext").startswith("0:0")
    page.focus("#moments button")
    page.keyboard.press("Enter")
    wait_for(page, "document.getElementById('player').currentTime < 3.5")


def test_scores_and_overlay_can_be_downloaded(page, videos, tmp_path):
    page.set_input_files("#files", videos["plays.webm"])
    wait_until_done(page)
    for button, name in (("#json", "plays.scores.json"), ("#csv", "plays.scores.csv")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    content = json.loads((tmp_path / "plays.scores.json").read_text())
    assert content["videos"][0]["video"] == "plays.webm"
    assert (tmp_path / "plays.scores.csv").read_text().startswith("video,start,end,")
    page.click("#overlay")
    page.wait_for_selector("#mp4:not([hidden])")
    with page.expect_download() as download:
        page.click("#mp4")
    assert download.value.suggested_filename == "plays.overlay.mp4"
    download.value.save_as(tmp_path / "overlay.mp4")
    assert OVERLAY_MARK.encode() in (tmp_path / "overlay.mp4").read_bytes()


def test_dropped_videos_are_done_one_after_another(page, videos):
    names = ["does not play.avi", "broken.mp4", "third.webm"]
    drop(page, [videos[name] for name in names])
    wait_for(
        page,
        """() => [...document.querySelectorAll("#list li")].every(
            row => row.classList.contains("done") || row.classList.contains("failed"))""",
    )
    states = dict(page.evaluate(STATES))
    assert list(states) == names
    assert states["broken.mp4"] == "This can't be used: moov atom not found."
    assert page.inner_text("#name") == names[0]
    assert page.is_visible("#playing")  # says that the browser can't play it
    wait_for(page, "document.getElementById('still').naturalWidth > 0")
    page.click("#list li:nth-child(2) .pick")
    assert page.inner_text("#state") == states["broken.mp4"]
    assert page.is_hidden("#scores")
    page.click("#list li:nth-child(3) .pick")
    wait_until_done(page)
    page.click("#list li:nth-child(3) .drop")
    wait_for(page, "document.querySelectorAll('#list li').length === 2")
    assert page.evaluate("document.activeElement.classList.contains('pick')")


def test_the_queue_is_shown(browser, checkpoint, videos):
    """With a worker that does not begin before the page has shown all three."""
    begin = threading.Event()
    names = ["plays.webm", "third.webm", "does not play.avi"]
    with (
        running(checkpoint, heat=False, begin=begin) as (client, _),
        opened(browser, client.url) as page,
    ):
        page.set_input_files("#files", [videos[name] for name in names])
        places = ["next", "waiting, 1 before it", "waiting, 2 before it"]
        expected = [list(pair) for pair in zip(names, places, strict=True)]
        wait_until(lambda: page.evaluate(STATES) == expected or page.wait_for_timeout(50))
        page.click("#list li:nth-child(2) .drop")
        wait_for(
            page,
            "document.querySelector('#list li:last-child span').textContent.includes(' 1 before')",
        )
        begin.set()
        wait_for(page, "document.querySelectorAll('#list li.done').length === 2")


def test_no_place_in_the_queue_is_shown_before_the_server_tells_it(browser, checkpoint):
    with running(checkpoint, heat=False) as (client, _), opened(browser, client.url) as page:
        assert page.evaluate("placeOf(newJob('waiting'))") == "waiting"


def test_a_recording_of_the_camera_is_scored(page):
    page.click("#camera")
    page.wait_for_selector("#recorder:not([hidden])")
    wait_for(page, "document.getElementById('preview').videoWidth > 0")
    page.click("#record")
    wait_for(page, "document.getElementById('recording').textContent.includes(' 2 s')")
    page.click("#record")
    wait_until_done(page)
    [[name, state]] = page.evaluate(STATES)
    assert name.startswith("camera ")
    assert name.endswith((".webm", ".mp4"))
    assert state.split()[0] in LABELS
    wait_for(page, "document.getElementById('player').duration < 60")  # not Infinity
    page.click("#close-camera")
    assert page.is_hidden("#recorder")
    assert page.is_enabled("#camera")


def test_a_video_of_2_gb_is_refused_before_it_is_sent(page, videos):
    page.set_input_files("#files", videos["large.mp4"])
    wait_for(page, "document.getElementById('note').textContent !== ''")
    assert page.inner_text("#note") == "large.mp4 has 2.1 GB; at most 3 MB are accepted."
    assert page.locator("#list li").count() == 0


def test_a_stopped_server_is_named(browser, checkpoint, videos):
    with (
        running(checkpoint, heat=False) as (client, worker),
        opened(browser, client.url) as page,
    ):
        page.set_input_files("#files", videos["third.webm"])
        wait_until_done(page)
        worker.hub.close()
        page.wait_for_selector("#alarm:not([hidden])")
        assert page.inner_text("#alarm").startswith("The server was stopped.")
        assert page.is_visible("#chart")
        assert page.is_disabled("#choose")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_fits_and_is_accessible(browser, site, videos, width, scheme):
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("no axe-core: pip install -r requirements-dev.txt")
    axe = Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")
    with opened(browser, site.url, width=width, scheme=scheme) as page:
        check_layout(page, axe, width)
        page.set_input_files("#files", [videos[n] for n in ("plays.webm", "broken.mp4")])
        wait_until_done(page)
        check_layout(page, axe, width)
        ground, ink = page.evaluate(COLOURS)
        assert (sum(ground) < sum(ink)) == (scheme == "dark")


def check_layout(page, axe, width):
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    page.evaluate(axe)
    faults = page.evaluate("async () => (await axe.run()).violations")
    serious = [f for f in faults if f["impact"] in ("serious", "critical")]
    assert [(f["id"], [n["html"] for n in f["nodes"]]) for f in serious] == []
