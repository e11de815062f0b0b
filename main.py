"""Train, fine-tune, validate and run 3D ResNets on videos: python main.py -h lists the flags."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from opts import AUTO, Options, parse_opts

if TYPE_CHECKING:
    from torch import nn

    from datasets.annotation import Index
    from datasets.video_dataset import ClipLoader
    from runtime.checkpoint import Checkpoint
    from runtime.device import Device
    from runtime.run_log import RunLog
    from training import Progress, Trainer

log = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases that the flags ask for; the exit status is 2 after a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    try:
        run(parse_opts(argv))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(options: Options) -> None:
    """Read and check everything first, then train, validate and infer."""
    import torch

    from datasets.annotation import read_index

    assert options.annotation_path is not None and options.result_path is not None
    index = read_index(options.annotation_path)
    _check_classes(options, index)
    _make_writable(options.result_path)
    torch.manual_seed(options.manual_seed)
    device = _choose_device(options)
    checkpoint = _find_checkpoint(options, index)
    model = device.place(_prepare_model(options, checkpoint))
    run_log = _open_log(options, checkpoint)
    try:
        _run_phases(options, index, model, device, checkpoint, run_log)
    finally:
        run_log.close()


def _run_phases(
    options: Options,
    index: "Index",
    model: "nn.Module",
    device: "Device",
    checkpoint: "Checkpoint | None",
    run_log: "RunLog",
) -> None:
    from datasets.build import build_inference_loader, build_train_loader, build_val_loader
    from training import build_trainer, fit, validate

    # All loaders first: what is wrong with any of them is told before hours of training.
    train_loader = None if options.no_train else build_train_loader(options, index)
    val_loader = None if options.no_val else build_val_loader(options, index)
    inference_loader = build_inference_loader(options, index) if options.inference else None
    if train_loader is not None:
        trainer = build_trainer(options, model, device, checkpoint)
        fit(
            trainer,
            train_loader,
            val_loader,
            epochs=_epochs(options, checkpoint),
            run_log=run_log,
            save=lambda progress: _save(options, trainer, index, progress),
        )
    elif val_loader is not None:
        assert checkpoint is not None
        validate(model, val_loader, device, checkpoint.epoch or 0, run_log)
    if inference_loader is not None:
        _infer(options, index, model, device, inference_loader, run_log)


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
    )
    device = choose_device(
        no_cuda=options.no_cuda, precision=options.precision, normalization=normalization
    )
    log.info("%s on %s", options.arch, describe_device(device))
    return device


def _find_checkpoint(options: Options, index: "Index") -> "Checkpoint | None":
    """The file of --resume_path, its class names compared with the index's."""
    from runtime.checkpoint import check_class_names, find_newest, load_checkpoint

    if options.resume_path is None:
        return None
    assert options.result_path is not None
    if options.resume_path != AUTO:
        checkpoint = load_checkpoint(options.resume_path)
    else:
        newest = find_newest(options.result_path)
        if newest is None:
            if options.no_train:
                raise UserError(f"--resume_path auto: no checkpoint in {options.result_path}")
            log.info("no checkpoint in %s yet: starting fresh", options.result_path)
            return None
        checkpoint = newest
    check_class_names(checkpoint, index.labels, index.path)
    return checkpoint


def _prepare_model(options: Options, checkpoint: "Checkpoint | None") -> "nn.Module":
    from model import build_finetuned_model, build_model, freeze_before
    from runtime.checkpoint import load_weights

    if checkpoint is not None:
        model = build_model(options)
        load_weights(model, checkpoint)
        log.info("%s: loaded, epoch %s", checkpoint.path, checkpoint.epoch)
    elif options.pretrain_path is not None:
        model = build_finetuned_model(options)
    else:
        model = build_model(options)
    freeze_before(model, options.model, options.ft_begin_module)
    return model


def _open_log(options: Options, checkpoint: "Checkpoint | None") -> "RunLog":
    from runtime.run_log import RunLog

    first_epoch = _first_epoch(checkpoint)
    assert options.result_path is not None
    return RunLog(
        options.result_path,
        options=options.as_plain(),
        keep_before=sys.maxsize if options.no_train else first_epoch,
        tensorboard=options.tensorboard,
    )


def _first_epoch(checkpoint: "Checkpoint | None") -> int:
    return 1 if checkpoint is None else (checkpoint.epoch or 0) + 1


def _epochs(options: Options, checkpoint: "Checkpoint | None") -> range:
    first = _first_epoch(checkpoint)
    if checkpoint is not None and first > options.n_epochs + 1:
        raise UserError(
            f"{checkpoint.path}: is at epoch {checkpoint.epoch}, past --n_epochs {options.n_epochs}"
        )
    if first == options.n_epochs + 1:
        log.info("all %d epochs are trained already", options.n_epochs)
    return range(first, options.n_epochs + 1)


def _save(options: Options, trainer: "Trainer", index: "Index", progress: "Progress") -> None:
    """save_{epoch}.pth every --checkpoint epochs and at the last; best.pth when it is."""
    from runtime.checkpoint import save_checkpoint

    assert options.result_path is not None
    names = []
    if progress.is_last or progress.epoch % options.checkpoint == 0:
        names.append(f"save_{progress.epoch}.pth")
    if progress.is_best:
        names.append("best.pth")
    for name in names:
        content = trainer.state() | {
            "epoch": progress.epoch,
            "arch": options.arch,
            "class_names": list(index.labels),
            "options": options.as_plain(),
        }
        save_checkpoint(options.result_path / name, content)


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
