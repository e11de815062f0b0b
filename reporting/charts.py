"""Charts as SVG that takes its colours from the page, so that one serves light, dark and print."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluation.metrics import (
    Calibration,
    auc,
    average_precision,
    precision_recall_curve,
    roc_curve,
    wilson_interval,
)
from reporting.facts import Facts, Table
from reporting.tables import TwoClasses
from utils.plotting import LITERAL, tick_names
from utils.reading import shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.4, 3.2)  # inches; text is as large as the page's where a chart is as wide as a phone
POINTS = 10
MANY_EPOCHS = 30  # above it, lines without markers and bars without gaps
MOST_DOTS = 100  # a side of the picture of all classes

# Drawn in these colours, which no chart has otherwise, and then named as the page's own.
INK, FAINT, LINES = "#010203", "#010204", ("#010a01", "#010a02", "#010a03")
PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--faint)"} | {
    colour: f"var(--line-{number})" for number, colour in enumerate(LINES, start=1)
}
STYLE: Any = {  # matplotlib types the names of its settings one by one
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "report",
    **LITERAL,
    "font.size": POINTS,
    "axes.titlesize": POINTS + 1,
    "legend.fontsize": POINTS - 1,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


class Chart(NamedTuple):
    """A picture for the page, and what it shows in words, for those who can't see it."""

    svg: str
    alt: str


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def draw(name: str, alt: str, paint: Callable[["Axes"], None]) -> Chart:
    """Let `paint` fill a chart's axes. `name` keeps what it defines apart from other charts."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=SIZE, layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Chart(_for_page(file.getvalue(), name, alt), alt)


def _for_page(svg: str, name: str, alt: str) -> str:
    """The drawing without its file's header, ids that occur once a page, colours of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", body)
    body = re.sub(r"(font(?:-family)?: [^;\"]*?)'[^\"]*?(?=[;\"])", r"\1inherit", body)
    for colour, page in PAGE_COLOURS.items():
        body = body.replace(colour, page)
    _, view_box, rest = re.split(r'(viewBox="[^"]*")', body, maxsplit=1)
    rest = rest[rest.index(">") :]
    return f'<svg {view_box} role="img" aria-label="{_quoted(alt)}" class="chart"{rest}'


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def curves(facts: Facts) -> list[Chart]:
    """Loss, accuracy and rate by epoch, of what the logs hold."""
    train, val = facts.logs.get("train"), facts.logs.get("val")
    charts = [
        _by_epoch("loss", "Loss", [("training", train, "loss"), ("validation", val, "loss")]),
        _by_epoch(
            "accuracy",
            "Accuracy",
            [
                ("training clips", train, "acc"),
                ("validation clips", val, "acc"),
                ("validation videos", val, "video_acc"),
            ],
        ),
        _by_epoch("rate", "Learning rate", [("learning rate", train, "lr")], log=True),
    ]
    return [chart for chart in charts if chart is not None]


def _by_epoch(
    name: str,
    title: str,
    columns: Sequence[tuple[str, Table | None, str]],
    *,
    log: bool = False,
) -> Chart | None:
    lines = [
        (label, table["epoch"], table[column])
        for label, table, column in columns
        if table is not None and column in table and np.isfinite(table[column]).any()
    ]
    if not lines:
        return None

    def paint(axes: "Axes") -> None:
        for (label, epochs, values), colour in zip(lines, LINES, strict=False):
            marker = "o" if len(epochs) <= MANY_EPOCHS else ""
            axes.plot(epochs, values, label=label, color=colour, marker=marker, markersize=3.5)
        axes.set(title=title, xlabel="epoch")
        _whole_numbers(axes)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        if len(lines) > 1:
            axes.legend()

    told = "; ".join(f"{label} {_told(epochs, values)}" for label, epochs, values in lines)
    return draw(name, f"{title} by epoch. {told}.", paint)


def _told(epochs: np.ndarray, values: np.ndarray) -> str:
    known = np.flatnonzero(np.isfinite(values))
    first, last = known[0], known[-1]
    return (
        f"from {values[first]:.3g} in epoch {epochs[first]:.0f} to {values[last]:.3g} in "
        f"epoch {epochs[last]:.0f}"
    )


def _whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def times(table: Table) -> Chart:
    """Seconds of each epoch, by what they were spent on."""
    waiting, computing = table["waiting"], table["train"] - table["waiting"]
    parts = [("computing", computing), ("waiting", waiting), ("validation", table["validation"])]

    def paint(axes: "Axes") -> None:
        base, width = np.zeros(len(waiting)), 0.8 if len(waiting) <= MANY_EPOCHS else 1.0
        for (label, seconds), colour in zip(parts, LINES, strict=True):
            seconds = np.nan_to_num(seconds)
            axes.bar(table["epoch"], seconds, width, bottom=base, label=label, color=colour)
            base = base + seconds
        axes.set(title="Seconds per epoch", xlabel="epoch")
        axes.set_ylim(top=base.max() * 1.3 or 1)
        _whole_numbers(axes)
        axes.legend(ncols=3, loc="upper left", handlelength=1, columnspacing=1)

    told = ", ".join(f"{label} {np.nansum(seconds):.0f} s" for label, seconds in parts)
    return draw("times", f"Seconds per epoch. In all: {told}.", paint)


