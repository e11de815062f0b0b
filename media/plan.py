"""Which files of a folder of videos are extracted, and where their frames go."""

from collections.abc import Iterator
from pathlib import Path

from media.extraction import ALIAS, Job, Outcome
from media.manifest import FAILED, LEFT_OUT, target_of
from media.shard import WHOLE, Shard
from media.verdicts import Verdict, is_video_name
from media.walking import Skipped, Visit, walk


def plan(
    video_dir: Path, jpg_dir: Path, shard: Shard = WHOLE, *, suffix: str = ""
) -> Iterator[Job | Outcome]:
    """A job for every file of the shard, in name order, and at once the outcome of what can't be
    read or has no place for its frames."""
    for visit in walk(video_dir, excluded=jpg_dir):
        below = visit.path.relative_to(video_dir)
        for skipped in visit.skipped:
            yield from _outcome(shard, str(below / skipped.name), _verdict_on(skipped))
        places = _places(visit)
        for file in visit.files:
            name, target = str(below / file), target_of(file)
            if file in visit.aliases:
                other = visit.aliases[file]
                yield from _outcome(shard, name, Verdict(ALIAS, f"the same file as {other}"))
            if places[target] != file:
                yield from _outcome(shard, name, _no_place(file, places[target]))
            elif shard.holds(name):
                yield Job(name, visit.path / file, jpg_dir / below / f"{target}{suffix}")


def _outcome(shard: Shard, name: str, verdict: Verdict) -> Iterator[Outcome]:
    if shard.holds(name):
        yield Outcome(name, verdict)


def _verdict_on(skipped: Skipped) -> Verdict:
    """What may hold videos has failed: a folder, or a file that isn't called something else."""
    is_other = Path(skipped.name).suffix and not is_video_name(skipped.name)
    return Verdict(FAILED if skipped.is_lost and not is_other else LEFT_OUT, skipped.reason)


def _places(visit: Visit) -> dict[str, str]:
    """{name without suffix: the file whose frames go there}, "" for a folder of videos. Videos come
    before files beside them: subtitles, thumbnails, notes."""
    places = {name: "" for name in visit.folders}
    for file in sorted(visit.files, key=is_video_name, reverse=True):
        places.setdefault(target_of(file), file)
    return places


def _no_place(file: str, other: str) -> Verdict:
    if not is_video_name(file):
        return Verdict(LEFT_OUT, f"not a video: it has the name of {other or 'a folder'}")
    if other:
        return Verdict(FAILED, f"its frames would go where those of {other} go")
    target = target_of(file)
    return Verdict(FAILED, f"there is a folder of videos of the same name, {target}")
