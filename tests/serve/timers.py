"""Timers that a test fires by hand, at the moment it needs."""


class Timer:
    """Stands for one of a thread or of an event loop, which would fire after `seconds`."""

    def __init__(self, seconds, function, arguments):
        self.seconds, self._function, self._arguments = seconds, function, arguments
        self.is_cancelled, self.is_started, self.daemon = False, False, False

    def start(self):
        self.is_started = True

    def cancel(self):
        self.is_cancelled = True

    def fire(self):
        assert self.is_started
        assert not self.is_cancelled
        self._function(*self._arguments)
