"""torch's layers, computed another way where a CPU does that faster or, for short inputs, rightly.

Every way asks for the same sums; what differs is their rounding.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Size3 = int | tuple[int, int, int]

FEW_CHANNELS = 4  # of pixels or flow: too few to fill a register


class Conv3d(nn.Conv3d):
    """nn.Conv3d without bias."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        kernel_size: Size3,
        *,
        stride: Size3 = 1,
        padding: Size3 = 0,
        groups: int = 1,
    ) -> None:
        super().__init__(in_planes, planes, kernel_size, stride, padding, groups=groups, bias=False)
        self._rounded: Rounded | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        weight = self._weight_in(_compute_dtype(x))
        asked = without_the_unseen(
            Convolution(x, weight, tuple(self.stride), tuple(map(int, self.padding)), self.groups)
        )
        by_columns = _compute_dtype(x) == torch.bfloat16 and self.in_channels <= FEW_CHANNELS
        if torch.is_grad_enabled() and self.weight.requires_grad:
            asked = padded_where_thin(asked)
            if asked.mixes_all_frames:
                return frames_as_channels(asked, self.bias)
            asked = padded_where_short(asked)
            if by_columns:
                return ByColumns.of(asked, self.bias)
        elif by_columns:
            asked = columns_as_channels(asked)
        return F.conv3d(
            asked.x, asked.weight, self.bias, asked.stride, asked.padding, groups=asked.groups
        )

    def _weight_in(self, dtype: torch.dtype) -> Tensor:
        """The weight; that of a frozen layer rounded to `dtype`, once and not at every step."""
        weight = self.weight
        if (
            weight.requires_grad
            or weight.dtype == dtype
            or weight.is_inference()  # has no version
            or torch.compiler.is_compiling()
        ):
            return weight
        kept = self._rounded
        if kept is None or not kept.is_of(weight, dtype):
            with torch.inference_mode(False):  # for steps with gradients, too
                kept = Rounded(weight.detach(), weight._version, weight.to(dtype))
            self._rounded = kept
        return kept.value


class MaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d that stays in bf16 under autocast, which would widen it on a CPU: the largest
    of some numbers needs no more bits than they have. Gradients that meet add up in bf16, as they
    do on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


class Convolution(NamedTuple):
    """What a convolution is asked for: x (B, C, T, H, W), weight (O, C / groups, t, h, w)."""

    x: Tensor
    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1

    @property
    def n_frames(self) -> int:
        """Of the output."""
        n = self.x.shape[2] + 2 * self.padding[0] - self.weight.shape[2]
        return n // self.stride[0] + 1

    @property
    def mixes_all_frames(self) -> bool:
        """Whether every frame of the output sees every frame of the input, all channels of it,
        through a kernel of more than one frame."""
        t_size, pad = self.weight.shape[2], self.padding[0]
        first, last = pad - (self.n_frames - 1) * self.stride[0], pad + self.x.shape[2] - 1
        return self.groups == 1 and t_size > 1 and 0 <= first and last < t_size


class Rounded(NamedTuple):
    """A weight in fewer bits. `source` shares its memory, so that nothing else can move in."""

    source: Tensor
    version: int
    value: Tensor

    def is_of(self, weight: Tensor, dtype: torch.dtype) -> bool:
        """Whether this is `weight` as it is now."""
        return (
            self.source.data_ptr() == weight.data_ptr()
            and self.version == weight._version
            and self.value.dtype == dtype
        )


def without_the_unseen(asked: Convolution) -> Convolution:
    """The same over the voxels that a kernel of one voxel sees where it strides over others:
    oneDNN's gradients take 1.4 to 2.6 times as long when it is left to pass over them."""
    x, weight, (t, h, w), padding, groups = asked
    if weight.shape[2:].numel() > 1 or t * h * w == 1 or any(padding):
        return asked
    # Taken out as they lie in memory, so that the gradients' zeros lie the same way.
    seen = x.permute(0, 2, 3, 4, 1)[:, ::t, ::h, ::w].permute(0, 4, 1, 2, 3)
    seen = seen.contiguous(memory_format=torch.channels_last_3d)
    return Convolution(seen, weight, (1, 1, 1), padding, groups)


