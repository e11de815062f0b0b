"""benchmarks.accuracy: recipes x sets x seeds, and the comparison of their results."""

import contextlib
import io
import json
import math
import shutil

import numpy as np
import pytest

import main as program
from benchmarks import accuracy
from benchmarks.accuracy_table import SetRuns, paired_bootstrap, plain_comparison
from errors import UserError
from evaluation.results import write_results
from tests.commands import Command
from tests.runs import make_dataset, small_flags


def test_the_bootstrap_of_one_seed_matches_the_normal_approximation():
    draw = np.random.default_rng(1)
    a, b = draw.random((1, 400)) < 0.7, draw.random((1, 400)) < 0.8
    found = paired_bootstrap(a, b)
    differences = b.astype(float) - a
    half = 1.96 * differences.std() / math.sqrt(400)
    assert found.mean == pytest.approx(differences.mean())
    expected = (found.mean - half, found.mean + half)
    assert found.interval == pytest.approx(expected, abs=0.005)
    assert paired_bootstrap(a, b) == found


def test_the_bootstrap_counts_the_variation_of_seeds():
    a = np.zeros((4, 1000), bool)
    b = a.copy()
    b[:2] = True  # two seeds are right on all videos, two on none
    low, high = paired_bootstrap(a, b).interval
    assert (low, high) == (0.0, 1.0)


def test_the_bootstrap_of_equal_runs_has_no_evidence():
    hits = np.random.default_rng(0).random((3, 50)) < 0.5
    assert paired_bootstrap(hits, hits).p == 1.0
    assert paired_bootstrap(hits & False, hits | True).p < 0.001


def write_run(folder, right, *, n_videos=4, seconds=(60, 60), accuracies=(0.25, 0.5)):
    folder.mkdir(parents=True)
    scores = {
        f"v{i}": [{"label": "a" if i in right else "b", "score": 0.9}] for i in range(n_videos)
    }
    write_results(folder / "val.json", scores)
    epochs = range(1, len(seconds) + 1)
    times = [f"{e}\t{s}" for e, s in zip(epochs, seconds, strict=True)]
    vals = [f"{e}\t{v}" for e, v in zip(epochs, accuracies, strict=True)]
    (folder / "time.log").write_text("\n".join(["epoch\ttrain", *times]) + "\n")
    (folder / "val.log").write_text("\n".join(["epoch\tvideo_acc", *vals]) + "\n")
    return folder


@pytest.fixture
def index(tmp_path):
    entry = {"subset": "validation", "annotations": {"label": "a", "segment": [1, 2]}}
    path = tmp_path / "index.json"
    path.write_text(
        json.dumps({"labels": ["a", "b"], "database": {f"v{i}": entry for i in range(4)}})
    )
    return path


def test_a_comparison_by_hand(index, tmp_path):
    runs = {
        1: [write_run(tmp_path / "a1", {0}),
            write_run(tmp_path / "b1", {0, 1, 2}, accuracies=(0.5, 0.75))],
        2: [write_run(tmp_path / "a2", {0, 1}),
            write_run(tmp_path / "b2", {0, 2}, accuracies=(0.25, 0.3))],
    }  # fmt: skip
    found = plain_comparison(SetRuns(index, ["a", "b"], runs))
    assert (found["videos"], found["seeds"]) == (4, [1, 2])
    a, b = found["recipes"]["a"], found["recipes"]["b"]
    assert (a["accuracies"], a["mean"]) == ([0.25, 0.5], 0.375)
    assert (b["accuracies"], b["mean"]) == ([0.75, 0.5], 0.625)
    assert a["standard_error"] == pytest.approx(0.125)
    assert (a["minutes"], a["minutes_to_first"]) == ([2.0, 2.0], [2.0, 2.0])
    assert b["minutes_to_first"] == [1.0, None]
    pair = found["against the first"]["b"]
    assert (pair["difference"], pair["error_ratio"]) == (0.25, 0.6)
    assert pair["standard_error"] == pytest.approx(0.25)
    counts = [(m["only_first"], m["only_this"], m["p"]) for m in pair["mcnemar"]]
    assert counts == [(0, 2, 0.5), (1, 1, 1.0)]


