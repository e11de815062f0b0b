"""What a resumed run takes over of its optimiser: momenta, rates and loss scaling."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from engine.checkpoint import load_checkpoint
from engine.device import Normalization, choose_device
from engine.optim import build_optimization
from engine.optim_resume import resume_optimization
from engine.optim_state import load_optimizer
from errors import UserError
from model import build_model
from parsing import parse_opts
from tests.runs import as_of_the_original, make_dataset, make_trainer, read_table, small_run

pytestmark = pytest.mark.numeric

SHAPE = (4, 3, 2, 2, 2)
LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last_3d),
    "any order": lambda t: t.permute(4, 0, 2, 1, 3).contiguous().permute(1, 3, 2, 4, 0),
    "with gaps": lambda t: torch.stack([t, torch.full_like(t, 7.0)], dim=-1)[..., 0],
    "a parameter": lambda t: nn.Parameter(t),
    "fp64": lambda t: t.double(),
}


def channels_last_convolution(seed=0):
    torch.manual_seed(seed)
    return nn.Conv3d(3, 4, 2, bias=False).to(memory_format=torch.channels_last_3d)


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5, **options)


def momentum_of(optimizer):
    [state] = optimizer.state.values()
    return state["momentum_buffer"]


def state_with(momentum, model):
    state = sgd(model).state_dict()
    return state | {"state": {0: {"momentum_buffer": momentum}}}


def load(optimizer, state, n=1):
    names = [f"layer{number}.weight" for number in range(n)]
    load_optimizer(
        optimizer, state, buffers=("momentum_buffer",), names=names, place="c.pth: optimizer"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_does_not_depend_on_how_the_saved_momentum_lies_in_memory(layout):
    model, momentum = channels_last_convolution(), torch.randn(SHAPE)
    plain = copy.deepcopy(model)
    optimizer, reference = sgd(model, fused=True), sgd(plain, fused=False, foreach=False)
    saved = LAYOUTS[layout](momentum)
    load(optimizer, state_with(saved, model))
    reference.load_state_dict(state_with(momentum.clone(), plain))
    before = saved.detach().clone()
    for parameter, other in zip(model.parameters(), plain.parameters(), strict=True):
        gradient = torch.randn(SHAPE)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
        other.grad = gradient
    optimizer.step()
    reference.step()
    torch.testing.assert_close(model.weight, plain.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(momentum_of(optimizer), momentum_of(reference), rtol=0, atol=1e-6)
    assert torch.equal(saved, before)  # the file's tensors are nobody else's


WRONG = {
    "shape": (lambda t: t[:2].clone(), r"has shape \(2, 3, 2, 2, 2\), but"),
    "rank": (lambda t: t.flatten(), r"has shape \(96,\)"),
    "no values": (lambda t: t.to("meta"), "has no values"),
    "expanded": (lambda t: t[:1].expand(SHAPE), "repeats a few values"),
    "sparse": (lambda t: t.to_sparse(), "is not a dense tensor"),
    "integers": (lambda t: t.long(), "holds torch.int64"),
    "complex": (lambda t: t.cfloat(), "holds torch.complex64"),
    "quantized": (
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "holds torch.qint8",
    ),
    "NaN": (
        lambda t: t.clone().index_fill_(0, torch.tensor(1), torch.nan),
        "contains NaN or infinity",
    ),
    "too large": (lambda t: t.double() * 1e200, "contains NaN or infinity"),
    "a list": (lambda t: t.tolist(), "is a list, not a tensor"),
}


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
@pytest.mark.parametrize("kind", WRONG)
def test_a_momentum_that_the_parameter_can_not_have_is_refused(kind):
    spoil, message = WRONG[kind]
    model = channels_last_convolution()
    optimizer = sgd(model, fused=True)
    message = f"^c.pth: optimizer: momentum_buffer of layer0.weight .*{message}"
    with pytest.raises(UserError, match=message):
        load(optimizer, state_with(spoil(torch.randn(SHAPE)), model))
    assert not optimizer.state


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state": []}, "state: expected object, got array"),
        ({"state": {0: 5}}, r"state\[\.\.\.\]: expected object, got int"),
        ({"state": {3: {}}}, "its states and its parameter groups do not match"),
        (
            {"state": {0: {"exp_avg": torch.ones(SHAPE)}}},
            "has 'exp_avg', which this --optimizer does not keep",
        ),
        ({"param_groups": [{"params": "all"}]}, r"param_groups\[0\]\.params: expected array"),
        ({"param_groups": [{"params": [0], "lr": "fast"}]}, r"\.lr: expected float, got str"),
        ({"param_groups": [{"params": [0], "lr": torch.ones(())}]}, r"\.lr: expected float"),
        ({"param_groups": [{"params": [0], "momentum": float("nan")}]}, r"\.momentum: expected"),
        ({"param_groups": [{"params": [0], "weight_decay": -1.0}]}, r"\.weight_decay: expected"),
        ({"param_groups": [{"params": [0], "nesterov": "no"}]}, r"\.nesterov: expected bool"),
    ],
)
def test_a_state_of_another_form_is_refused(changed, message):
    model = channels_last_convolution()
    with pytest.raises(UserError, match=f"^c.pth: optimizer: .*{message}"):
        load(sgd(model, fused=True), sgd(model).state_dict() | changed)


def test_the_momentum_of_some_parameters_alone_is_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    state = sgd(model).state_dict() | {"state": {1: {"momentum_buffer": torch.zeros(3)}}}
    with pytest.raises(UserError, match="has the state of only 1 of 4 trained tensors"):
        load(sgd(model, fused=True), state, n=4)


def test_how_steps_are_computed_is_not_the_file_s_to_say():
    model = channels_last_convolution()
    state = sgd(model, fused=False, foreach=True, maximize=True).state_dict()
    state["param_groups"][0]["lr"] = 3
    optimizer = sgd(model, fused=True)
    load(optimizer, state)
    [group] = optimizer.param_groups
    assert (group["fused"], group["foreach"], group["maximize"]) == (True, None, False)
    assert group["lr"] == 3


@pytest.mark.parametrize("saved_in_groups", [False, True])
@pytest.mark.parametrize("loaded_in_groups", [False, True])
def test_optimizer_state_in_any_grouping(saved_in_groups, loaded_in_groups):
    def optimizer_of(model, in_groups, rate):
        parameters = list(model.parameters())
        groups = [{"params": [p]} for p in parameters] if in_groups else parameters
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    first = optimizer_of(model, saved_in_groups, rate=0.25)
    model(torch.ones(5, 4)).sum().backward()
    first.step()
    second = optimizer_of(model, loaded_in_groups, rate=0.5)
    load(second, first.state_dict(), n=4)
    assert {group["lr"] for group in second.param_groups} == {0.25}
    for parameter in model.parameters():
        expected = first.state[parameter]["momentum_buffer"]
        assert torch.equal(second.state[parameter]["momentum_buffer"], expected)


def test_groups_of_several_rates_do_not_become_one():
    model = nn.Linear(4, 3)
    several = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.01}]
    state = torch.optim.SGD(several, momentum=0.9).state_dict()
    with pytest.raises(UserError, match="have several rates or weight decays"):
        load(sgd(model), state, n=2)
    same = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=1.0)
    load(same, state, n=2)
    assert [group["lr"] for group in same.param_groups] == [0.1, 0.01]


def test_optimizer_of_other_parameters():
    one = torch.optim.SGD(nn.Linear(4, 3).parameters(), lr=0.1)
    two = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="2 trained tensors in the file, 1 here"):
        load(two, one.state_dict())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a dataset and, in res/, a run of one epoch."""
    root = tmp_path_factory.mktemp("trained")
    make_dataset(root, train=6)
    assert small_run(root, "--n_epochs", "1") == 0
    return root


