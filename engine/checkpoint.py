"""What a checkpoint says: its content checked, names translated, compared with a model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from engine.checkpoint_fields import Best, Extras, SavedPosition, check_names, read_extras
from engine.checkpoint_file import WRAPPER_PREFIX, holds_weights, read_content, weights_of
from engine.weights_check import COUNTER, check_tensors
from errors import UserError
from models.arch_detect import Identity, identify
from models.catalog import FAMILIES
from models.download import local_file
from models.namings import Inflation, Naming, find_naming
from models.weights import HostedWeights
from utils.reading import shown_name

# With --ema, "state_dict" is the average, and this the weights that training continues from.
TRAINED = "trained_state_dict"
WIDTH = "resnet_widen_factor"
I3D = Inflation()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file, names without the prefix of a wrapper; what the file lacks is None.

    The weights of a file in the `naming` of another program have this program's names and shapes.
    """

    path: Path
    state_dict: dict[str, Tensor]
    epoch: int | None
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    extras: Extras
    trained_state_dict: dict[str, Tensor] | None = None  # of a run with --ema
    naming: Naming | None = None
    hosted: HostedWeights | None = None  # which of the hosted weights it is, if any

    @property
    def class_names(self) -> list[str] | None:
        return self.extras.class_names

    @property
    def options(self) -> dict[str, Any]:
        """The options it was trained with, as far as known; empty for the original's files."""
        if self.extras.options:
            return self.extras.options
        found = dict(self.naming.options) if self.naming else {}
        return found | (self.hosted.options if self.hosted else {})

    @property
    def best(self) -> Best | None:
        """The best epoch so far and its accuracy."""
        return self.extras.best

    @property
    def position(self) -> SavedPosition | None:
        """The position inside an epoch; None for a file saved at the end of one."""
        return self.extras.position

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return _shapes_of(self.state_dict)

    @property
    def identity(self) -> Identity | None:
        """The architecture of the tensors, with the width as it was asked for, not rounded."""
        found = identify(self.shapes)
        if found is None or WIDTH not in found.options or WIDTH not in self.options:
            return found
        return replace(found, options=found.options | {WIDTH: self.options[WIDTH]})

    @property
    def is_ours(self) -> bool:
        """Whether this program wrote it, after the schedule's step; the original saves before."""
        return self.extras.is_ours


def load_checkpoint(path: Path, *, inflation: Inflation = I3D) -> Checkpoint:
    """Read a checkpoint or a bare state dict, without running code from it. Raises UserError.

    `path` may also be the name of hosted weights, which are downloaded if need be. A file in one of
    models.namings.NAMINGS is translated; `inflation` is for the 2D ones.
    """
    path, hosted = local_file(path)
    content = read_content(path)
    weights = weights_of(content)
    stripped = _unwrapped(weights, path)
    naming = find_naming(_shapes_of(stripped))
    if naming is not None:
        stripped = _translated(naming, stripped, inflation, path)
    stripped = _with_counters(stripped)
    beside = {} if weights is content else content
    epoch, optimizer, scheduler = map(beside.get, ("epoch", "optimizer", "scheduler"))
    # Other programs store other things under these names; they count as absent.
    return Checkpoint(
        path,
        stripped,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**53 else None,
        optimizer if _holds(optimizer, "state", "param_groups") else None,
        scheduler if isinstance(scheduler, dict) else None,
        _with_class_names(_checked_extras(beside, stripped, path), hosted),
        _trained_weights(beside, stripped, path),
        naming,
        hosted,
    )


