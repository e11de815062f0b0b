"""The parts of train_videos: the plan, the script, what it says at the end, its processes."""

import json
import shlex
import shutil
import signal

import pytest

from datasets.index import read_index
from datasets.listed_videos import ListedVideo
from datasets.selection import select_videos
from errors import UserError
from own_videos.commands import pasteable, script_of, steps_of
from own_videos.measure import measure
from own_videos.outcome import Outcome, chance_of, describe
from own_videos.plan import SMALL_NETWORK, Data, Speed, choose, clip_flags, without_flags
from parsing import parse_opts
from tests.commands import Command, run_command
from tests.videos import draw
from util_scripts import generate_video_jpgs

DATA = Data(
    n_train=42, n_val=18, is_split=False, n_windows=76, median_frames=60, rate=25, seconds=130
)
SPEED = Speed(extraction=0.1, train_clip=0.02, val_clip=0.01, per_run=20)
CHOICES = {"minutes": 30, "n_folds": 0, "weights": None, "recipe": None}


def planned(data=DATA, speed=SPEED, **choices):
    return choose(data, speed, **CHOICES | choices)


def value(plan, flag):
    return plan.flags[plan.flags.index(flag) + 1]


# The plan


def test_a_small_network_from_scratch_is_trained_as_long_as_it_needs():
    plan = planned()
    assert plan.recipe == "scratch_small"
    assert value(plan, "--model_depth") == "10"
    assert value(plan, "--n_epochs") == "100"
    assert value(plan, "--sample_t_stride") == "2"
    assert "--batch_size" not in plan.flags
    assert value(planned(DATA._replace(n_train=9)), "--batch_size") == "4"
    assert plan.seconds["extracting frames"] == pytest.approx(13)
    assert plan.seconds["training"] == pytest.approx(100 * (42 * 0.02 + 18 * 0.01))
    assert plan.total_seconds < 30 * 60


def test_the_time_limits_the_epochs():
    slow = SPEED._replace(train_clip=1.0, val_clip=0.3)
    plan = planned(speed=slow)
    assert 20 < plan.n_epochs < 40
    assert 0.8 * 30 * 60 < plan.total_seconds <= 0.91 * 30 * 60
    half = planned(speed=slow, minutes=15)
    assert half.n_epochs < plan.n_epochs / 2
    assert "there is time for" in half.notes[0]
    hurried = planned(speed=slow, minutes=1)
    assert hurried.n_epochs == 3
    assert "--minutes 1 is not enough" in hurried.notes[0]


def test_many_videos_need_fewer_epochs():
    many = DATA._replace(n_train=1120, n_val=560)
    plan = planned(many, minutes=600)
    assert plan.n_epochs == 72


def test_folds_share_the_time():
    slow = SPEED._replace(train_clip=1.0, val_clip=0.3)
    plan = planned(speed=slow, n_folds=3)
    assert plan.n_epochs < planned(speed=slow).n_epochs / 2
    assert plan.total_seconds <= 0.91 * 30 * 60


def test_weights_are_fine_tuned_or_get_a_head_where_time_is_short():
    weights = {"weights": "torchvision:r3d_18"}
    fast = planned(**weights)
    assert (fast.recipe, fast.n_epochs) == ("finetune", 30)
    assert value(fast, "--pretrain_path") == "torchvision:r3d_18"
    assert "--model_depth" not in fast.flags
    slow = SPEED._replace(train_clip=20, val_clip=1)
    head = planned(speed=slow, **weights)
    assert (head.recipe, value(head, "--cache_features")) == ("head", "4")
    assert head.seconds["training"] == pytest.approx(4 * 42 + 18)
    assert planned(speed=slow, recipe="finetune", **weights).recipe == "finetune"


@pytest.mark.parametrize(
    ("frames", "rate", "stride"), [(60, 25, 2), (16, 10, 1), (20, 30, 1), (300, 60, 4), (90, 30, 2)]
)
def test_clips_cover_about_a_second(frames, rate, stride):
    flags = clip_flags(median_frames=frames, rate=rate)
    assert flags == (("--sample_t_stride", str(stride)) if stride > 1 else ())
    for weights in ("torchvision:r3d_18", "/cache/r3d_18-b3b3357e.pth"):
        assert clip_flags(median_frames=frames, rate=rate, weights=weights) == flags
    assert clip_flags(median_frames=frames, rate=rate, weights="models/r3d50_K_200ep.pth") == ()