def content_of(path):
    return torch.load(path, weights_only=True)


def test_a_resumed_run_does_not_depend_on_how_its_file_lies_in_memory(trained, tmp_path):
    content = content_of(trained / "res/save_1.pth")
    ends = []
    for number, layout in enumerate(["contiguous", "channels last", "any order"]):
        torch.save(as_of_the_original(content, LAYOUTS[layout]), tmp_path / "c.pth")
        result = tmp_path / str(number)
        resume = ("--resume_path", str(tmp_path / "c.pth"))
        assert small_run(trained, *resume, "--no_val", result=str(result)) == 0
        ends.append(content_of(result / "save_2.pth")["state_dict"])
    for other in ends[1:]:
        assert all(torch.equal(ends[0][name], other[name]) for name in other)


# (flags, what the file lacks, its rate after the first of two epochs of 3 updates)
WITHOUT = [
    (("--multistep_milestones", "1"), "optimizer", 0.001),
    (("--multistep_milestones", "1"), "scheduler", 0.01),  # the file's
    (("--lr_scheduler", "cosine"), "optimizer", 0.005),
    (("--lr_scheduler", "cosine"), "scheduler", 0.005),
]


@pytest.mark.parametrize(("flags", "without", "rate"), WITHOUT)
def test_a_schedule_without_a_state_continues_after_the_epoch(
    trained, tmp_path, capsys, flags, without, rate
):
    content = content_of(trained / "res/save_1.pth")
    kept = ("epoch", "state_dict", "optimizer", "scheduler")  # as other tools write them
    content = {key: content[key] for key in kept if key != without}
    torch.save(content, tmp_path / "c.pth")
    result = tmp_path / "on"
    resume = ("--resume_path", str(tmp_path / "c.pth"), "--no_val", *flags)
    assert small_run(trained, *resume, result=str(result)) == 0
    out = capsys.readouterr().out
    assert f"continues after epoch 1 at a learning rate of {rate}\n" in out
    assert out.count("c.pth: has no ") == 1
    assert ("has no optimiser state: " in out) == (without == "optimizer")
    assert read_table((result / "train_batch.log").read_text())[0]["lr"] == pytest.approx(rate)


