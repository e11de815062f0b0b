"""Which models exist: families, depths, module names. Literals, free of torch, so that options
and checkpoints can be checked before torch is imported."""

from dataclasses import dataclass

RESNET_DEPTHS = (10, 18, 34, 50, 101, 152, 200)
STEM_OPTIONS = ("conv1_t_size", "conv1_t_stride", "no_max_pool")


@dataclass(frozen=True)
class Family:
    """One model family as the flags and the checkpoints name it.

    `modules` are the top-level modules that hold parameters, in forward order: the values that
    --ft_begin_module takes. The last of them is the head. `options` are the architecture flags
    that the family heeds.
    """

    depths: tuple[int, ...]
    modules: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def head(self) -> str:
        return self.modules[-1]


LAYERS = ("layer1", "layer2", "layer3", "layer4", "fc")

FAMILIES: dict[str, Family] = {
    "resnet": Family(
        RESNET_DEPTHS,
        ("conv1", "bn1", *LAYERS),
        (*STEM_OPTIONS, "resnet_shortcut", "resnet_widen_factor"),
    ),
    "resnet2p1d": Family(
        RESNET_DEPTHS,
        ("conv1_s", "bn1_s", "conv1_t", "bn1_t", *LAYERS),
        (*STEM_OPTIONS, "resnet_shortcut", "resnet_widen_factor"),
    ),
    "preresnet": Family(
        RESNET_DEPTHS, ("conv1", "bn1", *LAYERS), (*STEM_OPTIONS, "resnet_shortcut")
    ),
    "wideresnet": Family(
        (50, 101, 152, 200),
        ("conv1", "bn1", *LAYERS),
        (*STEM_OPTIONS, "resnet_shortcut", "wide_resnet_k"),
    ),
    "resnext": Family(
        (50, 101, 152, 200),
        ("conv1", "bn1", *LAYERS),
        (*STEM_OPTIONS, "resnet_shortcut", "resnext_cardinality"),
    ),
    "densenet": Family(
        (121, 169, 201, 264),
        (
            "conv1",
            "norm1",
            *(f"{part}{i}" for i in (1, 2, 3) for part in ("denseblock", "transition")),
            "denseblock4",
            "norm5",
            "classifier",
        ),
        STEM_OPTIONS,
    ),
}
