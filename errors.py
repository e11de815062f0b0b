"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake of the user's or a fault of their files, told in one line.

    The line names the value, the place and the way out. Programs print it and exit with status 2.
    """
