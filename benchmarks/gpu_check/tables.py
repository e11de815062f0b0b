"""Results as Markdown, and docs/gpu.md with them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from errors import UserError
from utils.files import write_text
from utils.reading import read_text
from utils.text import markdown_table

Value = str | int | float | bool | None  # None: there is nothing to measure
Row = dict[str, Value]  # by column


class Section(TypedDict):
    status: str
    seconds: float
    note: str
    rows: list[Row]


class Results(TypedDict):
    """The content of a results.json."""

    machine: dict[str, str]
    sections: dict[str, Section]


BEGIN, END = "<!-- results of gpu_check -->", "<!-- end of the results -->"
NOTHING = "**Not measured yet**: no results of a GPU are recorded here."
TITLES: Mapping[str, str] = {
    "quick": "First checks",
    "correctness": "Against the CPU",
    "golden": "Golden runs",
    "speed": "Speed",
    "feeding": "Loading",
    "trace": "Where the time of a step goes",
    "tests": "Tests",
    "compiled": "With --compile",
}


def page_of(content: Results) -> str:
    """Return the Markdown of a results.json: the machine, and a table for each section."""
    return "\n".join(_lines_of(content))


def _lines_of(content: Results) -> Iterator[str]:
    for name, value in content["machine"].items():
        yield f"- {name}: {value}"
    for name, section in content["sections"].items():
        seconds = f", {section['seconds']:.0f} s" if section["seconds"] else ""
        yield from ("", f"### {TITLES.get(name, name)}", "")
        yield f"{section['status'].capitalize()}{seconds}" + (
            f": {first_line(section['note'])}." if section["note"] else "."
        )
        if section["rows"]:
            yield ""
            yield from table(section["rows"])
    yield ""


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table; its columns are those of all rows, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return markdown_table(columns, ([shown(row.get(c)) for c in columns] for row in rows))


def shown(value: Value) -> str:
    """Format a cell: three digits of numbers, yes and no, – where there is nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def first_line(text: str) -> str:
    return text.strip().splitlines()[-1].rstrip(".") if text.strip() else ""


def insert(content: Results | None, page: Path) -> None:
    """Replace what lies between the two markers of a page. Raises UserError without them."""
    text = read_text(page, "page")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: lacks the lines {BEGIN} and {END}")
    inner = NOTHING if content is None else page_of(content).strip()
    write_text(page, f"{before}{BEGIN}\n{inner}\n{END}{after}")
