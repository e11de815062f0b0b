"""The page of util_scripts.serve in Chromium, with a tiny model behind it.

Skipped without Chromium or Chrome.
"""

import importlib.util
import json
import re
import threading
from pathlib import Path

import pytest

from tests.browsers import (
    COLOURS,
    DESKTOP,
    OVERFLOWING,
    PHONE,
    expect,
    needs_browser,
    shows,
)
from tests.serve.client import running
from tests.serve.pages import ALARM, STATES, drop, opened, wait_for, wait_until_done
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
    shows(page, "document.getElementById('player').videoWidth", 96)

    chart = page.locator("#chart")
    chart.click(position={"x": chart.bounding_box()["width"] / 2, "y": 46})
    wait_for(page, "Math.abs(document.getElementById('player').currentTime - 2) < 0.3")
    expect(page, "#at").to_have_text(re.compile(r"^At 0:0(1\.9|2\.0|2\.1)"))
    last = int(page.get_attribute("#chart", "aria-valuemax"))
    page.focus("#chart")
    for key, place in (("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", last)):
        page.keyboard.press(key)
        expect(page, "#chart").to_have_attribute("aria-valuenow", str(place))
    expect(page, "#chart").to_have_attribute("aria-valuetext", re.compile("^0:0"))
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
    expect(page, "#list li:is(.done, .failed)").to_have_count(3)
    states = dict(page.evaluate(STATES))
    assert list(states) == names
    assert states["broken.mp4"] == "This can't be used: moov atom not found."
    expect(page, "#name").to_have_text(names[0])
    expect(page, "#playing").to_be_visible()  # says that the browser can't play it
    wait_for(page, "document.getElementById('still').naturalWidth > 0")
    page.click("#list li:nth-child(2) .pick")
    expect(page, "#state").to_have_text(states["broken.mp4"])
    expect(page, "#scores").to_be_hidden()
    page.click("#list li:nth-child(3) .pick")
    wait_until_done(page)
    page.click("#list li:nth-child(3) .drop")
    expect(page, "#list li").to_have_count(2)
    expect(page, "#list li:last-child .pick").to_be_focused()


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
        shows(page, STATES, [list(pair) for pair in zip(names, places, strict=True)])
        page.click("#list li:nth-child(2) .drop")
        expect(page, "#list li:last-child span").to_have_text(places[1])
        begin.set()
        expect(page, "#list li.done").to_have_count(2)


def test_no_place_in_the_queue_is_shown_before_the_server_tells_it(browser, checkpoint):
    with running(checkpoint, heat=False) as (client, _), opened(browser, client.url) as page:
        assert page.evaluate("placeOf(newJob('waiting'))") == "waiting"


def test_a_recording_of_the_camera_is_scored(page):
    page.click("#camera")
    page.wait_for_selector("#recorder:not([hidden])")
    wait_for(page, "document.getElementById('preview').videoWidth > 0")
    page.click("#record")
    wait_for(page, "document.getElementById('recording').textContent.match(/, (\\d+) s/)?.[1] >= 2")
    page.click("#record")
    wait_until_done(page)
    [[name, state]] = page.evaluate(STATES)
    assert name.startswith("camera ")
    assert name.endswith((".webm", ".mp4"))
    assert state.split()[0] in LABELS
    wait_for(page, "document.getElementById('player').duration < 60")  # not Infinity
    page.click("#close-camera")
    expect(page, "#recorder").to_be_hidden()
    expect(page, "#camera").to_be_enabled()


def test_a_video_of_2_gb_is_refused_before_it_is_sent(page, videos):
    page.set_input_files("#files", videos["large.mp4"])
    expect(page, "#note").to_have_text("large.mp4 has 2.1 GB; at most 3 MB are accepted.")
    assert page.evaluate("videos.length") == 0


def test_a_stopped_server_is_named(browser, checkpoint, videos):
    with (
        running(checkpoint, heat=False) as (client, worker),
        opened(browser, client.url) as page,
    ):
        page.set_input_files("#files", videos["third.webm"])
        wait_until_done(page)
        worker.hub.close()
        expect(page, ALARM).to_have_text(re.compile(r"^The server was stopped\."))
        expect(page, "#chart").to_be_visible()
        expect(page, "#choose").to_be_disabled()


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