def _unwrapped(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove what wrappers put before every name: `module.` always, and another prefix, such as
    Lightning's `model.` or `_orig_mod.` of torch.compile, where only then a network is known."""
    stripped = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if len(stripped) < len(weights):
        raise UserError(f"{path}: has names both with and without {WRAPPER_PREFIX!r}")
    bare, removed = stripped, ""
    while not _is_known(bare):
        prefix, dot, _ = next(iter(bare)).partition(".")
        if not dot or not all(name.startswith(prefix + dot) for name in bare):
            return stripped
        bare = {name.removeprefix(prefix + dot): tensor for name, tensor in bare.items()}
        removed += prefix + dot
    if removed:
        log.info("%s: read without the %r before every name", path, removed)
    return bare


def _is_known(weights: Mapping[str, Tensor]) -> bool:
    shapes = _shapes_of(weights)
    return identify(shapes) is not None or find_naming(shapes) is not None


def _shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _with_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the counters of batch norm that files from before torch 0.4.1 lack."""
    names = [name.removesuffix("running_var") for name in weights if name.endswith("running_var")]
    missing = [f"{name}{COUNTER}" for name in names if f"{name}{COUNTER}" not in weights]
    return dict(weights) | {name: torch.zeros((), dtype=torch.int64) for name in missing}


def _checked_extras(beside: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> Extras:
    extras = read_extras(beside, str(path))
    identity = identify(_shapes_of(weights))
    if extras.class_names is not None and identity is not None and identity.n_classes:
        try:
            check_names(extras.class_names, identity.n_classes, str(path))
        except UserError as error:
            if extras.is_ours:
                raise
            log.warning("%s: its class names are not used", error)
            return msgspec.structs.replace(extras, class_names=None)
    return extras


def _translated(
    naming: Naming, weights: Mapping[str, Tensor], inflation: Inflation, path: Path
) -> dict[str, Tensor]:
    n_new = len({naming.renamed(name) for name in weights})
    if n_new < len(weights):
        raise UserError(f"{path}: mixes the names of {naming.title} with others")
    return naming.translate(weights, inflation)


def _with_class_names(extras: Extras, hosted: HostedWeights | None) -> Extras:
    """Add the published class names of hosted weights, whose files hold none."""
    if hosted is None or extras.class_names is not None:
        return extras
    names = hosted.class_names()
    return extras if names is None else msgspec.structs.replace(extras, class_names=list(names))


def _trained_weights(
    beside: Mapping[str, Any], averaged: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor] | None:
    """Return the checked weights under TRAINED, if there are any."""
    weights = beside.get(TRAINED)
    if weights is None:
        return None
    if not holds_weights(weights):
        raise UserError(f"{path}: {TRAINED} contains no weights")
    check_tensors(weights, path)
    shapes = {name: tensor.shape for name, tensor in averaged.items()}
    if {name: tensor.shape for name, tensor in weights.items()} != shapes:
        raise UserError(f"{path}: {TRAINED} differs from state_dict in names or shapes")
    return weights


def _holds(state: Any, *keys: str) -> bool:
    return isinstance(state, dict) and all(key in state for key in keys)


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights into a model.

    Raises UserError that names the flags in which file and model differ.
    """
    check_fits(model, checkpoint)
    model.load_state_dict(checkpoint.state_dict)


def check_fits(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Compare names and shapes, also of a model on the meta device. Raises UserError."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = checkpoint.shapes
    if ours != theirs:
        raise UserError(f"{checkpoint.path}: {_difference(theirs, ours)}")


def _difference(theirs: dict[str, tuple[int, ...]], ours: dict[str, tuple[int, ...]]) -> str:
    """Describe in one line how the file's architecture differs from the flags'."""
    file, flags = identify(theirs), identify(ours)
    if file is not None and flags is not None and file != flags:
        in_file, in_flags = file.values, flags.values
        names = [name for name in in_file if in_file[name] != in_flags.get(name)]
        if names == ["n_classes"] and not file.n_classes:
            return "the checkpoint has no head; train one with --pretrain_path"
        if "model" in names:  # everything else follows from it
            names = ["model", "model_depth"]
        hint = " (--input_type flow has 2, rgb 3)" if "n_input_channels" in names else ""
        saved, given = (
            ", ".join(f"{name} {values[name]}" for name in names) for values in (in_file, in_flags)
        )
        return f"the checkpoint has {saved}; the flags say {given}{hint}"
    for name, shape in ours.items():
        if name not in theirs:
            return f"the checkpoint has no {name}, which the flags' model needs"
        if theirs[name] != shape:
            return f"{name} has shape {theirs[name]} in the checkpoint, {shape} in the flags' model"
    extra = next(name for name in theirs if name not in ours)
    return f"the checkpoint has {shown_name(extra)}, which the flags' model lacks"


def n_classes_of(checkpoint: Checkpoint, head: str) -> int:
    """Return the number of outputs of a checkpoint's head, 0 for a trunk without one. Raises
    UserError for another family."""
    weight = checkpoint.state_dict.get(f"{head}.weight")
    if weight is None:
        identity = checkpoint.identity
        if identity is not None and FAMILIES[identity.model].head == head:
            return 0
        kind = f"a {identity.arch}" if identity else "of another family"
        raise UserError(f"{checkpoint.path}: has no head {head!r}: it is {kind}")
    if weight.ndim != 2:
        raise UserError(f"{checkpoint.path}: {head}.weight is {tuple(weight.shape)}, not a matrix")
    return weight.shape[0]
