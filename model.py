"""The model of a run: built, given weights and a head, and partly frozen."""

import logging
from collections.abc import Iterator

from torch import nn

from errors import UserError
from models.build import build
from models.catalog import FAMILIES
from opts import Options
from runtime.checkpoint import Checkpoint, load_checkpoint, load_weights, n_classes_of

log = logging.getLogger(__name__)


def build_model(options: Options) -> nn.Module:
    """A freshly initialised model with a head of --n_classes."""
    return _build(options, options.n_classes)


def build_finetuned_model(options: Options) -> nn.Module:
    """The model of --pretrain_path with its head replaced by a fresh one of --n_classes."""
    assert options.pretrain_path is not None
    checkpoint = load_checkpoint(options.pretrain_path)
    n_pretrain_classes = _pretrain_classes(options, checkpoint)
    model = _build(options, n_pretrain_classes)
    load_weights(model, checkpoint)
    head = FAMILIES[options.model].head
    replace_head(model, head, options.n_classes)
    log.info(
        "%s: loaded all of %s but its head of %d classes; fresh head %r of %d",
        checkpoint.path,
        options.arch,
        n_pretrain_classes,
        head,
        options.n_classes,
    )
    return model


def _build(options: Options, n_classes: int) -> nn.Module:
    return build(
        options.model,
        options.model_depth,
        n_classes=n_classes,
        n_input_channels=options.n_input_channels,
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


def replace_head(model: nn.Module, head: str, n_classes: int) -> None:
    """Put a fresh linear layer of `n_classes` outputs in the place of the module `head`."""
    old = getattr(model, head)
    fresh = nn.Linear(old.in_features, n_classes)
    if head == "classifier":
        nn.init.zeros_(fresh.bias)  # as densenet initialises its own
    setattr(model, head, fresh)


def freeze_before(model: nn.Module, family: str, begin: str) -> None:
    """Turn off the gradients of every module before `begin`; '' leaves all of them on.

    Batch norm of the frozen layers still runs in training mode, as in the original.
    """
    if not begin:
        return
    modules = FAMILIES[family].modules
    trained = set(modules[modules.index(begin) :])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_module_of(name) in trained)


def _module_of(parameter_name: str) -> str:
    """'layer4.0.conv1.weight' -> 'layer4'; densenet's names begin with 'features.'."""
    return parameter_name.removeprefix("features.").split(".")[0]


def trained_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """What the optimiser gets, in the model's order."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)
