"""Render facts, charts and strips to one self-contained HTML page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.index import SUBSETS, canonical_subset
from datasets.index_checks import by_kind, check_sides
from engine.provenance import versions
from errors import UserError
from evaluation.metrics import calibration, error_by_chance, wilson_interval
from evaluation.results import describe, few_videos_warning
from flags import Role, as_text
from opts import FLAGS, names_with
from reporting import charts
from reporting.facts import Facts
from reporting.short_paths import MOST_PRIVATE, ShortPaths
from reporting.tables import (
    SHOWN_CLASSES,
    binary_result,
    class_rows,
    confused_pairs,
    shown_matrix,
    too_few,
)
from utils.outputs import REPORT_MARK
from utils.progress_bar import duration
from utils.text import first_few, join_few

TEMPLATE = "report.html.j2"
N_PAIRS = 15
N_ENDS = 10  # best and worst classes shown before the full list
N_BINS = 10
# Control characters, bidirectional overrides, surrogates.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HIDDEN_OPTIONS = ("root_path", "given", *names_with(Role.LAUNCH))


def render(facts: Facts, *, strips: Mapping[str, Any], positive: str | None = None) -> str:
    """Render the page. `strips` is from reporting.strips, or {"reason": why there are none}.

    Raises UserError if `positive` is not a class.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if positive is not None and positive not in facts.labels:
        raise UserError(
            f"--positive {positive}: no such class; the classes are {join_few(facts.labels)}"
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=partial(_literal, _short_paths(facts)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": count}
    return environment.get_template(TEMPLATE).render(
        generator=REPORT_MARK,
        title=_title(facts),
        facts=facts,
        headline=_headline(facts),
        curves=charts.curves(facts),
        confusion=_confusion(facts),
        classes=_classes(facts),
        reliability=_reliability(facts),
        binary=_binary(facts, positive),
        strips=strips,
        time=_time(facts),
        made_by=_made_by(facts),
        options=_options(facts),
    )


def _short_paths(facts: Facts) -> ShortPaths:
    made = facts.provenance
    saved = map(made.options.get, names_with(Role.ROOTED))
    others = (made.checkpoint, facts.index.path if facts.index is not None else None)
    return ShortPaths(facts.folder, map(Path, filter(None, [*saved, *others])))


def _literal(shorten: ShortPaths, value: Any) -> Any:
    """Shorten paths, and escape characters that a browser drops or that reverse the text."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], shorten(value))


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def count(n: int) -> str:
    """Format 1234567 as 1 234 567, with narrow no-break spaces."""
    return f"{n:,}".replace(",", "\u202f")


def _title(facts: Facts) -> str:
    used = facts.provenance.options.get("annotation_path")
    index = facts.index.path if facts.index is not None else Path(used) if used else None
    data = None if index is None else _data_name(index.absolute())
    arch = _arch(facts.provenance.options)
    return " on ".join(filter(None, (arch, data))) or facts.folder.absolute().name


def _data_name(index: Path) -> str:
    """Return FOLDER/NAME of an index; its name alone where FOLDER may be the name of a person."""
    folder = index.parent
    is_private = len(folder.parts) <= MOST_PRIVATE or folder == Path.home()
    return index.stem if is_private else f"{folder.name}/{index.stem}"


def _headline(facts: Facts) -> dict[str, Any]:
    accuracy = facts.accuracy
    if accuracy is None:
        return {"reason": facts.reasons.get("accuracy", "the videos have no labels")}
    return {
        "accuracy": accuracy,
        "warnings": [*filter(None, [few_videos_warning(accuracy, facts.subset)]), *_leaks(facts)],
        "subset": canonical_subset(facts.subset),
        "notes": [line for line in describe(accuracy) if not line.startswith(("video", "mean"))],
    }


def _leaks(facts: Facts) -> Iterator[str]:
    """Yield what may make the accuracy too high: recordings in both training and validation."""
    assert facts.index is not None
    for kind, texts in by_kind(check_sides(facts.index)).items():
        yield f"{count(len(texts))} {kind}: {'; '.join(first_few(texts))}"


def _confusion(facts: Facts) -> dict[str, Any] | None:
    matrix = facts.confusion()
    if not matrix.sum():
        return None
    shown, names = shown_matrix(matrix, facts.labels)
    totals = shown.sum(axis=1)
    rows = [
        [(int(n), float(n / total) if total else 0.0) for n in row]
        for row, total in zip(shown, totals, strict=True)
    ]
    return {
        "names": names,
        "rows": rows,
        "totals": totals.tolist(),
        "picture": charts.whole_matrix(matrix) if len(matrix) > SHOWN_CLASSES else None,
        "pairs": confused_pairs(matrix, facts.labels, N_PAIRS),
        "n_wrong": int(matrix.sum() - matrix.trace()),
    }


def _classes(facts: Facts) -> dict[str, Any] | None:
    if facts.accuracy is None:
        return None
    rows = class_rows(facts)
    n_empty = len(facts.labels) - len(rows)
    if len(rows) <= 2 * N_ENDS:
        return {"all": rows, "worst": [], "best": [], "n_empty": n_empty}
    best = rows[: -N_ENDS - 1 : -1]
    return {"all": rows, "worst": rows[:N_ENDS], "best": best, "n_empty": n_empty}


def _reliability(facts: Facts) -> dict[str, Any] | None:
    videos = facts.videos
    known = videos.is_labelled
    if not known.any():
        return None
    counts = np.bincount(videos.targets[known], minlength=len(facts.labels))
    if (reason := too_few(counts.tolist(), facts.labels)) is not None:
        return {"reason": reason}
    scores = videos.scores[known].clip(0, 1)
    hits = videos.hits[known]
    found = calibration(scores, hits, N_BINS)
    return {
        "chart": charts.reliability(found),
        "error": found.error,
        "mean_score": float(scores.mean()),
        "accuracy": float(hits.mean()),
        "interval": wilson_interval(int(hits.sum()), len(hits)),
        "by_chance": error_by_chance(scores, N_BINS),
        "n_bins": N_BINS,
        "n": int(known.sum()),
    }


def _binary(facts: Facts, positive: str | None) -> dict[str, Any] | None:
    if len(facts.labels) != 2 or facts.accuracy is None:
        return None
    try:
        result = binary_result(facts, positive)
    except ValueError as error:
        return {"reason": str(error)}
    sides = [result.counts.n_positives, result.counts.n_negatives]
    if (reason := too_few(sides, [result.positive, result.negative])) is not None:
        return {"reason": reason}
    return {"result": result, "charts": [charts.roc(result), charts.precision_recall(result)]}


def _time(facts: Facts) -> dict[str, Any] | None:
    table = facts.logs.get("time")
    if table is None or "waiting" not in table:
        return None
    table = {name: column[: _n_whole(table)] for name, column in table.items()}
    if not len(table["epoch"]):
        return None
    train, waiting = float(table["train"].sum()), float(table["waiting"].sum())
    n_clips = float((table["clips_per_second"] * table["train"]).sum())
    return {
        "chart": charts.times(table),
        "total": duration(train + float(table["validation"].sum())),
        "waiting_share": waiting / train if train > 0 else 0.0,
        "clips_per_second": n_clips / train if train > 0 else 0.0,
        "n_epochs": len(table["epoch"]),
    }


def _n_whole(table: Mapping[str, np.ndarray]) -> int:
    """Count the rows before one that was cut short."""
    is_whole = np.isfinite(np.stack(list(table.values()))).all(axis=0)
    return len(is_whole) if is_whole.all() else int(is_whole.argmin())


def _made_by(facts: Facts) -> list[tuple[str, str]]:
    """List how the result was produced, as rows of a name and a text."""
    made, options = facts.provenance, facts.provenance.options
    checkpoint = "not known" if made.checkpoint is None else str(made.checkpoint)
    if made.epoch is not None:
        checkpoint += f", epoch {made.epoch}"
    if made.checkpoint_changed:
        checkpoint += " (the file has changed since)"
    rows = [
        ("result", f"{facts.folder.absolute() / facts.subset}.json, {_counts(facts)}"),
        ("index", str(facts.index.path.absolute()) if facts.index else "not known"),
        ("frames", str(options.get("video_path", "not known"))),
        ("checkpoint", checkpoint),
        ("model", _arch(options) or "not known"),
        ("input", _input(options)),
        ("windows", _windows(options)),
        ("device", made.device or "not known"),
        ("duration", "not known" if made.seconds is None else duration(made.seconds)),
        ("finished", made.finished or "not known"),
        ("versions", _listed(made.versions) or "not known"),
        ("report by", _listed(versions())),
    ]
    return [row for row in rows if row[1] != "not known"]


def _arch(options: Mapping[str, Any]) -> str | None:
    is_known = "model" in options and "model_depth" in options
    return f"{options['model']}-{options['model_depth']}" if is_known else None


def _counts(facts: Facts) -> str:
    n = f"{count(len(facts.results))} videos"
    if facts.index is None:
        return n
    entries = facts.index.entries
    sizes = {
        name: sum(1 for _ in entries.of_subset(name)) for name in dict.fromkeys(SUBSETS.values())
    }
    listed = ", ".join(f"{count(size)} {name}" for name, size in sizes.items() if size)
    return f"{n}; the index has {listed}"


def _input(options: Mapping[str, Any]) -> str:
    names = ("sample_size", "sample_duration", "sample_t_stride", "input_type")
    if any(name not in options for name in names):
        return "not known"
    size, frames, stride, kind = (options[name] for name in names)
    every = "" if stride == 1 else f", frame stride {stride}"
    return f"{frames} frames of {size} × {size} pixels{every}, {kind}"


def _windows(options: Mapping[str, Any]) -> str:
    if "inference_stride" not in options:
        return "not known"
    stride = options["inference_stride"] or options.get("sample_duration", 0)
    n_clips = options.get("inference_clips", 0)
    windows = f"{n_clips} clips per video" if n_clips else f"every {stride} kept frames"
    crop = "centre crop" if options.get("inference_crop") == "center" else "no crop"
    views = " x 3 crops" if options.get("inference_crops") == 3 else f", {crop}"
    flip = ", each mirrored, too" if options.get("inference_flip") else ""
    return f"{windows}{views}{flip}"


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _options(facts: Facts) -> Sequence[tuple[str, str, bool]]:
    """List (name, value, whether it differs from the default), those that differ first."""
    defaults = {name: flag.default for name, flag in FLAGS.items()}
    rows = []
    for name, value in facts.provenance.options.items():
        if name in HIDDEN_OPTIONS or name not in defaults:
            continue
        rows.append((name, as_text(value), value != defaults[name]))
    return sorted(rows, key=lambda row: not row[2])