# The commands


@pytest.mark.parametrize("n_folds", [0, 2])
def test_the_script_runs_the_same_commands_in_another_folder(tmp_path, n_folds):
    """With a python that only prints its arguments."""
    run = tmp_path / "my run's"
    run.mkdir()
    plan = planned(n_folds=n_folds)
    steps = steps_of(plan, tmp_path / "my videos", run, no_cuda=True)
    (run / "commands.sh").write_text(script_of(run, steps), encoding="utf-8")
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "--end"\n')
    fake.chmod(0o755)
    environ = {"PYTHON": str(fake)}
    done = run_command(
        run / "commands.sh", tmp_path / "other run", program="sh", environ=environ, cwd=tmp_path
    )
    assert done.status == 0, done.text
    printed = [part.strip("\n").split("\n") for part in done.stdout.split("--end\n")[:-1]]
    table = str(run / "videos.csv")
    expected = [
        [w if w == table else w.replace(str(run), str(tmp_path / "other run")) for w in step.words]
        for step in steps
    ]
    assert printed == expected
    assert len(steps) == 4 + 2 * (n_folds > 0)


def test_the_script_reads_what_lies_in_run_where_it_is(tmp_path):
    """With weights and videos of the user in RUN."""
    weights = str(tmp_path / "earlier-1/results/save_3.pth")
    plan = planned(weights=weights)
    script = script_of(tmp_path, steps_of(plan, tmp_path / "videos", tmp_path, no_cuda=True))
    assert f"--pretrain_path {weights} " in script
    assert f'generate_video_jpgs {tmp_path}/videos "$RUN"/jpg own' in script
    assert '"$RUN"/results/val.json' in script


def test_lines_to_paste_name_no_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(pasteable(("main.py", "--video_path", str(tmp_path / "-v/jpg"), "-x")))
    assert words[-3:] == ["--video_path", "./-v/jpg", "-x"]


def test_what_a_recipe_sets_is_left_to_it():
    plan = planned(DATA._replace(n_train=9))
    flags = without_flags(plan.flags, {"model_depth", "batch_size", "n_epochs", "recipe"})
    assert flags == ("--recipe", "scratch_small", "--sample_size", "64", "--sample_t_stride", "2",
                     "--n_epochs", "100", "--n_val_samples", "1")  # fmt: skip


@pytest.mark.parametrize("speed", [SPEED, SPEED._replace(train_clip=20, val_clip=1)])
@pytest.mark.parametrize("weights", [None, "weights.pth"])
def test_main_accepts_the_flags(tmp_path, weights, speed):
    plan = planned(weights=weights, speed=speed)
    [words] = [
        step.words
        for step in steps_of(plan, tmp_path, tmp_path, no_cuda=True)
        if "main.py" in step.words
    ]
    options = parse_opts(words[1:])
    assert options.n_epochs == plan.n_epochs
    assert options.inference
    assert options.ft_begin_module == ("fc" if plan.recipe == "head" else "")


# What it says at the end


def outcome(n_right, n, n_largest=10):
    """Results of `n` videos, the first `n_right` of them right and the first `n_largest` of a."""
    truths = ["a"] * n_largest + ["b"] * (n - n_largest)
    wrong = {"a": "b", "b": "a"}
    guesses = [t if i < n_right else wrong[t] for i, t in enumerate(truths)]
    return Outcome(tuple(truths), tuple(guesses))


def test_a_good_model():
    lines = list(describe([outcome(19, 20)]))
    assert lines[0].startswith("accuracy: 95.0% (19 of 20 videos that the model has not seen")
    assert lines[1] == "always answering a, the largest class: 50.0%"
    assert lines[2].startswith("that is better than chance: guessing gets there less than once")
    assert lines[3].startswith("what 20 videos can't tell: an accuracy of 95% can be anything")
    assert lines[4] == "most mistakes: 1 of 10 b taken for a"


NOT_BETTER = "that is not shown to be better than always answering a"


def test_models_that_may_be_chance_and_that_are_not_better():
    assert "may be chance: guessing gets there in 25%" in "\n".join(describe([outcome(12, 20)]))
    assert NOT_BETTER in describe([outcome(10, 20)])
    lines = list(describe([outcome(18, 20, n_largest=18)]))
    assert lines[1] == "always answering a, the largest class: 90.0%"
    assert lines[2] == NOT_BETTER
    assert lines[3] == "mean of the classes' accuracies: 50.0% (always answering one class: 50.0%)"
    two_folds = [outcome(5, 10, n_largest=8), outcome(5, 10, n_largest=2)]
    assert NOT_BETTER in describe(two_folds)


