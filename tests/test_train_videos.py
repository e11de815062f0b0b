"""util_scripts.train_videos: plan, run, interruption and repetition, on a few drawn videos. The
commands are recorded instead of run; test_demo.py runs them."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from errors import UserError
from own_videos import saved_run, train
from own_videos.plan import Speed
from tests.commands import Command
from tests.videos import draw, names
from util_scripts import train_videos
from utils.interruption import Interrupted

SPEED = Speed(extraction=0.1, train_clip=0.02, val_clip=0.01, per_run=20)
CTRL_C = 2


class Recorder:
    """Stands in for run_shown: records commands, ends some in another way, and writes results."""

    def __init__(self):
        self.commands = []
        self.endings = {}  # {number of a command: exit status, or an exception}

    def __call__(self, words):
        self.commands.append(" ".join(words))
        ending = self.endings.pop(len(self.commands), 0)
        if isinstance(ending, BaseException):
            raise ending
        if "util_scripts.csv_json" in words:
            self._write_index(words)
        if words[0] == "main.py":
            self._write_results(words)
        return ending

    def _write_index(self, words):
        path, folds = words[4], int(words[words.index("--folds") + 1]) if "--folds" in words else 0
        for n in range(max(folds, 1)):
            database = {
                f"{label}{i}": {
                    "subset": "validation" if i % max(folds, 2) == n else "training",
                    "annotations": {"label": label, "segment": [1, 9]},
                }
                for label in ("cat", "dog")
                for i in range(6)
            }
            name = path.replace(".json", f"_fold{n + 1}.json") if folds else path
            with open(name, "w") as file:
                json.dump({"labels": ["cat", "dog"], "database": database}, file)

    def _write_results(self, words):
        folder = train.Path(words[words.index("--result_path") + 1])
        folder.mkdir(exist_ok=True)
        results = {
            f"{label}{i}": [{"label": label, "score": 0.9}]
            for label in ("cat", "dog")
            for i in range(6)
        }
        (folder / "val.json").write_text(json.dumps({"results": results}))


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(train, "run_shown", recorder)
    monkeypatch.setattr(train, "measure", lambda *_: SPEED)
    monkeypatch.setenv("TORCH_HOME", "/no such folder")
    return recorder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "my videos"
    for number, name in enumerate(("cat/a", "cat/b", "dog/a", "dog/b"), 1):
        draw(root / f"{name}.mp4", size="32x32", seconds=number)
    return root


def run(videos, out, *flags):
    return train_videos.main([str(videos), "--out", str(out), *flags])


def test_a_dry_run_prints_the_plan_and_writes_nothing(videos, tmp_path, recorder, capsys):
    assert run(videos, tmp_path / "run", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "4 videos of 2 classes" in out
    assert "training from scratch on 2 videos, 100 times each" in out
    assert "--recipe scratch_small --model_depth 10" in out
    assert "time: about 2" in out
    assert "--weights torchvision:r3d_18 downloads 134 MB" in out
    assert not (tmp_path / "run").exists()
    assert not recorder.commands


def test_the_commands_are_run_written_down_and_summed_up(videos, tmp_path, recorder, capsys):
    assert run(videos, tmp_path / "run") == 0
    titles = ("generate_video_jpgs", "csv_json", "main.py", "eval_accuracy")
    assert [t in c for t, c in zip(titles, recorder.commands, strict=True)] == [True] * 4
    assert names(tmp_path / "run") == [
        "commands.sh", "index.json", "plan.json", "results", "videos.csv"
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert out.index("The plan:") < out.index("generate_video_jpgs") < out.index("Done in")
    assert "accuracy: 100.0% (6 of 6 videos" in out
    assert "always answering cat, the largest class: 50.0%" in out
    assert "what 6 videos can't tell" in out
    for name in ("predict_video", "--overlay", "export_model", "--folds 4"):
        assert name in out


def test_a_continued_run_suggests_no_file_that_was_left_out(videos, tmp_path, recorder, capsys):
    source = shutil.copytree(videos, tmp_path / "videos")
    (source / "cat" / "Empty.mp4").touch()  # the first file
    recorder.endings[3] = Interrupted(CTRL_C)
    with pytest.raises(Interrupted):
        run(source, tmp_path / "run")
    assert run(source, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert f"predict_video {source / 'cat/a.mp4'}" in out


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_interrupted_run_continues_where_it_stopped(videos, tmp_path, recorder, capsys, number):
    recorder.endings[number] = Interrupted(CTRL_C)
    with pytest.raises(Interrupted, match="the same command continues the run"):
        run(videos, tmp_path / "run")
    capsys.readouterr()
    first = list(recorder.commands)
    assert len(first) == number
    assert run(videos, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "continuing the run that was planned here" in out
    assert "Done in" in out
    assert recorder.commands[: number - 1] == first[:-1]
    assert recorder.commands[number] == first[-1]
    assert len(recorder.commands) == 5
    assert run(videos, tmp_path / "run") == 0  # it only tells the result again
    assert len(recorder.commands) == 5
    out = capsys.readouterr().out
    assert "this run is finished; to train again, choose another --out\n\nIt took" in out
    assert "accuracy: 100.0%" in out


def test_failed_commands(videos, tmp_path, recorder, capsys):
    """Some videos without frames are no reason to stop; anything else is."""
    recorder.endings = {1: 1, 2: 2}
    with pytest.raises(UserError, match=r"ended with status 2; .* the same command continues"):
        run(videos, tmp_path / "run")
    assert "some videos failed, see above" in capsys.readouterr().out
    recorder.endings = {4: 130}
    with pytest.raises(Interrupted, match="the same command continues the run"):
        run(videos, tmp_path / "run")
    assert run(videos, tmp_path / "run") == 0
    assert len(recorder.commands) == 6


def test_another_plan_moves_the_run_aside(videos, tmp_path, recorder, capsys):
    assert run(videos, tmp_path / "run") == 0
    (tmp_path / "run/jpg").mkdir()
    (tmp_path / "run/mine.txt").write_text("x")
    assert run(videos, tmp_path / "run", "--folds", "2") == 0
    out = capsys.readouterr().out
    assert "holds the run of another plan, which is moved to" in out
    assert "results" in names(tmp_path / "run/earlier-1")
    assert {"jpg", "mine.txt", "results_fold1", "results_fold2"} <= {*names(tmp_path / "run")}
    assert "folds: 100.0%, 100.0%; mean 100.0%" in out
    assert "accuracy: 100.0% (12 of 12 videos" in out


HOLD = """
import signal, sys
from pathlib import Path
from utils.locks import locked
with locked(Path(sys.argv[1]), flag=""):
    print("held", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("place", ["run", "run/results"])
def test_a_folder_in_which_another_run_trains_is_left_alone(videos, tmp_path, recorder, place):
    """Also if only its main.py is left, after train_videos was killed."""
    assert run(videos, tmp_path / "run") == 0
    before = names(tmp_path / "run")
    with Command("-c", HOLD, tmp_path / place) as other:
        other.wait_until(lambda: "held" in other.stdout)
        by = rf"another run is training there \(process {other.process.pid} on "
        with pytest.raises(UserError, match=f"--out {tmp_path / place}: {by}"):
            run(videos, tmp_path / "run", "--folds", "2")
    assert [name for name in names(tmp_path / "run") if name != ".lock"] == before
    assert len(recorder.commands) == 4


def test_the_folder_is_locked_from_the_plan_to_the_end(videos, tmp_path, recorder, monkeypatch):
    holders = []

    def look_at_lock(then):
        def call(*arguments):
            holders.append((tmp_path / "run/.lock").read_text())
            return then(*arguments)

        return call

    monkeypatch.setattr(train, "measure", look_at_lock(train.measure))
    monkeypatch.setattr(train, "run_shown", look_at_lock(recorder))
    assert run(videos, tmp_path / "run") == 0
    assert len(holders) == 5
    assert all(text.startswith(f"process {os.getpid()} on ") for text in holders)
    assert not (tmp_path / "run/.lock").exists()


def test_test_videos_for_validation_are_left_to_csv_json_to_tell(tmp_path, recorder, capsys):
    for number, name in enumerate(("train/a/1", "train/b/2", "test/a/3", "test/b/4"), 1):
        draw(tmp_path / f"v/{name}.mp4", size="32x32", seconds=number)
    assert run(tmp_path / "v", tmp_path / "run", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "testing on 2 videos" in out
    assert "no videos in val" not in out


def test_weights_and_recipes_of_the_run_itself_are_refused(videos, tmp_path, recorder):
    assert run(videos, tmp_path / "run") == 0
    (tmp_path / "run/results/save_1.pth").touch()
    (tmp_path / "link.pth").symlink_to("run/results/save_1.pth")
    (tmp_path / "run/results/opts.json").write_text("{}")
    for flags in (
        ["--weights", str(tmp_path / "run/results/save_1.pth")],
        ["--weights", str(tmp_path / "link.pth")],
        ["--recipe", str(tmp_path / "run/results/opts.json")],
    ):
        with pytest.raises(UserError, match=r"belongs to the run in .*; choose another --out"):
            run(videos, tmp_path / "run", *flags)
    assert "earlier-1" not in names(tmp_path / "run")


def test_the_command_with_folds_is_the_users(videos, tmp_path, recorder, capsys):
    weights = tmp_path / "w.pth"
    weights.touch()
    flags = ["--weights", str(weights), "--recipe", "finetune", "--no_cuda", "--minutes", "3"]
    assert run(videos, tmp_path / "run", *flags) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if " --folds " in line]
    words = shlex.split(line)
    given = words[words.index("util_scripts.train_videos") + 1 :]
    assert given == [
        *(str(videos), "--folds", "4", "--minutes", "12", "--weights", str(weights)),
        *("--recipe", "finetune", "--no_cuda", "--out", str(tmp_path / "run-folds")),
    ]


def test_what_makes_the_accuracy_too_high_is_said_at_the_end(tmp_path, recorder, capsys):
    for number, name in enumerate(("a/m1_clip1", "a/m1_clip2", "b/g_x", "b/h_y"), 1):
        draw(tmp_path / f"v/{name}.mp4", size="32x32", seconds=number)
    assert run(tmp_path / "v", tmp_path / "run") == 0
    out = capsys.readouterr().out
    warning = "the accuracy will be too high: all videos of a (m1)"
    assert out.count(warning) == 2
    assert out.rindex(warning) > out.index("Done in")
    assert run(tmp_path / "v", tmp_path / "run") == 0
    assert capsys.readouterr().out.count(warning) == 1


def test_a_failure_while_preparing_does_not_lock_the_folder(
    videos, tmp_path, recorder, capsys, monkeypatch
):
    def fail(*_):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the disk is full"):
        patch.setattr(train, "write_table", fail)
        run(videos, tmp_path / "run")
    assert names(tmp_path / "run") == ["plan.json"]
    assert run(videos, tmp_path / "run") == 0
    assert "continuing" in capsys.readouterr().out
    assert {"commands.sh", "videos.csv"} <= {*names(tmp_path / "run")}
    assert "earlier-1" not in names(tmp_path / "run")


@pytest.mark.parametrize("content", ["", '{"asked": {', "[]"])
def test_a_damaged_plan_is_made_anew(videos, tmp_path, recorder, capsys, content):
    assert run(videos, tmp_path / "run") == 0
    (tmp_path / "run/plan.json").write_text(content)
    assert run(videos, tmp_path / "run", "--overwrite") == 0
    assert "which is moved to" in capsys.readouterr().out
    assert "results" in names(tmp_path / "run/earlier-1")
    assert len(recorder.commands) == 8


def test_a_run_without_its_index_is_planned_anew(videos, tmp_path, recorder, capsys):
    """As after an interruption while it was moved aside."""
    assert run(videos, tmp_path / "run") == 0
    (tmp_path / "run/index.json").unlink()
    assert run(videos, tmp_path / "run") == 0
    assert "which is moved to" in capsys.readouterr().out
    assert len(recorder.commands) == 8


def test_the_plan_is_moved_last(tmp_path, monkeypatch):
    moved = []
    for name in ("plan.json", "results", "videos.csv", "commands.sh"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "rename", lambda path, _: moved.append(path.name))
    saved_run.move_aside(tmp_path)
    assert moved == ["commands.sh", "results", "videos.csv", "plan.json"]


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8")
def test_a_folder_whose_name_is_not_utf8(videos, tmp_path, recorder):
    folder = tmp_path / os.fsdecode(b"v\xff")
    shutil.copytree(videos, folder)
    assert run(folder, tmp_path / "run") == 0
    assert b"v\xff" in (tmp_path / "run/commands.sh").read_bytes()


def test_a_recipe_of_the_users(videos, tmp_path, recorder, monkeypatch, capsys):
    """Its network is kept, an edited one is a new plan, and a file called like a recipe that
    comes with the program is another."""
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "mine.txt"
    recipe.write_text("--model_depth 18\n--batch_size 3\n")
    assert run(videos, tmp_path / "run", "--recipe", "mine.txt") == 0
    [command] = [words for words in recorder.commands if words.startswith("main.py")]
    assert "--model_depth" not in command
    assert "--batch_size" not in command
    assert f"--recipe {recipe} --sample_size 64" in command
    recipe.write_text("--model_depth 34\n--batch_size 3\n")
    assert run(videos, tmp_path / "run", "--recipe", "mine.txt") == 0
    assert "holds the run of another plan" in capsys.readouterr().out
    (tmp_path / "scratch").mkdir()
    assert run(videos, tmp_path / "other", "--recipe", "scratch", "--dry_run") == 0
    assert "main.py: --recipe scratch --model_depth 10" in capsys.readouterr().out
    (tmp_path / "torchvision:r3d_18").touch()
    assert run(videos, tmp_path / "other", "--weights", "torchvision:r3d_18", "--dry_run") == 0
    assert "--pretrain_path torchvision:r3d_18 " in capsys.readouterr().out


def test_the_options_of_a_run_as_a_recipe(videos, tmp_path, recorder, capsys):
    opts = tmp_path / "opts.json"
    opts.write_text(json.dumps({"recipe": None, "model_depth": 50, "sample_size": 112}))
    assert run(videos, tmp_path / "run", "--recipe", str(opts), "--dry_run") == 0
    assert f"main.py: --recipe {opts} --batch_size 4 --n_epochs" in capsys.readouterr().out


def test_other_weights_under_the_same_name_are_a_new_plan(videos, tmp_path, recorder, capsys):
    weights = tmp_path / "w.pth"
    for content in ("one", "other"):
        weights.write_text(content)
        assert run(videos, tmp_path / "run", "--weights", str(weights)) == 0
    assert "holds the run of another plan" in capsys.readouterr().out


def test_a_recipe_for_weights_takes_those_in_the_cache(
    videos, tmp_path, recorder, monkeypatch, capsys
):
    file = tmp_path / "hub/checkpoints/r3d_18-b3b3357e.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run(videos, tmp_path / "run", "--recipe", "finetune", "--dry_run") == 0
    assert f"from the weights {file}" in capsys.readouterr().out
    assert run(videos, tmp_path / "run", "--recipe", "scratch", "--dry_run") == 0
    assert "training from scratch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--minutes", "0"], "--minutes 0: must be above 0"),
        (["--folds", "1"], "--folds 1: must be from 2"),
        (["--recipe", "head"], "--recipe head needs --weights"),
        (["--folds", "9"], "there are only 4 sources"),
    ],
)
def test_flags_that_make_no_sense(videos, tmp_path, recorder, flags, complaint):
    with pytest.raises(UserError, match=complaint):
        run(videos, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_places_that_make_no_sense(videos, tmp_path, recorder):
    with pytest.raises(UserError, match="no such folder of videos, and no such table"):
        run(tmp_path / "typo", tmp_path / "run")
    with pytest.raises(UserError, match="is the folder of the videos"):
        run(videos, videos)


def test_a_run_within_the_folder_of_the_videos(tmp_path, recorder, capsys):
    for number, name in enumerate(("a/1", "a/2", "b/1", "b/2"), 1):
        draw(tmp_path / f"v/{name}.mp4", size="32x32", seconds=number)
    assert run(tmp_path / "v", tmp_path / "v/run") == 0
    assert run(tmp_path / "v", tmp_path / "v/run") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert len(recorder.commands) == 4


def test_files_of_the_user_stay(videos, tmp_path, recorder):
    table = tmp_path / "videos.csv"
    rows = [f"{videos}/{name}.mp4,{name[:3]}" for name in ("cat/a", "cat/b", "dog/a", "dog/b")]
    table.write_text("\n".join(["path,label", *rows]))
    with pytest.raises(UserError, match=r"videos.csv: is the input"):
        run(table, tmp_path)
    (tmp_path / "other/results").mkdir(parents=True)
    with pytest.raises(UserError, match="holds files that this command did not write"):
        run(table, tmp_path / "other")
    assert names(tmp_path / "other") == ["results"]
    assert run(table, tmp_path / "run") == 0
    assert recorder.commands
