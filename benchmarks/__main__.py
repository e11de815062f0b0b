"""Compare with a plain implementation: python -m benchmarks [steps …] [--json FILE]"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import extraction, finetuning, formats, index, inference, loading, steps
from benchmarks.timing import Comparison
from engine.device import cpu_has_bf16, tune_process
from utils.program import run_program

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
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"from {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(argv)
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
    if options.json:
        content = {"machine": machine, "rows": rows}
        options.json.write_text(
            json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    return 0


def _machine() -> str:
    bf16 = "native" if cpu_has_bf16() else "no"
    return (
        f"torch {torch.__version__}, {os.cpu_count()} cores ({torch.get_num_threads()} threads), "
        f"{torch.backends.cpu.get_cpu_capability()}, {bf16} bf16"
    )


if __name__ == "__main__":
    sys.exit(run_program(main))
