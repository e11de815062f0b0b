import gzip
import json
from pathlib import Path

import pytest

from models.arch_detect import identify

CASES = json.loads(gzip.decompress((Path(__file__).parent / "golden/models.json.gz").read_bytes()))
TRACELESS = ("conv1_t_stride", "no_max_pool")  # options that leave nothing in the tensors


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['model']}-{c['model_depth']}-{c['options']}"
)
def test_every_model_is_recognised(case):
    identity = identify({name: tuple(shape) for name, shape in case["state_dict"].items()})
    assert identity is not None
    assert identity.arch == f"{case['model']}-{case['model_depth']}"
    assert identity.n_classes == 7
    for name, value in case["options"].items():
        if name not in TRACELESS:
            assert getattr(identity, name) == value


def test_other_networks_are_not():
    assert identify({"weight": (3, 3)}) is None
    assert identify({"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 512)}) is None
