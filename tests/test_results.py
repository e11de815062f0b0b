import json
import math

import numpy as np
import pytest

from datasets.index import read_index
from datasets.index_writer import entry_of, write_index
from errors import UserError
from evaluation.results import (
    accuracy_of,
    describe,
    few_videos_warning,
    ranked,
    read_results,
    write_results,
)


def scored(*labels):
    """Entries that rank these labels in this order."""
    return [{"label": label, "score": 1 / (i + 1)} for i, label in enumerate(labels)]


@pytest.fixture
def index(tmp_path):
    """Six labels; validation videos a1 a2 a3 b1, an unlabelled test video and a training one."""
    entries = {name: entry_of("validation", name[0], 9) for name in ("a1", "a2", "a3", "b1")}
    entries |= {"blind": entry_of("testing", None, 9), "t1": entry_of("training", "a", 9)}
    write_index(tmp_path / "index.json", "abcdef", entries)
    return read_index(tmp_path / "index.json")


def test_ranking_of_scores():
    scores = np.array([0.1, 0.3, 0.1, 0.2, 0.3], np.float32)
    entries = ranked(scores, ["a", "b", "c", "d"], 3)
    assert [entry["label"] for entry in entries] == ["b", "d", "a"]
    assert [entry["score"] for entry in entries] == [float(scores[i]) for i in (1, 3, 0)]
    for topk in (0, -1, 9):
        assert [e["label"] for e in ranked(scores, "abcd", topk)] == ["b", "d", "a", "c"]


def test_results_survive_a_round_trip(tmp_path):
    windows = [{"segment": [1, 17], "result": scored("a", "b")}]
    results = {"plain": scored("b", "a"), "windows": windows, "none": []}
    write_results(tmp_path / "val.json", results)
    assert read_results(tmp_path / "val.json") == results
    assert list(json.loads((tmp_path / "val.json").read_text("utf-8"))) == ["results"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ('{"results": {"v": [], "v": []}}', "'v' occurs twice"),
        ('{"results": {"v": [{"label": "a", "score": NaN}]}}', "NaN is not a number"),
        ('{"results": {"v": [{"label": "a", "score": 1e999}]}}', r"v: \[0\].score: "),
        ("[]", "no object 'results'"),
        ('{"results": []}', "no object 'results'"),
        ('{"results": {"v": 1}}', "v: expected array, got int"),
        ('{"results": {"v": [{"label": "a"}]}}', r"v: \[0\]: object missing required field score"),
        ('{"results": {"v": [{"label": 1, "score": 1}]}}', r"v: \[0\].label: expected str"),
        ('{"results": {"v": [{"result": [{"result": []}]}]}}', r"v: \[0\].result\[0\]: "),
        ('{"results": {"v": [{"result": []}, {"label": "a", "score": 1}]}}', r"v: \[1\]: "),
    ],
)
def test_bad_result_files(tmp_path, text, complaint):
    path = tmp_path / "val.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        read_results(path)
    with pytest.raises(UserError, match="no such result file"):
        read_results(tmp_path / "gone.json")


def test_a_label_listed_twice_is_refused(tmp_path):
    windows = [{"result": scored("b", "a")}, {"result": scored("b", "a", "b")}]
    for entries in (scored("a", "b", "b"), windows):
        write_results(tmp_path / "val.json", {"v": entries})
        with pytest.raises(UserError, match="v: label 'b' is listed twice"):
            read_results(tmp_path / "val.json")


def test_missing_videos_count_as_wrong_unless_ignored(index):
    results = {
        "a1": scored(*"abcde"),
        "a2": scored(*"cdefa"),
        "b1": scored(*"bacde"),
        "t1": scored(*"abcde"),
    }
    accuracy = accuracy_of(index, results, "val")
    assert accuracy.top == {1: 2 / 4, 5: 3 / 4}
    assert accuracy.mean_class == pytest.approx((1 / 3 + 1) / 2)
    assert (accuracy.n_videos, accuracy.n_results, accuracy.n_counted) == (4, 4, 4)
    assert accuracy.missing == ("a3",)
    assert accuracy.not_in_subset == ("t1",)
    text = "\n".join(describe(accuracy))
    assert "1 of 4 videos have no result, counted as wrong: a3" in text
    assert "1 results are not for labelled videos of the subset, not counted: t1" in text

    accuracy = accuracy_of(index, results, "val", ignore_missing=True)
    assert accuracy.top == {1: 2 / 3, 5: 1.0}
    assert accuracy.n_counted == 3
    text = "\n".join(describe(accuracy))
    assert "2 of 3 videos right" in text
    assert "excluded: a3" in text


