"""Train, fine-tune, validate and run 3D ResNets on videos: python main.py -h lists the flags."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from opts import AUTO, Options, parse_opts
from runtime.interruption import Interrupted, Interruption

if TYPE_CHECKING:
    from torch import nn

    from datasets.annotation import Index
    from datasets.video_dataset import ClipLoader
    from runtime.checkpoint import Checkpoint
    from runtime.device import Device
    from runtime.keeper import CheckpointKeeper
    from runtime.run_log import RunLog
    from training import Position

log = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases that the flags ask for; the exit status is 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    interruption = Interruption()
    try:
        with interruption.watching():
            run(parse_opts(argv), interruption)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return interrupted.exit_status
    return 0


def run(options: Options, interruption: Interruption) -> None:
    """Read and check everything first, then train, validate and infer."""
    import torch

    from datasets.activitynet import read_any_index
    from model import settle
    from runtime.checkpoint import check_class_names

    assert options.annotation_path is not None and options.result_path is not None
    index = read_any_index(options.annotation_path)
    _check_form(options, index)
    _make_writable(options.result_path)
    resumed, pretrained = _read_checkpoints(options)
    if (file := resumed or pretrained) is not None:
        options = settle(options, file, resumes=resumed is not None)
    _check_classes(options, index)
    if resumed is not None:
        check_class_names(resumed, index.labels, index.path)
    torch.manual_seed(options.manual_seed)
    device = _choose_device(options)
    model = device.place(_prepare_model(options, index, resumed, pretrained))
    run_log = _open_log(options, resumed)
    try:
        _run_phases(options, index, model, device, resumed, run_log, interruption)
    finally:
        run_log.close()


def _run_phases(
    options: Options,
    index: "Index",
    model: "nn.Module",
    device: "Device",
    checkpoint: "Checkpoint | None",
    run_log: "RunLog",
    interruption: Interruption,
) -> None:
    from datasets.build import build_inference_loader, build_train_loader, build_val_loader
    from training import build_trainer, fit, validate

    # All loaders first: what is wrong with any of them is told before hours of training.
    train_loader = None if options.no_train else build_train_loader(options, index)
    val_loader = None if options.no_val else build_val_loader(options, index)
    inference_loader = build_inference_loader(options, index) if options.inference else None
    for loader in (train_loader, val_loader, inference_loader):
        if loader is not None:
            loader.probe()
    if train_loader is not None:
        _tell_doubts(index)
        trainer = build_trainer(options, model, device, checkpoint)
        start = _start(options, checkpoint)
        keeper = _keeper(options, index, interruption)
        if checkpoint is not None:
            keeper.mend_best(checkpoint)
        with interruption.deferred():
            fit(
                trainer,
                train_loader,
                val_loader,
                start=start,
                n_epochs=options.n_epochs,
                run_log=run_log,
                keeper=keeper,
            )
    elif val_loader is not None:
        assert checkpoint is not None
        validate(model, val_loader, device, checkpoint.epoch or 0, run_log)
    if inference_loader is not None:
        _infer(options, index, model, device, inference_loader, run_log)


def _tell_doubts(index: "Index") -> None:
    """What the index alone shows to be odd; util_scripts.check_dataset looks at the frames too."""
    from datasets.index_checks import by_kind, check_index, first_few

    for kind, texts in by_kind(check_index(index)).items():
        log.warning("index: %d %s: %s", len(texts), kind, "; ".join(first_few(texts)))


def _check_form(options: Options, index: "Index") -> None:
    from datasets.activitynet import UntrimmedIndex

    if isinstance(index, UntrimmedIndex) != (options.dataset == "activitynet"):
        form = "" if isinstance(index, UntrimmedIndex) else "not "
        raise UserError(f"--dataset {options.dataset}: {index.path} is {form}in ActivityNet's form")


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


def _choose_device(options: Options) -> "Device":
    from runtime.device import Normalization, choose_device, describe_device

    normalization = Normalization.of(
        options.mean_dataset,
        value_scale=options.value_scale,
        use_mean=not options.no_mean_norm,
        use_std=not options.no_std_norm,
        n_channels=options.n_input_channels,
    )
    device = choose_device(
        no_cuda=options.no_cuda, precision=options.precision, normalization=normalization
    )
    log.info("%s on %s", options.arch, describe_device(device))
    return device


def _read_checkpoints(options: Options) -> "tuple[Checkpoint | None, Checkpoint | None]":
    """The files of --resume_path and, if there is nothing to resume, of --pretrain_path."""
    from runtime.checkpoint import find_newest, load_checkpoint

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
        return None, load_checkpoint(options.pretrain_path)
    return None, None


def _prepare_model(
    options: Options,
    index: "Index",
    resumed: "Checkpoint | None",
    pretrained: "Checkpoint | None",
) -> "nn.Module":
    from model import build_finetuned_model, build_model, freeze_before
    from runtime.checkpoint import load_weights

    if resumed is not None:
        model = build_model(options)
        load_weights(model, resumed)
        log.info("%s: loaded, epoch %s", resumed.path, resumed.epoch)
    elif pretrained is not None:
        model = build_finetuned_model(options, pretrained, index.labels, index.path)
    else:
        model = build_model(options)
    freeze_before(model, options.model, options.ft_begin_module)
    return model


def _open_log(options: Options, checkpoint: "Checkpoint | None") -> "RunLog":
    from runtime.run_log import RunLog

    start = _position(checkpoint)
    assert options.result_path is not None
    return RunLog(
        options.result_path,
        options=options.as_plain(),
        keep_before=sys.maxsize if options.no_train else start.epoch,
        keep_batches=start.batches,
        tensorboard=options.tensorboard,
    )


def _position(checkpoint: "Checkpoint | None") -> "Position":
    """Where training goes on."""
    from training import Position

    if checkpoint is None:
        return Position(1)
    if "position" in checkpoint.extra:
        return Position(**checkpoint.extra["position"])
    return Position((checkpoint.epoch or 0) + 1)


def _start(options: Options, checkpoint: "Checkpoint | None") -> "Position":
    start = _position(checkpoint)
    if checkpoint is not None and start.epoch > options.n_epochs + 1:
        raise UserError(
            f"{checkpoint.path}: is at epoch {checkpoint.epoch}, past --n_epochs {options.n_epochs}"
        )
    if start.epoch == options.n_epochs + 1:
        log.info("all %d epochs are trained already", options.n_epochs)
    if start.batches and checkpoint is not None:
        _check_batches(options, checkpoint)
        log.info("going on in epoch %d after batch %d", start.epoch, start.batches)
    return start


def _check_batches(options: Options, checkpoint: "Checkpoint") -> None:
    """Inside an epoch the batches must be those of the interrupted run."""
    for name in ("batch_size", "manual_seed"):
        saved, here = checkpoint.options.get(name), getattr(options, name)
        if saved != here:
            raise UserError(
                f"--{name} {here}: {checkpoint.path} was saved inside an epoch with {saved}; "
                "resume with that, or from a save_{epoch}.pth"
            )


def _keeper(options: Options, index: "Index", interruption: Interruption) -> "CheckpointKeeper":
    from runtime.keeper import CheckpointKeeper

    assert options.result_path is not None
    return CheckpointKeeper(
        options.result_path,
        every=options.checkpoint,
        minutes=options.checkpoint_minutes,
        keep=options.keep_checkpoints,
        about={
            "arch": options.arch,
            "class_names": list(index.labels),
            "options": options.as_plain(),
        },
        interruption=interruption,
    )


def _infer(
    options: Options,
    index: "Index",
    model: "nn.Module",
    device: "Device",
    loader: "ClipLoader",
    run_log: "RunLog",
) -> None:
    """Write {subset}.json and tell the accuracy."""
    from datasets.annotation import UNLABELLED
    from inference import infer
    from results import accuracy_of, describe, write_results

    assert options.result_path is not None
    results = infer(
        model,
        loader,
        device=device,
        labels=index.labels,
        topk=options.output_topk,
        average=not options.inference_no_average,
    )
    run_log.begin()
    path = options.result_path / f"{options.inference_subset}.json"
    write_results(path, results)
    log.info("%s: scores of %d videos", path, len(results))
    if all(record.label == UNLABELLED for record in loader.dataset.records):
        log.info("the videos have no labels: no accuracy")
        return
    for line in describe(accuracy_of(index, results, options.inference_subset)):
        log.info("%s", line)


if __name__ == "__main__":
    sys.exit(main())
