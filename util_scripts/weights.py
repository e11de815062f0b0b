"""List the hosted weights, or download some of them.

    python -m util_scripts.weights
    python -m util_scripts.weights torchvision:r3d_18

A name can be given wherever a checkpoint is: main.py --pretrain_path torchvision:r3d_18. It is
downloaded at its first use, to torch's cache (below $TORCH_HOME or ~/.cache/torch), and checked by
its SHA-256 at every use. With WEIGHTS_MIRROR=https://mirror.example, that address takes the place
of https://download.pytorch.org and the like. The licence of the weights is their makers'.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import UserError
from models.download import cached_path, fetch
from models.weights import WEIGHTS, HostedWeights, find_weights
from utils.command_line import Parser, run
from utils.text import markdown_table

COLUMNS = (
    "name", "model", "here", "trained on", "classes", "input", "MB", "top-1, as published",
    "licence", "cite",
)  # fmt: skip


def describe(weights: HostedWeights, *, is_downloaded: bool) -> Iterator[str]:
    """Yield lines with all that the table says."""
    size = f"{weights.megabytes} MB" if weights.megabytes else "size not known"
    here = ", downloaded" if is_downloaded else ""
    yield f"{weights.name}: {weights.model}, {weights.trained_on}, {size}{here}"
    yield f"    {weights.arch}, {weights.n_classes or 'no'} classes, {weights.describe_input()}"
    yield f"    {weights.describe_accuracy()}"
    yield f"    licence: {weights.origin.licence}{weights.origin.terms}"
    yield f"    cite: {weights.cite}"
    yield f"    {weights.url}"


def markdown(rows: Sequence[HostedWeights]) -> Iterator[str]:
    """Yield the lines of the table in docs/models.md, whose text has what many rows share."""
    cells = (
        (
            f"[`{row.name}`]({row.url})",
            row.model,
            f"`{row.arch}`",
            row.trained_on,
            str(row.n_classes or "no head"),
            row.describe_input() if row.n_frames else "images",
            str(row.megabytes or "?"),
            row.describe_accuracy(),
            row.origin.licence,
            f"[{row.cite.text}]({row.cite.url})",
        )
        for row in rows
    )
    return markdown_table(COLUMNS, cells)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.weights", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="weights to download")
    text = "print the table of docs/models.md"
    parser.add_argument("--markdown", action="store_true", help=text)
    options = parser.parse_args(argv)
    if options.markdown and options.names:
        raise UserError("--markdown takes no names")
    if options.markdown:
        print("\n".join(markdown(list(WEIGHTS.values()))))
    elif options.names:
        for weights in _find(options.names):
            print(f"{weights.name}: {fetch(weights)}", flush=True)
    else:
        for weights in WEIGHTS.values():
            is_downloaded = cached_path(weights).is_file()
            print("\n".join(describe(weights, is_downloaded=is_downloaded)))
    return 0


def _find(names: Sequence[str]) -> list[HostedWeights]:
    """Look up names. Raises UserError for the first that is unknown."""
    found = [(name, find_weights(Path(name))) for name in names]
    for name, weights in found:
        if weights is None:
            raise UserError(f"{name}: no such weights; there are {', '.join(WEIGHTS)}")
    return [weights for _, weights in found if weights is not None]


if __name__ == "__main__":
    sys.exit(run(main))
