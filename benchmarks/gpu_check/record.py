"""The results of a check, saved after every row: a run that is cut off is still a result."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu_check.tables import Results, Row, Section, page_of
from utils.files import write_json, write_text
from utils.reading import read_json, typed

RESULTS, PAGE = "results.json", "results.md"

NOT_RUN, RUNNING, PASSED, CUT, FAILED = "not run", "running", "passed", "cut off", "failed"


class Record:
    """What is known of each section: its status, seconds, rows and a note."""

    def __init__(self, folder: Path, machine: Mapping[str, str], sections: Sequence[str]) -> None:
        self.folder, self.machine = folder, dict(machine)
        self.sections: dict[str, Section] = {
            name: {"status": NOT_RUN, "seconds": 0.0, "note": "", "rows": []} for name in sections
        }
        self._begun = 0.0
        self.save()

    def begin(self, section: str) -> None:
        self._begun = time.monotonic()
        self.sections[section]["status"] = RUNNING
        self.save()

    def add(self, section: str, row: Row) -> None:
        self.sections[section]["rows"].append({key: _plain(row[key]) for key in row})
        self.sections[section]["seconds"] = round(time.monotonic() - self._begun, 1)
        self.save()

    def end(self, section: str, *, status: str = PASSED, note: str = "") -> None:
        """Note how a section ended; rows with "passed": False make it fail."""
        entry = self.sections[section]
        failed = any(row.get("passed") is False for row in entry["rows"])
        entry["status"] = FAILED if failed else status
        entry["seconds"] = round(time.monotonic() - self._begun, 1)
        entry["note"] = note
        self.save()

    def skip(self, section: str, note: str) -> None:
        self.sections[section]["note"] = note
        self.save()

    def rows(self, section: str) -> list[Row]:
        return self.sections[section]["rows"]

    def of_status(self, status: str) -> list[str]:
        return [name for name, entry in self.sections.items() if entry["status"] == status]

    def save(self) -> None:
        content: Results = {"machine": self.machine, "sections": self.sections}
        write_json(self.folder / RESULTS, content)
        write_text(self.folder / PAGE, page_of(content))


def _plain(value: str | float | None) -> str | float | None:
    """JSON has no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_results(path: Path) -> Results:
    """Read a results.json. Raises UserError."""
    return typed(read_json(path, "results of gpu_check"), Results, str(path))
