import copy
import gzip
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.device import onednn_has_bf16
from errors import UserError
from models.build import build
from models.catalog import FAMILIES
from models.densenet import DenseLayer, Transition
from models.folding import folded
from models.layers import Conv3d, MaxPool3d
from models.resnet import Block, PadShortcut
from tests.golden.weights import model_input, weights_from_names
from tests.runs import GOLDEN

pytestmark = pytest.mark.numeric

CASES = json.loads(gzip.decompress((GOLDEN / "models.json.gz").read_bytes()))
ALL_DEPTHS = [(family, depth) for family, entry in FAMILIES.items() for depth in entry.depths]
SMALLEST = {(family, min(entry.depths)) for family, entry in FAMILIES.items()}


def n_blocks(model):
    return sum(isinstance(module, Block | DenseLayer | Transition) for module in model.modules())


# Batch norms that no convolution comes directly before: the first of each block of these families.
N_KEPT_NORMS = dict.fromkeys(FAMILIES, lambda model: 0) | {
    "preresnet": n_blocks,
    "densenet": lambda model: n_blocks(model) + 1,
}


def case_id(case):
    options = "-".join(f"{name}={value}" for name, value in case["options"].items())
    return f"{case['model']}-{case['model_depth']}" + (f"-{options}" if options else "")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_names_shapes_and_logits_are_the_originals(case):
    with torch.device("meta"):  # no time spent on weights that are replaced
        model = build(case["model"], case["model_depth"], n_classes=7, **case["options"])
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == case["state_dict"]
    assert list(shapes) == list(case["state_dict"])
    assert sum(p.numel() for p in model.parameters()) == case["n_parameters"]
    model.load_state_dict(weights_from_names(shapes), assign=True)
    model.eval()
    with torch.inference_mode():
        logits = model(model_input(case["options"].get("n_input_channels", 3)))
        ready = folded(model)
        same = ready(model_input(case["options"].get("n_input_channels", 3)))
    expected = torch.tensor(case["logits"]).reshape(1, 7)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)
    assert (same - logits).abs().max() <= 1e-4 * logits.abs().max()
    n_norms = sum(isinstance(module, nn.BatchNorm3d) for module in ready.modules())
    assert n_norms <= N_KEPT_NORMS[case["model"]](model)


@pytest.mark.parametrize(("family", "depth"), ALL_DEPTHS)
def test_every_depth_builds_without_memory(family, depth):
    with torch.device("meta"):
        model = build(family, depth, n_classes=5)
        logits = model(torch.empty(2, 3, 16, 64, 64))
        assert logits.shape == (2, 5)
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    modules = {name.removeprefix("features.").split(".")[0] for name, _ in model.named_parameters()}
    assert modules == set(FAMILIES[family].modules)
    assert isinstance(getattr(model, FAMILIES[family].head), nn.Linear)


@pytest.mark.parametrize(
    ("family", "depth"),
    [pytest.param(*m, marks=[] if m in SMALLEST else [pytest.mark.slow]) for m in ALL_DEPTHS],
)
def test_a_training_step_in_bf16(family, depth):
    torch.manual_seed(0)
    model = build(family, depth, n_classes=3).to(memory_format=torch.channels_last_3d)
    clips = torch.rand(2, 3, 16, 32, 32).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(clips).float(), torch.tensor([0, 2]))
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients if g.dim() > 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    optimizer.step()
    for parameter in model.parameters():  # fused SGD goes through all three as they lie in memory
        assert parameter.isfinite().all() and lies_as(parameter.grad, parameter)
        assert lies_as(optimizer.state[parameter]["momentum_buffer"], parameter)


