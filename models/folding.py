"""Batch norm folded into the convolutions before it: inference without reading every activation
twice more. The trained model stays as it is."""

import copy
from collections.abc import Iterable

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them, where
    one directly follows the other. The logits are the same up to rounding."""
    copied = copy.deepcopy(model).eval()
    for module in list(copied.modules()):
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
    return copied


def _pairs(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Names of children: a convolution and the batch norm that its output goes to alone."""
    if not isinstance(module, nn.Sequential):
        return getattr(module, "folds", ())
    children = list(module.named_children())
    return [
        (name, next_name)
        for (name, child), (next_name, following) in zip(children, children[1:], strict=False)
        if isinstance(child, nn.Conv3d) and isinstance(following, nn.BatchNorm3d)
    ]