class ByColumns(torch.autograd.Function):
    """`columns_as_channels` forward, and backward the convolution as it is, whose gradients of
    the weights oneDNN computes a fifth faster."""

    @classmethod
    def of(cls, asked: Convolution, bias: Tensor | None) -> Tensor:
        """(B, O, T', H', W')."""
        dtype = _compute_dtype(asked.x)
        x, weight = asked.x.to(dtype), asked.weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        return cls.apply(x, weight, bias, asked.stride, asked.padding, asked.groups)

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
        asked = columns_as_channels(Convolution(x, weight, stride, padding, groups))
        return F.conv3d(asked.x, asked.weight, bias, asked.stride, asked.padding, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.options
        one, zero = (1, 1, 1), (0, 0, 0)
        gradients = torch.ops.aten.convolution_backward(
            above, x, weight, [len(weight)], stride, padding, one, False, zero, groups,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return *gradients, None, None, None


def columns_as_channels(asked: Convolution) -> Convolution:
    """The same with a kernel one pixel wide: the columns that a kernel sees become channels.

    oneDNN takes channels in pairs in bf16, and so wastes a quarter of its products on three: an
    R3D's stem takes three quarters of the time this way. Clips get width / stride times as large.
    """
    x, weight, stride, padding, groups = asked
    width = weight.shape[4]
    if width == 1 or groups > 1:
        return asked
    padded = F.pad(x.to(_compute_dtype(x)), (padding[2], padding[2]))
    columns = padded.permute(0, 2, 3, 4, 1).unfold(3, width, stride[2])  # (B, T, H, W', C, w)
    columns = columns.transpose(4, 5).flatten(4).permute(0, 4, 1, 2, 3)  # (B, w C, T, H, W')
    columns = columns.contiguous(memory_format=torch.channels_last_3d)  # until here a view
    weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2)[..., None]  # (O, w C, t, h, 1)
    return Convolution(columns, weight, (*stride[:2], 1), (*padding[:2], 0))


def padded_where_thin(asked: Convolution) -> Convolution:
    """The same with its padding spent before, along sides so small that oneDNN's bf16 gradients of
    the weights are garbage: 1 pixel under a stride of 2. Measured against fp64 with torch 2.15 on
    AVX-512, as in `padded_where_short`."""
    x, weight, stride, (t, h, w), groups = asked
    now_h, now_w = h * (x.shape[3] <= h), w * (x.shape[4] <= w)
    if not (now_h or now_w):
        return asked
    x = F.pad(x, (now_w, now_w, now_h, now_h))
    return Convolution(x, weight, stride, (t, h - now_h, w - now_w), groups)


def padded_where_short(asked: Convolution) -> Convolution:
    """The same with its padding spent before in time, where there are about as few frames as the
    kernel has: oneDNN's gradients of the weights are garbage there, now and then a segmentation
    fault.

    In bf16: 5 and 6 frames under the stem's 7 (fewer are `frames_as_channels`), with groups 2
    under a kernel of 3 too. In fp32: 5 to 7 frames under a stem of 7 with a stride of 2.
    """
    x, weight, stride, (t, h, w), groups = asked
    # One frame alone is safe; padding it would triple its cost.
    if not t or not 1 < x.shape[2] < weight.shape[2] + stride[0] - 1:
        return asked
    return Convolution(F.pad(x, (0, 0, 0, 0, t, t)), weight, stride, (0, h, w), groups)


def frames_as_channels(asked: Convolution, bias: Tensor | None) -> Tensor:
    """(B, O, T', H', W') of a convolution that mixes all frames, as one of pictures whose channels
    are those of all frames: no product with the zeros of the padding, and gradients that oneDNN
    computes rightly."""
    x, weight, stride, padding, _ = asked
    n_in, n_out = x.shape[2], asked.n_frames
    # Taken apart as they lie in memory, so that their gradients need not change places.
    taps = weight.to(_compute_dtype(x)).permute(0, 2, 3, 4, 1).unbind(1)  # (O, h, w, C) each
    seen = [[taps[i - o * stride[0] + padding[0]] for i in range(n_in)] for o in range(n_out)]
    stacked = torch.cat([torch.cat(row, dim=3) for row in seen])  # (T' O, h, w, T C)
    pictures = x.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.repeat(n_out)
    y = F.conv2d(pictures, stacked.permute(0, 3, 1, 2), bias, stride[1:], padding[1:])
    frames = y.unflatten(1, (n_out, -1)).transpose(1, 2)
    return frames.contiguous(memory_format=torch.channels_last_3d)


def _compute_dtype(x: Tensor) -> torch.dtype:
    is_cast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if is_cast else x.dtype
