import copy
import gzip
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.device import onednn_has_bf16
from errors import UserError
from models import cpu_kernels
from models.build import build, replace_head
from models.catalog import FAMILIES
from models.densenet import DenseLayer, Transition
from models.folding import folded
from models.resnet import Block, PadShortcut
from tests.golden.weights import model_input, weights_from_names
from tests.runs import GOLDEN

pytestmark = pytest.mark.numeric

CASES = json.loads(gzip.decompress((GOLDEN / "models.json.gz").read_bytes()))
ALL_DEPTHS = [(family, depth) for family, entry in FAMILIES.items() for depth in entry.depths]
SMALLEST = {(family, min(entry.depths)) for family, entry in FAMILIES.items()}


def n_blocks(model):
    return sum(isinstance(module, Block | DenseLayer | Transition) for module in model.modules())


# Batch norms that do not directly follow a convolution: the first of each block of these families.
N_KEPT_NORMS = dict.fromkeys(FAMILIES, lambda model: 0) | {
    "preresnet": n_blocks,
    "densenet": lambda model: n_blocks(model) + 1,
}


def case_id(case):
    options = "-".join(f"{name}={value}" for name, value in case["options"].items())
    return f"{case['model']}-{case['model_depth']}" + (f"-{options}" if options else "")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_names_shapes_and_logits_match_the_original(case):
    with torch.device("meta"):  # the weights are replaced
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
    model = cpu_kernels.apply(build(family, depth, n_classes=3))
    model.to(memory_format=torch.channels_last_3d)
    clips = torch.rand(2, 3, 16, 32, 32).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(clips).float(), torch.tensor([0, 2]))
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients if g.dim() > 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    optimizer.step()
    for parameter in model.parameters():  # fused SGD assumes the same layout of all three
        assert parameter.isfinite().all()
        assert has_same_layout(parameter.grad, parameter)
        assert has_same_layout(optimizer.state[parameter]["momentum_buffer"], parameter)


def has_same_layout(tensor, other):
    """Whether two tensors of one shape have the same order in memory."""
    strides = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    return all(one == two for size, one, two in strides if size > 1)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "kernel", [(1, 1, 1), (3, 3, 3), (3, 1, 1), (1, 3, 3), (7, 1, 1), (7, 7, 7)]
)
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 4, 4), (3, 4, 4), (7, 4, 4), (4, 1, 4), (4, 4, 1)])
@pytest.mark.parametrize(("in_planes", "groups"), [(3, 1), (16, 1), (16, 4)])
def test_convolutions_and_their_gradients_match_float64(
    in_planes, groups, size, kernel, stride, precision
):
    """Short inputs and few channels, which have kernels of their own."""
    torch.manual_seed(0)
    strides = tuple(stride if k > 1 or kernel == (1, 1, 1) else 1 for k in kernel)
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(in_planes, 16, kernel, strides, padding, groups=groups)
    exact = copy.deepcopy(conv).double()  # fp64 does not go through oneDNN
    cpu_kernels.apply(conv)
    x = torch.randn(2, in_planes, *size).to(memory_format=torch.channels_last_3d).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = conv(x)
    if (
        precision == torch.bfloat16 and onednn_has_bf16()
    ):  # another layout would slow down the next layer
        assert y.is_contiguous(memory_format=torch.channels_last_3d)
    exact_y = exact(exact_x)
    grad = torch.randn_like(exact_y)
    y.backward(grad.to(y.dtype))
    exact_y.backward(grad)
    tolerance = 0.02 if precision == torch.float32 or onednn_has_bf16() else 0.04  # sums in bf16
    assert relative_error(y, exact_y) < tolerance
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
def test_gradients_have_the_layout_of_their_tensors(kernel, stride, n_frames, precision):
    """Another layout would have to be converted in every operation that follows."""
    conv = cpu_kernels.apply(nn.Conv3d(16, 16, kernel, stride, kernel // 2, bias=False))
    conv.to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 16, n_frames, 6, 6).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = conv(x.requires_grad_())
    of_x, of_weight = torch.autograd.grad(y.sum(), (x, conv.weight))
    if precision == torch.bfloat16 and not onednn_has_bf16():
        return
    assert of_weight.is_contiguous(memory_format=torch.channels_last_3d)
    if n_frames != 2:  # as few voxels as the kernel covers: either layout
        assert of_x.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_pooling_keeps_the_precision(precision):
    x = torch.randn(2, 4, 6, 7, 7, dtype=precision).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = cpu_kernels.apply(nn.MaxPool3d(3, stride=2, padding=1))(x)
    exact_y = F.max_pool3d(exact_x, 3, 2, 1)
    assert y.dtype == precision
    assert torch.equal(y.double(), exact_y)
    grad = torch.randn_like(exact_y)
    y.backward(grad.to(precision))
    exact_y.backward(grad)
    assert relative_error(x.grad, exact_x.grad) < 0.01


def relative_error(actual, expected):
    return (actual - expected).abs().max() / expected.abs().max()


def test_shortcut_a_pads_with_zeros_and_lets_gradients_through():
    x = torch.rand(1, 2, 4, 4, 4, requires_grad=True)
    y = PadShortcut(3, (2, 2, 2))(x)
    assert y.shape == (1, 5, 2, 2, 2)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2, ::2])
    assert not y[:, 2:].any()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == 2 * 8