def resumed(path, flags, *, rates, **beside):
    """What is built of `flags` and continues after epoch 120 of 200, of 5 updates each, from a file
    whose optimiser has `rates`."""
    required = ("--video_path", "v", "--annotation_path", "a", "--result_path", "r")
    small = ("--model_depth", "10", "--resnet_widen_factor", "0.1", "--n_classes", "2")
    options = parse_opts([*required, *small, *flags])
    model = build_model(options)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optim = build_optimization(options, model, scaler, n_updates=5)
    state = optim.optimizer.state_dict()
    for group in state["param_groups"]:
        del group["initial_lr"]
        group |= rates
    content = {"epoch": 120, "state_dict": model.state_dict(), "optimizer": state}
    torch.save(content | beside, path)
    checkpoint = load_checkpoint(path)
    resume_optimization(optim, checkpoint, options=options, model=model, n_updates=5)
    return optim


DECAYED = {"lr": 1e-5, "initial_lr": 0.1}
COSINE = ("--lr_scheduler", "cosine")


@pytest.mark.parametrize(
    ("flags", "rates", "after_120", "after_121"),
    [
        ((), {"lr": 0.001}, 0.001, 0.001),
        ((), DECAYED, 1e-5, 1e-5),
        (("--multistep_milestones", "50", "121"), DECAYED, 1e-5, 1e-6),
        (("--lr_scheduler", "plateau"), {"lr": 0.001}, 0.001, 0.001),
        # Half a cosine from 1 to 0 is at 0.345 after 120 of 200 epochs.
        (COSINE, {"lr": 0.1}, 0.0345492, 0.0338042),
        (COSINE, DECAYED, 1e-5, 9.78438e-6),
    ],
)
def test_an_unknown_schedule_leaves_the_rate_that_it_led_to(
    tmp_path, flags, rates, after_120, after_121
):
    flags = ("--learning_rate", "0.5", *flags)
    step_lr = {"step_size": 30, "gamma": 0.1, "base_lrs": [0.1], "last_epoch": 120}
    optim = resumed(tmp_path / "c.pth", flags, rates=rates, scheduler=step_lr)
    assert optim.learning_rate == pytest.approx(after_120, rel=1e-5)
    for _ in range(5):
        optim.optimizer.step()
        optim.end_update()
    optim.end_epoch(1.0)
    assert optim.learning_rate == pytest.approx(after_121, rel=1e-5)


