import json

import numpy as np
import pytest
from scipy.stats import binomtest

from datasets.index_writer import entry_of, write_index
from errors import UserError
from evaluation.metrics import mcnemar_p
from evaluation.results import write_results
from tests.commands import run_command
from util_scripts import compare


def test_mcnemar_agrees_with_the_exact_binomial_test():
    draw = np.random.default_rng(0)
    cases = [(0, 0), (0, 1), (5, 5), (3, 900), *draw.integers(0, 60, (60, 2)).tolist()]
    for only_a, only_b in cases:
        n = only_a + only_b
        expected = binomtest(only_a, n).pvalue if n else 1.0
        assert mcnemar_p(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(24_500, 25_500) == pytest.approx(binomtest(24_500, 50_000).pvalue, rel=1e-6)
    assert mcnemar_p(0, 5000) == 0.0  # below the smallest float, not an error


def write_split(folder, number, runs, *, prefix=""):
    """An index of videos a0 … of class a and b0 … of class b, and a result file per run.

    `runs` are texts with a letter per video: the label that comes first there, or - for no result.
    """
    n = len(runs[0]) // 2
    videos = [f"{prefix}{label}{i}" for label in "ab" for i in range(n)]
    entries = {v: entry_of("validation", v[len(prefix)], 9) for v in videos}
    write_index(folder / f"{number}.json", "ab", entries)
    paths = [folder / f"{number}.json"]
    for run, letters in enumerate(runs):
        results = {
            video: [{"label": letter, "score": 0.9}, {"label": "ab"[letter == "a"], "score": 0.1}]
            for video, letter in zip(videos, letters, strict=True)
            if letter != "-"
        }
        paths.append(folder / f"{number}_{run}.json")
        write_results(paths[-1], results)
    return [str(path) for path in paths]


def test_two_runs_are_compared_on_their_common_videos(tmp_path, capsys):
    #                                     aaaaaaaaaa bbbbbbbbbb
    files = write_split(tmp_path, 1, ["abbbbbbbbbbbbbbbbb-b", "aaaaaaaaaabbbbbbbbba"])
    assert compare.main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("1.json: 19 of 20 validation videos")
    assert lines[1].startswith("  A 0.5263 (10 right), 95% interval 0.3171 to 0.7267: ")
    assert lines[2].startswith("  B 0.9474 (18 right)")
    assert lines[3:5] == [
        "  excluded: 1 videos without a result in every run",
        "    A has no result for 1: b8",
    ]
    assert lines[5] == (
        "  B is better than A: only B is right on 9 videos, only A on 1, p = 0.0215"
    )
    assert lines[6:] == [
        "largest class differences between A and B: 2 of 2 that differ, of 2 classes "
        "(some differ by chance)",
        "  +0.900  a: A 0.100, B 1.000 of 10 videos",
        "  -0.111  b: A 1.000, B 0.889 of 9 videos",
    ]


def test_verdict_names_the_better_run_or_no_significant_difference(tmp_path, capsys):
    right, four_wrong, five_wrong = "aaaaaabbbbbb", "bbbbaabbbbbb", "aaaaaaaaaaab"
    index, *runs = write_split(tmp_path, 1, [right, four_wrong, five_wrong, right])
    compare.main([index, *runs, "--classes", "0"])
    out = capsys.readouterr().out
    assert (
        "no significant difference between A and B: only B is right on 0 videos, only A on 4, "
        "p = 0.125; too few videos differ for any significant result" in out
    )
    assert "A and D are right on the same videos" in out
    assert "significance level of each test: 0.05 / 3" in out
    assert "classes" not in out
    longer = write_split(tmp_path, 2, ["a" * 8 + "b" * 8, "b" * 7 + "a" + "b" * 8])
    compare.main(longer)
    assert "  A is better than B: only B is right on 0 videos" in capsys.readouterr().out


def test_window_scores_are_averaged(tmp_path, capsys):
    index, one, two = write_split(tmp_path, 1, ["ab", "bb"])
    windows = [
        {"segment": [1, 5], "result": [{"label": "b", "score": 0.6}, {"label": "a", "score": 0.4}]},
        {"segment": [5, 9], "result": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.1}]},
    ]
    write_results(tmp_path / "1_1.json", {"a0": windows, "b0": [{"label": "b", "score": 1.0}]})
    compare.main([index, one, two])
    assert "A and B are right on the same videos" in capsys.readouterr().out