@pytest.fixture
def words(tmp_path):
    """A command line for two recipes and two seeds of a small set."""
    make_dataset(tmp_path, train=2, val=2, n_frames=10)
    for name, rate in (("slow", 0.001), ("fast", 0.01)):
        (tmp_path / f"{name}.txt").write_text(f"--learning_rate {rate}\n--n_epochs 1\n")
    flags = small_flags(tmp_path)
    start = flags.index("--model_depth")
    small = flags[start : flags.index("--learning_rate")]
    del small[small.index("--n_epochs") : small.index("--n_epochs") + 2]
    return [
        "--index", str(tmp_path / "index.json"), "--frames", str(tmp_path / "jpg"),
        "--configs", str(tmp_path / "slow.txt"), str(tmp_path / "fast.txt"),
        "--seeds", "1", "2", "--out", str(tmp_path / "out"), "--", *small,
    ]  # fmt: skip


def test_runs_are_finished_once_and_compared(words, tmp_path, capsys, monkeypatch):
    def run_here(command, output):  # in this process, which takes a tenth of the time
        with contextlib.redirect_stdout(io.StringIO()):
            return program.main(command[1:])

    monkeypatch.setattr(accuracy, "run_quietly", run_here)
    out = tmp_path / "out"
    assert accuracy.main(words) == 0
    table = capsys.readouterr().out
    assert "## index: 4 videos, seeds 1 2" in table
    assert "With fewer than 5 seeds, intervals are too narrow" in table
    assert "| slow | " in table
    assert "| fast | " in table
    content = json.loads((out / "accuracy.json").read_text())
    assert content["recipes"]["fast"] == ["--learning_rate 0.01", "--n_epochs 1"]
    assert content["sets"]["index"]["seeds"] == [1, 2]
    saved = json.loads((out / "index" / "fast" / "2" / "opts.json").read_text())
    assert (saved["learning_rate"], saved["manual_seed"], saved["sample_size"]) == (0.01, 2, 32)

    (out / "index" / "slow" / "1" / "val.run.json").unlink()  # as if killed during inference
    shutil.rmtree(out / "index" / "fast" / "2")
    assert accuracy.main(words) == 0
    text = capsys.readouterr().out
    started = [line for line in text.splitlines() if line.startswith(str(out))]
    assert started == [str(out / "index/slow/1"), str(out / "index/fast/2")]
    again = json.loads((out / "accuracy.json").read_text())
    key = "accuracies"
    for name, found in content["sets"]["index"]["recipes"].items():
        assert again["sets"]["index"]["recipes"][name][key] == found[key]

    (tmp_path / "fast.txt").write_text("--learning_rate 0.02\n")
    with pytest.raises(UserError, match=r"fast/1/run.json: this run was started with other flags"):
        accuracy.main(words)


def test_a_run_that_fails_is_named_with_its_last_line(words, tmp_path):
    (tmp_path / "slow.txt").write_text("--ema 2\n")
    with pytest.raises(UserError, match=r"slow/1/output.txt: main.py ended with status 2: .*--ema"):
        accuracy.main(words)


def test_an_interrupted_comparison_ends_its_run(words, tmp_path):
    output = tmp_path / "out/index/slow/1/output.txt"
    words[words.index("--") :] = [*words[words.index("--") :], "--n_epochs", "100000"]
    with Command("-m", "benchmarks.accuracy", *words) as command:
        command.wait_until(lambda: output.exists() and "epoch 2 of" in output.read_text())
        command.process.terminate()
        done = command.finish()  # fails if a process is left
    assert done.status == 143, done.text
    assert "Traceback" not in done.text
    assert (output.parent / "last.pth").exists()


def test_wrong_command_lines(words, tmp_path):
    own = str(tmp_path / "slow.txt")
    with pytest.raises(UserError, match="2 folders for 1 indexes"):
        accuracy.main([*words[:4], str(tmp_path), *words[4:]])
    with pytest.raises(UserError, match="two files have the same name: slow fast slow"):
        accuracy.main([*words[: words.index("--seeds")], own, *words[words.index("--seeds") :]])
    with pytest.raises(UserError, match="the known recipes are"):
        accuracy.main([word.replace("slow.txt", "none.txt") for word in words])