def test_folds_are_pooled():
    lines = list(describe([outcome(18, 20), outcome(14, 20), outcome(16, 20)]))
    assert lines[0].startswith("accuracy: 80.0% (48 of 60 videos")
    assert lines[1] == "folds: 90.0%, 70.0%, 80.0%; mean 80.0%, standard deviation 10.0%"
    assert len(json.dumps(lines)) < 1000


def test_the_chance_of_that_many_hits():
    stats = pytest.importorskip("scipy.stats")
    for hits, n, share in ((12, 20, 0.5), (0, 5, 0.3), (700, 2000, 1 / 3), (20, 20, 0.9)):
        assert chance_of(hits, n, share) == pytest.approx(stats.binom.sf(hits - 1, n, share))
    assert chance_of(3, 10, 0.0) == 0
    assert chance_of(3, 10, 1.0) == 1


# The measurement


def test_the_seconds_of_a_sample_are_divided_by_what_it_holds(tmp_path):
    """With a main.py that only writes how long its epochs took."""
    videos = []
    for number, name in enumerate(("a/1.mp4", "a/2.avi", "b/1.mp4", "b/2.mkv", "b/3.mp4"), 1):
        draw(tmp_path / "v" / name, size="32x32", seconds=12 if number == 1 else 1)
        videos.append(ListedVideo(number, name, name[0], "", "", 0, None))
    runs = []

    def run(words, log):
        runs.append(words)
        log.write_text("error: as it says\n")
        if "util_scripts.generate_video_jpgs" in words:
            return generate_video_jpgs.main(words[2:])
        results = tmp_path / "frames"
        options = parse_opts(words[1:])
        shutil.copy(options.annotation_path, tmp_path / "index.json")
        shutil.copytree(options.video_path, results)
        options.result_path.mkdir()
        rows = ["epoch\ttrain\twaiting\tvalidation", "1\t9\t0\t1", "2\t6.4\t0\t0.3"]
        (options.result_path / "time.log").write_text("\n".join(rows))
        return 0

    speed = measure(tmp_path / "v", videos, ["--recipe", "scratch_small", *SMALL_NETWORK], run)
    index = read_index(tmp_path / "index.json")
    assert len(select_videos(index, "train", tmp_path / "frames").records) == 32
    validation = select_videos(index, "val", tmp_path / "frames").records
    assert len(validation) == 1
    assert 95 < validation[0].n_frames < 105  # the first 10 seconds
    assert speed.train_clip == pytest.approx(6.4 / 32)
    assert speed.val_clip == pytest.approx(0.3 / 3)
    assert 0 < speed.extraction < 60
    assert len(runs) == 2
    with pytest.raises(UserError, match="as it says"):
        measure(
            tmp_path / "v", videos, [], lambda words, log: log.write_text("error: as it says\n")
        )


# Its processes

SAVES_ON_SIGNAL = """
import pathlib, signal, sys, time
def end(number, frame):
    time.sleep(0.2)
    pathlib.Path(sys.argv[1]).write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from own_videos.processes import run_shown
from utils.command_line import run
sys.exit(run(lambda argv: run_shown(["-c", sys.argv[1], sys.argv[2]])))
"""


WITH_A_HINT = """
import sys, time
from utils.command_line import run
from utils.interruption import resume_hint
def main(argv):
    with resume_hint("add a flag of this command"):
        print("ready", flush=True)
        time.sleep(60)
sys.exit(run(main))
"""


def test_how_to_resume_is_said_by_the_command_that_the_user_gave():
    with Command("-c", PARENT, WITH_A_HINT, "") as command:
        command.wait_until(lambda: "ready" in command.stdout)
        command.process.send_signal(signal.SIGINT)
        done = command.finish()
    assert (done.status, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_waited_for(tmp_path, number):
    saved = tmp_path / "saved"
    with Command("-c", PARENT, SAVES_ON_SIGNAL, saved) as command:
        command.wait_until(lambda: "ready" in command.stdout)
        command.process.send_signal(number)
        done = command.finish()
    assert done.status == 128 + number
    assert saved.read_text() == str(int(number))
