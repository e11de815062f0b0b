"""A model as a function from a batch of clips to scores, for inference and validation."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.cpu_memory import MemoryBound
from engine.device import Device, is_out_of_memory
from errors import UserError
from models.folding import folded

Scorer = Callable[[Tensor], Tensor]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """What training and validation run batches through: a model on clips, or its head on features.

    Training calls `module(to_input(batch))`; `make_scorer(model)` scores batches with the weights
    that a model of the same architecture has at the call.
    """

    module: nn.Module
    to_input: Callable[[Tensor], Tensor]
    make_scorer: Callable[[nn.Module], Scorer]


def clip_network(model: nn.Module, device: Device, *, module: nn.Module | None = None) -> Network:
    """Return the network of a whole model; `module` is its distributed wrapper, if it has one."""
    return Network(module or model, device.model_input, lambda scored: make_scorer(scored, device))


def head_network(model: nn.Module, head: str, device: Device) -> Network:
    """Return the network of a model's head and its dropout, on cached features (B, D)."""

    def to_input(features: Tensor) -> Tensor:
        return features.to(device.torch_device, non_blocking=True)

    def make_head_scorer(scored: nn.Module) -> Scorer:
        module = scored.get_submodule(head)

        def score(features: Tensor) -> Tensor:
            with torch.inference_mode(), device.autocast():
                return module(to_input(features)).float()

        return score

    module = nn.Sequential(model.get_submodule("dropout"), model.get_submodule(head))
    return Network(module, to_input, make_head_scorer)


def make_scorer(model: nn.Module, device: Device) -> Scorer:
    """Return a function from uint8 clips (B, C, T, H, W) to float32 logits (B, K).

    It computes with a copy of the model as it is at the call: batch norm folded into the
    convolutions, weights and activations in the device's inference precision.
    """
    dtype = device.inference_dtype
    ready = device.place(folded(model)).to(dtype)
    memory = MemoryBound()

    def score(clips: Tensor) -> Tensor:
        with torch.inference_mode():
            scores = ready(device.model_input(clips).to(dtype)).float()
        if device.torch_device.type == "cpu":
            memory.after_batch()
        return scores

    return SplittingScorer(score)


class SplittingScorer:
    """Score in smaller parts after a batch has run out of memory."""

    def __init__(self, score: Scorer) -> None:
        self.score, self.max_clips = score, sys.maxsize

    def __call__(self, clips: Tensor) -> Tensor:
        while True:
            try:
                return torch.cat([self.score(part) for part in clips.split(self.max_clips)])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.max_clips = min(self.max_clips, len(clips)) // 2
            if self.max_clips == 0:
                raise UserError(
                    "out of memory for a single clip: choose a smaller --sample_size or "
                    "--sample_duration"
                )
            log.warning("out of memory: scoring %d clips at a time from now on", self.max_clips)
