"""Lists in messages, cut to a readable length, and tables in Markdown."""

from collections.abc import Iterable, Iterator, Sequence

from utils.reading import shown_name


def first_few(lines: Sequence[str], limit: int = 10, *, total: int | None = None) -> list[str]:
    """Return the first `limit` lines and "and N more"; `total` counts lines that were not kept."""
    n_more = (len(lines) if total is None else total) - min(len(lines), limit)
    return [*lines[:limit], *([f"and {n_more} more"] if n_more else [])]


def join_few(names: Iterable[str], limit: int = 5) -> str:
    """Join the first `limit` names with commas, and say how many more there are."""
    return ", ".join(first_few([shown_name(name) for name in names], limit))


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown, each row as soon as there is one."""
    for cells in (columns, ["---"] * len(columns)):
        yield f"| {' | '.join(cells)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
