"""The processes of a distributed run: their ranks, and what they exchange.

They are started by torchrun, SLURM or Open MPI, or by `launch` on the GPUs of one machine.
"""

import atexit
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from errors import UserError
from utils.interruption import heeded_signals
from utils.launchers import LAUNCHERS

# How long a process waits for the others, e.g. for their last videos; one that ends is noticed at
# once.
CONTROL_TIMEOUT = timedelta(hours=6)
# How long they may take to join at the start, and to sum the gradients of a step.
JOIN_TIMEOUT = timedelta(minutes=15)
LOST = ("by peer", "Broken pipe")  # in gloo's errors for a process that has ended

log = logging.getLogger("main")

_has_joined = False  # whether gloo threads run in this process


@dataclass(frozen=True)
class World:
    """All processes of a run as one of them sees them; a single process never waits."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1  # processes on this node
    n_nodes: int = 1
    # The gloo group of these exchanges, which do not wait for a GPU as nccl's would.
    control: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs, checkpoints and results."""
        return self.rank == 0

    def share(self, n_items: int) -> range:
        """Return this process's share of the items; each item belongs to one process."""
        return range(self.rank, n_items, self.size)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sum each number over all processes."""
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        with explain_lost_process():
            dist.all_reduce(tensor, group=self.control)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, in every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with explain_lost_process():
            dist.all_gather_object(values, value, group=self.control)
        return values

    def share_from_first(self, tensors: Sequence[Any]) -> None:
        """Overwrite the tensors, on this process's device, with those of the first process."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with explain_lost_process():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


SINGLE_PROCESS = World()


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turn the errors of processes whose peer has ended into UserError."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST):
            raise
        raise UserError("another process of this run has ended: see its error") from None


def find_launcher(environ: Mapping[str, str]) -> tuple[str, World] | None:
    """The launcher that the environment shows and our place in it, or None.

    Raises UserError if its variables are not numbers.
    """
    for name, variables in LAUNCHERS.items():
        *needed, n_local = variables
        if all(variable in environ for variable in needed):
            try:
                rank, size, local = (int(environ[variable]) for variable in needed)
                counts = _counts(environ.get(n_local, str(size)))
                node = int(environ.get("SLURM_NODEID", 0)) if len(counts) > 1 else 0
                return name, World(rank, size, local, counts[node])
            except ValueError:
                shown = ", ".join(f"{v}={environ[v]}" for v in variables if v in environ)
                raise UserError(
                    f"--distributed: {shown}: not the numbers that {name} sets"
                ) from None
    return None


def _counts(text: str) -> list[int]:
    """Parse SLURM's processes per node, '2(x3),1' -> [2, 2, 2, 1]; other launchers' '2' -> [2]."""
    counts = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def is_launched_by_torchrun(environ: Mapping[str, str]) -> bool:
    """Return whether torchrun started several processes; it needs no --distributed."""
    return "TORCHELASTIC_RUN_ID" in environ and int(environ.get("WORLD_SIZE", "1")) > 1


def join(dist_url: str, *, use_cuda: bool) -> World:
    """Join the other processes: nccl moves gradients between GPUs, gloo between CPUs.

    Raises UserError without a launcher, and if the processes cannot join.
    """
    import torch
    import torch.distributed as dist

    found = find_launcher(os.environ)
    if found is None:
        raise UserError(
            "--distributed: no launcher; start with torchrun --nproc_per_node N main.py …, with "
            "srun or mpirun, or on a machine with several GPUs"
        )
    launcher, world = found
    if use_cuda:
        if world.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"--distributed: process {world.local_rank} of this node has no GPU of its own: "
                f"{torch.cuda.device_count()} are visible"
            )
        torch.cuda.set_device(world.local_rank)
    place = "env://" if launcher == "torchrun" else _rendezvous(dist_url, os.environ)
    if world.is_first:
        log.info("waiting for the other %d processes at %s", world.size - 1, place)
    try:
        dist.init_process_group(
            "nccl" if use_cuda else "gloo",
            init_method=place,
            rank=world.rank,
            world_size=world.size,
            timeout=JOIN_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--dist_url {place}: the {world.size} processes that {launcher} announces could not "
            f"join: {str(error).splitlines()[0]}"
        ) from None
    global _has_joined
    _has_joined = True
    control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    world = replace(world, control=control)
    [n_nodes] = world.sums([world.local_rank == 0])
    return replace(world, n_nodes=int(n_nodes))


def leave(world: World) -> None:
    """Leave the group of processes at the end of a run."""
    if world.size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


class ProcessExit:
    """Ends a program that may have joined a group of processes, without taking Python apart.

    Make it first of all: its exit hook then runs after all others. A thread of gloo may still hold
    a tensor of the last exchange; to release it, it would need an interpreter that is gone, and
    abort the process (https://github.com/pytorch/pytorch/issues/190489).
    """

    def __init__(self) -> None:
        self.status = 0
        atexit.register(self._exit)

    def _exit(self) -> None:
        if _has_joined:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)


def _rendezvous(dist_url: str, environ: Mapping[str, str]) -> str:
    """Return --dist_url, its default host replaced by the first node under SLURM on several."""
    host = environ.get("SLURM_LAUNCH_NODE_IPADDR")
    several = int(environ.get("SLURM_NNODES", "1")) > 1
    if several and host and "//127.0.0.1:" in dist_url:
        return dist_url.replace("127.0.0.1", host)
    return dist_url


def launch(
    argv: Sequence[str], n_processes: int, *, node: World = SINGLE_PROCESS, dist_url: str = ""
) -> int:
    """Run main.py in `n_processes` on this machine by torchrun; return its exit status.

    A process that fails ends the others. `node` is this machine's place among several that a
    launcher started one process on each; their processes join at `dist_url`.
    """
    import tempfile
    from pathlib import Path

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    script = str(Path(__file__).parent.parent / "main.py")
    meeting = _torchrun_flags(node, dist_url)
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", _signals_of_torchrun())
    command = ["--nproc_per_node", str(n_processes), script, *argv, "--distributed"]
    try:
        with tempfile.TemporaryDirectory() as logs:  # torchrun leaves its own
            torchrun([*meeting, "--log_dir", logs, *command])
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return int(first.exitcode) if 0 < first.exitcode < 128 else 1
    except SignalException as signalled:  # which the processes got, too
        return 128 + int(signalled.sigval)
    return 0


def _signals_of_torchrun() -> str:
    """Return the signals that end its processes: by default also those that are ignored here."""
    return ",".join([*(number.name for number in heeded_signals()), "SIGQUIT"])


def _torchrun_flags(node: World, dist_url: str) -> list[str]:
    if node.size == 1:
        return ["--standalone"]
    place = urlsplit(_rendezvous(dist_url, os.environ))
    if place.scheme != "tcp" or place.hostname is None or place.port is None:
        raise UserError(f"--dist_url {dist_url}: several nodes need tcp://HOST:PORT")
    flags = ["--nnodes", str(node.size), "--node_rank", str(node.rank)]
    return [*flags, "--master_addr", place.hostname, "--master_port", str(place.port)]