def test_initialisation():
    torch.manual_seed(0)
    model = build("resnet", 18, n_classes=10)
    weight = model.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 27)) ** 0.5, rel=0.02)
    assert (model.bn1.weight == 1).all()
    assert not model.bn1.bias.any()
    assert model.fc.bias.abs().max() <= model.fc.in_features**-0.5
    assert not build("densenet", 121, n_classes=10).classifier.bias.any()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        UserError, match="unknown model 'vgg'; choose from resnet, resnet2p1d, preresnet"
    ):
        build("vgg", 16, n_classes=2)
    with pytest.raises(UserError, match="densenet has no depth 50; choose from 121, 169"):
        build("densenet", 50, n_classes=2)


def test_resnext_of_another_cardinality_keeps_its_head():
    with torch.device("meta"):
        assert build("resnext", 50, n_classes=2, resnext_cardinality=64).fc.in_features == 2048


@pytest.mark.parametrize("family", FAMILIES)
def test_replaced_head_is_initialised_like_the_family_s(family):
    model = build(family, min(FAMILIES[family].depths), n_classes=2)
    replace_head(model, family, 5)
    head = getattr(model, FAMILIES[family].head)
    assert head.out_features == 5
    assert head.bias.any() == (family != "densenet")


def test_kernels_keep_names_and_copies_and_can_be_removed():
    model = build("resnet", 10, n_classes=2, resnet_widen_factor=0.125)
    types, names = [type(m) for m in model.modules()], list(model.state_dict())
    assert cpu_kernels.apply(model) is model
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    for layer in (model.conv1, copied.conv1, folded(model).conv1, copied.layer2[0].conv2):
        assert type(layer) is cpu_kernels.CpuConv3d
    assert type(copied.maxpool) is cpu_kernels.CpuMaxPool3d
    model.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 3, 8, 32, 32))
    cpu_kernels.remove(model)
    assert [type(m) for m in model.modules()] == types
    assert "_rounded" not in vars(model.layer1[0].conv1)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding": "same"},
                                     {"padding": 1, "padding_mode": "circular"}])  # fmt: skip
def test_convolutions_without_a_kernel_stay_as_they_are(options):
    conv = nn.Conv3d(3, 4, 3, **options)
    assert type(cpu_kernels.apply(conv)) is nn.Conv3d


def test_pooling_keeps_the_precision_of_float64():
    x = torch.rand(1, 2, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(cpu_kernels.apply(nn.AvgPool3d(2))(x), nn.AvgPool3d(2)(x))


def test_a_frozen_weight_is_rounded_again_once_it_has_changed():
    torch.manual_seed(0)
    conv = cpu_kernels.apply(nn.Conv3d(8, 8, 3, padding=1, bias=False)).requires_grad_(False)
    x = torch.randn(1, 8, 4, 6, 6)

    def same_as_torch():
        with torch.autocast("cpu", torch.bfloat16):
            expected = F.conv3d(x, conv.weight, padding=1)
            return torch.equal(conv(x), expected)

    with torch.inference_mode():
        assert same_as_torch()
    cached = conv._rounded
    assert same_as_torch()
    assert conv._rounded is cached
    conv.load_state_dict({"weight": torch.randn(8, 8, 3, 3, 3)})
    assert same_as_torch()
    conv.weight.data = torch.randn(8, 8, 3, 3, 3)
    assert same_as_torch()
    assert list(conv.state_dict()) == ["weight"]
    with torch.autocast("cpu", torch.bfloat16):  # gradients of the input only
        conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    conv.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_on_the_input_of_the_head_in_training_alone(family):
    depth = min(FAMILIES[family].depths)
    size = (2, 3, 16, 32, 32)
    with torch.device("meta"):
        plain, model = (build(family, depth, n_classes=5, dropout=p) for p in (0.0, 0.5))
    assert list(model.state_dict()) == list(plain.state_dict())
    weights = weights_from_names({k: list(v.shape) for k, v in plain.state_dict().items()})
    head_inputs = []
    for one in (plain, model):
        one.load_state_dict(weights, assign=True)
        head = getattr(one, FAMILIES[family].head)
        head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    torch.manual_seed(0)
    clips = torch.rand(size)
    with torch.no_grad():
        before = torch.random.get_rng_state()
        plain.train()(clips)
        assert torch.equal(torch.random.get_rng_state(), before)
        model.train()(clips)
        all_inputs, inputs = head_inputs
        is_kept = inputs != 0
        torch.testing.assert_close(inputs[is_kept], 2 * all_inputs[is_kept])
        assert 0.4 < (is_kept.sum() / (all_inputs != 0).sum()) < 0.6
        assert torch.equal(model.eval()(clips), model(clips))