def test_another_learning_rate_is_named_whatever_the_schedule(tmp_path, caplog):
    """ReduceLROnPlateau adds no initial rate to the optimiser, which version 0.1 saved so."""
    flags = ("--learning_rate", "0.5", "--lr_scheduler", "plateau")
    plateau = ReduceLROnPlateau(sgd(channels_last_convolution())).state_dict()
    message = "--learning_rate 0.5: the resumed run continues with"
    for rates, rate in (({"lr": 0.01}, 0.1), ({"lr": 0.01, "initial_lr": 0.2}, 0.2)):
        saved = {"scheduler": plateau, "options": {"learning_rate": 0.1}}
        optim = resumed(tmp_path / "c.pth", flags, rates=rates, **saved)
        assert caplog.messages == [f"{message} {rate}"]
        assert optim.optimizer.param_groups[0]["initial_lr"] == pytest.approx(rate)
        assert optim.learning_rate == 0.01
        caplog.clear()
    resumed(tmp_path / "c.pth", flags, rates={"lr": 0.01}, scheduler=plateau)
    assert not caplog.messages  # of a file that does not say


def test_the_optimiser_of_another_tool_is_known_by_its_state(trained, tmp_path, capsys):
    flags = ("--optimizer", "adamw", "--learning_rate", "1e-3", "--no_val")
    assert small_run(trained, *flags, "--n_epochs", "1", result=str(tmp_path / "a")) == 0
    content = content_of(tmp_path / "a/save_1.pth")
    kept = {key: content[key] for key in ("epoch", "state_dict", "optimizer")}
    for group in kept["optimizer"]["param_groups"]:
        del group["initial_lr"]  # there was no schedule
    torch.save(kept, tmp_path / "c.pth")
    resume = ("--resume_path", str(tmp_path / "c.pth"), "--no_val")
    capsys.readouterr()
    assert small_run(trained, *resume, result=str(tmp_path / "b")) == 2
    assert "--optimizer sgd: " in (error := capsys.readouterr().err)
    assert "was trained with adamw" in error
    again = ("--optimizer", "adamw", *resume)
    assert small_run(trained, *again, result=str(tmp_path / "b")) == 0
    assert "continues after epoch 1 at a learning rate of 0.001" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["shape", "expanded", "sparse", "integers", "NaN"])
def test_resuming_with_a_wrong_momentum_is_one_line(trained, tmp_path, capsys, kind):
    content = content_of(trained / "res/save_1.pth")
    spoil = {"expanded": lambda t: t[:1].expand(t.shape)}.get(kind, WRONG[kind][0])
    state = content["optimizer"]["state"][0]
    state["momentum_buffer"] = spoil(state["momentum_buffer"])
    torch.save(content, tmp_path / "c.pth")
    resume = ("--resume_path", str(tmp_path / "c.pth"))
    assert small_run(trained, *resume, result=str(tmp_path / "on")) == 2
    error = capsys.readouterr().err
    assert "c.pth: optimizer: momentum_buffer of conv1.weight" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after"), [("fp16", "fp16"), ("fp32", "fp16"), ("fp16", "fp32")]
)
def test_loss_scaling_resumes_where_both_runs_have_it(tmp_path, before, after):
    make_dataset(tmp_path, train=2, val=1)
    flags = ("--no_val", "--sample_size", "16", "--sample_duration", "4")
    assert small_run(tmp_path, *flags, "--n_epochs", "1", "--precision", before) == 0
    resume = ("--resume_path", "res/save_1.pth", "--precision", after)
    assert small_run(tmp_path, *flags, *resume, result="on") == 0
    saved = [content_of(tmp_path / path)["scaler"] for path in ("res/save_1.pth", "on/save_2.pth")]
    assert [bool(scaler) for scaler in saved] == [before == "fp16", after == "fp16"]


def test_no_momentum_comes_of_a_first_step_that_is_skipped():
    """fp16 gradients overflow at first, until the loss is scaled by less."""
    model = channels_last_convolution()
    normalization = Normalization.of("kinetics")
    device = choose_device(no_cuda=True, precision="fp16", normalization=normalization)
    optimizer = sgd(model, fused=True)
    trainer = make_trainer(model, optimizer, device)
    gradient = torch.randn(SHAPE)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        for value in (torch.full(SHAPE, torch.inf), gradient):
            scaled = trainer.optim.scaler.scale(value)
            model.weight.grad = torch.empty_like(model.weight).copy_(scaled)
            trainer._update()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(momentum_of(optimizer), gradient)
