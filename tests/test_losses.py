from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from engine.losses import classification_loss

LOGITS = [[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]]


def log_softmax(row):
    return [x - log(sum(exp(y) for y in row)) for x in row]


def by_hand(rows, weight=(1, 1, 1)):
    """The loss of LOGITS for soft targets, in plain Python."""
    return -sum(
        t * w * p
        for logits, row in zip(LOGITS, rows, strict=True)
        for t, w, p in zip(row, weight, log_softmax(logits), strict=True)
    )


def test_class_numbers_without_smoothing_are_plain_cross_entropy_to_the_bit():
    torch.manual_seed(0)
    logits, targets = torch.randn(64, 10), torch.randint(10, (64,))
    targets[5] = -100
    weight = torch.rand(10)
    expected = F.cross_entropy(logits, targets, weight=weight, reduction="sum", ignore_index=-100)
    assert torch.equal(classification_loss(logits, targets, weight=weight), expected)


def test_smoothed_class_numbers():
    loss = classification_loss(torch.tensor(LOGITS), torch.tensor([0, 1]), label_smoothing=0.3)
    assert loss.item() == pytest.approx(by_hand([(0.8, 0.1, 0.1), (0.1, 0.8, 0.1)]))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_soft_targets(smoothing):
    soft = [(0.25, 0.75, 0.0), (0.0, 0.6, 0.4)]
    smoothed = [[t * (1 - smoothing) + smoothing / 3 for t in row] for row in soft]
    weight = (0.5, 2.0, 1.0)
    loss = classification_loss(
        torch.tensor(LOGITS),
        torch.tensor(soft),
        weight=torch.tensor(weight),
        label_smoothing=smoothing,
    )
    assert loss.item() == pytest.approx(by_hand(smoothed, weight))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_hard_and_soft_targets_of_the_same_classes_agree(weight):
    targets = torch.tensor([2, 1])
    losses = [
        classification_loss(torch.tensor(LOGITS), t, weight=weight, label_smoothing=0.1).item()
        for t in (targets, F.one_hot(targets, 3).float())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("ignored", [torch.tensor([-100, -100]), torch.zeros(2, 3)])
def test_padding_clips_have_no_loss_and_no_gradient(ignored):
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = classification_loss(logits, ignored, label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
