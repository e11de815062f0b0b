"""Read a CSV file as spreadsheets write it: any delimiter, byte order marks, quotes, line ends."""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from utils.reading import decode_text, read_bytes, shown
from utils.text import join_few

DELIMITERS = ",;\t|"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SEPARATOR = "sep="  # a first line "sep=;" tells Excel the delimiter


class Row(NamedTuple):
    """A row: the line that it starts on, and the text in the wanted columns, "" where empty."""

    line: int
    cells: dict[str, str]


def read_spreadsheet(
    path: Path, needed: Sequence[str], optional: Sequence[str], *, encoding: str | None = None
) -> list[Row]:
    """Read the columns that the first line names, in any order; other columns and empty rows are
    ignored. The encoding is UTF-8, or UTF-16 with a byte order mark, unless one is given.

    Raises UserError for a missing column, and with the line for what is not a table.
    """
    text = _decode(read_bytes(path, "table"), path, encoding)
    wanted = {*needed, *optional}
    tables = [_split(path, text, delimiter) for delimiter in DELIMITERS]
    headings = [_headings(table) for table in tables]
    best = max(range(len(tables)), key=lambda i: len(wanted & {*headings[i]}))
    columns, rows = headings[best], tables[best]
    if missing := [name for name in needed if name not in columns]:
        raise UserError(
            f"{path}: line 1: no column {' and no column '.join(missing)}, only "
            f"{join_few(filter(None, columns)) or 'empty ones'}; the first line must name the "
            f"columns: {', '.join(needed)}, optionally {', '.join(optional)}"
        )
    counts = Counter(columns)
    if twice := [name for name in columns if name in wanted and counts[name] > 1]:
        raise UserError(f"{path}: line 1: there are {counts[twice[0]]} columns {twice[0]}")
    return [
        Row(line, _pick(path, line, values, columns, wanted))
        for line, values in rows
        if any(value.strip() for value in values)
    ]


def spellings(path: str) -> list[str]:
    """List a path of a table as written, stripped, with slashes, and in both Unicode normal
    forms."""
    plain = [path, path.strip(), path.strip().replace("\\", "/")]
    forms = [unicodedata.normalize(form, p) for p in plain for form in ("NFC", "NFD")]
    return list(dict.fromkeys(plain + forms))


def _decode(raw: bytes, path: Path, encoding: str | None) -> str:
    if encoding is None and not raw.startswith(UTF_16):
        try:
            return decode_text(raw, path, "table")
        except UserError:
            line = len((raw[: _first_bad_byte(raw)] + b"?").splitlines())
            raise UserError(
                f"{path}: line {line}: not UTF-8 text; save the table as 'CSV UTF-8', or name its "
                "encoding, such as --encoding cp1252 (Windows, western Europe) or gbk (Chinese)"
            ) from None
    name = encoding or "utf-16"
    try:
        return raw.decode(name).removeprefix("\ufeff")
    except LookupError:
        raise UserError(f"--encoding {shown(name)}: no such encoding") from None
    except ValueError as error:
        raise UserError(f"{path}: not text in {name}: {error}") from None


def _first_bad_byte(raw: bytes) -> int:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _split(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values) of each row."""
    lines = io.StringIO(text, newline="")
    first = lines.readline().strip()
    skipped = first.strip('"').lower().startswith(SEPARATOR) and len(first) < 8
    if not skipped:
        lines.seek(0)
    # A space before a quote is not part of a value; other spaces may be part of a path.
    has_space = re.search(rf'{re.escape(delimiter)} +"', text) is not None
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=has_space, strict=True)
    line = int(skipped) + 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + int(skipped) + 1
    except csv.Error as error:
        raise UserError(f"{path}: line {line}: not a row of a table: {error}") from None


def _headings(rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """Read the first row that is not empty; [] if it can't be split at this delimiter."""
    try:
        for _, values in rows:
            if any(value.strip() for value in values):
                return [value.strip().casefold() for value in values]
    except UserError:
        pass
    return []


def _pick(
    path: Path, line: int, values: Sequence[str], columns: Sequence[str], wanted: Collection[str]
) -> dict[str, str]:
    if any(value.strip() for value in values[len(columns) :]):
        raise UserError(
            f"{path}: line {line}: {len(values)} values for {len(columns)} columns; put values "
            "that contain the delimiter in quotes"
        )
    padded = [*values, *[""] * (len(columns) - len(values))]
    cells = zip(columns, padded, strict=False)
    return {name: value for name, value in cells if name in wanted}
