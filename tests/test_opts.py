"""The records of the flags, and what is derived from them."""

import json
from dataclasses import fields

import pytest
import torch

from datasets.build import build_train_loader, build_window_dataset
from datasets.index import read_index
from engine.optim import OPTIMIZERS, SCHEDULES, build_optimization
from flags import GROUPS, Role
from models.catalog import FAMILIES
from opts import FLAGS, Options, names_with
from parsing import options_of, parse_opts
from tests.commands import run_command
from tests.runs import make_dataset

PATHS = ["--video_path", "jpg", "--annotation_path", "index.json", "--result_path", "res"]


def test_a_flag_without_group_is_noticed():
    assert {record.group for record in FLAGS.values()} == set(GROUPS)
    assert {field.name for field in fields(Options)} - set(FLAGS) == {"given", "from_recipe"}


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.REQUIRED, "video_path annotation_path result_path"),
        (Role.DATA_PATH, "video_path annotation_path"),
        (Role.STEM, "conv1_t_stride no_max_pool bn_eps"),
        (
            Role.PREPROCESSING,
            "eval_resize no_antialias frame_rate mean_dataset no_mean_norm no_std_norm value_scale",
        ),
        (Role.CLIP_SHAPE, "sample_size sample_duration sample_t_stride"),
        (Role.CLASSIFIER | Role.INFERENCE, "no_cuda precision"),
    ],
)
def test_names_with_a_role(role, names):
    assert " ".join(names_with(role)) == names


def test_every_path_but_the_root_is_joined_with_it():
    paths = {name for name, record in FLAGS.items() if record.is_path}
    assert paths == {"root_path", *names_with(Role.ROOTED)}


def test_the_families_take_the_architecture_flags():
    of_families = {name for family in FAMILIES.values() for name in family.options}
    of_group = {name for name, record in FLAGS.items() if record.group == "model"}
    assert set(names_with(Role.ARCHITECTURE)) == of_families == of_group - {"model", "model_depth"}


class ReadOptions(Options):
    """Options that remember which flags were read."""

    def __getattribute__(self, name):
        if name in FLAGS:
            object.__getattribute__(self, "reads").add(name)
        return object.__getattribute__(self, name)


def reads_of(build, tmp_path, **given):
    """The flags that `build` reads."""
    make_dataset(tmp_path)
    values = vars(options_of({"video_path": tmp_path / "jpg", "n_threads": 0, **given}))
    options = ReadOptions(**{k: v for k, v in values.items() if k != "reads"})
    object.__setattr__(options, "reads", set())
    build(options, read_index(tmp_path / "index.json"))
    return object.__getattribute__(options, "reads")


def test_what_inference_reads_for_its_frames_decides_its_pixels(tmp_path):
    reads = reads_of(lambda *given: build_window_dataset(*given, "validation"), tmp_path)
    reads -= {"video_path", "manual_seed"}  # of inference nothing is random
    assert reads | {"input_type"} == set(names_with(Role.PIXELS))  # read for HDF5 files only


def test_what_training_reads_for_its_clips_decides_its_batches(tmp_path):
    reads = reads_of(build_train_loader, tmp_path)
    same_clips = {"video_path", "file_type", "accimage", "scaled_decode", "n_threads", "no_cuda",
                  "on_bad_video"}  # fmt: skip
    elsewhere = {"accumulate", "class_weights", "freeze_bn", "cache_features", "label_smoothing",
                 "dropout", "mixup", "cutmix", "ema"}  # fmt: skip
    assert reads - same_clips == set(names_with(Role.FIXED)) - elsewhere


def test_options_are_frozen():
    with pytest.raises(AttributeError):
        parse_opts(PATHS).batch_size = 1


def test_as_plain_is_json():
    plain = json.loads(json.dumps(parse_opts(PATHS).as_plain()))
    assert plain["arch"] == "resnet-18"
    assert plain["video_path"] == "jpg"
    assert set(plain) >= set(FLAGS)


def test_help_needs_no_torch_and_lists_every_flag():
    code = (
        "import sys, parsing\n"
        "try: parsing.parse_opts(['-h'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = run_command("-c", code)
    assert done.status == 0, done.stderr
    for name in FLAGS:
        assert f"--{name}" in done.stdout


def test_the_choices_of_optimiser_and_schedule_are_the_rows_of_their_tables():
    assert FLAGS["optimizer"].allowed == tuple(OPTIMIZERS)
    assert FLAGS["lr_scheduler"].allowed == tuple(SCHEDULES)


def test_a_resumed_value_is_in_the_saved_state_of_its_optimiser_or_schedule():
    names = [record.state_name for record in FLAGS.values() if record.state_name]
    states = {}
    for name in SCHEDULES:
        options = options_of({"lr_scheduler": name})
        scaler = torch.amp.GradScaler("cpu")
        built = build_optimization(options, torch.nn.Linear(1, 1), scaler, n_updates=1)
        states |= built.schedule.state_dict() | built.optimizer.param_groups[0]
    assert set(names) <= set(states)
