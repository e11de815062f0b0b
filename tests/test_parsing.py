import re
from importlib import import_module
from pathlib import Path

import pytest

import main
from errors import UserError
from parsing import fill_in, parse_opts
from tests.commands import run_util
from utils.command_line import INPUT_VIDEO

PATHS = ["--video_path", "jpg", "--annotation_path", "index.json", "--result_path", "res"]
ROOT = Path(__file__).parent.parent


def test_published_command_line():
    options = parse_opts(
        [
            "--root_path",
            "~/data",
            "--video_path",
            "ucf101_videos/jpg",
            "--annotation_path",
            "ucf101_01.json",
            "--result_path",
            "results",
            "--dataset",
            "ucf101",
            "--n_classes",
            "101",
            "--n_pretrain_classes",
            "700",
            "--pretrain_path",
            "models/r3d50_K_200ep.pth",
            "--ft_begin_module",
            "fc",
            "--model",
            "resnet",
            "--model_depth",
            "50",
            "--batch_size",
            "128",
            "--n_threads",
            "4",
            "--checkpoint",
            "5",
        ]
    )
    assert options.video_path == Path.home() / "data/ucf101_videos/jpg"
    assert options.pretrain_path == Path.home() / "data/models/r3d50_K_200ep.pth"
    assert options.arch == "resnet-50"


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        ("n_classes", 400), ("n_pretrain_classes", 0), ("sample_size", 112),
        ("sample_duration", 16), ("sample_t_stride", 1), ("train_crop", "random"),
        ("train_crop_min_scale", 0.25), ("train_crop_min_ratio", 0.75), ("learning_rate", 0.1),
        ("momentum", 0.9), ("dampening", 0.0), ("weight_decay", 1e-3),
        ("multistep_milestones", (50, 100, 150)), ("plateau_patience", 10), ("batch_size", 128),
        ("inference_batch_size", 128), ("n_epochs", 200), ("checkpoint", 10),
        ("n_val_samples", 3), ("inference_stride", 16), ("n_threads", 4), ("model_depth", 18),
        ("output_topk", 5), ("manual_seed", 1), ("world_size", -1), ("precision", "auto"),
    ],
)  # fmt: skip
def test_defaults(flag, default):
    assert getattr(parse_opts(PATHS), flag) == default


def test_absolute_paths_ignore_the_root():
    options = parse_opts(["--root_path", "/data", *PATHS[:4], "--result_path", "/elsewhere"])
    assert options.result_path == Path("/elsewhere")
    assert options.annotation_path == Path("/data/index.json")


def test_resume_auto_is_not_a_path():
    options = parse_opts(["--root_path", "/data", *PATHS, "--resume_path", "auto"])
    assert options.resume_path == Path("auto")


def test_several_values_are_a_tuple():
    options = parse_opts([*PATHS, "--rand_augment", "2", "9", "--multistep_milestones", "3", "5"])
    assert (options.rand_augment, options.multistep_milestones) == ((2, 9), (3, 5))


def test_values_that_follow_from_others():
    options = parse_opts([*PATHS, "--nesterov", "--dampening", "0.5", "--inference_stride", "0"])
    assert options.dampening == 0.0
    assert options.window_stride == options.sample_duration == 16
    # Also for a length of clips that comes from a checkpoint.
    assert fill_in(options, {"sample_duration": 8}).window_stride == 8
    assert fill_in(options, {"sample_duration": 8}).as_plain()["inference_stride"] == 8


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lerning_rate", "--learning_rate"),
        ("--batch-size", "--batch_size"),
        ("-n_classes", "--n_classes"),
        ("--epochs=3", "--n_epochs"),
        ("--Resume_path", "--resume_path"),
    ],
)
def test_a_misspelt_flag_gets_a_suggestion(flag, meant):
    with pytest.raises(UserError) as caught:
        parse_opts([*PATHS, flag, "1"])
    name = flag.partition("=")[0]
    assert f"unrecognized arguments: {name} (did you mean {meant}?)" in str(caught.value)


def test_flags_may_be_abbreviated_and_values_negative():
    options = parse_opts([*PATHS, "--learning", "0.5", "--world_size", "-1", "--output_topk=-1"])
    assert (options.learning_rate, options.world_size, options.output_topk) == (0.5, -1, -1)


def test_no_suggestion_for_a_flag_that_resembles_none():
    with pytest.raises(UserError, match=r"unrecognized arguments: --xyzzy \(-h lists"):
        parse_opts([*PATHS, "--xyzzy"])


SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "util_scripts").glob("*.py")
    if "def main(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_suggests_a_flag_for_a_misspelt_one(name):
    script = import_module(f"util_scripts.{name}")
    with pytest.raises(UserError, match=r"unrecognized arguments: --hepl \(did you mean --help\?"):
        script.main(["--hepl"])


def test_a_misspelt_flag_is_reported_before_the_argument_that_is_missing_because_of_it():
    done = run_util("predict_video", "a.mp4", "--chekpoint", "best.pth")
    assert done.status == 2
    assert done.stderr.count("\n") == 1
    assert "--chekpoint (did you mean --checkpoint?)" in done.stderr


LONG, DEEP = "a" * 256, "/".join(["a" * 200] * 21)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (LONG, "holds a name of 256 bytes"),
        (f"x/{LONG}/y", "holds a name of 256 bytes"),
        ("\N{EURO SIGN}" * 86, "holds a name of 258 bytes"),
        (DEEP, "has 42.. bytes"),
        ("a\0b", "NUL"),
    ],
)
def test_a_path_that_no_file_can_have_is_one_line(path, complaint, tmp_path, capsys):
    flags = [*PATHS[:4], "--result_path", path, "--root_path", str(tmp_path)]
    assert main.main(flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --result_path ")
    assert re.search(complaint, line)
    assert len(line) < 300
    for argument in ([path, "OUT"], ["x", "--font", path], ["~/a.mp4", path]):
        with pytest.raises(UserError, match=complaint) as caught:
            import_module("util_scripts.predict_video").main([*argument, "--checkpoint", "c.pth"])
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_a_url_may_be_longer_than_a_path():
    assert INPUT_VIDEO(f"https://x/{LONG}") == f"https://x/{LONG}"
    assert list(INPUT_VIDEO.files(f"https://x/{LONG}")) == []
    with pytest.raises(UserError, match=r"~nobody-here/a.mp4: no such user ~nobody-here"):
        INPUT_VIDEO("~nobody-here/a.mp4")
