"""Seeded generators of damaged files and hostile values, for tests/test_fuzz.py."""

import json
import math
from random import Random

NASTY_BYTES = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 400,
    b"9" * 5000, b'"', b"'", b"{}", b"[]", b"[" * 2000, b"null", b"true", b"\n", b"\r\n", b"\t",
    b",", b":", b"\\ud800", b"\\u0000", "猫".encode(), b"../..", b"/", b"/etc/passwd", b" ",
)  # fmt: skip
NASTY_VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, 1e-320, 1e308, math.inf,
    -math.inf, math.nan, "", "abc", "a\0b", "\ud800", "\udcff", "..", "../../x", "/etc", "~",
    "~nosuchuser", "x" * 5000, "猫", "a\nb", "a\tb", "$$", "%s", "{}", [], [[]], [1], [1, 2, 3],
    ["a", 1], {}, {"a": 1}, {"label": []},
)  # fmt: skip
NASTY_WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "99999999999999999999", "9" * 5000, "1e-320", "1e400",
    "nan", "inf", "-inf", "0.5", "abc", "猫", "a\nb", "~nosuchuser/x", "/dev/null", "/dev/zero",
    "/", ".", "..", "/nonexistent/x", "x" * 300, "x" * 5000, "\udcff", "true", "None", "[]",
    "*", "%d",
)  # fmt: skip


def damaged_bytes(data: bytes, draw: Random) -> bytes:
    """Change, cut, repeat or replace one to four pieces of `data`."""
    for _ in range(draw.randint(1, 4)):
        data = draw.choice(DAMAGES)(data, draw)
    return data


def _flip(data: bytes, draw: Random) -> bytes:
    if not data:
        return data
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def _span(data: bytes, draw: Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 8, 64, 1024)))


def _cut(data: bytes, draw: Random) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + data[end:]


def _truncate(data: bytes, draw: Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _repeat(data: bytes, draw: Random) -> bytes:
    start, end = _span(data, draw)
    return data[:end] + data[start:end] * draw.choice((1, 2, 20)) + data[end:]


def _insert(data: bytes, draw: Random) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + draw.choice(NASTY_BYTES) + data[place:]


def _overwrite(data: bytes, draw: Random) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + data[end:]


DAMAGES = (_flip, _flip, _cut, _truncate, _repeat, _insert, _insert, _overwrite)


def damaged_value(value: object, draw: Random) -> object:
    """Replace, remove, rename or repeat one node of a JSON value."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        rest = {name: item for name, item in value.items() if name != key}
        kind = draw.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            names = [name for name in NASTY_VALUES if isinstance(name, str)]
            return {**rest, draw.choice(names): value[key]}
        return {**value, key: damaged_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value[:place] + value[place : place + 1] * draw.choice((0, 2, 3)) + value[place:]
        return [*value[:place], damaged_value(value[place], draw), *value[place + 1 :]]
    return draw.choice(NASTY_VALUES)


def damaged_json(value: object, draw: Random) -> bytes:
    """Damage JSON as a value, as text, or both."""
    kind = draw.random()
    if kind < 0.7:
        value = damaged_value(value, draw)
    text = json.dumps(value, ensure_ascii=draw.random() < 0.7)
    data = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(data, draw) if kind > 0.5 else data
