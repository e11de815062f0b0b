"""The HTML report: its figures, and what it says if data is missing."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from datasets.index_writer import entry_of, write_index
from errors import UserError
from evaluation.metrics import thresholds_of
from evaluation.results import write_results
from reporting.charts import draw
from reporting.facts import read_facts, read_log
from reporting.tables import (
    binary_result,
    class_rows,
    confused_pairs,
    most_uncertain,
    shown_matrix,
    worst_mistakes,
)
from util_scripts import report


def make_results(folder, labels, truths, answers, *, kept=5, subset="validation"):
    """An index and val.json: video i is of class truths[i]; answers[i] is {class: score}."""
    database, results = {}, {}
    for number, (truth, scores) in enumerate(zip(truths, answers, strict=True)):
        database[f"v{number}"] = entry_of(subset, labels[truth], 9)
        ranking = sorted(scores.items(), key=lambda pair: -pair[1])[:kept]
        results[f"v{number}"] = [{"label": labels[c], "score": s} for c, s in ranking]
    write_index(folder / "index.json", labels, database)
    write_results(folder / "val.json", results)
    return read_facts(folder, "val", index_path=folder / "index.json")


def random_results(folder, labels, n, *, seed=0, kept=5):
    draw_from = np.random.default_rng(seed)
    truths = draw_from.integers(0, len(labels), n)
    answers = []
    for truth in truths:
        classes = [truth, *draw_from.integers(0, len(labels), 6)]
        scores = np.round(draw_from.dirichlet(np.full(7, 0.7)), 2)
        answers.append({int(c): float(s) for c, s in zip(classes, scores, strict=True)})
    return make_results(folder, labels, truths.tolist(), answers, kept=kept)


def write_logs(folder):
    (folder / "train.log").write_text("epoch\tloss\tacc\tlr\n1\t0.7\t0.5\t0.1\n2\t0.6\t0.6\t0.01\n")
    (folder / "val.log").write_text(
        "epoch\tloss\tacc\tvideo_acc\n1\t0.8\t0.5\t\n2\t0.7\t0.5\t0.6\n"
    )
    (folder / "time.log").write_text(
        "epoch\ttrain\twaiting\tvalidation\tclips_per_second\n1\t8.0\t2.0\t1.0\t5.0\n"
    )


class Page(HTMLParser):
    """The headings, text, ids and link targets of a page."""

    def __init__(self, path):
        super().__init__()
        self.headings, self.ids, self.targets, self.unnamed = [], [], [], []
        self.text, self._tag = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self._tag = tag
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [given[name] for name in ("src", "href", "xlink:href") if name in given]
        if (tag == "svg" and not given.get("aria-label")) or (
            tag == "img" and not given.get("alt")
        ):
            self.unnamed.append(tag)

    def handle_data(self, data):
        if self._tag not in ("style", "script"):
            self.text += data
        if self._tag == "h2" and data.strip():
            self.headings.append(data.strip())


def page_of(folder, *flags):
    assert report.main([str(folder), "--index", str(folder / "index.json"), *flags]) == 0
    return Page(folder / "report.html")


def two_classes_of(folder, n):
    """Results of `n` videos of either class, five of six of them right."""
    answers = [0.9, 0.8, 0.3, 0.4, 0.2, 0.1] * (n // 3)
    truths = [0, 0, 0, 1, 1, 1] * (n // 3)
    make_results(folder, ["fight", "rest"], truths, [{0: s, 1: 1 - s} for s in answers])


def test_few_videos_get_a_warning_first_and_no_calibration(tmp_path):
    two_classes_of(tmp_path, 3)
    page = page_of(tmp_path)
    warning = "only 6 validation videos, an accuracy of 83% can be anything from 44% to 97%"
    assert page.text.index(warning) < page.text.index("top-1 accuracy on validation videos")
    reason = "needs at least 50 videos of each class; there are 3 of fight and 3 of rest"
    assert page.text.count(f"Not shown: {reason}.") == 2
    assert "calibration error" not in page.text
    assert "false positive" not in page.text


def test_few_videos_of_more_classes(tmp_path):
    random_results(tmp_path, ["a", "b", "c"], 99)
    page = page_of(tmp_path)
    assert "Not shown: needs at least 100 videos; there are 99." in page.text
    assert "only 99" not in page.text


def test_recordings_in_both_subsets_are_reported_first(tmp_path):
    two_classes_of(tmp_path, 60)
    entries = {
        "v0": entry_of("validation", "fight", 9),
        "m3_clip1": entry_of("training", "rest", 9),
    }
    entries["m3_clip2"] = entry_of("validation", "rest", 9)
    write_index(tmp_path / "index.json", ["fight", "rest"], entries)
    page = page_of(tmp_path)
    place = page.text.index("m3_clip1 (training) and m3_clip2")
    assert place < page.text.index("top-1 accuracy on validation videos")


def test_two_classes_get_every_section(tmp_path):
    two_classes_of(tmp_path, 60)
    page_of(tmp_path)
    write_logs(tmp_path)
    page = page_of(tmp_path)  # replaces its own
    assert page.headings == [
        "Training", "Confusion matrix", "Accuracy per class", "Calibration",
        "Decision threshold for fight", "Videos", "Time", "Run details",
    ]  # fmt: skip
    assert "83.3%" in page.text
    assert "100 of 120 videos" in page.text
    assert "only 120" not in page.text
    assert "Not shown" not in page.text.partition("Videos")[0]
    assert len(page.ids) == len(set(page.ids))
    assert not page.unnamed
    assert all(target.startswith(("#", "data:")) for target in page.targets)


def test_many_classes_make_a_small_page(tmp_path):
    labels = [f"class {number} of many" for number in range(700)]
    random_results(tmp_path, labels, 3000)
    page = page_of(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert "all others" in page.text
    assert "find" in page.ids


def test_labels_are_escaped(tmp_path):
    labels = ["<script>alert(1)</script>", '$x^2$ & "more"']
    make_results(tmp_path, labels, [0, 1], [{0: 0.7, 1: 0.3}, {0: 0.6, 1: 0.4}])
    page = page_of(tmp_path)
    assert "alert(1)</script>" not in (tmp_path / "report.html").read_text()
    assert page.text.count(labels[0]) > 2
    assert page.text.count(labels[1]) > 2


def test_sections_without_data_say_why(tmp_path):
    make_results(tmp_path, ["a", "b"], [0, 1], [{0: 0.7, 1: 0.3}, {0: 0.6, 1: 0.4}])
    assert report.main([str(tmp_path)]) == 0
    page = Page(tmp_path / "report.html")
    assert page.headings == ["Training", "Videos", "Run details"]
    assert "the index of the run is unknown" in page.text
    assert "no train.log" in page.text


@pytest.mark.parametrize("kept", [1, 2])
def test_the_threshold_needs_the_scores_of_both_classes(tmp_path, kept):
    scores = [{0: 0.7, 1: 0.3}, {0: 0.4, 1: 0.6}]
    facts = make_results(tmp_path, ["a", "b"], [1, 1], scores, kept=kept)
    with pytest.raises(ValueError, match=r"both classes must occur|--output_topk 2"):
        binary_result(facts, "a")
    assert "Not shown: " in page_of(tmp_path).text


def test_wrong_arguments_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"val.json: no such result file"):
        report.main([str(tmp_path)])
    make_results(tmp_path, ["a", "b"], [0, 1], [{0: 0.7, 1: 0.3}, {0: 0.6, 1: 0.4}])
    index = ["--index", str(tmp_path / "index.json")]
    with pytest.raises(UserError, match="--positive c: no such class; the classes are a, b"):
        report.main([str(tmp_path), *index, "--positive", "c"])
    with pytest.raises(UserError, match="can't be written"):
        report.main([str(tmp_path), *index, "--out", str(tmp_path / "val.json" / "r.html")])


def test_columns_of_windows_unknown_labels_and_other_subsets(tmp_path):
    write_index(
        tmp_path / "index.json",
        ["a", "b"],
        {name: entry_of("validation", "b", 9) for name in ("one", "two", "lacking")}
        | {"other": entry_of("training", "a", 9)},
    )
    windows = [
        {"segment": [1, 9], "result": [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.4}]},
        {"segment": [9, 17], "result": [{"label": "b", "score": 0.9}]},
    ]
    plain = [{"label": "z", "score": 0.5}, {"label": "b", "score": 0.5}]
    write_results(tmp_path / "val.json", {"other": plain, "two": plain, "one": windows})
    facts = read_facts(tmp_path, "val", index_path=tmp_path / "index.json")
    videos = facts.videos
    assert videos.ids == ("one", "two", "other")
    assert videos.targets.tolist() == [1, 1, -1]
    assert videos.predictions.tolist() == [1, -1, -1]
    assert videos.scores == pytest.approx([0.65, 0.5, 0.5])
    assert videos.margins == pytest.approx([0.35, 0, 0])
    assert facts.confusion().tolist() == [[0, 0], [0, 1]]
    [row] = class_rows(facts)  # the video without a result counts as wrong
    assert (row.label, row.n, row.n_right) == ("b", 3, 1)


def test_shown_mistakes_and_uncertain_videos_are_the_extreme_ones(tmp_path):
    facts = random_results(tmp_path, list("abcd"), 60)
    videos = facts.videos
    mistakes = worst_mistakes(videos, 5)
    others = set(np.flatnonzero(~videos.hits)) - set(mistakes)
    assert not videos.hits[mistakes].any()
    assert min(videos.scores[mistakes]) >= max(videos.scores[list(others)])
    uncertain = most_uncertain(videos, 5, exclude=mistakes)
    left = set(range(60)) - set(mistakes) - set(uncertain)
    assert not set(uncertain) & set(mistakes)
    assert max(videos.margins[uncertain]) <= min(videos.margins[list(left)])


def test_confused_pairs_are_sorted_by_count():
    matrix = np.array([[5, 3, 0], [1, 0, 3], [0, 0, 2]])
    pairs = confused_pairs(matrix, "abc", 10)
    assert [(p.truth, p.prediction, p.n) for p in pairs] == [
        ("b", "c", 3),
        ("a", "b", 3),
        ("b", "a", 1),
    ]
    assert pairs[0].share == 0.75
    assert len(confused_pairs(matrix, "abc", 2)) == 2


def test_rare_mistakes_of_many_classes_are_merged(tmp_path):
    matrix = np.random.default_rng(1).integers(0, 4, (50, 50))
    shown, names = shown_matrix(matrix, [str(number) for number in range(50)])
    assert shown.shape == (20, 20)
    assert shown.sum() == matrix.sum()
    for row, one in enumerate(names[:-1]):
        for column, other in enumerate(names[:-1]):
            assert shown[row, column] == matrix[int(one), int(other)]
        assert shown[row].sum() == matrix[int(one)].sum()
    assert names[-1] == "all others"
    small = matrix[:3, :3]
    assert shown_matrix(small, list("abc")) == (pytest.approx(small), list("abc"))


def test_each_threshold_is_the_best_for_its_criterion(tmp_path):
    draw_from = np.random.default_rng(5)
    truths = draw_from.integers(0, 2, 120)
    scores = np.clip(
        np.round(0.3 + 0.25 * (truths == 0) + 0.2 * draw_from.normal(size=120), 2), 0, 1
    )
    answers = [{0: float(s), 1: float(1 - s)} for s in scores]
    facts = make_results(tmp_path, ["yes", "no"], truths.tolist(), answers)
    result = binary_result(facts, "yes")
    positive = truths == 0
    found = {choice.criterion: choice for choice in result.choices}

    def outcome(threshold):
        called = scores >= threshold
        return {
            "recall": called[positive].mean(), "false_positive_rate": called[~positive].mean(),
            "accuracy": (called == positive).mean(),
            "precision": positive[called].mean() if called.any() else 1.0,
        }  # fmt: skip

    everywhere = [outcome(threshold) for threshold in np.unique(scores)]
    for choice in result.choices:
        rates = outcome(choice.threshold)
        assert rates == pytest.approx({name: getattr(choice, name) for name in rates})
    assert found["highest accuracy"].accuracy == max(o["accuracy"] for o in everywhere)
    few_positives = found["false positive rate at most 5%"]
    rate = "false_positive_rate"
    assert few_positives.false_positive_rate <= 0.05
    assert few_positives.recall == max(o["recall"] for o in everywhere if o[rate] <= 0.05)
    high_recall = found["recall at least 95%"]
    assert high_recall.recall >= 0.95
    least = min(o[rate] for o in everywhere if o["recall"] >= 0.95)
    assert high_recall.false_positive_rate == least
    f1 = found["highest F1"]
    assert 2 * f1.precision * f1.recall / (f1.precision + f1.recall) == pytest.approx(
        thresholds_of(positive, scores).f1.max()
    )


def test_a_threshold_that_is_typed_in_gives_the_rates_beside_it(tmp_path):
    """Scores of a sure network, which three decimals do not tell apart."""
    draw_from = np.random.default_rng(3)
    scores = 1 - 1e-4 * draw_from.random(120)
    truths = draw_from.integers(0, 2, 120)
    answers = [{0: float(s), 1: float(1 - s)} for s in scores]
    facts = make_results(tmp_path, ["yes", "no"], truths.tolist(), answers)
    for choice in binary_result(facts, "yes").choices:
        called = scores >= float(choice.shown)
        assert called[truths == 0].mean() == pytest.approx(choice.recall)
        assert called[truths == 1].mean() == pytest.approx(choice.false_positive_rate)
        assert len(choice.shown) < 12


@pytest.mark.parametrize(
    ("bias", "words"),
    [(0.0, "no miscalibration can be seen"), (0.3, "overconfident"), (-0.3, "underconfident")],
)
def test_calibration_is_judged_by_the_interval_of_the_accuracy(tmp_path, bias, words):
    draw_from = np.random.default_rng(1)
    shown = draw_from.uniform(0.5, 0.95, 200)
    is_right = draw_from.random(200) < np.clip(shown - bias, 0, 1)
    truths = draw_from.integers(0, 2, 200)
    answers = [
        {int(t if right else 1 - t): float(s), int(1 - t if right else t): float(1 - s)}
        for t, right, s in zip(truths, is_right, shown, strict=True)
    ]
    make_results(tmp_path, ["a", "b"], truths.tolist(), answers)
    text = page_of(tmp_path).text
    assert words in text
    assert "Scores that are exactly right would have 0.0" in text


def test_a_page_with_a_log_of_times_only_and_a_row_cut_short(tmp_path):
    random_results(tmp_path, ["a", "b"], 30)
    (tmp_path / "time.log").write_text(
        "epoch\ttrain\twaiting\tvalidation\tclips_per_second\n1\t8.0\t2.0\t1.0\t5.0\n"
        "2\t2.0\t1.0\t1.0\t10.0\n3\t8.0\n"
    )
    text = page_of(tmp_path).text
    assert "Not shown: the logs contain no epochs" in text
    assert "nan" not in text
    assert "30.0% of the training time" in text


def test_the_rarer_class_is_the_positive_one(tmp_path):
    facts = make_results(tmp_path, ["a", "b"], [0, 0, 1], [{0: 0.7, 1: 0.3}] * 3)
    assert binary_result(facts, None).positive == "b"
    assert binary_result(facts, "a").positive == "a"


def test_logs_with_short_rows_or_missing_columns(tmp_path):
    path = tmp_path / "val.log"
    assert read_log(path) is None
    path.write_text("epoch\tloss\tacc\tvideo_acc\n")
    assert read_log(path) is None
    path.write_text("epoch\tloss\tacc\tvideo_acc\n1\t0.5\t0.5\t\n2\t0.4\n1\t0.6\t0.5\t0.5\n")
    table = read_log(path)
    assert table["epoch"].tolist() == [1, 2]
    assert table["loss"].tolist() == [0.6, 0.4]
    assert np.isnan(table["video_acc"]).tolist() == [False, True]


def test_charts_use_the_colours_of_the_page():
    chart = draw("x", 'a "quoted" <text>', lambda axes: axes.set(title="of $money$"))
    assert "currentColor" in chart.svg
    assert "of $money$" in chart.svg
    assert not re.findall(r"#0[01]0[0-9a-f]{3}", chart.svg)
    assert 'aria-label="a &quot;quoted&quot; &lt;text>"' in chart.svg


def test_an_activitynet_index_is_accepted(tmp_path):
    from datasets.activitynet import read_any_index
    from utils.files import write_json

    taxonomy = [{"nodeName": "Root", "parentName": None}] + [
        {"nodeName": name, "parentName": "Root"} for name in ("Jump", "Run")
    ]
    part = {"label": "Run", "segment": [0.0, 2.0]}
    entry = {"subset": "validation", "fps": 25.0, "annotations": [part]}
    write_json(tmp_path / "index.json", {"taxonomy": taxonomy, "database": {"v": entry}})
    assert read_any_index(tmp_path / "index.json").labels == ("Jump", "Run")
    write_results(tmp_path / "val.json", {"v": [{"label": "Run", "score": 0.8}]})
    assert "100.0%" in page_of(tmp_path).text
