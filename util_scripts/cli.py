"""What every command shares: errors told in one line, and the exit status."""

import io
import sys
from collections.abc import Callable, Sequence

from errors import UserError


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Run a command on sys.argv and return its exit status: 2 for a UserError, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):  # names that are no text are printed all the same
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
