"""Train, fine-tune, validate and run 3D ResNets on videos: python main.py -h lists the flags."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from opts import AUTO, Options, parse_opts
from utils.interruption import SIGPIPE, Interrupted, Interruption
from utils.program import losing_output, run_program

if TYPE_CHECKING:
    from torch import nn

    from datasets.index import Index
    from engine.checkpoint import Checkpoint
    from engine.distributed import World
    from engine.run_log import RunLog

log = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases that the flags ask for; the exit status is 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its cache of fonts
    interruption = Interruption()
    try:
        with interruption.watching(), losing_output(lambda: interruption.ask(SIGPIPE)):
            options = parse_opts(argv)
            _check_outputs(options)
            n_processes, node = _processes_to_start(options)
            if n_processes > 1:
                from engine.distributed import launch

                arguments = sys.argv[1:] if argv is None else argv
                return launch(arguments, n_processes, node=node, dist_url=options.dist_url)
            with _joined(options) as world, _memory_explained():
                run(options, interruption, world)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        if interrupted.hint or interrupted.number != SIGPIPE:
            print(f"interrupted: {interrupted}", file=sys.stderr)
        return interrupted.exit_status
    return 0


def _check_outputs(options: Options) -> None:
    """Raises UserError where the run would replace what it reads, or files of another kind."""
    from utils.outputs import Input, check_outputs, files_of_inference, files_of_training

    folder = options.result_path
    assert folder is not None
    if not folder.is_dir():
        return  # to be made, and what else is wrong with it is found out then
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


def _processes_to_start(options: Options) -> "tuple[int, World]":
    """One per visible GPU where nobody has started them yet, else 1, this one; and the place of
    this machine among several, where a launcher started one process on each."""
    from engine.distributed import ALONE, find_launcher, is_launched_by_torchrun

    if options.no_cuda or options.cache_features or is_launched_by_torchrun(os.environ):
        return 1, ALONE
    found = find_launcher(os.environ) if options.distributed else None
    if found is None and options.world_size > 1:
        return 1, ALONE  # join() says what is missing
    node = ALONE if found is None else found[1]
    if node.local_size > 1:
        return 1, ALONE
    import torch

    return torch.cuda.device_count(), node


@contextmanager
def _joined(options: Options) -> "Iterator[World]":
    """Meet the other processes, if there are any; all but the first fall silent."""
    import torch

    from engine.distributed import ALONE, is_launched_by_torchrun, join, leave

    use_cuda = torch.cuda.is_available() and not options.no_cuda
    if options.batchnorm_sync and not use_cuda:
        raise UserError("--batchnorm_sync works on GPUs alone, and none is visible")
    if not options.distributed and not is_launched_by_torchrun(os.environ):
        yield ALONE
        return
    world = join(options.dist_url, use_cuda=use_cuda)
    if not world.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    machines = f" on {world.n_nodes} machines" if world.n_nodes > 1 else ""
    log.info("%d processes%s", world.size, machines)
    yield world
    leave(world)


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Turn a lack of memory, wherever it shows, into a UserError."""
    from engine.device import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        raise UserError(
            "out of memory: a smaller model, --batch_size, --sample_size or --sample_duration "
            "needs less"
        ) from None


def run(options: Options, interruption: Interruption, world: "World") -> None:
    """Read and check everything first, then train, validate and infer."""
    import torch

    from datasets.activitynet import read_any_index
    from engine.checkpoint import check_class_names
    from engine.device import describe_device
    from engine.results_folder import locked
    from engine.runner import Parts, run_phases
    from model import build_device, settle

    assert options.annotation_path is not None and options.result_path is not None
    index = read_any_index(options.annotation_path)
    _check_form(options, index)
    _make_writable(options.result_path)
    resumed, pretrained = _read_checkpoints(options)
    options = _count_classes(options, index, is_resumed=resumed is not None)
    if (file := resumed or pretrained) is not None:
        options = settle(options, file, resumes=resumed is not None)
    _check_classes(options, index)
    if resumed is not None:
        check_class_names(resumed, index.labels, index.path)
    torch.manual_seed(options.manual_seed)
    # As the original; but whole frames differ in shape, and each shape would be timed anew.
    torch.backends.cudnn.benchmark = options.inference_crop != "nocrop"
    device = build_device(options, number=world.local_rank)
    log.info("%s on %s", options.arch, describe_device(device))
    model = device.place(_prepare_model(options, index, resumed, pretrained))
    run_log = _open_log(options, resumed, world, index.labels)
    parts = Parts(options, index, model, device, world, run_log)
    assert options.result_path is not None
    trains = world.is_first and not options.no_train
    with locked(options.result_path) if trains else nullcontext():
        try:
            run_phases(parts, resumed, interruption)
        finally:
            run_log.close()


