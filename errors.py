"""The one exception that a user is meant to see."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake of the user's or a fault of their files, told in one line.

    The line names the value, the place and the way out. Programs print it and exit with status 2.
    """


@contextmanager
def writing(place: Path, what: str) -> Iterator[None]:
    """Inside, an OSError is told as a UserError: `what` can't be written in `place`, and why."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise UserError(
            f"{place}: {what} can't be written: {cause}; checkpoints saved before are whole, "
            "--resume_path auto goes on from them"
        ) from None
