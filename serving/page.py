"""Render the page: one file with its style and script."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from utils.files import as_utf8

FOLDER = Path(__file__).parent
STYLES = (FOLDER.parent / "reporting/base.css", FOLDER / "page.css")
PARTS = ("videos", "server", "list", "scores", "player", "adding", "camera")  # of one script
SCRIPTS = tuple(FOLDER / f"scripts/{part}.js" for part in PARTS)


def render_page(settings: Mapping[str, Any], nonce: str) -> str:
    """Return the page. `nonce` allows its own style and script, and no others."""
    from markupsafe import Markup

    # In a script element, only these characters could end it.
    data = json.dumps(settings, allow_nan=False).replace("<", "\\u003c")
    html = _template().render(
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in STYLES)),
        script=Markup("\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)),
        data=Markup(data),
        settings=settings,
        nonce=nonce,
    )
    return as_utf8(html)


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2")
