import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from engine.checkpoint import load_checkpoint
from engine.checkpoint_fields import read_extras
from engine.checkpoint_file import save_checkpoint
from engine.optim_state import load_schedule
from errors import UserError
from flags import Range
from option_checks import check_saved
from opts import FLAGS, Options

SCALER = torch.amp.GradScaler("cpu").state_dict()
OURS = {
    "options": Options().as_plain(),
    "class_names": ["a", "b"],
    "versions": {"torch": "2.11"},
    "best": {"epoch": 3, "video_accuracy": 0.5},
    "position": {"epoch": 4, "batches": 1, "loss_sum": 1.5, "n_hits": 1, "n_clips": 2},
    "scaler": SCALER,
    "n_nodes": 1,
}
WRONG = ["abc", 0.5, -1, float("nan"), float("inf"), 10**30, [], [1], {}, {"a": "b"}, None, True]


def test_our_own_extras_are_read():
    extras = read_extras(OURS, "c.pth")
    assert extras.is_ours
    assert extras.class_names == ["a", "b"]
    assert extras.position["batches"] == 1
    assert extras.scaler == SCALER
    assert read_extras(OURS | {"scaler": {}}, "").scaler is None
    assert extras.options["multistep_milestones"] == (50, 100, 150)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("options", []),
        ("class_names", "ab"),
        ("class_names", [1]),
        ("best", {"epoch": "3", "video_accuracy": 0.5}),
        ("best", {"epoch": 3}),
        ("best", {"epoch": 3, "video_accuracy": float("nan")}),
        ("position", {"epoch": 0, "batches": 1, "loss_sum": 1.5, "n_hits": 1, "n_clips": 2}),
        ("position", {"epoch": 4, "batches": -1, "loss_sum": 1.5, "n_hits": 1, "n_clips": 2}),
        ("position", [1, 2]),
        ("scaler", {"scale": "big"}),
        ("scaler", {"scale": 65536.0}),
        ("scaler", SCALER | {"growth_interval": 2000.0}),
        ("versions", ["2.11"]),
        ("n_nodes", 0),
    ],
)
def test_invalid_values_are_named_in_the_error(tmp_path, name, value):
    with pytest.raises(UserError, match=rf"^c\.pth: (.*{name}|options)"):
        read_extras(OURS | {name: value}, "c.pth")
    save_checkpoint(tmp_path / "c.pth", {"state_dict": {"w": torch.ones(1)}} | OURS | {name: value})
    with pytest.raises(UserError, match=r"c\.pth: "):
        load_checkpoint(tmp_path / "c.pth")


def test_files_of_other_programs_may_hold_anything_under_these_names():
    content = {"best": 0.9, "position": "end", "class_names": 7}
    extras = read_extras(content, "c.pth")
    assert (extras.is_ours, extras.best, extras.class_names) == (False, None, None)
    assert read_extras({"class_names": ["a"]}, "c.pth").class_names == ["a"]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_saved_option_is_rejected_or_valid_for_its_flag(value):
    for name in FLAGS:
        check_option(name, value)


def check_option(name, value):
    flag = FLAGS[name]
    try:
        [(_, checked)] = check_saved({name: value}, "c.pth").items()
    except UserError as error:
        assert str(error).startswith(f"c.pth: option {name}")
        assert "\n" not in str(error)
        return
    kind = str if flag.is_path else type(flag.default)
    assert isinstance(checked, kind) or (checked is None and flag.is_path)
    if isinstance(flag.allowed, Range) and not isinstance(checked, tuple):
        assert flag.allowed.least <= checked <= flag.allowed.most


def test_every_number_has_a_range():
    free = [
        name
        for name, flag in FLAGS.items()
        if flag.allowed is None
        and isinstance(flag.default, int | float | tuple)
        and not isinstance(flag.default, bool)
    ]
    assert free == ["model_depth"]  # its family decides


def schedules():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    return [MultiStepLR(optimizer, [3]), ReduceLROnPlateau(optimizer, "min")]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("value", ["abc", float("nan"), {"a": 1}, {1: -1}, ["x"]], ids=repr)
def test_a_schedule_rejects_a_value_of_another_type(number, value):
    scheduler = schedules()[number]
    own = scheduler.state_dict()
    for name in own:
        if isinstance(own[name], str) and isinstance(value, str):
            continue
        with pytest.raises(ValueError, match=f"schedule's {name} is"):
            load_schedule(scheduler, own | {name: value})
    assert scheduler.state_dict() == own
    load_schedule(scheduler, own | {"not ours": value})
    assert not hasattr(scheduler, "not ours")
