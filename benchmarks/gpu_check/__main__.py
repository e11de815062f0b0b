"""Check and measure this repository on a GPU, in minutes.

    python -m benchmarks.gpu_check --pack KIT                     # first: what it may lack there
    python -m benchmarks.gpu_check OUT [--kit KIT] [--minutes 8]  # on the machine with a GPU
    python -m benchmarks.gpu_check --tables OUT/results.json      # then: fill in docs/gpu.md
    python -m benchmarks.gpu_check OUT --rehearse                 # small, on a CPU

The sections run in order of worth. OUT/results.json and OUT/results.md are written after every row,
so that a run that is cut off is still a result. The exit status is 1 if a section failed.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_check import kit


def main(argv: Sequence[str] | None = None) -> int:
    from benchmarks.gpu_check.command import run_command

    return run_command(argv, __doc__)


def _prepare(words: Sequence[str]) -> str | None:
    """Do what must come before other imports: install the wheels of --kit, and choose one GPU,
    since main.py starts a process for each. Return why that failed."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--kit":
            try:
                kit.unpack(Path(value or following))
            except subprocess.CalledProcessError:
                return f"--kit {value or following}: its wheels can't be installed, see above"
    return None


if __name__ == "__main__":
    if (fault := _prepare(sys.argv[1:])) is not None:
        sys.exit(f"error: {fault}")
    from utils.command_line import run

    sys.exit(run(main))
