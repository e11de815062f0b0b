"""Load an optimiser's state from a checkpoint, checked against the parameters it trains."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from engine.weights_check import fault_of_form, is_finite
from errors import UserError
from utils.reading import LARGEST, Finite, typed

MOMENTUM = "momentum_buffer"  # all that SGD keeps of a parameter

Rate = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]


class _Group(msgspec.Struct):
    """A parameter group; how steps are computed (fused, foreach …) is not read from files."""

    params: list[int]
    lr: Rate | msgspec.UnsetType = msgspec.UNSET
    initial_lr: Rate | msgspec.UnsetType = msgspec.UNSET
    momentum: Rate | msgspec.UnsetType = msgspec.UNSET
    dampening: Finite | msgspec.UnsetType = msgspec.UNSET
    weight_decay: Rate | msgspec.UnsetType = msgspec.UNSET
    nesterov: bool | msgspec.UnsetType = msgspec.UNSET

    def settings(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "params"}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}


class _State(msgspec.Struct):
    param_groups: list[_Group]
    state: dict[int, dict[str, Any]]


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, names: Sequence[str], place: str
) -> None:
    """Load an SGD's state, whatever its parameter groups.

    The original writes one group, or one per parameter when fine-tuning; the order of parameters,
    whose `names` are for messages, is the same. Each momentum is copied into its parameter's memory
    format: fused SGD walks through both in memory order, so another format would mix up values and
    too small a buffer would be written past its end.

    Raises ValueError if the number of parameters differs, and UserError, starting with `place`, for
    values that no SGD of these parameters has.
    """
    saved = typed(dict(state), _State, place)
    indices = [index for group in saved.param_groups for index in group.params]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if len(indices) != len(parameters):
        raise ValueError(f"{len(indices)} trained tensors in the file, {len(parameters)} here")
    if len(set(indices)) < len(indices) or not saved.state.keys() <= set(indices):
        raise UserError(f"{place}: its states and its parameter groups do not match")
    found = [saved.state.get(index, {}) for index in indices]
    momenta = dict(_momenta(found, parameters, names, place))
    if momenta and len(momenta) < len(parameters):
        counts = f"{len(momenta)} of {len(parameters)} trained tensors"
        raise UserError(f"{place}: has the momentum of only {counts}")
    regrouped, start = [], 0
    for own in optimizer.param_groups:
        end = start + len(own["params"])
        settings = {k: v for k, v in saved.param_groups[0].settings().items() if k in own}
        regrouped.append(own | settings | {"params": list(range(start, end))})
        start = end
    optimizer.load_state_dict({"state": momenta, "param_groups": regrouped})


def _momenta(
    states: Sequence[Mapping[str, Any]],
    parameters: Sequence[Tensor],
    names: Sequence[str],
    place: str,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (number of the parameter, its state) of those with a momentum."""
    for number, (state, parameter, name) in enumerate(zip(states, parameters, names, strict=True)):
        for key in state.keys() - {MOMENTUM}:
            raise UserError(
                f"{place}: is not SGD's, which has no {key!r}: start anew from the weights with "
                "--pretrain_path and --keep_head"
            )
        value = state.get(MOMENTUM)
        if value is None:
            continue
        if fault := _fault(value, parameter):
            raise UserError(f"{place}: the momentum of {name} {fault}")
        copied = torch.empty_like(parameter).copy_(value.detach())
        if not is_finite(copied):
            raise UserError(f"{place}: the momentum of {name} contains NaN or infinity")
        yield number, {MOMENTUM: copied}


def _fault(value: Any, parameter: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if fault := fault_of_form(value):
        return fault
    if not value.is_floating_point():
        return f"holds {value.dtype}, not floating-point numbers"
    if value.shape != parameter.shape:
        return f"has shape {tuple(value.shape)}, the tensor {tuple(parameter.shape)}"
    return None
