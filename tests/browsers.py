"""Chromium, if it is installed, for tests of pages."""

import os
import shutil
import time
from contextlib import contextmanager

import pytest

from tests.commands import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PHONE, DESKTOP = 390, 1440  # pixels
TIMEOUT = 1000 * PATIENCE  # milliseconds

BROWSER = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *NAMES))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium: install one, or $CHROMIUM")


@contextmanager
def running_browser(*flags):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=TIMEOUT)
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=[*QUIET, *flags], timeout=TIMEOUT
        )
        yield browser
        browser.close()


@contextmanager
def new_page(browser, *, width=DESKTOP, height=900, scheme="light", **how):
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, **how
    )
    try:
        context.set_default_timeout(TIMEOUT)
        yield context.new_page()
    finally:
        context.close()


def expect(page, selector):
    """Return Playwright's assertions about an element, each of which waits until it holds. What a
    page shows after a click or a message is drawn in a frame of its own."""
    from playwright import sync_api

    return sync_api.expect(page.locator(selector))


def shows(page, script, expected):
    """Wait until a script returns what is expected."""
    end = time.monotonic() + PATIENCE
    while (found := page.evaluate(script)) != expected:
        assert time.monotonic() < end, f"{script}: {found!r}, not {expected!r}"
        page.wait_for_timeout(50)


# Elements beyond the right edge of the window, except inside parts that scroll.
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll") && !e.closest("svg")
                 && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 90))"""
COLOURS = """() => { const style = getComputedStyle(document.body);
    return [style.backgroundColor, style.color].map(c => c.match(/\\d+/g).map(Number)); }"""
