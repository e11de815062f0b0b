"""The parts of train_videos: what it finds, the plan, the script, what it says at the end."""

import json
import shlex
import shutil
import unicodedata
from dataclasses import replace

import pytest

from datasets.index import read_index
from datasets.listed_videos import ListedVideo, read_listed_videos
from datasets.selection import select_videos
from errors import UserError
from own_videos import look
from own_videos.commands import pasteable, script_of, steps_of
from own_videos.found import find_videos, group_by_names, write_table
from own_videos.machine import FILE, cached_weights
from own_videos.measure import measure
from own_videos.outcome import Outcome, chance_of, describe
from own_videos.plan import SMALL_NETWORK, Data, Speed, choose, clip_flags, without_flags
from parsing import parse_opts
from tests.commands import run_command
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


# What is found


@pytest.fixture
def videos(tmp_path):
    """Class folders with junk among the videos."""
    root = tmp_path / "my videos"
    one = draw(root / "cat/a.mp4", size="32x32")
    draw(root / "cat/sub folder/猫.MP4", size="32x32", seconds=2)
    draw(root / "dog/a.avi", size="32x32", seconds=3)
    draw(root / "dog/b.mkv", size="32x32", seconds=4)
    shutil.copy(one, root / "cat/copy.mp4")
    shutil.copy(root / "dog/b.mkv", root / "dog/b.mp4")
    shutil.copy(root / "dog/b.mkv", root / "dog/x.mkv")
    shutil.copy(root / "dog/b.mkv", root / "cat/wrong.mkv")
    (root / "cat/empty.mp4").touch()
    (root / "cat/notes.txt").write_text("nothing")
    (root / "dog/page.mp4").write_text("<html>not found</html>")
    (root / "top.txt").write_text("nothing")
    return root


def test_junk_copies_and_contradicting_labels_are_left_out(videos, tmp_path, capsys):
    found, opened = look.look_into(find_videos(videos, tmp_path / "out"))
    assert found.paths == ["cat/a.mp4", "cat/sub folder/猫.MP4", "dog/a.avi"]
    assert found.left_out == {
        "cat/copy.mp4": "the same file as cat/a.mp4",
        "cat/empty.mp4": "an empty file",
        "cat/notes.txt": "text, not a video",
        "cat/wrong.mkv": "the same file as dog/b.mkv, which has another label",
        "dog/b.mkv": "the same file as cat/wrong.mkv, which has another label",
        "dog/b.mp4": "same output folder as b.mkv; rename one of the two",
        "dog/page.mp4": "text, not a video",
        "dog/x.mkv": "the same file as cat/wrong.mkv, which has another label",
        "top.txt": "not in the folder of a class",
    }
    look.print_findings(found)
    out = capsys.readouterr().out
    assert "9 files are left out" in out
    assert "3 videos of 2 classes\n  cat: 2\n  dog: 1\n" in out
    data = look.data_of(found, opened, 0)
    assert (data.n_train, data.n_val, data.rate, data.seconds) == (2, 1, 10, 6)


def test_folders_that_are_split_keep_their_split(tmp_path):
    for name in ("train/a/1", "train/b/2", "val/a/3", "val/b/4"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / f"{name}.mp4").write_text(name)
    found = find_videos(tmp_path / "v", tmp_path / "out")
    assert [(v.subset, v.label) for v in found.videos] == [
        ("training", "a"), ("training", "b"), ("validation", "a"), ("validation", "b")
    ]  # fmt: skip
    look.check_enough(found, 0)
    with pytest.raises(UserError, match="--folds: the videos are split"):
        look.check_enough(found, 3)


