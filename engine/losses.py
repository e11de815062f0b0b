"""The training loss."""

import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100  # cross entropy's default: the target of padding clips


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy of logits (B, K), summed over the clips.

    `targets` are class numbers (B,), or from batch mixing soft targets (B, K), where a row of
    zeros is a clip to ignore. `weight` (K,) weights the classes. Label smoothing spreads a share
    of each target evenly over all classes (Szegedy et al., arXiv:1512.00567).
    """
    if targets.is_floating_point():
        # cross_entropy would smooth rows of zeros, too.
        spread = targets.sum(dim=1, keepdim=True) / targets.shape[1]
        targets = targets.lerp(spread, label_smoothing)
        return F.cross_entropy(logits, targets, weight=weight, reduction="sum")
    return F.cross_entropy(
        logits,
        targets,
        weight=weight,
        reduction="sum",
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
    )
