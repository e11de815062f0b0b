import gzip
import json
from pathlib import Path

import pytest
import torch

from models.arch_detect import identify
from models.build import build
from models.catalog import FAMILIES, describe_depths

CASES = json.loads(gzip.decompress((Path(__file__).parent / "golden/models.json.gz").read_bytes()))
# Options that do not show in the tensors.
WITHOUT_TRACE = ("conv1_t_stride", "no_max_pool", "bn_eps")
ALL_DEPTHS = [(name, depth) for name, family in FAMILIES.items() for depth in family.depths]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['model']}-{c['model_depth']}-{c['options']}"
)
def test_models_of_the_original_are_recognised(case):
    identity = identify({name: tuple(shape) for name, shape in case["state_dict"].items()})
    assert identity is not None
    assert identity.arch == f"{case['model']}-{case['model_depth']}"
    assert identity.n_classes == 7
    for name, value in case["options"].items():
        if name not in WITHOUT_TRACE:
            assert identity.values[name] == value


@pytest.mark.parametrize(("family", "depth"), ALL_DEPTHS)
def test_every_depth_of_every_family_is_recognised(family, depth):
    with torch.device("meta"):
        model = build(family, depth, n_classes=5, n_input_channels=2, conv1_t_size=3)
    identity = identify({name: tuple(t.shape) for name, t in model.state_dict().items()})
    assert identity is not None
    assert identity.arch == f"{family}-{depth}"
    found = identity.values
    assert (found["n_classes"], found["n_input_channels"], found["conv1_t_size"]) == (5, 2, 3)
    assert set(identity.options) == set(FAMILIES[family].options) - set(WITHOUT_TRACE)
    assert list(identity.values)[:4] == ["model", "model_depth", "n_classes", "n_input_channels"]


@pytest.mark.parametrize("family", ["resnet", "resnet2p1d"])
@pytest.mark.parametrize("factor", [1 / 64, 0.1, 0.3, 1.7, 2.3])
def test_the_width_that_is_read_builds_the_same_network(family, factor):
    def shapes_of(factor):
        with torch.device("meta"):
            model = build(family, 10, n_classes=5, resnet_widen_factor=factor)
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    shapes = shapes_of(factor)
    assert shapes_of(identify(shapes).options["resnet_widen_factor"]) == shapes


@pytest.mark.parametrize("cardinality", [1, 2, 16, 32, 64])
def test_every_cardinality_is_recognised(cardinality):
    with torch.device("meta"):
        model = build("resnext", 50, n_classes=5, resnext_cardinality=cardinality)
    identity = identify({name: tuple(t.shape) for name, t in model.state_dict().items()})
    assert (identity.arch, identity.options["resnext_cardinality"]) == ("resnext-50", cardinality)


def test_other_networks_are_not_recognised():
    assert identify({"weight": (3, 3)}) is None
    assert identify({"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 512)}) is None


def test_the_help_lists_the_depths_of_every_family():
    assert describe_depths() == (
        "resnet, resnet2p1d, preresnet: 10 18 34 50 101 152 200; "
        "wideresnet, resnext: 50 101 152 200; densenet: 121 169 201 264"
    )
