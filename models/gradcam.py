"""Grad-CAM (Selvaraju et al., arXiv:1610.02391) over space and time: where in a clip is what makes
a model give its answer."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catalog import FAMILIES

SMALLEST_SIDE = 7  # cells of a grid that is fine enough to point at something


class GradCam(NamedTuple):
    """What counted for one class of each clip. `grid` has the layer's own cells, (B, T', h', w'),
    not negative; only its proportions within a clip mean something."""

    logits: Tensor  # (B, K)
    grid: Tensor

    def upsampled(self, n_frames: int, height: int, width: int) -> Tensor:
        """(B, n_frames, height, width), in [0, 1]; a clip that nothing counted in is 0."""
        size = (n_frames, height, width)
        full = F.interpolate(self.grid[:, None], size, mode="trilinear", align_corners=False)[:, 0]
        peak = full.amax(dim=(1, 2, 3), keepdim=True)
        return full / peak.clamp_min(torch.finfo(full.dtype).tiny)


def grad_cam(model: nn.Module, inputs: Tensor, classes: Tensor, layer: str) -> GradCam:
    """Explain the logits of `classes`, (B,), for normalised clips (B, C, T, H, W).

    `layer` is the name of any module whose output is (B, C', T', h', w'). Computes in float32,
    whatever the model's precision, in evaluation mode; the model stays as it is, frozen or not.
    Raises ValueError for a layer without such an output.
    """
    ready = in_float32(model)
    modules = dict(ready.named_modules())
    if layer not in modules:
        raise ValueError(f"no module {layer!r}")
    seen: list[Tensor] = []

    def cut(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        """Gradients begin here: what comes before costs no backward pass, nor can it be frozen."""
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # an in-place ReLU may follow

    handle = modules[layer].register_forward_hook(cut)
    try:
        off = torch.autocast(inputs.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), off:
            logits = ready.forward(
                inputs.detach().clone().float()
            )  # what --compile made has no hooks
            if len(seen) != 1 or seen[0].dim() != 5:
                raise ValueError(f"{layer!r} gives no one map of (B, C, T, H, W)")
            chosen = logits.gather(1, classes[:, None].to(logits.device)).sum()
            [gradients] = torch.autograd.grad(chosen, seen)
    finally:
        handle.remove()
    activations = seen[0].detach()
    weights = gradients.mean(dim=(2, 3, 4), keepdim=True)  # (B, C', 1, 1, 1)
    grid = (weights * activations).sum(dim=1).relu()  # -> (B, T', h', w')
    return GradCam(logits.detach(), grid)


def in_float32(model: nn.Module) -> nn.Module:
    """The model itself where it is in float32 and in evaluation mode, else a copy that is."""
    tensors = [*model.parameters(), *model.buffers()]
    floats = [t for t in tensors if t.is_floating_point()]
    is_ready = all(t.dtype == torch.float32 and not t.is_inference() for t in floats)
    if is_ready and not any(module.training for module in model.modules()):
        return model
    with torch.inference_mode(False):
        return copy.deepcopy(model).float().eval()


def finest_useful_layer(model: nn.Module, family: str, inputs: Tensor) -> str:
    """The last of a family's stages whose grid has SMALLEST_SIDE cells on its shorter side and more
    than one step in time; where none has, the first stage. `inputs` is a clip to try it with."""
    stages = [name for name in FAMILIES[family].modules if name.startswith(("layer", "denseblock"))]
    modules = {name.split(".")[-1]: name for name, _ in model.named_modules() if name}
    sizes: dict[str, torch.Size] = {}

    def noting(stage: str) -> "torch.utils.hooks.RemovableHandle":
        def note(module: nn.Module, arguments: object, output: Tensor) -> None:
            sizes[stage] = output.shape[2:]

        return model.get_submodule(modules[stage]).register_forward_hook(note)

    handles = [noting(stage) for stage in stages]
    try:
        with torch.no_grad():
            model.forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    fine = [s for s in stages if min(sizes[s][1:]) >= SMALLEST_SIDE and sizes[s][0] > 1]
    return modules[(fine or stages[:1])[-1]]
