import pytest

from datasets.index_writer import entry_of, write_index
from errors import UserError
from evaluation.results import write_results
from tests.commands import run_command, run_util
from util_scripts import eval_accuracy

LABELS = "abcdef"


@pytest.fixture
def files(tmp_path):
    """An index of 5 validation videos, and results of 4 of them of which 3 are right."""
    write_index(
        tmp_path / "index.json",
        LABELS,
        {f"{label}0": entry_of("validation", label, 9) for label in "abcde"},
    )
    results = {
        f"{label}0": [{"label": x, "score": 1 / (i + 2)} for i, x in enumerate(ranking)]
        for label, ranking in {"a": "abcde", "b": "bcdef", "c": "cdefa", "d": "efabd"}.items()
    }
    write_results(tmp_path / "val.json", results)
    return [str(tmp_path / "index.json"), str(tmp_path / "val.json")]


def test_prints_the_lines_of_the_original_first(files, capsys):
    assert eval_accuracy.main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "load ground truth",
        "number of ground truth: 5",
        "load result",
        "number of result: 4",
        "calculate top-1 accuracy",
        "top-1 accuracy: 0.6",
    ]
    assert lines[6].startswith(
        "with only 5 validation videos, an accuracy of 60% can be anything from"
    )
    assert lines[7].startswith("video top-1 0.6000: 3 of 5 videos right, 95% interval 0.2307 to")
    assert lines[8:] == [
        "video top-5 0.8000",
        "mean class accuracy 0.6000",
        "1 of 5 videos have no result, counted as wrong: e0",
    ]


def test_ignore_changes_the_denominator(files, capsys):
    assert eval_accuracy.main([*files, "--ignore", "--subset", "val"]) == 0
    out = capsys.readouterr().out
    assert "number of ground truth: 5\n" in out
    assert "top-1 accuracy: 0.75\n" in out
    assert "excluded: e0" in out


def test_save_writes_the_bare_number(files, tmp_path):
    assert eval_accuracy.main([*files, "-k", "5", "--save"]) == 0
    assert float((tmp_path / "top5.txt").read_text("utf-8")) == 0.8
    assert not (tmp_path / "top1.txt").exists()


def test_k_beyond_the_saved_entries_is_refused(files, tmp_path, capsys):
    write_results(tmp_path / "val.json", {"a0": [{"label": "a", "score": 1.0}]})
    with pytest.raises(UserError, match=r"fewer than 5 entries .*--output_topk 5"):
        eval_accuracy.main([*files, "-k", "5", "--save"])
    assert not (tmp_path / "top5.txt").exists()
    assert eval_accuracy.main(files) == 0
    assert "video top-5 unknown" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["-k", "0"], ["--subset", "train"]])
def test_mistakes(files, flags):
    with pytest.raises(UserError):
        eval_accuracy.main([*files, *flags])


def test_as_a_command_without_torch(files):
    program = (
        "import sys; sys.modules['torch'] = None; from utils.command_line import run; "
        "from util_scripts import eval_accuracy; "
        "sys.exit(run(eval_accuracy.main))"
    )
    good = run_command("-c", program, *files)
    assert (good.status, good.stderr) == (0, "")
    bad = run_util("eval_accuracy", files[0], "gone.json")
    assert (bad.status, bad.stderr) == (2, "error: gone.json: no such result file\n")
