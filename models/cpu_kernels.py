"""Convolutions and pooling for CPUs, where torch's are slower or, for short inputs, wrong.

`apply` switches a finished model to them and `remove` back to torch's layers. Results differ by
rounding only. Parameters, names and state dicts stay as they are.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 4  # pixels or flow: too few to fill a vector register


class CpuConv3d(nn.Conv3d):
    """nn.Conv3d without dilation, zero-padded."""

    _rounded: "Rounded | None" = None

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        weight = self._weight_in(_compute_dtype(x))
        conv = without_skipped_voxels(
            Convolution(x, weight, tuple(self.stride), tuple(map(int, self.padding)), self.groups)
        )
        by_columns = _compute_dtype(x) == torch.bfloat16 and self.in_channels <= FEW_CHANNELS
        if torch.is_grad_enabled() and self.weight.requires_grad:
            conv = padded_where_thin(conv)
            if conv.mixes_all_frames:
                return frames_as_channels(conv, self.bias)
            conv = padded_where_short(conv)
            if by_columns:
                return ByColumns.of(conv, self.bias)
        elif by_columns:
            conv = columns_as_channels(conv)
        return F.conv3d(
            conv.x, conv.weight, self.bias, conv.stride, conv.padding, groups=conv.groups
        )

    def _weight_in(self, dtype: torch.dtype) -> Tensor:
        """Return the weight; a frozen one is cast to `dtype` once instead of at every step."""
        weight = self.weight
        if (
            weight.requires_grad
            or weight.dtype == dtype
            or weight.is_inference()  # has no version counter
            or torch.compiler.is_compiling()
        ):
            return weight
        cached = self._rounded
        if cached is None or not cached.is_of(weight, dtype):
            with torch.inference_mode(False):  # the cache must also serve steps with gradients
                cached = Rounded(weight.detach(), weight._version, weight.to(dtype))
            self._rounded = cached
        return cached.value


class CpuMaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that stays in bf16 under autocast, which would widen it to float32 on a CPU. A
    maximum needs no more precision; overlapping gradients are summed in bf16, as on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


class CpuAvgPool3d(nn.AvgPool3d):
    """nn.AvgPool3d that also takes bf16 and fp16, which torch's does not on a CPU. Autocast widens
    them by itself."""

    def forward(self, x: Tensor) -> Tensor:
        is_half = x.dtype in (torch.bfloat16, torch.float16)
        if x.device.type != "cpu" or not is_half or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


KERNELS: dict[type, type] = {
    nn.Conv3d: CpuConv3d,
    nn.MaxPool3d: CpuMaxPool3d,
    nn.AvgPool3d: CpuAvgPool3d,
}
PLAIN = {kernel: plain for plain, kernel in KERNELS.items()}


def apply(model: nn.Module) -> nn.Module:
    """Switch the layers of `model` to the kernels of this file, in place, and return it.

    Inputs on other devices still go through torch's layers. A frozen weight is rounded once: change
    it with load_state_dict or under torch.no_grad(), not through `.data`, which leaves no trace.
    """
    for module in model.modules():
        if type(module) in KERNELS and _is_supported(module):
            module.__class__ = KERNELS[type(module)]
    return model


def remove(model: nn.Module) -> nn.Module:
    """Undo `apply`, in place, and return the model."""
    for module in model.modules():
        if type(module) in PLAIN:
            module.__dict__.pop("_rounded", None)
            module.__class__ = PLAIN[type(module)]
    return model


def _is_supported(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv3d):
        return True
    is_undilated = tuple(module.dilation) == (1, 1, 1)
    return is_undilated and module.padding_mode == "zeros" and not isinstance(module.padding, str)


class Convolution(NamedTuple):
    """The arguments of a convolution: x (B, C, T, H, W), weight (O, C / groups, t, h, w)."""

    x: Tensor
    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1

    @property
    def n_frames(self) -> int:
        """Frames of the output."""
        n = self.x.shape[2] + 2 * self.padding[0] - self.weight.shape[2]
        return n // self.stride[0] + 1

    @property
    def mixes_all_frames(self) -> bool:
        """Whether each output frame depends on all channels of all input frames, with a kernel
        longer than one frame."""
        t_size, pad = self.weight.shape[2], self.padding[0]
        first, last = pad - (self.n_frames - 1) * self.stride[0], pad + self.x.shape[2] - 1
        return self.groups == 1 and t_size > 1 and first >= 0 and last < t_size


class Rounded(NamedTuple):
    """A weight cast to a smaller type. `source` keeps the memory of the original allocated, so that
    its address identifies it."""

    source: Tensor
    version: int
    value: Tensor

    def is_of(self, weight: Tensor, dtype: torch.dtype) -> bool:
        """Whether this is the current `weight` in `dtype`."""
        return (
            self.source.data_ptr() == weight.data_ptr()
            and self.version == weight._version
            and self.value.dtype == dtype
        )


def without_skipped_voxels(conv: Convolution) -> Convolution:
    """Subsample the input of a strided 1x1x1 convolution and drop its stride: oneDNN's gradients
    take 1.4 to 2.6 times as long when it skips the voxels itself."""
    x, weight, (t, h, w), padding, groups = conv
    if weight.shape[2:].numel() > 1 or t * h * w == 1 or any(padding):
        return conv
    # Sliced in channels-last order, so that the gradient gets the same memory layout.
    kept = x.permute(0, 2, 3, 4, 1)[:, ::t, ::h, ::w].permute(0, 4, 1, 2, 3)
    kept = kept.contiguous(memory_format=torch.channels_last_3d)
    return Convolution(kept, weight, (1, 1, 1), padding, groups)


class ByColumns(torch.autograd.Function):
    """`columns_as_channels` in the forward pass; the backward pass of the convolution itself, where
    oneDNN computes the weight gradients 20% faster."""

    @classmethod
    def of(cls, conv: Convolution, bias: Tensor | None) -> Tensor:
        """Compute (B, O, T', H', W')."""
        dtype = _compute_dtype(conv.x)
        x, weight = conv.x.to(dtype), conv.weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        return cls.apply(x, weight, bias, conv.stride, conv.padding, conv.groups)

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, groups
        conv = columns_as_channels(Convolution(x, weight, stride, padding, groups))
        return F.conv3d(conv.x, conv.weight, bias, conv.stride, conv.padding, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.options
        one, zero = (1, 1, 1), (0, 0, 0)
        gradients = torch.ops.aten.convolution_backward(
            grad_output, x, weight, [len(weight)], stride, padding, one, False, zero, groups,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return *gradients, None, None, None


def columns_as_channels(conv: Convolution) -> Convolution:
    """Unfold the width of the kernel into channels (im2col along one axis).

    oneDNN pairs channels in bf16, which wastes a quarter of the products when there are three: the
    stem of an R3D takes 75% of the time this way. The input grows by kernel width / stride.
    """
    x, weight, stride, padding, groups = conv
    width = weight.shape[4]
    if width == 1 or groups > 1:
        return conv
    padded = F.pad(x.to(_compute_dtype(x)), (padding[2], padding[2]))
    columns = padded.permute(0, 2, 3, 4, 1).unfold(3, width, stride[2])  # (B, T, H, W', C, w)
    columns = columns.transpose(4, 5).flatten(4).permute(0, 4, 1, 2, 3)  # (B, w C, T, H, W')
    columns = columns.contiguous(memory_format=torch.channels_last_3d)  # the first copy
    weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2)[..., None]  # (O, w C, t, h, 1)
    return Convolution(columns, weight, (*stride[:2], 1), (*padding[:2], 0))


def padded_where_thin(conv: Convolution) -> Convolution:
    """Pad the input explicitly along sides so small that oneDNN's bf16 weight gradients are wrong,
    such as 1 pixel with a stride of 2. Found by comparison with float64, torch 2.15 on AVX-512."""
    x, weight, stride, (t, h, w), groups = conv
    now_h, now_w = h * (x.shape[3] <= h), w * (x.shape[4] <= w)
    if not (now_h or now_w):
        return conv
    x = F.pad(x, (now_w, now_w, now_h, now_h))
    return Convolution(x, weight, stride, (t, h - now_h, w - now_w), groups)


def padded_where_short(conv: Convolution) -> Convolution:
    """Pad the input explicitly in time if it is about as short as the kernel, where oneDNN's weight
    gradients are wrong and sometimes end in a segmentation fault.

    Seen in bf16 for 5 and 6 frames with the stem's kernel of 7 (`frames_as_channels` takes the
    shorter ones), and with groups also for 2 frames with a kernel of 3. In fp32 for 5 to 7 frames
    with a kernel of 7 and a stride of 2.
    """
    x, weight, stride, (t, h, w), groups = conv
    # A single frame is safe, and padding would triple its cost.
    if not t or not 1 < x.shape[2] < weight.shape[2] + stride[0] - 1:
        return conv
    return Convolution(F.pad(x, (0, 0, 0, 0, t, t)), weight, stride, (0, h, w), groups)


def frames_as_channels(conv: Convolution, bias: Tensor | None) -> Tensor:
    """Compute a convolution that mixes all frames, -> (B, O, T', H', W'), as a 2D convolution over
    the channels of all frames: no products with zero padding, and correct gradients from oneDNN."""
    x, weight, stride, padding, _ = conv
    n_in, n_out = x.shape[2], conv.n_frames
    # Split in channels-last order, so that the gradients need no transposition.
    taps = weight.to(_compute_dtype(x)).permute(0, 2, 3, 4, 1).unbind(1)  # (O, h, w, C) each
    rows = [[taps[i - o * stride[0] + padding[0]] for i in range(n_in)] for o in range(n_out)]
    stacked = torch.cat([torch.cat(row, dim=3) for row in rows])  # (T' O, h, w, T C)
    images = x.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.repeat(n_out)
    y = F.conv2d(images, stacked.permute(0, 3, 1, 2), bias, stride[1:], padding[1:])
    frames = y.unflatten(1, (n_out, -1)).transpose(1, 2)
    return frames.contiguous(memory_format=torch.channels_last_3d)


def _compute_dtype(x: Tensor) -> torch.dtype:
    is_cast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if is_cast else x.dtype
