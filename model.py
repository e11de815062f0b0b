"""Build the model of a run, load its weights, replace its head, freeze its first layers."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import Checkpoint, check_fits, load_weights, n_classes_of
from engine.class_names import check_class_names
from engine.device import Device, Normalization, choose_device
from engine.distributed import World
from errors import UserError
from flags import Role
from models.build import build, replace_head
from models.catalog import FAMILIES
from opts import Options, names_with
from parsing import fill_in

ONE_VALUE_PER_CHANNEL = "more than 1 value per channel"  # in torch's error from batch norm

log = logging.getLogger(__name__)


def build_model(options: Options) -> nn.Module:
    """Build a model with random weights and --n_classes outputs. Raises UserError where clips of
    this size are too small for it."""
    model = _build(options, options.n_classes)
    _check_clips(model, options)
    return model


def build_loaded_model(options: Options, checkpoint: Checkpoint) -> nn.Module:
    """Build the model of a checkpoint, head included. Raises UserError where the options do not
    fit its tensors."""
    return _build_loaded(options, checkpoint, options.n_classes)


def _build_loaded(options: Options, checkpoint: Checkpoint, n_classes: int) -> nn.Module:
    skeleton = _skeleton(options, checkpoint, n_classes)
    check_fits(skeleton, checkpoint)
    _check_clips(skeleton, options)
    model = _build(options, n_classes)
    load_weights(model, checkpoint)
    return model


def _skeleton(options: Options, checkpoint: Checkpoint, n_classes: int) -> nn.Module:
    """Build the model on the meta device: the shape of one small tensor can ask for any size."""
    try:
        with torch.device("meta"):
            return _build(options, n_classes)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        cause = str(error).splitlines()[0]
        raise UserError(
            f"{checkpoint.path}: {options.arch} cannot have its shapes: {cause}"
        ) from None


def _check_clips(model: nn.Module, options: Options) -> None:
    size, duration = options.sample_size, options.sample_duration
    try:
        dry_run(model, (2, options.n_input_channels, duration, size, size))
    except RuntimeError as error:
        cause = str(error).splitlines()[0]
        raise UserError(
            f"--sample_size {size} --sample_duration {duration}: too small for {options.arch}: "
            f"{cause}"
        ) from None


def dry_run(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Run a forward pass for clips of a shape (B, C, T, H, W) on the meta device.

    It computes and changes nothing, but raises what torch raises for wrong shapes.
    """
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        torch.func.functional_call(model, shapes, torch.empty(shape, device="meta"))


def build_device(options: Options, *, gpu_index: int = 0) -> Device:
    """Choose the device (GPU `number` if there is one), precision and normalisation. Raises
    UserError for a precision that the device does not support."""
    normalization = Normalization.of(
        options.mean_dataset,
        value_scale=options.value_scale,
        use_mean=not options.no_mean_norm,
        use_std=not options.no_std_norm,
        n_channels=options.n_input_channels,
    )
    return choose_device(
        no_cuda=options.no_cuda,
        precision=options.precision,
        normalization=normalization,
        gpu_index=gpu_index,
    )


def adopt_checkpoint_options(
    options: Options, checkpoint: Checkpoint, *, with_classes: bool = True, with_clips: bool = True
) -> Options:
    """Take the architecture, stem and preprocessing from a checkpoint where no flag was given, and
    `with_classes` their number, `with_clips` the shape of clips.

    A flag that differs from the saved option is a warning, or a UserError for the stem, which the
    tensors do not show; flags that differ from the tensors are reported when the weights are
    loaded.
    """
    found = _found_in_tensors(options, checkpoint, with_classes=with_classes)
    saved = checkpoint.options
    stem = names_with(Role.STEM)
    clip_shape = names_with(Role.CLIP_SHAPE) if with_clips else ()
    for name in (*stem, *names_with(Role.PREPROCESSING), *clip_shape):
        if name not in saved:
            continue
        found[name] = saved[name]
        given = getattr(options, name)
        if name not in options.given or given == saved[name]:
            continue
        if name in stem:
            raise UserError(f"--{name} {given}: {checkpoint.path} was trained with {saved[name]}")
        log.warning("--%s %s: %s was trained with %s", name, given, checkpoint.path, saved[name])
    return fill_in(options, found)


def _found_in_tensors(
    options: Options, checkpoint: Checkpoint, *, with_classes: bool
) -> dict[str, Any]:
    identity = checkpoint.identity
    if identity is None:
        return {}
    if "model" in options.given and options.model != identity.model:
        return {}  # an error when the weights are loaded, unless both families have these shapes
    found = identity.values
    del found["n_input_channels"]
    if not with_classes or not identity.n_classes:
        del found["n_classes"]
    return found


