import json
from pathlib import Path

import pytest

from engine.provenance import VERSION, Provenance, read_provenance, versions
from reporting.facts import read_log

SOUND = {"options": {"model": "resnet", "sample_size": 64}, "epoch": 3, "versions": {"torch": "2"}}


@pytest.mark.parametrize("name", ["val.run.json", "opts.json"])
def test_a_sound_file_is_read(tmp_path, name):
    content = SOUND if name == "val.run.json" else SOUND["options"]
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    assert read_provenance(tmp_path / "val.json").options == SOUND["options"]


@pytest.mark.parametrize("name", ["val.run.json", "opts.json"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"options": {"sample_size": NaN}, "sample_size": NaN}',
        '{"options": {"sample_size": "abc"}, "sample_size": "abc"}',
        '{"options": {"sample_size": 1000000000}, "sample_size": 1000000000}',
        '{"options": {"model": "vgg"}, "model": "vgg"}',
        '{"model": 1, "model": 2}',
        "[" * 10000,
        "9" * 5000,
    ],
)
def test_a_damaged_file_says_nothing_and_that_is_logged(tmp_path, caplog, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_provenance(tmp_path / "val.json") == Provenance()
    assert f"{tmp_path / name}: " in caplog.text
    assert caplog.text.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "epoch", "epoch\tacc\tacc\n1\t0.5\t0.6\n", "a\tb\n1\t2\n", "\0"]
)
def test_a_log_without_columns_of_one_name_each_is_none(tmp_path, text):
    (tmp_path / "val.log").write_text(text, encoding="utf-8")
    assert read_log(tmp_path / "val.log") is None


def test_a_log_with_a_column_too_few_is_filled_up(tmp_path):
    (tmp_path / "val.log").write_text("epoch\tloss\tacc\n1\t0.5\n", encoding="utf-8")
    table = read_log(tmp_path / "val.log")
    assert table["loss"].tolist() == [0.5]
    assert table["acc"][0] != table["acc"][0]


def test_the_version_is_that_of_the_project():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{VERSION}"' in text.splitlines()
    assert versions()["3d-resnets"] == VERSION
