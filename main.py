"""Train, fine-tune, validate and run 3D ResNets on videos: python main.py -h lists the flags."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from errors import UserError
from flags import Role
from opts import AUTO, Options, names_with
from parsing import parse_opts
from utils.interruption import SIGPIPE, Interruption
from utils.program import on_output_lost, run_program

if TYPE_CHECKING:
    from engine.distributed import World

LESS_MEMORY = "reduce --batch_size, --sample_size or --sample_duration, or choose a smaller model"

log = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases that the flags ask for; return 2 after a user's mistake. Raises Interrupted.

    torch is imported only once the flags are known to be right, so that -h answers at once.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    for library in ("matplotlib", "torch"):  # torch prints statistics at exit
        logging.getLogger(library).setLevel(logging.WARNING)
    interruption = Interruption()
    try:
        with interruption.handling_signals(), on_output_lost(lambda: interruption.request(SIGPIPE)):
            options = parse_opts(argv)
            _check_outputs(options)
            _fetch_weights(options)
            n_processes, node = _processes_to_start(options)
            if n_processes > 1:
                from engine.distributed import launch

                arguments = sys.argv[1:] if argv is None else argv
                return launch(arguments, n_processes, node=node, dist_url=options.dist_url)
            with _joined(options) as world:
                from engine.device import explained_out_of_memory

                with explained_out_of_memory(LESS_MEMORY):
                    from engine.runner import run

                    run(options, interruption, world)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _check_outputs(options: Options) -> None:
    """Raise UserError if the run would replace its own inputs, or files of another kind."""
    from utils.outputs import Input, check_outputs, files_of_inference, files_of_training

    folder = options.result_path
    if not folder.is_dir():
        return  # made later, which may fail for other reasons
    outputs = []
    if not options.no_train:
        outputs += files_of_training(folder, options.n_epochs, options.checkpoint)
    if options.inference:
        outputs += files_of_inference(folder, options.inference_subset)
    inputs = [
        Input(f"--{name}", path)
        for name in ("annotation_path", "pretrain_path")
        if (path := getattr(options, name)) is not None
    ]
    remedy = f"move it out of --result_path {folder}, or choose another folder"
    check_outputs(outputs, inputs, remedy=remedy)


def _fetch_weights(options: Options) -> None:
    """Download weights that were given by name, before several processes would do so.

    A run that continues needs none; if all its checkpoints are damaged, set_up gets them after all.
    """
    from engine.results_folder import has_checkpoints
    from models.download import fetch
    from models.weights import find_weights

    continues = options.resume_path is not None and (
        options.resume_path != AUTO or has_checkpoints(options.result_path)
    )
    for name in names_with(Role.WEIGHTS):
        path = getattr(options, name)
        if name == "pretrain_path" and continues:
            continue
        if path is not None and (weights := find_weights(path)) is not None:
            fetch(weights)


def _processes_to_start(options: Options) -> "tuple[int, World]":
    """Return how many processes to start, and this machine's place among several.

    One per visible GPU, unless a launcher has started them already; up to 1, this one is enough.
    """
    from engine.distributed import SINGLE_PROCESS, find_launcher, is_launched_by_torchrun

    if options.no_cuda or options.cache_features or is_launched_by_torchrun(os.environ):
        return 1, SINGLE_PROCESS
    found = find_launcher(os.environ) if options.distributed else None
    if found is None and options.world_size > 1:
        return 1, SINGLE_PROCESS  # join() reports what is missing
    node = SINGLE_PROCESS if found is None else found[1]
    if node.local_size > 1:
        return 1, SINGLE_PROCESS
    import torch

    return torch.cuda.device_count(), node


@contextmanager
def _joined(options: Options) -> "Iterator[World]":
    """Join the run's other processes, if there are any; only the first one logs."""
    import torch

    from engine.distributed import SINGLE_PROCESS, is_launched_by_torchrun, join, leave

    use_cuda = torch.cuda.is_available() and not options.no_cuda
    if options.batchnorm_sync and not use_cuda:
        raise UserError("--batchnorm_sync needs GPUs, and none is visible")
    if not options.distributed and not is_launched_by_torchrun(os.environ):
        yield SINGLE_PROCESS
        return
    if options.cache_features:  # the parser has refused it with --distributed
        raise UserError("--cache_features runs in one process: start it without torchrun")
    world = join(options.dist_url, use_cuda=use_cuda)
    if not world.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    machines = f" on {world.n_nodes} machines" if world.n_nodes > 1 else ""
    log.info("%d processes%s", world.size, machines)
    yield world
    leave(world)


if __name__ == "__main__":
    from engine.distributed import ProcessExit

    process_exit = ProcessExit()  # before anything else registers an exit hook
    process_exit.status = run_program(main)
    sys.exit(process_exit.status)
