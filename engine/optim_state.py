"""Load saved states of an optimiser and a schedule, checked against those that take them over."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from engine.weights_check import fault_of_form, is_finite
from errors import UserError
from utils.reading import LARGEST, Finite, shown, typed

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
    optimizer: Optimizer,
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
        found, *others = [settings_of[index].settings() for index in indices[start:end]]
        if any(other != found for other in others):
            raise UserError(
                f"{place}: its groups of parameters have several rates or weight decays, which "
                "these flags do not give: start anew from the weights with --pretrain_path and "
                "--keep_head"
            )
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


def load_schedule(schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the values of a saved state that this schedule has too.

    Raises ValueError for a value of another kind than the schedule's own.
    """
    own = schedule.state_dict()
    if "lr_lambdas" in own and state.get("lr_lambdas") != own["lr_lambdas"]:
        raise ValueError(_lambda_fault(own["lr_lambdas"], state.get("lr_lambdas")))
    known = {key: state[key] for key in own if key in state}
    for key, value in known.items():
        if key != "lr_lambdas" and not _is_alike(value, own[key]):
            raise ValueError(f"the schedule's {key} is {shown(value)}")
    for key in [k for k in known if isinstance(own[k], list) and len(known[k]) != len(own[k])]:
        del known[key]  # a rate per parameter group, saved with another grouping
    if "milestones" in known:
        known["milestones"] = Counter(known["milestones"])
    schedule.load_state_dict(known)


def _lambda_fault(own: Sequence[Any], saved: Any) -> str:
    """Say why the saved curves, one per parameter group, are not the schedule's own."""
    if isinstance(saved, list) and saved and all(curve == own[0] for curve in saved):
        return (
            "its optimiser has other groups of parameters: resume with the --ft_begin_module, "
            "--head_lr_factor, --layer_decay and --no_norm_decay that it was trained with"
        )
    return (
        "its learning-rate schedule has another number of updates: resume with the training "
        "videos, --n_epochs, --warmup_epochs, --batch_size, --accumulate and number of machines "
        "that it was trained with"
    )


def _is_alike(value: Any, own: Any) -> bool:
    """Return whether a saved value can replace a schedule's own."""
    if value is None or own is None:
        return value is None or isinstance(value, int | float)
    if isinstance(own, dict):
        pairs = value.items() if isinstance(value, dict) else [("", "")]
        return all(isinstance(n, int) and n >= 0 for pair in pairs for n in pair)
    if isinstance(own, list):
        return isinstance(value, list) and all(_is_alike(item, 0.0) for item in value)
    if isinstance(own, bool | str):
        return type(value) is type(own)
    return isinstance(value, int | float) and not math.isnan(value)