@pytest.mark.parametrize(
    ("right", "n", "interval"),
    [
        (34, 40, "only 40 validation videos, an accuracy of 85% can be anything from 71% to 93%"),
        (1, 1, "only 1 validation videos, an accuracy of 100% can be anything from 21% to 100%"),
        (40, 60, "60 validation videos, an accuracy of 67% can be anything from 54% to 77%"),
        (49, 49, "only 49 validation videos, an accuracy of 100% can be anything from 93% to 100%"),
        (60, 60, None),
        (240, 300, None),
    ],
)
def test_a_sentence_on_what_few_videos_cannot_tell(tmp_path, right, n, interval):
    entries = {f"v{i}": entry_of("validation", "a", 9) for i in range(n)}
    write_index(tmp_path / "index.json", "ab", entries)
    results = {name: scored("ab"[i >= right]) for i, name in enumerate(entries)}
    text = few_videos_warning(
        accuracy_of(read_index(tmp_path / "index.json"), results, "val"), "val"
    )
    if interval is None:
        assert text is None
    else:
        assert text.startswith(f"with {interval} (95% interval); ")


def test_top_k_is_unknown_beyond_the_saved_entries(index):
    results = {name: scored("a", "b", "c") for name in ("a1", "a2", "a3", "b1")}
    accuracy = accuracy_of(index, results, "validation", ks=(1, 3, 5))
    assert accuracy.top == {1: 0.75, 3: 1.0}
    lines = describe(accuracy, ks=(1, 3, 5))
    assert lines[1:3] == [
        "video top-3 1.0000",
        "video top-5 unknown: fewer than 5 entries were saved per video",
    ]
    whole = accuracy_of(index, {"a1": scored(*"bcdefa")}, "validation", ks=(9,))
    assert whole.top[9] == 0.25
    assert "video top-9 0.2500 (trivial: there are only 6 labels)" in describe(whole, ks=(9,))


def test_labels_are_ranked_by_score_and_nan_is_dropped(index):
    nan = math.nan
    results = {
        "a1": [{"label": "b", "score": 0.1}, {"label": "a", "score": 0.9}],
        "a2": [{"label": "a", "score": nan}, {"label": "b", "score": nan}],
        "a3": [],
        "b1": [{"label": "b", "score": 0.4}, {"label": "a", "score": nan}],
    }
    assert accuracy_of(index, results, "val").top[1] == 2 / 4


def test_windows_are_averaged(index):
    windows = [
        {
            "segment": [1, 17],
            "result": [{"label": "b", "score": 0.6}, {"label": "a", "score": 0.4}],
        },
        {
            "segment": [9, 25],
            "result": [{"label": "a", "score": 0.7}, {"label": "b", "score": 0.3}],
        },
    ]
    accuracy = accuracy_of(index, {"a1": windows}, "val", ks=(1, 2, 3), ignore_missing=True)
    assert accuracy.top == {1: 1.0, 2: 1.0}
    assert any("averaged per video" in line for line in describe(accuracy))


def test_labels_missing_from_the_index_are_named(index):
    accuracy = accuracy_of(index, {"a1": scored("A", "a")}, "val")
    assert accuracy.unknown_labels == ("A",)
    assert accuracy.top[1] == 0
    assert "1 labels in the result are not in the index: A" in describe(accuracy)


def test_nothing_to_compare(index):
    for results, subset in (({"t1": scored("a")}, "val"), ({"blind": scored("a")}, "test")):
        with pytest.raises(UserError, match=r"none of its .* has a result"):
            accuracy_of(index, results, subset)
