"""Hide secrets from the process list, which all users of a machine can read."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# arg_start and arg_end among the fields of /proc/self/stat after the name: proc(5).
ARGUMENTS = slice(45, 47)


def hide_in_process_list(secrets: Iterable[str]) -> None:
    """Overwrite secrets in this process's arguments as `ps` shows them; Linux only.

    They stay readable until then, and in the shell's history.
    """
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
