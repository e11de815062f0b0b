"""Draw users' names in plots: literally, and in fonts that have their characters."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, NamedTuple

from utils.reading import shown_name

# Names may contain dollar signs and backslashes.
LITERAL: Any = {"text.parse_math": False, "text.usetex": False}
LONGEST_TICK = 30  # characters


@contextmanager
def literal_text() -> Iterator[None]:
    """Make matplotlib draw all text literally inside the block."""
    import matplotlib

    with matplotlib.rc_context(LITERAL):
        yield


def tick_names(names: Sequence[str]) -> list[str]:
    """Shorten names to one line for the ticks of an axis."""
    lines = [shown_name(name) for name in names]
    return [n if len(n) <= LONGEST_TICK else f"{n[: LONGEST_TICK - 1]}…" for n in lines]


class Font(NamedTuple):
    family: str
    path: str


def font_for(names: Collection[str]) -> Font | None:
    """Find an installed font with every character of `names`, preferably matplotlib's own."""
    wanted = _codes(names)
    default = _default()
    if wanted <= _characters(default.path):
        return default
    return next((font for font in _installed() if wanted <= _characters(font.path)), None)


def fonts_for(names: Collection[str]) -> list[Font] | None:
    """Find installed fonts that together have every character of `names`, matplotlib's own first;
    None if there are none."""
    fonts = [_default()]
    missing = _codes(names) - _characters(fonts[0].path)
    installed = _installed() if missing else []
    while missing:
        best = max(installed, key=lambda f: len(missing & _characters(f.path)), default=fonts[0])
        if not missing & _characters(best.path):
            return None
        fonts.append(best)
        missing -= _characters(best.path)
    return fonts


def _codes(names: Collection[str]) -> set[int]:
    return {ord(character) for name in names for character in name}


def _default() -> Font:
    from matplotlib.font_manager import FontProperties, findfont

    font = FontProperties()
    return Font(font.get_family()[0], findfont(font))


def _installed() -> list[Font]:
    """List upright fonts of regular weight, including those installed after matplotlib cached its
    list."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError):  # not a usable font
            fontManager.addfont(path)
    return [
        Font(font.name, font.fname)
        for font in fontManager.ttflist
        if font.style == "normal" and font.weight == 400 and "Last Resort" not in font.name
    ]  # Last Resort draws a box for every character


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[int]:
    """Return the code points a font has outlines for; none if it can't be read."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
