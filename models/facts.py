"""What a model costs: parameters, operations and activation memory per clip. Computed from shapes
on the meta device, so any model takes little time and memory."""

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

TRAINING_BATCH = 2  # batch norm cannot train on a single value per channel


@dataclass(frozen=True)
class ModelFacts:
    """Activations are float32, and include the clip."""

    n_parameters: int
    flops: int  # of a forward pass for one clip; a multiply-add is two
    inference_bytes: int  # the most that one clip needs at a time
    training_bytes: int  # what is kept of one clip for the backward pass

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield (subject, text)."""
        megabytes = self.n_parameters * 4 / 1e6
        yield "parameters", f"{self.n_parameters:,}, {megabytes:.1f} MB in float32"
        yield (
            "per clip",
            f"{self.flops / 1e9:.2f} GFLOPs ({self.flops / 2e9:.2f} G multiply-adds, which papers "
            "often call GFLOPs)",
        )
        yield (
            "activations",
            f"{self.inference_bytes / 1e6:.1f} MB per clip in inference, "
            f"{self.training_bytes / 1e6:.1f} MB in training, in float32; half in bf16",
        )


def model_facts(model: nn.Module, clip_shape: Sequence[int]) -> ModelFacts:
    """Measure a model on any device for clips of a shape (C, T, H, W).

    Raises what torch raises for clips that are too small.
    """
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    was_training = model.training
    try:
        return ModelFacts(
            sum(parameter.numel() for parameter in model.parameters()),
            _count_flops(model.eval(), shapes, clip_shape),
            _count_peak(model.eval(), shapes, clip_shape),
            _count_saved(model.train(), shapes, clip_shape),
        )
    finally:
        model.train(was_training)


def _clips(shape: Sequence[int], n: int = 1) -> Tensor:
    return torch.empty((n, *shape), device="meta")


def _run(model: nn.Module, tensors: dict[str, Tensor], clips: Tensor) -> Tensor:
    with torch.compiler.set_stance("force_eager"):
        return torch.func.functional_call(model, tensors, (clips,))


def _count_flops(model: nn.Module, tensors: dict[str, Tensor], shape: Sequence[int]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _run(model, tensors, _clips(shape))
    return int(counter.get_total_flops())


def _count_peak(model: nn.Module, tensors: dict[str, Tensor], shape: Sequence[int]) -> int:
    clips = _clips(shape)
    with LiveMemory(clips) as memory, torch.no_grad():
        _run(model, tensors, clips)
    return memory.peak


def _count_saved(model: nn.Module, tensors: dict[str, Tensor], shape: Sequence[int]) -> int:
    """Add up the tensors that autograd saves, each storage once, without parameters."""
    known = {_key(tensor) for tensor in tensors.values()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> int:
        if (key := _key(tensor)) not in known:
            saved[key] = tensor
        return key

    def never(key: int) -> Tensor:
        raise AssertionError("there is no backward pass")

    names = dict(model.named_parameters())
    trained = {n: t.requires_grad_() if n in names else t for n, t in tensors.items()}
    with torch.autograd.graph.saved_tensors_hooks(keep, never), torch.enable_grad():
        output = _run(model, trained, _clips(shape, TRAINING_BATCH))
    del output
    return sum(map(_n_bytes, saved.values())) // TRAINING_BATCH


class LiveMemory(TorchDispatchMode):
    """Follows how many bytes of tensors exist at a time, `first` and all that are made inside."""

    def __init__(self, first: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()
        self._add(first)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        key, size = _key(tensor), _n_bytes(tensor)
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor.untyped_storage(), self._remove, key, size).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _n_bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
