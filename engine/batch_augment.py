"""Mix the clips of a training batch with each other: mixup and CutMix."""

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor
from torchvision.transforms.v2 import CutMix, MixUp

from spatial_transforms import torch_seeded

Mix = Callable[[Tensor], tuple[Tensor, float]]  # clips -> mixed clips, each one's share of itself


class BatchAugment:
    """Mixes each clip of a batch with the one before it, and their targets in the same proportion.

    `mixup` and `cutmix` are the parameters alpha of Beta(alpha, alpha), from which the proportion
    is drawn, one for the batch; 0 turns that kind of mixing off. With both, each batch gets one of
    them with equal probability. Draws depend on (seed, epoch, number of the batch) alone, so all
    processes of a distributed run draw the same; each mixes its own clips.
    """

    def __init__(
        self, n_classes: int, *, seed: int, mixup: float = 0.0, cutmix: float = 0.0
    ) -> None:
        self.n_classes, self.seed = n_classes, seed
        self._mixes: list[Mix] = []
        if mixup:
            self._mixes.append(_Mixup(mixup))
        if cutmix:
            self._mixes.append(_Cutmix(cutmix))

    def mix(
        self, clips: Tensor, targets: Tensor, *, epoch: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """Return mixed clips and soft targets (B, K) of batch `number` of an epoch.

        `clips` are normalised (B, C, T, H, W), or with mixup alone features (B, D): mixing is
        linear, so it commutes with normalisation, but uint8 would round. `targets` are class
        numbers (B,); one outside 0 … K - 1, such as an ignore index, becomes a row of zeros.
        A batch of one clip is returned unmixed.
        """
        classes = torch.arange(self.n_classes, device=targets.device)
        soft = (targets[:, None] == classes).to(torch.float32)  # (B, K)
        if not self._mixes or len(clips) < 2:
            return clips, soft
        rng = Random(f"mix/{self.seed}/{epoch}/{number}")
        mix = rng.choice(self._mixes)
        with torch_seeded(rng.getrandbits(63)):
            mixed, share = mix(clips)
        return mixed, soft.lerp(_previous(soft), 1 - share)


class _Mixup:
    """Blend whole clips (Zhang et al., arXiv:1710.09412)."""

    def __init__(self, alpha: float) -> None:
        self.transform = MixUp(alpha=alpha, num_classes=None)

    def __call__(self, clips: Tensor) -> tuple[Tensor, float]:
        share = self.transform.make_params([])["lam"]
        # torchvision's own blend would lose the channels-last format on a GPU.
        return clips.lerp(_previous(clips), 1 - share), share


class _Cutmix:
    """Replace a box by that of the other clip, the same in all frames (Yun et al.,
    arXiv:1905.04899)."""

    def __init__(self, alpha: float) -> None:
        self.transform = CutMix(alpha=alpha, num_classes=None)

    def __call__(self, clips: Tensor) -> tuple[Tensor, float]:
        params = self.transform.make_params([clips])
        left, top, right, bottom = params["box"]
        box = (..., slice(top, bottom), slice(left, right))
        mixed = clips.clone()
        mixed[box] = _previous(clips[box])
        return mixed, params["lam_adjusted"]


def _previous(batch: Tensor) -> Tensor:
    return batch.roll(1, dims=0)
