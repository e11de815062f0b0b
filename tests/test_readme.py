"""The commands of the README, in both languages."""

import re
import shlex

import pytest

from parsing import parse_opts
from tests.commands import ROOT

PAGES = ("README.md", "README.zh.md")


def commands(page):
    """Return the python commands in the code blocks, with continued lines joined."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^    (python .+)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_both_languages_have_the_same_commands():
    assert commands(PAGES[0]) == commands(PAGES[1])
    assert len(commands(PAGES[0])) > 10


RUNS = [words[2:] for words in commands(PAGES[0]) if words[1] == "main.py"]


@pytest.mark.parametrize("flags", RUNS, ids=" ".join)
def test_the_commands_of_main_are_accepted(flags):
    parse_opts(flags)


def test_own_videos_can_be_trained_on_from_scratch():
    fresh = [run for run in map(parse_opts, RUNS) if not run.starts_from_file]
    assert any(run.dataset == "folder" and run.learning_rate <= 0.01 for run in fresh)
