"""Chromium, if it is installed, for tests of pages."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PHONE, DESKTOP = 390, 1440  # pixels

BROWSER = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *NAMES))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium: install one, or $CHROMIUM")


@contextmanager
def running_browser(*flags):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*QUIET, *flags])
        yield browser
        browser.close()


# Elements beyond the right edge of the window, except inside parts that scroll.
OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll") && !e.closest("svg")
                 && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 90))"""
COLOURS = """() => { const style = getComputedStyle(document.body);
    return [style.backgroundColor, style.color].map(c => c.match(/\\d+/g).map(Number)); }"""
