"""How busy the GPU is, as nvidia-smi reports it."""

import os
import statistics
import subprocess
import threading
import time
from types import TracebackType

QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
INTERVAL = 0.2  # seconds; the driver averages over about as long


class Utilisation:
    """Reads the share of time in which a kernel ran, in percent, while its block runs."""

    def __init__(self, *, reads: bool = True) -> None:
        self.readings: list[tuple[float, float]] = []  # (time.time(), percent)
        self._reads, self._ended = reads, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Utilisation":
        if self._reads:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._reads:
            self._thread.join()

    def mean(self, start: float = 0.0, end: float = float("inf")) -> float | None:
        """Return the mean of the readings between two times, None if there are none."""
        found = [percent for moment, percent in self.readings if start <= moment <= end]
        return statistics.mean(found) if found else None

    def _watch(self) -> None:
        query = [*QUERY, f"--id={os.environ.get('CUDA_VISIBLE_DEVICES', '0').split(',')[0]}"]
        while not self._ended.wait(INTERVAL):
            try:
                output = subprocess.run(query, capture_output=True, text=True, timeout=5).stdout
            except (OSError, subprocess.TimeoutExpired):
                return
            if output.strip().isdigit():
                self.readings.append((time.time(), float(output)))