def build_finetuned_model(
    options: Options, checkpoint: Checkpoint, labels: Sequence[str], index: Path
) -> nn.Module:
    """Build the model of --pretrain_path with a new head of --n_classes outputs.

    With --keep_head the head is kept; its classes must be `labels`, those of the index.
    """
    n_pretrain_classes = _pretrain_classes(options, checkpoint)
    head = FAMILIES[options.model].head
    model = _build_loaded(options, *_with_head(options, checkpoint, n_pretrain_classes))
    if options.keep_head:
        _check_kept_head(options, checkpoint, n_pretrain_classes)
        check_class_names(checkpoint, labels, index)
        log.info("%s: loaded %s with its head %r", checkpoint.path, options.arch, head)
        return model
    replace_head(model, options.model, options.n_classes)
    log.info(
        "%s: loaded %s without its head of %d classes; new head %r of %d"
        if n_pretrain_classes
        else "%s: loaded %s, which has no head (%d classes); new head %r of %d",
        checkpoint.path,
        options.arch,
        n_pretrain_classes,
        head,
        options.n_classes,
    )
    _report_class_names(checkpoint.class_names, labels)
    return model


def _with_head(options: Options, checkpoint: Checkpoint, n_classes: int) -> tuple[Checkpoint, int]:
    """Give a trunk without a head one that fine-tuning will replace; return its classes, too."""
    if n_classes:
        return checkpoint, n_classes
    name = FAMILIES[options.model].head
    width = getattr(_skeleton(options, checkpoint, 1), name).in_features
    head = {f"{name}.weight": torch.zeros(1, width), f"{name}.bias": torch.zeros(1)}
    return replace(checkpoint, state_dict=checkpoint.state_dict | head), 1


def _check_kept_head(options: Options, checkpoint: Checkpoint, n_in_file: int) -> None:
    if n_in_file != options.n_classes:
        raise UserError(
            f"--keep_head: {checkpoint.path} has {n_in_file} classes, "
            f"--n_classes is {options.n_classes}"
        )


def _report_class_names(before: Sequence[str] | None, labels: Sequence[str]) -> None:
    if before is None or list(before) == list(labels):
        return
    old, new = (
        ", ".join(names[:3]) + (", …" if len(names) > 3 else "") for names in (before, labels)
    )
    log.info("classes: %d (%s) in the checkpoint, now %d (%s)", len(before), old, len(labels), new)


def _build(options: Options, n_classes: int) -> nn.Module:
    return build(
        options.model,
        options.model_depth,
        n_classes=n_classes,
        n_input_channels=options.n_input_channels,
        dropout=options.dropout,
        **options.model_options(),
    )


def _pretrain_classes(options: Options, checkpoint: Checkpoint) -> int:
    in_file = n_classes_of(checkpoint, FAMILIES[options.model].head)
    if options.n_pretrain_classes not in (0, in_file):
        raise UserError(
            f"--n_pretrain_classes {options.n_pretrain_classes}: "
            f"{checkpoint.path} has {in_file} classes"
        )
    return in_file


def freeze_before(model: nn.Module, family: str, begin: str) -> None:
    """Turn off the gradients of all modules before `begin`; '' freezes none.

    Batch norm of frozen layers still runs in training mode, as in the original.
    """
    if not begin:
        return
    entry = FAMILIES[family]
    trained = set(entry.modules[entry.modules.index(begin) :])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(entry.module_of(name) in trained)


def takes_single_clips(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether a batch of one clip (C, T, H, W) fits the model in its present mode.

    Not if that leaves a batch norm in training mode a single value per channel.
    """
    try:
        dry_run(model, (1, *shape))
    except ValueError as error:
        if ONE_VALUE_PER_CHANNEL not in str(error):
            raise
        return False
    return True


def frozen_batch_norms(model: nn.Module) -> Sequence[nn.Module]:
    """Return the batch norms of frozen layers, or all of a model without frozen layers."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    frozen = [m for m in norms if not any(p.requires_grad for p in m.parameters())]
    return frozen if any(not p.requires_grad for p in model.parameters()) else norms


@contextmanager
def norms_at_rest(model: nn.Module) -> Iterator[None]:
    """Let batch norms in training mode use and keep their running statistics meanwhile."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [m for m in model.modules() if isinstance(m, kind) and m.training]
    try:
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm in norms:
            norm.train()


def wrap_for_distributed(
    model: nn.Module, device: Device, world: World, *, sync_bn: bool
) -> nn.Module:
    """Wrap the model in DistributedDataParallel where there are several processes.

    The running statistics of batch norm are those of the first process, or with `sync_bn` those of
    all processes.
    """
    if world.size == 1:
        return model
    if sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = None if device.torch_device.type == "cpu" else [device.torch_device.index]
    return nn.parallel.DistributedDataParallel(model, device_ids=ids)


def without_head(model: nn.Module, family: str) -> nn.Module:
    """Return a model that shares the trunk and returns the input of the head, (B, D)."""
    trunk = copy.copy(model)
    trunk._modules = dict(model._modules)
    setattr(trunk, FAMILIES[family].head, nn.Identity())
    return trunk