def test_splits_are_averaged_and_tested_together(tmp_path, capsys):
    first = write_split(tmp_path, 1, ["abbbbb", "aaabbb"], prefix="s1")
    second = write_split(tmp_path, 2, ["bbbbbb", "aaabbb"], prefix="s2")
    third = write_split(tmp_path, 3, ["bbbbba", "aabbbb"], prefix="s3")
    out_json = tmp_path / "out.json"
    flags = ["--split", *second, "--split", *third, "--json", str(out_json)]
    assert compare.main([*first, *flags]) == 0
    out = capsys.readouterr().out
    assert "mean over 3 splits" in out
    assert "  A 0.5000 ± 0.1667 (0.3333 to 0.6667)" in out
    assert "  B - A +0.4444 ± 0.0962 (+0.3333 to +0.5000)" in out
    assert "  B is better than A: only B is right on 8 videos, only A on 0, p = 0.00781" in out
    assert "significance level of each test: 0.05 / 3 (Bonferroni correction)" in out
    assert "significance level of the test over all splits: 0.05\n" in out

    written = json.loads(out_json.read_text("utf-8"))
    assert written["means"] == pytest.approx([0.5, 17 / 18])
    assert written["deviations"][0] == pytest.approx(1 / 6)
    assert written["pairs"] == [{"a": "A", "b": "B", "only_a": 0, "only_b": 8, "p": 2 / 2**8}]
    assert [split["n_common"] for split in written["splits"]] == [6, 6, 6]
    assert written["classes"]["B"][0] == {
        "label": "a", "videos": 9, "A": pytest.approx(1 / 9), "B": pytest.approx(8 / 9),
    }  # fmt: skip


def test_splits_that_share_videos_are_not_pooled(tmp_path, capsys):
    first = write_split(tmp_path, 1, ["ab", "bb"])
    second = write_split(tmp_path, 2, ["ab", "bb"])
    compare.main([*first, "--split", *second, "--json", str(tmp_path / "out.json")])
    assert "no test over all splits" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text("utf-8"))["pairs"] is None
    compare.main([*first[:2], "--split", *second[:2]])  # a single run has nothing to test
    out = capsys.readouterr().out
    assert "A 1.0000 ± 0.0000" in out
    assert "no test" not in out


def test_classes_of_splits_that_share_videos_are_counted_in_results(tmp_path, capsys):
    first = write_split(tmp_path, 1, ["ab", "bb"])
    second = write_split(tmp_path, 2, ["ab", "bb"])
    compare.main([*first, "--split", *second])
    out = capsys.readouterr().out
    assert "A 1.000, B 0.000 of 2 results" in out
    assert "significance level of each test: 0.05 / 2 (Bonferroni correction)" in out


def test_a_result_without_any_label_of_the_index_is_refused(tmp_path):
    index, right = write_split(tmp_path, 1, ["ab"])
    _, other = write_split(tmp_path, 2, ["AB"])
    with pytest.raises(UserError, match=r"2_0\.json: none of its labels is in .*1\.json, for ex"):
        compare.main([index, right, other])


def test_wrong_arguments(tmp_path):
    files = write_split(tmp_path, 1, ["ab", "b-", "-b"])
    with pytest.raises(UserError, match="2 labelled validation videos has a result in every run"):
        compare.main(files)
    with pytest.raises(UserError, match=r"--split .*2.json: 1 results, but .*1.json has 2"):
        compare.main([*files[:3], "--split", *write_split(tmp_path, 2, ["ab"])])
    with pytest.raises(UserError, match="at most 26"):
        compare.main([files[0], *[files[1]] * 27])


def test_as_a_command_without_torch(tmp_path):
    files = write_split(tmp_path, 1, ["ab", "bb"])
    program = (
        "import sys; sys.modules['torch'] = None; from utils.command_line import run; "
        "from util_scripts import compare; "
        "sys.exit(run(compare.main))"
    )
    done = run_command("-c", program, *files)
    assert (done.status, done.stderr) == (0, "")
    assert "A 1.0000" in done.stdout
