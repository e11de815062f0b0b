import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datasets.video_dataset import ClipBatch
from engine.device import Normalization, choose_device
from engine.losses import balanced_weights, class_counts, describe_counts
from tests.runs import make_dataset, make_trainer, small_run

pytestmark = pytest.mark.numeric


def test_balanced_weights_equalise_the_classes():
    counts = class_counts((0, 0, 0, 2, -1), 4)
    assert counts.tolist() == [3, 0, 1, 0]
    weights = balanced_weights(counts)
    assert weights[0] * 3 == pytest.approx(weights[2] * 1)  # each class weighs the same in all
    assert weights[[0, 0, 0, 2]].mean() == pytest.approx(1)
    assert weights[1] == 1


def test_few_classes_are_listed_and_many_summarised():
    assert describe_counts(np.array([3, 1, 9]), ("a", "b")) == "a 3, b 1"
    counts = np.arange(1, 31)[::-1]
    text = describe_counts(counts, [f"c{i}" for i in range(30)])
    assert text == (
        "30 classes, median 15.5 videos; fewest c29 1, c28 2, c27 3; most c0 30, c1 29, c2 28"
    )


class Fixed(torch.nn.Module):
    """Logits that do not depend on the clip."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([1.0, -0.5]))

    def forward(self, clips):
        return self.logits.expand(len(clips), 2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_loss_is_weighted_by_class(accumulate):
    device = choose_device(
        no_cuda=True, precision="fp32", normalization=Normalization.of("kinetics")
    )
    model, labels = Fixed(), torch.tensor([0, 0, 0, 1])
    weights = torch.tensor(balanced_weights(np.array([3, 1])), dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = make_trainer(model, optimizer, device, class_weights=weights)
    expected = torch.nn.Parameter(model.logits.detach().clone())
    each = F.cross_entropy(expected.expand(4, 2), labels, reduction="none")
    (each * weights[labels]).mean().backward()
    size = 4 // accumulate
    for number in range(accumulate):
        part = labels[number * size : (number + 1) * size]
        batch = ClipBatch(torch.zeros(size, 3, 2, 4, 4, dtype=torch.uint8), part, part, [], [])
        trainer.run_batch(batch, n_clips=4, updates=number == accumulate - 1)
    torch.testing.assert_close(
        model.logits.data, expected.data - expected.grad, check_dtype=False, atol=1e-6, rtol=0
    )


def losses(root, *flags, result):
    assert small_run(root, "--n_epochs", "1", *flags, result=result) == 0
    return (root / result / "train.log").read_text()


def test_balanced_weights_change_the_training_of_an_uneven_set_only(tmp_path, capfd):
    index = make_dataset(tmp_path)
    balanced = ("--class_weights", "balanced")
    assert losses(tmp_path, result="even") == losses(tmp_path, *balanced, result="even_balanced")
    assert "training videos: a 3, b 3" in capfd.readouterr().out
    for video in ("b_0", "b_1"):
        index["database"][video]["subset"] = "testing"
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert losses(tmp_path, result="uneven") != losses(tmp_path, *balanced, result="balanced")
    assert "training videos: a 3, b 1" in capfd.readouterr().out