def reliability(found: Calibration) -> Chart:
    """Accuracy against score, with the Wilson interval of each bin."""
    full = found.counts > 0
    scores, shares, counts = found.scores[full], found.accuracies[full], found.counts[full]
    bounds = [
        wilson_interval(round(share * n), int(n)) for share, n in zip(shares, counts, strict=True)
    ]

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2)
        low, high = np.array(bounds).T
        axes.vlines(scores, low, high, color=LINES[0], linewidth=1.2, alpha=0.6)
        sizes = 12 + 150 * counts / counts.max()
        axes.scatter(scores, shares, sizes, color=LINES[0], zorder=3, alpha=0.8)
        axes.set(xlabel="score of the answer", ylabel="answers that are right")
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), title="Reliability")

    told = "; ".join(
        f"of {n:.0f} answers with a score of {score:.2f} on average {share:.0%} are right"
        for score, share, n in zip(scores, shares, counts, strict=True)
    )
    return draw("reliability", f"Reliability of the scores: {told}.", paint)


def roc(two: TwoClasses) -> Chart:
    """Found positives against false alarms; the choices of the table are marked."""
    x, y = roc_curve(two.counts)

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2)
        axes.plot(x, y, color=LINES[0])
        _mark(axes, [(c.false_alarms, c.recall) for c in two.choices])
        negative, positive = tick_names([two.negative, two.positive])
        axes.set(xlabel=f"{negative} taken for {positive}", ylabel=f"{positive} found")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), title=f"ROC, area {auc(x, y):.3f}")

    return draw(
        "roc", f"ROC of {shown_name(two.positive)}: area under the curve {auc(x, y):.3f}.", paint
    )


def precision_recall(two: TwoClasses) -> Chart:
    precision, recall = precision_recall_curve(two.counts)
    area = average_precision(two.counts)

    def paint(axes: "Axes") -> None:
        share = two.counts.n_positives / (two.counts.n_positives + two.counts.n_negatives)
        axes.axhline(share, color=FAINT, linestyle="--", linewidth=1.2)
        axes.step(recall, precision, where="pre", color=LINES[0])
        _mark(axes, [(c.recall, c.precision) for c in two.choices])
        [positive] = tick_names([two.positive])
        axes.set(xlabel=f"{positive} found (recall)", ylabel="alarms that are right")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), title=f"Precision, average {area:.3f}")

    alt = f"Precision by recall of {shown_name(two.positive)}: average precision {area:.3f}."
    return draw("precision", alt, paint)


def _mark(axes: "Axes", points: Sequence[tuple[float, float]]) -> None:
    """Number the choices; those at one place share a mark."""
    places: dict[tuple[float, float], list[str]] = {}
    for number, point in enumerate(points, start=1):
        places.setdefault(point, []).append(str(number))
    for (x, y), numbers in places.items():
        axes.plot([x], [y], "o", color=LINES[1], markersize=5, zorder=4)
        axes.annotate(",".join(numbers), (x, y), (4, -11), textcoords="offset points", zorder=5)


def whole_matrix(matrix: np.ndarray) -> Chart:
    """Every pair of classes as a dot, the fuller the larger its share of the true class; of more
    than MOST_DOTS classes, neighbours share a dot, which shows the largest of them."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    k = len(matrix)
    block = -(-k // MOST_DOTS)
    starts = np.arange(0, k, block)
    largest = np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)

    def paint(axes: "Axes") -> None:
        picture = np.zeros((*largest.shape, 4))
        picture[..., :3] = (0.25, 0.53, 0.96)
        picture[..., 3] = np.sqrt(largest)  # mistakes are few: a root makes them visible
        extent = (0, len(starts) * block, len(starts) * block, 0)
        axes.imshow(picture, interpolation="none", aspect="auto", extent=extent)
        axes.set(xlabel="answer", ylabel="truth", title="All classes, in the index's order")
        axes.set(xlim=(0, k), ylim=(k, 0))
        axes.grid(False)

    shared = f" {block} x {block} pairs share a dot, which shows the largest." if block > 1 else ""
    alt = (
        f"Confusion matrix of all {k} classes: {np.trace(matrix)} of {matrix.sum()} videos are on "
        f"its line.{shared}"
    )
    return draw("matrix", alt, paint)
