"""Run commands of this project like a user, and check that they leave nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parent.parent
SHARED_MEMORY = Path("/dev/shm")
PATIENCE = 600  # seconds for whatever has to happen; a loaded machine is slow
LINGER = 60  # seconds after a command within which its processes must have ended
LOOK = 0.2  # seconds after which the processes of a command are noted again
MARK = "COMMAND_UNDER_TEST"  # environment variable that all processes of a command inherit


@dataclass(frozen=True)
class Finished:
    """A finished command; `status` is negative if a signal ended it."""

    status: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


class Command:
    """A running command with a temporary folder of its own; use it in a `with` block.

    `arguments` are those of this Python: ("main.py", …) or ("-m", "util_scripts.report", …);
    with `program` they are those of that program. Both outputs go to files, so a process that
    outlives the command blocks nothing.
    """

    def __init__(
        self,
        *arguments: object,
        program: str = sys.executable,
        cwd: Path = ROOT,
        environ: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        before: Callable[[], None] | None = None,
    ) -> None:
        """`environ` is added to this process's; `before` runs in the child, e.g. to set limits."""
        self._files = tempfile.TemporaryDirectory(prefix="command-")
        folder = Path(self._files.name)
        self._temporary, self._out, self._err = (folder / name for name in ("tmp", "out", "err"))
        self._temporary.mkdir()
        self._mark = uuid.uuid4().hex
        own = {MARK: self._mark, "TMPDIR": str(self._temporary), "PYTHONPATH": str(ROOT)}
        own["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # torch creates it on import
        self._started = time.time()
        self._seen: set[int] = set()  # numbers of its processes, also of those that have ended
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [program, *map(str, arguments)],
                cwd=cwd,
                env={**os.environ, **own, **(environ or {})},
                stdin=stdin,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=before,
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()  # from now on it starts no more processes
        while running := self.processes():
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._files.cleanup()

    @property
    def stdout(self) -> str:
        """The output so far."""
        return self._out.read_text(encoding="utf-8", errors="backslashreplace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="backslashreplace")

    def processes(self) -> list[int]:
        """The running processes that the command started, without itself."""
        return [pid for pid in _marked(self._mark) if pid != self.process.pid]

    def wait_until(self, holds: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
        """Wait for a condition while the command runs; fails if it ends first."""
        end, has_ended = time.monotonic() + seconds, False
        while not holds():
            assert not has_ended, f"ended early:\n{self.stdout}{self.stderr}"
            has_ended = self.process.poll() is not None  # perhaps after the condition came true
            assert time.monotonic() < end, f"waited in vain:\n{self.stdout}{self.stderr}"
            time.sleep(0.02)

    def finish(self, *, seconds: float = PATIENCE, is_clean: bool = True) -> Finished:
        """Wait for its end. Fails on a timeout and, with `is_clean`, if processes, temporary files
        or shared memory remain."""
        end = time.monotonic() + seconds
        while (status := self._wait(end - time.monotonic())) is None:
            assert time.monotonic() < end, (
                f"still runs after {seconds} s, with processes {self.processes()}:\n"
                f"{self.stdout}{self.stderr}"
            )
        if is_clean:
            self._check_left_behind()
        return Finished(status, self.stdout, self.stderr)

    def _wait(self, seconds: float) -> int | None:
        """Wait for a moment at most, and return the status if it has ended."""
        self._seen.update(self.processes())
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(min(max(seconds, 0), LOOK))
        return None

    def _check_left_behind(self) -> None:
        end = time.monotonic() + LINGER
        while (orphans := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        said = f":\n{self.stdout}{self.stderr}"
        assert not orphans, f"orphans {[_described(pid) for pid in orphans]}{said}"
        files = [str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*")]
        assert not files, f"temporary files {files}{said}"
        blocks = [p.name for p in SHARED_MEMORY.glob("torch_*") if self._is_own(p)]
        assert not blocks, f"shared memory {blocks}{said}"

    def _is_own(self, block: Path) -> bool:
        """Whether a block torch_PID_… is of this command, not of another test's that is killed."""
        pid = block.name.split("_")[1]
        if not pid.isdigit() or int(pid) not in {self.process.pid, *self._seen}:
            return False
        try:
            return block.stat().st_mtime >= self._started  # else the number is used again
        except FileNotFoundError:
            return False


def run_command(
    *arguments: object,
    program: str = sys.executable,
    cwd: Path = ROOT,
    environ: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    seconds: float = PATIENCE,
    is_clean: bool = True,
) -> Finished:
    """Run a command to its end: see Command and Command.finish."""
    with Command(*arguments, program=program, cwd=cwd, environ=environ, before=before) as command:
        return command.finish(seconds=seconds, is_clean=is_clean)


def run_util(name: str, *arguments: object, **how: object) -> Finished:
    """Run `python -m util_scripts.NAME` to its end."""
    return run_command("-m", f"util_scripts.{name}", *arguments, **how)  # type: ignore[arg-type]


def _marked(mark: str) -> Sequence[int]:
    found = []
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            is_zombie = b"\nState:\tZ" in (folder / "status").read_bytes()
            environ = (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if not is_zombie and wanted in environ.split(b"\0"):
            found.append(int(folder.name))
    return found


def _described(pid: int) -> str:
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return str(pid)
    return f"{pid} {b' '.join(words[:4]).decode(errors='replace')}"
