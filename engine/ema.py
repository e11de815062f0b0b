"""An exponential moving average of a model's weights and batch norm statistics."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """The average w <- decay * w + (1 - decay) * model's, from the model's weights at the start."""

    def __init__(
        self, model: nn.Module, decay: float, average: Mapping[str, Tensor] | None = None
    ) -> None:
        """Start from `average`, the state dict of a checkpoint, or from the model as it is."""
        function = get_ema_multi_avg_fn(decay)
        self._averaged = AveragedModel(model, multi_avg_fn=function, use_buffers=True)
        self._averaged.n_averaged.fill_(1)  # else the first update would replace the average
        if average is not None:
            self.model.load_state_dict(dict(average))

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Take in the weights of the trained model, after an update."""
        with torch.no_grad():
            self._averaged.update_parameters(model)
