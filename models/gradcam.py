"""Grad-CAM (Selvaraju et al., arXiv:1610.02391) over space and time: the parts of a clip that a
model's prediction depends on."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catalog import FAMILIES

SMALLEST_SIDE = 7  # cells; a coarser grid does not localise anything


class GradCam(NamedTuple):
    """The evidence for one class of each clip. `grid` has the resolution of the layer,
    (B, T', h', w'), and is not negative; its scale is arbitrary in each clip."""

    logits: Tensor  # (B, K)
    grid: Tensor

    def upsampled(self, n_frames: int, height: int, width: int) -> Tensor:
        """Resize to (B, n_frames, height, width) in [0, 1]; a clip without evidence is 0."""
        size = (n_frames, height, width)
        full = F.interpolate(self.grid[:, None], size, mode="trilinear", align_corners=False)[:, 0]
        peak = full.amax(dim=(1, 2, 3), keepdim=True)
        return full / peak.clamp_min(torch.finfo(full.dtype).tiny)


def grad_cam(model: nn.Module, inputs: Tensor, classes: Tensor, layer: str) -> GradCam:
    """Explain the logits of `classes`, (B,), for normalised clips (B, C, T, H, W).

    `layer` names a module whose output is (B, C', T', h', w'); raises ValueError for any other.
    Computes in float32 and evaluation mode and does not change the model, frozen or not.
    """
    ready = in_float32(model)
    modules = dict(ready.named_modules())
    if layer not in modules:
        raise ValueError(f"no module {layer!r}")
    outputs: list[Tensor] = []

    def cut(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        """Detach: layers before this one need no backward pass, and may be frozen."""
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # an in-place ReLU may follow

    handle = modules[layer].register_forward_hook(cut)
    try:
        off = torch.autocast(inputs.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), off:
            # Not ready(...): compiled code skips hooks.
            logits = ready.forward(inputs.detach().clone().float())
            if len(outputs) != 1 or outputs[0].dim() != 5:
                raise ValueError(f"{layer!r} does not output one tensor of (B, C, T, H, W)")
            chosen = logits.gather(1, classes[:, None].to(logits.device)).sum()
            [gradients] = torch.autograd.grad(chosen, outputs)
    finally:
        handle.remove()
    activations = outputs[0].detach()
    weights = gradients.mean(dim=(2, 3, 4), keepdim=True)  # (B, C', 1, 1, 1)
    grid = (weights * activations).sum(dim=1).relu()  # -> (B, T', h', w')
    return GradCam(logits.detach(), grid)


def in_float32(model: nn.Module) -> nn.Module:
    """Return the model itself if it is in float32 and evaluation mode, else a copy that is."""
    tensors = [*model.parameters(), *model.buffers()]
    floats = [t for t in tensors if t.is_floating_point()]
    is_ready = all(t.dtype == torch.float32 and not t.is_inference() for t in floats)
    if is_ready and not any(module.training for module in model.modules()):
        return model
    with torch.inference_mode(False):
        return copy.deepcopy(model).float().eval()


def finest_useful_layer(model: nn.Module, family: str, inputs: Tensor) -> str:
    """Return the last stage of a family whose output has at least SMALLEST_SIDE cells on its
    shorter side and more than one step in time; the first stage if none has. `inputs` is a sample
    clip."""
    stages = [f"{FAMILIES[family].prefix}{stage}" for stage in FAMILIES[family].stages]
    sizes: dict[str, torch.Size] = {}

    def record_size(stage: str) -> "torch.utils.hooks.RemovableHandle":
        def hook(module: nn.Module, arguments: object, output: Tensor) -> None:
            sizes[stage] = output.shape[2:]

        return model.get_submodule(stage).register_forward_hook(hook)

    handles = [record_size(stage) for stage in stages]
    try:
        with torch.no_grad():
            model.forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    fine = [s for s in stages if min(sizes[s][1:]) >= SMALLEST_SIDE and sizes[s][0] > 1]
    return (fine or stages[:1])[-1]
