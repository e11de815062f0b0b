"""The report in Chromium: no overflow, no console messages, no network requests.

Skipped without Chromium or Chrome.
"""

import pytest

from tests.browsers import (
    COLOURS,
    DESKTOP,
    OVERFLOWING,
    PHONE,
    needs_browser,
    new_page,
    running_browser,
)
from tests.runs import make_dataset, small_run
from tests.test_report import random_results, write_logs
from util_scripts import report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports of a small run with pictures, of many classes with long names, and of two classes."""
    run = tmp_path_factory.mktemp("run")
    make_dataset(run)
    assert small_run(run, "--inference", "--n_epochs", "2", report=True) == 0
    many = tmp_path_factory.mktemp("many")
    long = "a_name_that_is_longer_than_a_phone_is_wide_and_has_no_place_to_break_it"
    labels = [f"{long}_{number}" if number % 9 == 0 else f"class {number}" for number in range(200)]
    random_results(many, labels, 800)
    write_logs(many)
    assert report.main([str(many), "--index", str(many / "index.json")]) == 0
    two = tmp_path_factory.mktemp("two")
    random_results(two, ["fight", "the rest"], 300)
    assert report.main([str(two), "--index", str(two / "index.json")]) == 0
    folders = {"run": run / "res", "many": many, "two": two}
    return {name: folder / "report.html" for name, folder in folders.items()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", ["run", "many", "two"])
def test_the_page_fits_and_loads_nothing(browser, reports, name, width, scheme):
    with new_page(browser, width=width, height=844, scheme=scheme) as page:
        messages, requests = [], []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(reports[name].as_uri())
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for details in page.query_selector_all("details > summary"):
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(WITHOUT_TEXT) == []
        assert messages == []
        assert [url for url in requests if not url.startswith("data:")] == [reports[name].as_uri()]
        ground, ink = page.evaluate(COLOURS)
        assert (sum(ground) < sum(ink)) == (scheme == "dark")


WITHOUT_TEXT = """() => [...document.querySelectorAll("img, svg")]
    .filter(e => !(e.getAttribute("alt") || e.getAttribute("aria-label")))
    .map(e => e.outerHTML.slice(0, 90))"""


def test_text_of_charts_is_legible_on_a_phone(browser, reports):
    with new_page(browser, width=PHONE, height=844) as page:
        page.goto(reports["run"].as_uri())
        heights = page.evaluate(
            """() => { const scale = m => Math.hypot(m.a, m.b);
                return [...document.querySelectorAll("svg.chart text")]
                .filter(e => e.textContent.trim())
                .map(e => parseFloat(getComputedStyle(e).fontSize) * scale(e.getScreenCTM())); }"""
        )
        assert len(heights) > 30
        assert min(heights) >= 9


def test_classes_can_be_searched(browser, reports):
    with new_page(browser) as page:
        page.goto(reports["many"].as_uri())
        page.click("#classes summary")
        page.fill("#find", "CLASS 17")
        shown = page.evaluate(
            """() => [...document.querySelectorAll("#all-classes tbody tr")]
                .filter(row => row.offsetParent).map(row => row.cells[0].textContent)"""
        )
        assert set(shown) <= {"class 17", *(f"class {n}" for n in range(170, 180))}
        assert shown


def test_the_page_can_be_printed(browser, reports):
    with new_page(browser) as page:
        page.goto(reports["run"].as_uri())
        page.emulate_media(media="print", color_scheme="dark")
        ground, ink = page.evaluate(COLOURS)
        assert ground == [255, 255, 255]
        assert ink == [0, 0, 0]
        page.set_viewport_size({"width": 690, "height": 1000})  # A4 within its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 690
        assert page.pdf().startswith(b"%PDF")
