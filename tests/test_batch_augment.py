import pytest
import torch
import torch.nn.functional as F

from engine.batch_augment import BatchAugment
from engine.device import Normalization, choose_device
from engine.losses import classification_loss

TARGETS = torch.tensor([0, 2, 1, 2])


def clips(n=4):
    """Clips whose pixels all have the number of the clip, from 1."""
    return torch.arange(1.0, n + 1).view(n, 1, 1, 1, 1).expand(n, 3, 4, 16, 20).contiguous()


def augment(**options):
    return BatchAugment(3, seed=1, **options)


def test_mixup_blends_clips_and_targets_in_one_proportion():
    shares = set()
    for number in range(20):
        mixed, soft = augment(mixup=1.0).mix(clips(), TARGETS, epoch=1, number=number)
        share = soft[0, 0].item()  # of clip 1; its partner, the last clip, has class 2
        assert 0 < share < 1
        one_hot = F.one_hot(TARGETS, 3).float()
        torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        torch.testing.assert_close(mixed, share * clips() + (1 - share) * clips().roll(1, 0))
        shares.add(share)
    assert len(shares) == 20


def test_loss_of_a_mixed_batch_is_the_blend_of_both_losses():
    """Formula of the paper: share * loss(y) + (1 - share) * loss(y of the partner)."""
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    _, soft = augment(mixup=1.0).mix(clips(), TARGETS, epoch=1, number=0)
    share = soft[0, 0].item()
    own, partners = (
        F.cross_entropy(logits, targets, reduction="sum") for targets in (TARGETS, TARGETS.roll(1))
    )
    loss = classification_loss(logits, soft)
    assert loss.item() == pytest.approx((share * own + (1 - share) * partners).item(), rel=1e-6)


def test_cutmix_pastes_one_box_into_all_frames():
    sizes = set()
    for number in range(20):
        mixed, soft = augment(cutmix=1.0).mix(clips(), TARGETS, epoch=1, number=number)
        assert mixed.unique().tolist() == [1, 2, 3, 4]
        is_pasted = mixed != clips()  # (B, C, T, H, W)
        assert torch.equal(is_pasted, is_pasted[:1, :1, :1].expand_as(is_pasted))
        assert torch.equal(mixed[is_pasted], clips().roll(1, 0)[is_pasted])
        rows, columns = is_pasted[0, 0, 0].nonzero().unbind(1)
        height, width = (x.max() - x.min() + 1 if len(x) else 0 for x in (rows, columns))
        assert len(rows) == height * width
        assert soft[0].tolist() == pytest.approx([1 - len(rows) / 320, 0, len(rows) / 320])
        sizes.add(len(rows))
    assert len(sizes) > 10


def test_draws_depend_on_seed_epoch_and_batch_alone():
    def soft(seed=1, epoch=1, number=0, n_clips=4):
        both = BatchAugment(3, seed=seed, mixup=0.8, cutmix=1.0)
        return both.mix(clips(n_clips), TARGETS[:n_clips], epoch=epoch, number=number)[1]

    before = torch.random.get_rng_state()
    first = soft()
    torch.testing.assert_close(soft(), first, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(soft(), first)
    assert soft(n_clips=2)[1, 2] == first[1, 2]  # another process of the same run
    for other in (soft(seed=2), soft(epoch=2), soft(number=1)):
        assert not torch.equal(other, first)


def test_both_kinds_take_turns_at_random():
    n_batches, n_blended = 200, 0
    for number in range(n_batches):
        mixed, _ = augment(mixup=0.8, cutmix=1.0).mix(clips(), TARGETS, epoch=1, number=number)
        n_blended += not torch.equal(mixed, mixed.round())
    assert 80 < n_blended < 120


def test_features_are_mixed_by_mixup():
    features = torch.rand(4, 8)
    mixed, soft = augment(mixup=1.0).mix(features, TARGETS, epoch=1, number=0)
    share = soft[0, 0].item()
    torch.testing.assert_close(mixed, share * features + (1 - share) * features.roll(1, 0))


@pytest.mark.parametrize(("n_clips", "options"), [(1, {"mixup": 1.0}), (4, {})])
def test_nothing_to_mix(n_clips, options):
    given, targets = clips(n_clips), TARGETS[:n_clips]
    mixed, soft = augment(**options).mix(given, targets, epoch=1, number=0)
    assert torch.equal(mixed, given)
    assert torch.equal(soft, F.one_hot(targets, 3).float())


def test_padding_clips_keep_empty_targets():
    padding = torch.full((2,), -100)
    _, soft = augment(mixup=1.0).mix(clips(2), padding, epoch=1, number=0)
    assert not soft.any()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_keeps_arguments_and_memory_format(kind):
    normalization = Normalization.of("kinetics")
    device = choose_device(no_cuda=True, precision="fp32", normalization=normalization)
    given = device.model_input(torch.randint(256, (4, 3, 4, 16, 20), dtype=torch.uint8))
    copy, targets = given.clone(), TARGETS.clone()
    mixed, _ = augment(**{kind: 1.0}).mix(given, targets, epoch=1, number=0)
    assert mixed.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(given, copy)
    assert torch.equal(targets, TARGETS)
