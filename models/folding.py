"""Fold batch norms into the convolutions before them, which saves inference two passes over each
activation."""

import copy
import itertools
from collections.abc import Iterable

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with batch norms folded into the convolutions directly
    before them. The logits are the same up to rounding."""
    copied = copy.deepcopy(model).eval()
    for module in list(copied.modules()):
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
    return copied


def _pairs(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Return pairs of child names: a convolution, and the batch norm that is the only reader of its
    output."""
    if not isinstance(module, nn.Sequential):
        return getattr(module, "folds", ())
    children = list(module.named_children())
    return [
        (name, next_name)
        for (name, child), (next_name, following) in itertools.pairwise(children)
        if isinstance(child, nn.Conv3d) and isinstance(following, nn.BatchNorm3d)
    ]
