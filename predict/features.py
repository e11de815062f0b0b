"""Features of clips: the input of a model's head, or the output of any layer."""

import torch
from torch import Tensor, nn

from engine.scoring import Scorer, make_scorer
from errors import UserError
from model import without_head
from models.catalog import FAMILIES
from predict.classifier import Classifier


def feature_scorer(classifier: Classifier, layer: str = "") -> Scorer:
    """Return a function from uint8 clips (B, C, T, H, W) to float32 features (B, D): the input of
    the head, or the output of the module `layer` averaged over time and space.

    A module that runs several times per pass, such as the ReLU of a block, gives its last output.
    Raises UserError for an unknown module name.
    """
    if not layer:
        trunk = without_head(classifier.model, classifier.options.model)
        return make_scorer(trunk, classifier.device)
    # Not make_scorer: folded batch norms would change the outputs of convolutions.
    module = find_layer(classifier.model, layer)
    device = classifier.device

    def score(clips: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[:] = [pooled(output)]  # copied at once: an in-place ReLU may follow

        handle = module.register_forward_hook(hook)
        try:
            with torch.inference_mode(), device.autocast():
                classifier.model(device.model_input(clips))
        finally:
            handle.remove()
        return outputs[0]

    return score


def pooled(output: Tensor) -> Tensor:
    """Average over all dimensions after the channels: (B, D, …) -> float32 (B, D), never a view."""
    values = output.to(torch.float32, copy=True)
    return values.flatten(2).mean(2) if values.ndim > 2 else values


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name. Raises UserError listing the existing names."""
    module, known = model, ""
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            names = ", ".join(f"{known}{child}" for child in children) or "no layers"
            where = f"{known[:-1]} contains" if known else "choose from"
            raise UserError(f"--layer {name}: no such layer; {where} {names}")
        module, known = children[part], f"{known}{part}."
    return module


def name_of(classifier: Classifier, layer: str) -> str:
    """Describe the features, for the file they are saved to."""
    return layer or f"input of {FAMILIES[classifier.options.model].head}"