def lies_as(tensor, other):
    """Whether two tensors of one shape have their values in the same order in memory."""
    strides = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    return all(one == two for size, one, two in strides if size > 1)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "kernel", [(1, 1, 1), (3, 3, 3), (3, 1, 1), (1, 3, 3), (7, 1, 1), (7, 7, 7)]
)
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 4, 4), (3, 4, 4), (7, 4, 4), (4, 1, 4), (4, 4, 1)])
@pytest.mark.parametrize(("in_planes", "groups"), [(3, 1), (16, 1), (16, 4)])
def test_convolutions_and_gradients_are_right(in_planes, groups, size, kernel, stride, precision):
    """Short inputs and few channels, which a CPU computes in ways of their own."""
    torch.manual_seed(0)
    strides = tuple(stride if k > 1 or kernel == (1, 1, 1) else 1 for k in kernel)
    padding = tuple(k // 2 for k in kernel)
    conv = Conv3d(in_planes, 16, kernel, stride=strides, padding=padding, groups=groups)
    conv.bias = nn.Parameter(torch.randn(16))  # as a folded batch norm leaves one
    exact = copy.deepcopy(conv).double()  # fp64 does not go through oneDNN
    x = torch.randn(2, in_planes, *size).to(memory_format=torch.channels_last_3d).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        ours_y = conv(x)
    if precision == torch.bfloat16 and onednn_has_bf16():  # another layout would slow down the rest
        assert ours_y.is_contiguous(memory_format=torch.channels_last_3d)
    exact_y = F.conv3d(exact_x, exact.weight, exact.bias, conv.stride, conv.padding, groups=groups)
    above = torch.randn_like(exact_y)
    ours_y.backward(above.to(ours_y.dtype))
    exact_y.backward(above)
    tolerance = 0.02 if precision == torch.float32 or onednn_has_bf16() else 0.04  # sums in bf16
    assert relative_error(ours_y, exact_y) < tolerance
    assert relative_error(conv.weight.grad, exact.weight.grad) < tolerance
    assert relative_error(conv.bias.grad, exact.bias.grad) < tolerance
    assert relative_error(x.grad, exact_x.grad) < tolerance
    with torch.inference_mode():
        again = conv.to(precision)(x.to(precision))
    assert relative_error(again, exact_y) < tolerance


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "n_frames"), [(1, 2, 8), (3, 1, 8), (3, 1, 2), (3, 1, 1)]
)
def test_gradients_lie_as_what_they_belong_to(kernel, stride, n_frames, precision):
    """In another layout they would be copied, and slow down all that they meet."""
    conv = Conv3d(16, 16, kernel, stride=stride, padding=kernel // 2)
    conv = conv.to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 16, n_frames, 6, 6).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = conv(x.requires_grad_())
    of_x, of_weight = torch.autograd.grad(y.sum(), (x, conv.weight))
    if precision == torch.bfloat16 and not onednn_has_bf16():
        return
    assert of_weight.is_contiguous(memory_format=torch.channels_last_3d)
    if n_frames != 2:  # few enough voxels to lie otherwise
        assert of_x.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_pooling_keeps_the_precision(precision):
    x = torch.randn(2, 4, 6, 7, 7, dtype=precision).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = MaxPool3d(3, stride=2, padding=1)(x)
    exact_y = F.max_pool3d(exact_x, 3, 2, 1)
    assert y.dtype == precision and torch.equal(y.double(), exact_y)
    above = torch.randn_like(exact_y)
    y.backward(above.to(precision))
    exact_y.backward(above)
    assert relative_error(x.grad, exact_x.grad) < 0.01


def relative_error(actual, expected):
    return (actual - expected).abs().max() / expected.abs().max()


def test_shortcut_a_pads_with_zeros_and_lets_gradients_through():
    x = torch.rand(1, 2, 4, 4, 4, requires_grad=True)
    y = PadShortcut(3, stride=2)(x)
    assert y.shape == (1, 5, 2, 2, 2)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2, ::2]) and not y[:, 2:].any()
    y.sum().backward()
    assert x.grad is not None and x.grad.sum() == 2 * 8


def test_initialisation():
    torch.manual_seed(0)
    model = build("resnet", 18, n_classes=10)
    weight = model.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 27)) ** 0.5, rel=0.02)
    assert (model.bn1.weight == 1).all() and not model.bn1.bias.any()
    assert model.fc.bias.abs().max() <= model.fc.in_features**-0.5
    assert not build("densenet", 121, n_classes=10).classifier.bias.any()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UserError, match="resnet, resnet2p1d, preresnet"):
        build("vgg", 16, n_classes=2)
    with pytest.raises(UserError, match="no densenet of depth 50; there are 121, 169"):
        build("densenet", 50, n_classes=2)


def test_resnext_of_another_cardinality_keeps_its_head():
    with torch.device("meta"):
        assert build("resnext", 50, n_classes=2, resnext_cardinality=64).fc.in_features == 2048


def test_a_frozen_weight_is_rounded_anew_once_it_has_changed():
    torch.manual_seed(0)
    conv = Conv3d(8, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 8, 4, 6, 6)

    def same_as_torch():
        with torch.autocast("cpu", torch.bfloat16):
            theirs = F.conv3d(x, conv.weight, padding=1)
            return torch.equal(conv(x), theirs)

    with torch.inference_mode():
        assert same_as_torch()
    kept = conv._rounded
    assert same_as_torch() and conv._rounded is kept
    conv.load_state_dict({"weight": torch.randn(8, 8, 3, 3, 3)})
    assert same_as_torch()
    conv.weight.data = torch.randn(8, 8, 3, 3, 3)
    assert same_as_torch()
    assert list(conv.state_dict()) == ["weight"]
    with torch.autocast("cpu", torch.bfloat16):  # gradients of the input alone
        conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    conv.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).sum().backward()
    assert conv.weight.grad is not None
