"""What other users of the machine see of this process."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# Where the arguments start and end, among what /proc/self/stat says after the name: proc(5).
ARGUMENTS = slice(45, 47)


def hide_in_process_list(secrets: Iterable[str]) -> None:
    """Overwrite parts of this process's arguments as `ps` shows them; Linux alone. Until then, and
    in the shell's history, they can be read."""
    with suppress(OSError, ValueError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        stat = Path("/proc/self/stat").read_bytes()
        start, end = map(int, stat.rpartition(b")")[2].split()[ARGUMENTS])
        memory.seek(start)
        shown = arguments = memory.read(end - start)
        for secret in map(os.fsencode, secrets):
            shown = shown.replace(secret, b"*" * len(secret))
        if shown != arguments:
            memory.seek(start)
            memory.write(shown)
