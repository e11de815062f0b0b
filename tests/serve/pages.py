"""The page of util_scripts.serve in a browser, for tests of it."""

import base64
from contextlib import contextmanager
from pathlib import Path

from tests.browsers import new_page
from tests.serve.client import wait_until

# What is drawn comes late, so that a test that does not wait for it fails.
SLOWLY = """const soon = requestAnimationFrame;
    self.requestAnimationFrame = draw => setTimeout(() => soon(draw), 100);"""
ALARM = "#alarm:not([hidden])"
STATES = """() => [...document.querySelectorAll("#list li")].map(
    row => [row.querySelector("b").textContent, row.querySelector("span").textContent])"""


@contextmanager
def opened(browser, url, *, is_quiet=True, **how):
    """A page; fails if the browser logs anything, or asks another server for something."""
    messages, requests = [], []
    with new_page(browser, permissions=["camera"], **how) as page:
        page.add_init_script(SLOWLY)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        yield page
    assert not is_quiet or messages == []
    assert [u for u in requests if not u.startswith((url, "data:", "blob:"))] == []


def wait_for(page, condition):
    """Wait for a condition. Playwright's own way needs eval, which the page forbids."""
    wait_until(lambda: page.evaluate(condition) or page.wait_for_timeout(50))


def wait_until_done(page):
    page.wait_for_selector("#downloads:not([hidden])")


def drop(page, paths):
    """Drop files on the page, as a file manager does."""
    files = [[Path(p).name, base64.b64encode(Path(p).read_bytes()).decode()] for p in paths]
    transfer = page.evaluate_handle(
        """files => { const transfer = new DataTransfer();
        for (const [name, data] of files)
            transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name));
        return transfer; }""",
        files,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert "over" in page.get_attribute("#drop", "class")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    assert "over" not in page.get_attribute("#drop", "class")