def _check_form(options: Options, index: "Index") -> None:
    from datasets.activitynet import UntrimmedIndex

    if isinstance(index, UntrimmedIndex) != (options.dataset == "activitynet"):
        form = "" if isinstance(index, UntrimmedIndex) else "not "
        raise UserError(f"--dataset {options.dataset}: {index.path} is {form}in ActivityNet's form")


def _count_classes(options: Options, index: "Index", *, is_resumed: bool) -> Options:
    """Without --n_classes the head gets an output per label; that of a resumed run stays."""
    if "n_classes" in options.given:
        return options
    if not is_resumed:
        log.info("--n_classes %d: the labels of %s", len(index.labels), index.path)
    return replace(options, n_classes=len(index.labels))


def _check_classes(options: Options, index: "Index") -> None:
    n_labels = len(index.labels)
    if options.n_classes < n_labels:
        raise UserError(f"--n_classes {options.n_classes}: {index.path} has {n_labels} labels")
    if options.n_classes > n_labels:
        log.warning(
            "--n_classes %d, but the index has %d labels: the other outputs are left out of "
            "results",
            options.n_classes,
            n_labels,
        )


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--result_path {folder}: can't be written: {error.strerror or error}"
        ) from None


def _read_checkpoints(options: Options) -> "tuple[Checkpoint | None, Checkpoint | None]":
    """The files of --resume_path and, if there is nothing to resume, of --pretrain_path."""
    from engine.advice import no_such_weights
    from engine.checkpoint import find_newest, load_checkpoint

    assert options.result_path is not None
    if options.resume_path is not None and options.resume_path != AUTO:
        return load_checkpoint(options.resume_path), None
    if options.resume_path == AUTO:
        newest = find_newest(options.result_path)
        if newest is not None:
            return newest, None
        if options.no_train:
            raise UserError(f"--resume_path auto: no checkpoint in {options.result_path}")
        log.info("no checkpoint in %s yet: starting fresh", options.result_path)
    if options.pretrain_path is not None:
        if not options.pretrain_path.exists():
            raise UserError(no_such_weights(options.pretrain_path))
        return None, load_checkpoint(options.pretrain_path)
    return None, None


def _prepare_model(
    options: Options,
    index: "Index",
    resumed: "Checkpoint | None",
    pretrained: "Checkpoint | None",
) -> "nn.Module":
    from model import build_finetuned_model, build_loaded_model, build_model, freeze_before

    if resumed is not None:
        model = build_loaded_model(options, resumed)
        told = "weights only" if resumed.epoch is None else f"epoch {resumed.epoch}"
        log.info("%s: loaded, %s", resumed.path, told)
    elif pretrained is not None:
        model = build_finetuned_model(options, pretrained, index.labels, index.path)
    else:
        model = build_model(options)
    freeze_before(model, options.model, options.ft_begin_module)
    return model


def _open_log(
    options: Options, checkpoint: "Checkpoint | None", world: "World", labels: Sequence[str]
) -> "RunLog":
    from engine.run_log import RunLog
    from engine.runner import position_of

    start = position_of(checkpoint)
    assert options.result_path is not None
    goes_on = (
        checkpoint is not None
        and checkpoint.epoch is not None
        and checkpoint.path.resolve().parent == options.result_path.resolve()
    )
    inputs = (options.pretrain_path, options.resume_path, options.annotation_path)
    return RunLog(
        options.result_path,
        options=options.as_plain(),
        labels=labels,
        keep_before=sys.maxsize if options.no_train else start.epoch,
        keep_batches=start.batches,
        tensorboard=options.tensorboard,
        is_silent=not world.is_first,
        resumed=checkpoint.path if checkpoint is not None and goes_on else None,
        is_evaluation=options.no_train,
        inputs=[path for path in inputs if path is not None],
    )


if __name__ == "__main__":
    from engine.distributed import end

    end(run_program(main))
