"""Load an optimiser's state from a checkpoint, checked against the parameters it trains."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from engine.weights_check import fault_of_form, is_finite
from errors import UserError
from utils.reading import LARGEST, Finite, typed

Rate = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
Below1 = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class _Group(msgspec.Struct):
    """A parameter group; how steps are computed (fused, foreach …) is not read from files."""

    params: list[int]
    lr: Rate | msgspec.UnsetType = msgspec.UNSET
    initial_lr: Rate | msgspec.UnsetType = msgspec.UNSET
    momentum: Rate | msgspec.UnsetType = msgspec.UNSET
    dampening: Finite | msgspec.UnsetType = msgspec.UNSET
    weight_decay: Rate | msgspec.UnsetType = msgspec.UNSET
    nesterov: bool | msgspec.UnsetType = msgspec.UNSET
    betas: tuple[Below1, Below1] | msgspec.UnsetType = msgspec.UNSET
    eps: Rate | msgspec.UnsetType = msgspec.UNSET

    def settings(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "params"}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}


class _State(msgspec.Struct):
    param_groups: list[_Group]
    state: dict[int, dict[str, Any]]


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    buffers: Sequence[str],
    counters: Sequence[str] = (),
    names: Sequence[str],
    place: str,
) -> None:
    """Load an optimiser's state, even if its parameters are grouped differently.

    It keeps `buffers` of each parameter's shape and `counters`, single numbers. The original writes
    one group, or one per parameter when fine-tuning; the order of parameters, whose `names` are for
    messages, is the same. Each buffer is copied into its parameter's memory format: fused
    optimisers walk through both in memory order, so another format would mix up values, and too
    small a buffer would be written past its end.

    Raises ValueError if the number of parameters differs, and UserError, starting with `place`, for
    values that no such optimiser of these parameters has.
    """
    saved = typed(dict(state), _State, place)
    indices = [index for group in saved.param_groups for index in group.params]
    settings_of = {index: group for group in saved.param_groups for index in group.params}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if len(indices) != len(parameters):
        raise ValueError(f"{len(indices)} trained tensors in the file, {len(parameters)} here")
    if len(set(indices)) < len(indices) or not saved.state.keys() <= set(indices):
        raise UserError(f"{place}: its states and its parameter groups do not match")
    states = {}
    for number, (index, parameter, name) in enumerate(zip(indices, parameters, names, strict=True)):
        own = saved.state.get(index, {})
        if copied := _checked_state(own, parameter, buffers, counters, f"{place}: ", name):
            states[number] = copied
    if states and len(states) < len(parameters):
        counts = f"{len(states)} of {len(parameters)} trained tensors"
        raise UserError(f"{place}: has the state of only {counts}")
    regrouped, start = [], 0
    for group in optimizer.param_groups:
        end = start + len(group["params"])
        found = settings_of[indices[start]].settings()
        settings = {key: value for key, value in found.items() if key in group}
        regrouped.append(group | settings | {"params": list(range(start, end))})
        start = end
    optimizer.load_state_dict({"state": states, "param_groups": regrouped})


def _checked_state(
    state: Mapping[str, Any],
    parameter: Tensor,
    buffers: Sequence[str],
    counters: Sequence[str],
    place: str,
    name: str,
) -> dict[str, Tensor]:
    """Copy the state of one parameter; {} for one that was never updated."""
    for key in state.keys() - {*buffers, *counters}:
        raise UserError(
            f"{place}has {key!r}, which this --optimizer does not keep: start anew from the "
            "weights with --pretrain_path and --keep_head"
        )
    known = {key: value for key, value in state.items() if value is not None}
    if known and len(known) < len(buffers) + len(counters):
        raise UserError(f"{place}the state of {name} is incomplete")
    checked = {}
    for key, value in known.items():
        shape = parameter.shape if key in buffers else torch.Size()
        if fault := _fault(value, shape):
            raise UserError(f"{place}{key} of {name} {fault}")
        like = parameter if key in buffers else torch.zeros((), device=parameter.device)
        checked[key] = torch.empty_like(like).copy_(value.detach())
        if not is_finite(checked[key]):
            raise UserError(f"{place}{key} of {name} contains NaN or infinity")
    return checked


def _fault(value: Any, shape: torch.Size) -> str | None:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if fault := fault_of_form(value):
        return fault
    if not value.is_floating_point():
        return f"holds {value.dtype}, not floating-point numbers"
    if value.shape != shape:
        return f"has shape {tuple(value.shape)}, but {tuple(shape)} is expected"
    return None
