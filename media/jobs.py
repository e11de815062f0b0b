"""Find the files of a folder of videos to extract, and where their frames go."""

from collections.abc import Collection, Iterator
from pathlib import Path

from media.extraction import ALIAS, Job, Outcome
from media.manifest import FAILED, LEFT_OUT, target_of
from media.shard import WHOLE, Shard
from media.verdicts import Verdict, is_video_name
from media.walking import Skipped, Visit, walk


def find_jobs(
    video_dir: Path,
    jpg_dir: Path,
    shard: Shard = WHOLE,
    *,
    suffix: str = "",
    only: Collection[str] | None = None,
) -> Iterator[Job | Outcome]:
    """Yield a job for every file of the shard, in name order, or its outcome if it can't be read
    or another file's frames go to the same place. With `only`, other names are passed over."""
    for visit in walk(video_dir, excluded=jpg_dir, towards=only):
        below = visit.path.relative_to(video_dir)
        for skipped in visit.skipped if only is None else ():
            yield from _outcome(shard, str(below / skipped.name), _verdict_on(skipped))
        owners = _target_owners(visit)
        for file in visit.files:
            name, target = str(below / file), target_of(file)
            if only is not None and name not in only:
                continue
            if file in visit.aliases:
                other = visit.aliases[file]
                yield from _outcome(shard, name, Verdict(ALIAS, f"the same file as {other}"))
            if owners[target] != file:
                yield from _outcome(shard, name, _target_taken(file, owners[target]))
            elif shard.holds(name):
                yield Job(name, visit.path / file, jpg_dir / below / f"{target}{suffix}")


def _outcome(shard: Shard, name: str, verdict: Verdict) -> Iterator[Outcome]:
    if shard.holds(name):
        yield Outcome(name, verdict)


def _verdict_on(skipped: Skipped) -> Verdict:
    """Return FAILED for what may hold videos: a folder, or a file without another kind's suffix."""
    is_other = Path(skipped.name).suffix and not is_video_name(skipped.name)
    return Verdict(FAILED if skipped.is_lost and not is_other else LEFT_OUT, skipped.reason)


def _target_owners(visit: Visit) -> dict[str, str]:
    """Map each name without suffix to the file whose frames go there, "" for a subfolder. Videos
    win over subtitles, thumbnails and notes of the same name."""
    owners = dict.fromkeys(visit.folders, "")
    for file in sorted(visit.files, key=is_video_name, reverse=True):
        owners.setdefault(target_of(file), file)
    return owners


def _target_taken(file: str, other: str) -> Verdict:
    if not is_video_name(file):
        return Verdict(LEFT_OUT, f"not a video: shares its name with {other or 'a folder'}")
    if other:
        return Verdict(FAILED, f"same output folder as {other}; rename one of the two")
    target = target_of(file)
    return Verdict(FAILED, f"same name as the folder of videos {target}; rename one of the two")
