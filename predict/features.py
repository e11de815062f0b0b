"""What a model makes of clips on the way to its scores: the input of the head, or any layer's."""

import torch
from torch import Tensor, nn

from engine.scoring import Scorer, make_scorer
from errors import UserError
from model import without_head
from models.catalog import FAMILIES
from predict.classifier import Classifier


def feature_scorer(classifier: Classifier, layer: str = "") -> Scorer:
    """A function from uint8 clips (B, C, T, H, W) to float32 vectors (B, D): the input of the
    head, or the output of the module `layer`, its mean over time and space where it has these.

    A module that runs more than once in a pass, such as a block's ReLU, gives its last output.
    Raises UserError for a name that no module has.
    """
    if not layer:
        trunk = without_head(classifier.model, classifier.options.model)
        return make_scorer(trunk, classifier.device)
    # As it is: with batch norm folded, the outputs of convolutions would be others.
    module = find_layer(classifier.model, layer)
    device = classifier.device

    def score(clips: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[:] = [pooled(output)]  # at once: the ReLU that follows works in place

        handle = module.register_forward_hook(keep)
        try:
            with torch.inference_mode(), device.autocast():
                classifier.model(device.model_input(clips))
        finally:
            handle.remove()
        return outputs[0]

    return score


def pooled(output: Tensor) -> Tensor:
    """(B, D, …) -> float32 (B, D): the mean over what comes after the channels; never a view."""
    values = output.to(torch.float32, copy=True)
    return values.flatten(2).mean(2) if values.ndim > 2 else values


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of that name. Raises UserError with the names there are where it goes wrong."""
    module, known = model, ""
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            names = ", ".join(f"{known}{child}" for child in children) or "none"
            where = f"inside {known[:-1]} there are" if known else "there are"
            raise UserError(f"--layer {name}: no such layer; {where} {names}")
        module, known = children[part], f"{known}{part}."
    return module


def name_of(classifier: Classifier, layer: str) -> str:
    """What the vectors are, for the file that holds them."""
    return layer or f"input of {FAMILIES[classifier.options.model].head}"
