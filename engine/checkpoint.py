"""What a checkpoint says: its content checked, names translated, compared with a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor, nn

from engine.checkpoint_fields import Best, Extras, SavedPosition, read_extras
from engine.checkpoint_file import WRAPPER_PREFIX, holds_weights, read_content, weights_of
from engine.weights_check import check_tensors
from errors import UserError
from models.arch_detect import Identity, identify
from models.catalog import FAMILIES
from models.download import local_file
from models.namings import Inflation, Naming, find_naming
from models.weights import HostedWeights
from utils.reading import shown_name

# With --ema, "state_dict" is the average, and this the weights that training continues from.
TRAINED = "trained_state_dict"
I3D = Inflation()


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file, names without `module.`; what the file lacks is None.

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
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict.items()}

    @property
    def identity(self) -> Identity | None:
        return identify(self.shapes)

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
    stripped = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if len(stripped) < len(weights):
        raise UserError(f"{path}: has names both with and without {WRAPPER_PREFIX!r}")
    naming = find_naming({name: tuple(tensor.shape) for name, tensor in stripped.items()})
    if naming is not None:
        stripped = _translated(naming, stripped, inflation, path)
    beside = {} if weights is content else content
    epoch, optimizer, scheduler = map(beside.get, ("epoch", "optimizer", "scheduler"))
    # Other programs store other things under these names; they count as absent.
    return Checkpoint(
        path,
        stripped,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**53 else None,
        optimizer if _holds(optimizer, "state", "param_groups") else None,
        scheduler if isinstance(scheduler, dict) else None,
        _with_class_names(read_extras(beside, str(path)), hosted),
        _trained_weights(beside, stripped, path),
        naming,
        hosted,
    )


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
