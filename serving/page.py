"""Render the page: one file with its style and script."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
STYLES = (FOLDER.parent / "reporting/base.css", FOLDER / "page.css")


def render_page(session: str, settings: Mapping[str, Any], nonce: str) -> str:
    """Return the page of a session. `nonce` allows its own style and script, and no others."""
    from markupsafe import Markup

    # In a script element, only these characters could end it.
    data = json.dumps({"session": session, **settings}, allow_nan=False).replace("<", "\\u003c")
    return _template().render(
        style=Markup("\n".join(path.read_text(encoding="utf-8") for path in STYLES)),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        data=Markup(data),
        settings=settings,
        nonce=nonce,
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2")
