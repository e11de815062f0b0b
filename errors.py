"""UserError: a mistake that the user can correct, reported in a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake of the user or a fault in their files.

    Its message is a line for each mistake: what is wrong, where, and what to do. Programs print it
    and exit with status 2.
    """


@contextmanager
def writing(place: Path, what: str) -> Iterator[None]:
    """Turn an OSError into a UserError that says why `what` can't be written to `place`."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise UserError(
            f"{place}: {what} can't be written: {cause}; earlier checkpoints are intact, "
            "--resume_path auto continues from them"
        ) from None
