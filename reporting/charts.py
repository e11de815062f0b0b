"""Charts as SVG in the colours of the page, so that one file suits light, dark and print."""

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
from reporting.tables import BinaryResult
from utils.plotting import LITERAL
from utils.reading import shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.4, 3.2)  # inches: on a phone, text in charts is as large as on the page
POINTS = 10
MANY_EPOCHS = 30  # above this, lines have no markers and bars no gaps
MAX_CELLS = 100  # per side of the confusion matrix as a picture

# Charts are drawn in these otherwise unused colours, which are then replaced by CSS variables.
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
    """An SVG element, and its content in words for screen readers."""

    svg: str
    alt: str


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def draw(name: str, alt: str, paint: Callable[["Axes"], None]) -> Chart:
    """Make a chart whose axes `paint` fills. `name` makes its ids unique on the page."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=SIZE, layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Chart(_for_page(file.getvalue(), name, alt), alt)


def _for_page(svg: str, name: str, alt: str) -> str:
    """Strip the XML header, make ids unique, and use the colours and font of the page."""
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
    """Plot loss, accuracy and learning rate by epoch, as far as they are logged."""
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

    summary = "; ".join(f"{label} {_range(epochs, values)}" for label, epochs, values in lines)
    return draw(name, f"{title} by epoch. {summary}.", paint)


def _range(epochs: np.ndarray, values: np.ndarray) -> str:
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
    """Plot the seconds of each epoch: computing, waiting, validation."""
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

    totals = ", ".join(f"{label} {np.nansum(seconds):.0f} s" for label, seconds in parts)
    return draw("times", f"Seconds per epoch. Totals: {totals}.", paint)


def reliability(found: Calibration) -> Chart:
    """Plot accuracy against score, with the Wilson interval of each bin."""
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
        axes.set(xlabel="mean score of the prediction", ylabel="accuracy")
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), title="Reliability diagram")

    summary = "; ".join(
        f"{n:.0f} predictions with a mean score of {score:.2f} have an accuracy of {share:.0%}"
        for score, share, n in zip(scores, shares, counts, strict=True)
    )
    return draw("reliability", f"Reliability diagram: {summary}.", paint)


def roc(result: BinaryResult) -> Chart:
    """Plot the ROC curve, with the thresholds of the table marked."""
    x, y = roc_curve(result.counts)

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2)
        axes.plot(x, y, color=LINES[0])
        _mark(axes, [(c.false_positive_rate, c.recall) for c in result.choices])
        axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), title=f"ROC, AUC {auc(x, y):.3f}")

    return draw("roc", f"ROC curve of {shown_name(result.positive)}: area {auc(x, y):.3f}.", paint)


def precision_recall(result: BinaryResult) -> Chart:
    precision, recall = precision_recall_curve(result.counts)
    area = average_precision(result.counts)

    def paint(axes: "Axes") -> None:
        share = result.counts.n_positives / (result.counts.n_positives + result.counts.n_negatives)
        axes.axhline(share, color=FAINT, linestyle="--", linewidth=1.2)
        axes.step(recall, precision, where="pre", color=LINES[0])
        _mark(axes, [(c.recall, c.precision) for c in result.choices])
        axes.set(xlabel="recall", ylabel="precision", title=f"Precision-recall, average {area:.3f}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))

    alt = f"Precision-recall curve of {shown_name(result.positive)}: average precision {area:.3f}."
    return draw("precision", alt, paint)


def _mark(axes: "Axes", points: Sequence[tuple[float, float]]) -> None:
    """Mark the points by number; points at the same place share a mark."""
    places: dict[tuple[float, float], list[str]] = {}
    for number, point in enumerate(points, start=1):
        places.setdefault(point, []).append(str(number))
    for (x, y), numbers in places.items():
        axes.plot([x], [y], "o", color=LINES[1], markersize=5, zorder=4)
        axes.annotate(",".join(numbers), (x, y), (4, -11), textcoords="offset points", zorder=5)


def whole_matrix(matrix: np.ndarray) -> Chart:
    """Draw the confusion matrix as a picture, each row normalised by its true class. With more than
    MAX_CELLS classes, neighbours share a cell, which shows their maximum."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    k = len(matrix)
    block = -(-k // MAX_CELLS)
    starts = np.arange(0, k, block)
    largest = np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)

    def paint(axes: "Axes") -> None:
        picture = np.zeros((*largest.shape, 4))
        picture[..., :3] = (0.25, 0.53, 0.96)
        picture[..., 3] = np.sqrt(largest)  # the root makes rare mistakes visible
        extent = (0, len(starts) * block, len(starts) * block, 0)
        axes.imshow(picture, interpolation="none", aspect="auto", extent=extent)
        axes.set(xlabel="predicted class", ylabel="true class", title="All classes, in index order")
        axes.set(xlim=(0, k), ylim=(k, 0))
        axes.grid(False)

    shared = (
        f" {block} x {block} pairs share a cell, which shows their maximum." if block > 1 else ""
    )
    alt = (
        f"Confusion matrix of all {k} classes: {np.trace(matrix)} of {matrix.sum()} videos are on "
        f"the diagonal.{shared}"
    )
    return draw("matrix", alt, paint)
