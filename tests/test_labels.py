"""Class names with special meaning in matplotlib, Markdown, HTML, terminals or file formats: every
command reads and writes them literally."""

import csv
import html
import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.checkpoint import load_checkpoint
from engine.tensorboard import confusion_figure, pixels_of
from tests.commands import run_command, run_util
from tests.runs import make_frames, small_flags
from tests.videos import draw
from utils import plotting
from utils.plotting import Font, fonts_for, literal_text, tick_names

NASTY = [
    "win $$ now", "$x$", r"a\frac{1}", "x_{1}^2", "100%", "%s %d", "{{7*7}}", "{% if %}", "R&D",
    "<b>bold</b>", "</script>", '"quoted" \'twice\'', "*a* [b](c)", "|a|b|", "# 1", "`code`",
    "a,b;c", "two\nlines", "a\ttab", "line\r\nend", "\x1b[31mred", "bell\x07", "\u202eleft",
    "שלום", "打架", "🤼", "é", "caf\udce9", "  spaces  ", "-dash", "_under", "x" * 300,
]  # fmt: skip
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one class per name: training, TensorBoard, inference, report."""
    root = tmp_path_factory.mktemp("labels")
    database = {}
    for number, label in enumerate(NASTY):
        for subset in ("training", "validation"):
            video = f"{subset}{number}"
            make_frames(root / "jpg" / video, 9, seed=number)
            annotation = {"label": label, "segment": [1, 10]}
            entry = {"subset": subset, "annotations": annotation, "video_path": video}
            database[video] = entry
    index = json.dumps({"labels": NASTY, "database": database})
    (root / "index.json").write_text(index, encoding="ascii")
    flags = ["--n_classes", str(len(NASTY)), "--batch_size", "32", "--n_epochs", "1"]
    flags += ["--tensorboard", "--inference", "--class_weights", "balanced", "--output_topk", "0"]
    finished = run_command("main.py", *small_flags(root, *flags, report=True))
    assert finished.status == 0, finished.text
    return root, finished


def test_run_has_no_warnings(run):
    root, finished = run
    assert "report: " in finished.text
    assert "Warning" not in finished.text
    assert "left out" not in finished.text
    assert not CONTROLS.search(finished.text)
    results = json.loads((root / "res/val.json").read_text(encoding="utf-8"))["results"]
    assert {entry["label"] for entries in results.values() for entry in entries} == set(NASTY)
    assert list(load_checkpoint(root / "res/best.pth").class_names or ()) == NASTY


def test_tensorboard_text_is_not_markup(run):
    root, _ = run
    events = EventAccumulator(str(root / "res"), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert len(events.Images("val/confusion")) == 1
    [event] = events.Tensors("val/classes/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert len(lines) == len(NASTY)
    assert all(line.startswith("    ") for line in lines)  # code
    assert lines[0] == "    1. win $$ now"


class Texts(HTMLParser):
    """Collects the texts and tags of a page."""

    def __init__(self):
        super().__init__()
        self.texts, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, text):
        self.texts.append(text.strip())


def test_report_shows_names_literally(run):
    root, _ = run
    page = (root / "res/report.html").read_text(encoding="utf-8")
    assert not CONTROLS.search(page)
    parser = Texts()
    parser.feed(page)
    for label in NASTY:
        if label.isprintable():
            assert any(label.strip() in text for text in parser.texts), label
    assert html.escape("<b>bold</b>") in page
    assert "<b>bold</b>" not in page
    assert r"two\nlines" in page
    assert r"\x1b[31mred" in page
    assert r"\u202eleft" in page


@pytest.mark.parametrize("name", ["eval_accuracy", "compare", "check_dataset", "extract_features"])
def test_scripts_print_one_line_per_name(run, tmp_path, name):
    root, _ = run
    index, results = root / "index.json", root / "res/val.json"
    arguments = {
        "eval_accuracy": [index, results],
        "compare": [index, results, root / "other.json", "--classes", "99"],
        "check_dataset": [index, root / "jpg"],
        "extract_features": [
            index, root / "jpg", tmp_path / "f.npz", "--checkpoint", root / "res/best.pth",
            "--no_cuda",
        ],
    }  # fmt: skip
    content = json.loads(results.read_text(encoding="utf-8"))
    for number, video in enumerate(sorted(content["results"])):
        content["results"][video] = [{"label": NASTY[number], "score": 1.0}]
    (root / "other.json").write_text(json.dumps(content), encoding="ascii")
    finished = run_util(name, *arguments[name])
    assert finished.status in (0, 1), finished.text  # check_dataset has findings
    assert not CONTROLS.search(finished.text)
    if name == "extract_features":
        assert np.load(tmp_path / "f.npz")["label_names"].tolist() == NASTY


def test_export_and_prediction_keep_names(run, tmp_path):
    root, _ = run
    model = ["--checkpoint", root / "res/best.pth", "--no_cuda"]
    export = [*model, "--onnx", tmp_path / "m.onnx"]
    finished = run_util("export_model", *export)
    assert finished.status == 0, finished.text
    [about] = onnx.load(tmp_path / "m.onnx").metadata_props
    assert json.loads(about.value)["class_names"] == NASTY
    draw(tmp_path / "a.avi")
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv"]
    files += ["--overlay", tmp_path / "o.avi", "--topk", "0"]
    finished = run_util("predict_video", tmp_path / "a.avi", *model, *files)
    assert finished.status == 0, finished.text
    assert not CONTROLS.search(finished.text)
    assert len(finished.stdout.splitlines()) >= len(NASTY) + 2
    content = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert content["labels"] == NASTY
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))[5:]
    assert header == [name.replace("\udce9", r"\udce9") for name in NASTY]


def test_the_confusion_matrix_is_drawn_literally():
    labels = ["win $$ now", "$x$", "a\nb", "x" * 300]
    with warnings.catch_warnings(), literal_text():
        warnings.simplefilter("error")
        figure = confusion_figure(np.eye(4, dtype=int), labels)
        pixels_of(figure)
    [axes] = figure.axes
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown[:3] == ["win $$ now", "$x$", r"'a\nb'"]
    assert len(shown[3]) <= 30
    assert not any(text.get_parse_math() for text in axes.get_xticklabels())


def test_undrawable_names_become_numbers(monkeypatch):
    """No boxes and no warnings; the text beside the plot has the names."""
    labels = ["打架", "正常", "calm"]
    monkeypatch.setattr(plotting, "_installed", lambda: [])
    with warnings.catch_warnings(), literal_text():
        warnings.simplefilter("error")
        figure = confusion_figure(np.eye(3, dtype=int), labels)
        pixels_of(figure)
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "2", "3"]
    assert "val/classes" in axes.get_xlabel()


def test_font_is_chosen_by_its_characters(monkeypatch):
    fonts = {"few": "打", "many": "打架", "box": "正"}
    monkeypatch.setattr(plotting, "_installed", lambda: [Font(name, name) for name in fonts])
    usual = plotting._characters
    monkeypatch.setattr(
        plotting,
        "_characters",
        lambda path: frozenset(map(ord, fonts[path])) if path in fonts else usual(path),
    )
    assert [font.family for font in fonts_for(["打架", "a"])] == ["sans-serif", "many"]
    assert [font.family for font in fonts_for(["打架正"])] == ["sans-serif", "many", "box"]
    assert fonts_for(["常"]) is None
    assert plotting.font_for(["打架"]) == Font("many", "many")
    assert plotting.font_for(["打架a"]) is None
    assert plotting.font_for(["abc é"]).family == "sans-serif"


def test_last_resort_font_is_never_chosen():
    """matplotlib ships a font that has a box for every character."""
    assert fonts_for(["\U0010ffff"]) is None


def test_names_of_ticks_are_short_lines():
    assert tick_names(["a", "b\tc"]) == ["a", r"'b\tc'"]
    assert max(map(len, tick_names(["x" * 31, "y" * 5000]))) == plotting.LONGEST_TICK
