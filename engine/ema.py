"""An exponential moving average of a model's weights and batch norm statistics."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average w <- decay * w + (1 - decay) * model's, from the model's weights at the start.

    `model` is the model with averaged weights. torch's AveragedModel would copy its counter to the
    GPU at every update, which waits for the GPU, and update each counter of batches by itself.
    """

    def __init__(
        self, model: nn.Module, decay: float, average: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start from `average`, the state dict of a checkpoint, or from the model as it is."""
        self.model, self.decay = copy.deepcopy(model), decay
        if average is not None:
            self.model.load_state_dict(dict(average))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of the trained model, after an update."""
        averaged, current = _by_kind(self.model), _by_kind(model)
        torch._foreach_lerp_(averaged[True], current[True], 1 - self.decay)
        if averaged[False]:  # numbers of batches
            torch._foreach_copy_(averaged[False], current[False])


def _by_kind(model: nn.Module) -> dict[bool, list[Tensor]]:
    """Return {whether they are floating point: the parameters and buffers of a model}."""
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for tensor in (*model.parameters(), *model.buffers()):
        kinds[tensor.is_floating_point()].append(tensor.detach())
    return kinds