def test_a_table_is_reduced_to_the_folder_of_its_videos(tmp_path):
    for name in ("deep/a/1.mp4", "deep/b/2.mp4", "deep/b/unlisted.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    table = tmp_path / "list.csv"
    table.write_text(
        "label;path;group;start;end\nx;deep\\a\\1.mp4;g;1,5;2\ny;deep/b/2.mp4;;;\nx;gone.mp4;;;\n"
    )
    found = find_videos(table, tmp_path / "out")
    assert found.folder == tmp_path / "deep"
    assert [(v.path, v.label, v.group, v.start, v.end) for v in found.videos] == [
        ("a/1.mp4", "x", "g", 1.5, 2), ("b/2.mp4", "y", "", 0, None)
    ]  # fmt: skip
    assert list(found.left_out) == ["line 4: gone.mp4"]


def touch(root, *names):
    """Write files of different contents that are no videos."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_files_beside_subset_folders_are_left_out(tmp_path):
    touch(tmp_path / "v", "train/a/1.mp4", "val/a/2.mp4", "README.txt")
    found = find_videos(tmp_path / "v", tmp_path / "out")
    assert [(v.subset, v.label) for v in found.videos] == [("training", "a"), ("validation", "a")]
    assert found.left_out == {"README.txt": "not in the folder of a class"}


def test_no_row_of_a_table_vanishes(tmp_path):
    nfd = unicodedata.normalize("NFD", "é")
    out = tmp_path / "run"
    touch(tmp_path, "a/1.mp4", f"a/{nfd}.mp4", ".old/3.mp4", "b/4.mp4", "b/5.mp4", "run/6.mp4")
    (tmp_path / "link").symlink_to("b")
    paths = ["a/1.mp4", "a/é.mp4", ".old/3.mp4", "link/4.mp4", "run/6.mp4"]
    rows = [f"{path},x,train" for path in paths] + ["b/5.mp4,,test"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    found = find_videos(tmp_path / "list.csv", out)
    assert found.paths == ["a/1.mp4", f"a/{nfd}.mp4"]
    assert found.left_out == {
        "line 4: .old/3.mp4": "is hidden: a part of its path begins with a dot",
        "line 5: link/4.mp4": f"is reached by a link; list it as {tmp_path}/b/4.mp4",
        "line 6: run/6.mp4": "lies in the folder of the run (--out)",
        "line 7: b/5.mp4": "has no label",
    }


def test_rows_that_contradict_each_other_are_named_by_the_users_lines(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "list.csv").write_text("path,label\na/1.mp4,x\na\\1.mp4,y\n")
    with pytest.raises(UserError, match=r"list.csv: line 3: 1.mp4 is listed in line 2 already"):
        find_videos(tmp_path / "list.csv", tmp_path / "out")


def test_a_table_of_the_whole_disk_is_refused(tmp_path):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "list.csv").write_text(f"path,label\na/1.mp4,x\n{shutil.which('sh')},y\n")
    with pytest.raises(UserError, match="the videos have no folder in common, for example"):
        find_videos(tmp_path / "list.csv", tmp_path / "out")


def test_parts_outside_of_their_video_are_named_before_extraction(tmp_path):
    draw(tmp_path / "1.mp4", size="32x32", seconds=3)
    (tmp_path / "list.csv").write_text("path,label,start,end\n1.mp4,x,0,3.5\n1.mp4,y,1,9\n")
    with pytest.raises(UserError, match=r"^line 3: 1.mp4: the part ends at 9 s, but the video"):
        look.look_into(find_videos(tmp_path / "list.csv", tmp_path / "out"))


def test_the_table_that_is_written_is_read_back(tmp_path):
    names = ['a, "b"; c', " blank ", "猫\n2", "d  e"]
    videos = [
        ListedVideo(n, f"x/{name}.mp4", f"label {n}, /", "training", f"g{n}", 1e-7, 12345.678)
        for n, name in enumerate(names, 2)
    ]
    write_table(tmp_path / "videos.csv", videos)
    read = read_listed_videos(tmp_path / "videos.csv")
    assert [vars(v) | {"line": 0} for v in read] == [vars(v) | {"line": 0} for v in videos]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["m1_clip1", "m1_clip2", "m2_clip1", "m2_clip2", "m3_clip1"],
         ["m1", "m1", "m2", "m2", "m3"]),
        (["fi_001", "fi_002", "fi_003", "fi_004", "fi_005"], [""] * 5),
        (["v_Run_g01_c01", "v_Run_g01_c02", "v_Run_g02_c01", "v_Run_g03_c01", "x"],
         ["v_Run_g01", "v_Run_g01", "v_Run_g02", "v_Run_g03", ""]),
    ],
)  # fmt: skip
def test_recordings_are_guessed_from_names(tmp_path, names, groups):
    for name in names:
        for label in "ab":
            path = tmp_path / "v" / label / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    assert [v.group for v in found.videos if v.label == "a"] == groups
    assert found.is_grouped_by_names == any(groups)


def test_only_the_class_with_a_single_recording_is_cut_up(tmp_path, capsys):
    """A and C have six recordings of five clips each, B has one."""
    names = [f"{label}/{stem}{n}_clip{clip}.mp4" for label, stem in (("A", "match"), ("C", "game"))
             for n in range(1, 7) for clip in range(1, 6)]  # fmt: skip
    touch(tmp_path / "v", *names, *(f"B/match9_clip{clip}.mp4" for clip in range(1, 6)))
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    groups = {label: {v.group for v in found.videos if v.label == label} for label in "ABC"}
    assert groups["A"] == {f"match{n}" for n in range(1, 7)}
    assert groups["B"] == {""}
    assert groups["C"] == {f"game{n}" for n in range(1, 7)}
    sides = {video.path.partition("_")[0]: set() for video in look.split_of(found, 0)}
    for video in look.split_of(found, 0):
        sides[video.path.partition("_")[0]].add(video.subset)
    assert [name for name, side in sides.items() if len(side) > 1] == ["B/match9"]
    look.print_findings(found)
    assert "too high: all videos of B (match9) seem to be of one rec" in capsys.readouterr().out


def test_a_recording_with_most_of_the_videos_is_a_group_too(tmp_path):
    names = [f"{label}/{label}{n}_clip{clip}.mp4" for label in "ab" for n, last in ((1, 9), (2, 2))
             for clip in range(last)]  # fmt: skip
    touch(tmp_path / "v", *names, *(f"a/b1_clip{clip}.mp4" for clip in range(10, 20)))
    found = group_by_names(find_videos(tmp_path / "v", tmp_path / "out"))
    assert {v.group for v in found.videos} == {"a1", "a2", "b1", "b2"}
    assert not found.cut_up


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_split_that_takes_recordings_apart_is_said(tmp_path, capsys, other):
    touch(tmp_path / "v", *(f"{side}/{label}/{label}{n}_clip{clip}.mp4" for label in "ab"
          for n in range(3) for clip, side in enumerate(("train", other))))  # fmt: skip
    found = find_videos(tmp_path / "v", tmp_path / "out")
    look.print_findings(found)
    assert "6 recordings or groups are both in training and in" in capsys.readouterr().out
    found = replace(found, videos=tuple(replace(v, group="g") for v in found.videos))
    assert look.describe(found)[-1] == "1 groups"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no videos in class folders"),
        (["x.mp4"], "no videos in class folders"),
        (["a/x.mp4", "a/y.mp4"], "all videos are of one class"),
        (["a/x.mp4", "b/y.mp4"], "too few videos"),
    ],
)
def test_too_little_to_learn_from(tmp_path, names, complaint):
    (tmp_path / "v").mkdir()
    for name in names:
        (tmp_path / "v" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "v" / name).write_text(name)
    with pytest.raises(UserError, match=complaint):
        look.check_enough(find_videos(tmp_path / "v", tmp_path / "out"), 0)


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
    of_torchvision = clip_flags(median_frames=frames, rate=rate, weights="torchvision:r3d_18")
    assert of_torchvision == flags
    assert clip_flags(median_frames=frames, rate=rate, weights="models/r3d50_K_200ep.pth") == ()


def test_weights_in_the_cache_of_torch_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached_weights() is None
    file = tmp_path / "hub/checkpoints" / FILE
    file.parent.mkdir(parents=True)
    file.touch()
    assert cached_weights() == str(file)
    assert clip_flags(median_frames=60, rate=30, weights=str(file))


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
