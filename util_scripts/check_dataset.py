"""Find what silently spoils accuracy: missing, damaged or miscounted frames, labels without videos,
and videos in both training and another subset. Exit status 1 if anything is wrong."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from datasets.activitynet import UntrimmedIndex, read_any_index
from datasets.frame_locations import FIRST_NUMBER
from datasets.index import Index
from datasets.index_checks import Finding, by_kind, check_index
from errors import UserError
from utils.command_line import INPUT, Parser, run
from utils.text import first_few


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.check_dataset", description=__doc__)
    parser.add_argument("index", type=INPUT, help="index JSON")
    parser.add_argument("frames_dir", type=INPUT, help="folder of the frames")
    parser.add_argument("--file_type", default="jpg", choices=tuple(FIRST_NUMBER), help="(jpg)")
    parser.add_argument("--all", action="store_true", help="decode every frame, not a sample")
    parser.add_argument("--fix", action="store_true", help="correct the frame counts in the index")
    parser.rewrites("index", lambda options: options.fix)
    options = parser.parse_args(argv)
    index = read_any_index(options.index)
    if not options.frames_dir.is_dir():
        raise UserError(f"{options.frames_dir}: no such folder of frames")
    if options.file_type != "jpg" and isinstance(index, UntrimmedIndex):
        raise UserError(
            f"{options.index}: an index in ActivityNet's format needs --file_type jpg, not "
            f"{options.file_type}"
        )
    if options.fix and isinstance(index, UntrimmedIndex):
        raise UserError(
            f"--fix: {options.index} is in ActivityNet's format, which has no frame counts"
        )
    return _check(index, options)


def _check(index: Index | UntrimmedIndex, options: argparse.Namespace) -> int:
    from datasets.frame_checks import (
        check_duplicates,
        check_frames,
        check_orphans,
        check_pixels,
        fix_counts,
        reader_for,
    )

    videos, findings = check_frames(index, options.frames_dir, options.file_type)
    source = reader_for(videos, options.file_type)
    findings += check_orphans(videos, options.frames_dir)
    findings += check_index(index)
    findings += check_duplicates(index, videos, source)
    findings += check_pixels(videos, source, check_all=options.all)
    is_wrong = report(findings)
    subsets = Counter(entry.subset for entry in index.entries)
    counts = ", ".join(f"{count} {subset}" for subset, count in sorted(subsets.items()))
    print(f"{len(index.labels)} labels; videos: {counts}; {len(videos)} have frames")
    if options.fix:
        print(f"{options.index}: {fix_counts(options.index, videos)} frame counts corrected")
    return 1 if is_wrong else 0


def report(findings: Sequence[Finding]) -> bool:
    """Print the findings by kind; return whether anything is wrong."""
    from datasets.frame_checks import NOTES

    kinds = by_kind(findings)
    for kind, texts in kinds.items():
        print(f"{'note' if kind in NOTES else 'wrong'}: {len(texts)} {kind}")
        for line in first_few(texts):
            print(f"  {line}")
    return any(kind not in NOTES for kind in kinds)


if __name__ == "__main__":
    sys.exit(run(main))
