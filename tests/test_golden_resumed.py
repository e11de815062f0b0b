"""Checkpoints of version 0.1, one of each family, resume, infer and report as they did then.

tests/golden/resumed holds what differs from weights_from_names(): the trained head, and all that a
checkpoint has besides weights. expected.json has what version 0.1 computed with these files.
"""

import json

import pytest
import torch

from models.build import build
from tests.golden.weights import weights_from_names
from tests.runs import GOLDEN, make_dataset, read_results, read_table, small_run

FOLDER = GOLDEN / "resumed"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.numeric


def write_checkpoint(family, path):
    """Write the whole checkpoint of a family: its file's weights over those of its names."""
    content = torch.load(FOLDER / f"{family}.pth", weights_only=True)
    options = content["options"]
    width = {"wide_resnet_k": options["wide_resnet_k"]} if family == "wideresnet" else {}
    model = build(family, options["model_depth"], n_classes=2, **width)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    content["state_dict"] = weights_from_names(shapes) | content["state_dict"]
    torch.save(content, path)


@pytest.mark.parametrize("family", EXPECTED)
def test_resumes_infers_and_reports(family, tmp_path):
    expected = EXPECTED[family]
    make_dataset(tmp_path, train=2, val=1, n_frames=16)
    write_checkpoint(family, tmp_path / "save_1.pth")
    flags = [*expected["flags"], "--resnet_widen_factor", "1", "--freeze_bn"]
    flags += ["--ft_begin_module", expected["head"], "--n_epochs", "2", "--output_topk", "0"]
    flags += ["--resume_path", "save_1.pth", "--inference"]
    assert small_run(tmp_path, *flags, report=True) == 0
    run = tmp_path / "res"
    for log in ("train.log", "val.log"):
        ours, theirs = read_table((run / log).read_text()), read_table(expected[log])
        for row, other in zip(ours, theirs, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-4)
    for video, entries in read_results(run).items():
        scores = {entry["label"]: entry["score"] for entry in expected["results"][video]}
        assert {e["label"]: e["score"] for e in entries} == pytest.approx(scores, abs=1e-4)
    assert (run / "report.html").stat().st_size > 10_000
