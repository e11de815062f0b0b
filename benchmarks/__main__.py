"""Compare with a plain implementation: python -m benchmarks [steps …] [--json FILE]"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks import extraction, finetuning, formats, index, inference, loading, steps
from benchmarks.timing import Comparison
from engine.device import cpu_has_bf16, tune_process
from errors import UserError
from utils.command_line import OutputPath, Parser, run
from utils.files import write_json
from utils.outputs import BENCHMARK

SECTIONS: dict[str, Callable[[], Iterator[Comparison]]] = {
    "extraction": extraction.comparisons,
    "formats": formats.comparisons,
    "index": index.comparisons,
    "loading": loading.comparisons,
    "steps": steps.comparisons,
    "inference": inference.comparisons,
    "finetuning": finetuning.comparisons,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"from {', '.join(SECTIONS)}; all by default")
    text = "also write the results to this file, after every section"
    parser.add_argument("--json", type=OutputPath(BENCHMARK), metavar="FILE", help=text)
    options = parser.parse_args(argv)
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        raise UserError(f"no section {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    tune_process(steps.devices()[0])  # as main.py does
    print(machine := _machine())
    print(f"{'':68} {'ours':>8} {'plain':>8} {'ratio':>6} {'of limit':>8}")
    rows = []
    for section in options.sections or SECTIONS:
        for row in SECTIONS[section]():
            rows.append(row._asdict())
            share = "" if row.of_limit is None else f"{row.of_limit:.0%}"
            figures = f"{row.ours:8.2f} {row.plain:8.2f} {row.ratio:6.2f} {share:>8}"
            print(f"{row.name:68} {figures} {row.unit}", flush=True)
        if options.json is not None:
            write_json(options.json, {"machine": machine, "rows": rows})
    return 0


def _machine() -> str:
    bf16 = "native" if cpu_has_bf16() else "no"
    return (
        f"torch {torch.__version__}, {os.cpu_count()} cores ({torch.get_num_threads()} threads), "
        f"{torch.backends.cpu.get_cpu_capability()}, {bf16} bf16"
    )


if __name__ == "__main__":
    sys.exit(run(main))
