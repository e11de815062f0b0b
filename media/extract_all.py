"""Extract all videos of a folder side by side, and summarise what happened."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from media.extraction import ALIAS, NOT_TRIED, THERE, Extraction, Job, Outcome
from media.manifest import DONE, FAILED, LEFT_OUT, PARTIAL, Manifest
from media.orphans import Orphan
from utils.command_line import printable
from utils.text import first_few

TITLES = {
    ALIAS: "links to videos that are also extracted from another path",
    PARTIAL: "damaged: the frames that decode are kept",
    LEFT_OUT: "left out",
    FAILED: "failed",
}
ORPHANED = "frames without a video, which indexes leave out (--prune removes them)"
ADOPTED = (
    "without a row in the manifest (of an interrupted or another run, or another program); they "
    "fit the videos"
)
UNMATCHED = "rows of the table of --only that no file below VIDEO_DIR matches"
COUNTED = {DONE: "done", THERE: THERE, PARTIAL: "partial", LEFT_OUT: "left out", FAILED: "failed"}
MAX_LISTED = 200  # videos of one status in the summary; the manifest has all
QUEUED = 4  # waiting jobs per worker: bounds the memory of a long list of videos


def extract_all(
    jobs: Iterable[Job | Outcome], extraction: Extraction, manifest: Manifest, n_jobs: int
) -> Iterator[Outcome]:
    """Yield outcomes as videos are done, after writing their rows; stops ffmpeg if abandoned."""
    pool = ThreadPoolExecutor(n_jobs)
    waiting: set[Future[Outcome]] = set()
    numbered = enumerate(jobs)
    try:
        while True:
            for number, job in islice(numbered, max(0, QUEUED * n_jobs - len(waiting))):
                if isinstance(job, Outcome):
                    yield job
                else:
                    previous = manifest.previous(job.name)
                    run = pool.submit(extraction.run, number, job, previous, manifest.owner)
                    waiting.add(run)
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                if outcome.row is not None:
                    manifest.append(outcome.row)
                elif outcome.verdict.status == THERE:
                    manifest.confirm(outcome.name, str(extraction.video_dir))
                yield outcome
    finally:
        extraction.ffmpeg.stop()
        pool.shutdown(cancel_futures=True)
        extraction.work.remove()


class Summary:
    """Counts outcomes, and keeps the names of videos that need a look."""

    def __init__(self, unmatched: Sequence[str] = ()) -> None:
        self.unmatched = unmatched  # rows of the table of --only
        self.counts: Counter[str] = Counter()
        self.n_adopted = 0
        self._listed: dict[str, list[str]] = {status: [] for status in TITLES}

    def add(self, outcome: Outcome) -> None:
        status, reason = outcome.verdict
        self.counts[status] += 1
        self.n_adopted += status == THERE and outcome.row is not None and not outcome.row.ffmpeg
        if status in self._listed and len(self._listed[status]) < MAX_LISTED:
            self._listed[status].append(f"{printable(outcome.name)}: {printable(reason)}")

    def lines(self, orphans: Mapping[str, Orphan]) -> Iterator[str]:
        for status, title in TITLES.items():
            yield from _section(title, sorted(self._listed[status]), self.counts[status])
        orphaned = [
            f"{printable(place)}: {printable(f'{orphan.source}: {orphan.reason}')}"
            for place, orphan in orphans.items()
        ]
        yield from _section(ORPHANED, orphaned, len(orphaned))
        yield from _section(UNMATCHED, self.unmatched, len(self.unmatched))
        if self.n_adopted:
            yield f"{self.n_adopted} of {self.counts[THERE]} already there: {ADOPTED}"
        counts = [f"{self.counts[status]} {name}" for status, name in COUNTED.items()]
        counts += [f"{self.counts[NOT_TRIED]} {NOT_TRIED}"] if self.counts[NOT_TRIED] else []
        counts += [f"{len(orphans)} orphaned"] if orphans else []
        counts += [f"{len(self.unmatched)} without a file"] if self.unmatched else []
        yield ", ".join(counts)


def _section(title: str, lines: Sequence[str], total: int) -> Iterator[str]:
    if total:
        yield f"{title}:"
        yield from (f"  {line}" for line in first_few(lines, MAX_LISTED, total=total))
