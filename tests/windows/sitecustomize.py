"""Lets this program's own modules see what they would see on Windows: sys.platform, no module,
signal or function that is missing there, and processes that are spawned, not forked.

Python imports it at its start where this folder is on PYTHONPATH; child processes do, too.
"""

import builtins
import multiprocessing
import os
import signal
from pathlib import Path
from types import ModuleType

ROOT = str(Path(__file__).parent.parent.parent) + os.sep
ABSENT_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# The rest of these two modules' names is on Windows as well (docs.python.org: Availability).
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
ABSENT = {
    "signal": {name for name in dir(signal) if name.startswith("SIG")} - SIGNALS
    | {"alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer",
       "siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"},
    "os": {name for name in dir(os) if name.startswith(("EX_", "P_", "posix_", "sched_", "W"))}
    - {"W_OK", "P_DETACH", "P_NOWAIT", "P_OVERLAY", "P_WAIT", "PathLike"}
    | {"O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "chroot",
       "confstr", "fchdir", "fchown", "fdatasync", "fork", "forkpty", "getegid", "geteuid",
       "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getsid",
       "getuid", "killpg", "lchown", "memfd_create", "MFD_CLOEXEC", "mkfifo", "mknod", "nice",
       "openpty", "pipe2", "pread", "preadv", "pwrite", "pwritev", "readv", "register_at_fork",
       "sendfile", "setpgid", "setpriority", "setsid", "setuid", "statvfs", "sync", "sysconf",
       "ttyname", "uname", "wait", "wait3", "wait4", "writev"},
}  # fmt: skip
ABSENT["multiprocessing.reduction"] = {"DupFd", "recvfds", "sendfds", "send_handle", "recv_handle"}
REPLACED = {"sys": {"platform": "win32"}}
import_module = builtins.__import__


class AsOnWindows(ModuleType):
    """A module as a program on Windows sees it."""

    def __init__(self, module):
        super().__init__(module.__name__)
        self.__dict__["_module"] = module

    def __getattr__(self, name):
        replaced = REPLACED.get(self.__name__, {})
        if name in ABSENT.get(self.__name__, ()):
            raise AttributeError(f"module {self.__name__!r} has no {name!r} on Windows")
        return replaced[name] if name in replaced else getattr(self._module, name)

    def __setattr__(self, name, value):
        setattr(self._module, name, value)


MODULES = {name: AsOnWindows(import_module(name, fromlist=("*",))) for name in (*ABSENT, *REPLACED)}


def import_as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {}).get("__file__") or "")
    is_ours = importer.startswith(ROOT) and f"{os.sep}.venv{os.sep}" not in importer
    if is_ours and name in ABSENT_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    module = import_module(name, globals, locals, fromlist, level)
    given = name if fromlist else name.partition(".")[0]
    return MODULES.get(given, module) if is_ours else module


builtins.__import__ = import_as_on_windows
multiprocessing.set_start_method("spawn")
