"""Where commands may write, for every output of every command, as found in their parsers."""

import argparse
import importlib
import itertools
import json
import os
import re
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from errors import UserError
from tests.commands import ROOT, run_util
from tests.runs import limit_file_size, make_dataset, small_run
from utils import command_line as cli
from utils.files import atomic_write, back_up
from utils.outputs import ACCURACY, INDEX, Input, Output, check_outputs

COMMANDS = [
    path.stem
    for path in sorted((ROOT / "util_scripts").glob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]
# Arguments that take text but no path.
TEXTS = {
    "dataset",
    "layer",
    "alert",
    "positive",
    "group_by",
    "precision",
    "model",
    "encoding",
    "recipe",
    "weights",
    "names",
    "host",
    "host_name",
}


class Caught(Exception):
    pass


def parser_of(command):
    """Return the parser of a command."""

    def catch(parser, argv=None):
        raise Caught(parser)

    module = importlib.import_module(f"util_scripts.{command}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.Parser, "parse_args", catch)
        with pytest.raises(Caught) as caught:
            module.main([])
    return caught.value.args[0]


PARSERS = {command: parser_of(command) for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_text_names_flags_of_its_command_or_says_whose_they_are(command):
    for action in PARSERS[command]._actions:
        text = action.help or ""
        foreign = {*re.findall(r"--\w+", text)} - {*PARSERS[command]._option_string_actions}
        assert not foreign or "main.py" in text, text


def actions_of(command, kind):
    return [action for action in PARSERS[command]._actions if isinstance(action.type, kind)]


def word_for(action, root):
    """Return a valid value of an argument; for an input, an existing file."""
    if isinstance(action.type, cli.InputPath):
        path = root / f"input_{action.dest}"
        path.write_bytes(b"input of " + action.dest.encode())
        return str(path)
    if isinstance(action.type, cli.OutputPath | cli.OutputFolder):
        return str(root / f"new_{action.dest}")
    return str(next(iter(action.choices))) if action.choices else "1"


def command_line(command, root, given):
    """Make a command line of `given`, {action: value}, and all required arguments."""
    words = {
        action: given.get(action) or word_for(action, root)
        for action in PARSERS[command]._actions
        if action in given or action.required or (not action.option_strings and action.nargs != "?")
    }
    flags = [
        w for a, value in words.items() if a.option_strings for w in (a.option_strings[0], value)
    ]
    return [*(value for a, value in words.items() if not a.option_strings), *flags]


PAIRS = [
    pytest.param(command, output, source, id=f"{command}-{output.dest}-{source.dest}")
    for command in COMMANDS
    for output in actions_of(command, cli.OutputPath)
    for source in actions_of(command, cli.InputPath)
]


def ways_to(path, root):
    """Several paths to one file: absolute, relative, symbolic link, hard link, through a folder."""
    (root / "symbolic").symlink_to(path)
    (root / "hard").hardlink_to(path)
    (root / "folder").symlink_to(root)
    own = (path, Path(os.path.relpath(path)), root / "symbolic", root / "hard")
    return (*own, root / "folder" / path.name, root / "x" / ".." / path.name)


@pytest.mark.parametrize(("command", "output", "source"), PAIRS)
def test_no_output_replaces_an_input(command, output, source, tmp_path):
    path = Path(word_for(source, tmp_path))
    content = path.read_bytes()
    (tmp_path / "x").mkdir()
    for way in ways_to(path, tmp_path):
        argv = command_line(command, tmp_path, {output: str(way), source: str(path)})
        if output.type.in_place == source.dest:
            PARSERS[command].parse_args(argv)  # the command keeps a backup
            continue
        for more in ([], ["--overwrite"]):
            with pytest.raises(UserError, match="is the input"):
                PARSERS[command].parse_args([*argv, *more])
    assert path.read_bytes() == content


OUTPUTS = [
    pytest.param(command, output, id=f"{command}-{output.dest}")
    for command in COMMANDS
    for output in actions_of(command, cli.OutputPath)
]


@pytest.mark.parametrize(("command", "output"), OUTPUTS)
def test_other_files_are_replaced_only_with_overwrite(command, output, tmp_path):
    parse = PARSERS[command].parse_args
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    argv = command_line(command, tmp_path, {output: str(other)})
    with pytest.raises(UserError, match=r"exists, and is not .* written by this program; .*--over"):
        parse(argv)
    assert parse([*argv, "--overwrite"]).overwrite
    other.write_text("")  # empty, so it may be replaced
    parse(argv)
    with pytest.raises(UserError, match="is a folder; give the path of a file"):
        parse(command_line(command, tmp_path, {output: str(tmp_path)}))
    with pytest.raises(UserError, match=r"notes.txt is not a folder"):
        parse(command_line(command, tmp_path, {output: str(other / "a")}))
    parse(command_line(command, tmp_path, {output: "/dev/null"}))


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_must_differ(command, tmp_path):
    for pair in itertools.combinations(actions_of(command, cli.OutputPath), 2):
        argv = command_line(command, tmp_path, {output: str(tmp_path / "one") for output in pair})
        with pytest.raises(UserError, match="is the same file as"):
            PARSERS[command].parse_args(argv)


@pytest.mark.parametrize("command", COMMANDS)
def test_output_folder_must_not_be_a_file(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in actions_of(command, cli.OutputFolder):
        argv = command_line(command, tmp_path, {output: str(tmp_path / "file")})
        with pytest.raises(UserError, match="file: is not a folder"):
            PARSERS[command].parse_args(argv)


@pytest.mark.parametrize(
    ("command", "flags", "is_rewritten"),
    [
        ("check_dataset", ["--fix"], True),
        ("check_dataset", [], False),
        ("add_fps_into_activitynet_json", [], True),
        ("add_fps_into_activitynet_json", ["new.json"], False),
    ],
)
def test_an_input_that_is_rewritten(command, flags, is_rewritten, tmp_path, monkeypatch):
    argv = [*command_line(command, tmp_path, {}), *flags]
    parse = PARSERS[command].parse_args
    parse(argv)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write
    refused = pytest.raises(UserError, match=r"can't be written: .*: Permission denied")
    with refused if is_rewritten else nullcontext():
        parse(argv)


def test_paths_may_begin_with_the_home_but_not_be_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in (cli.INPUT, cli.OUTPUT_FOLDER, cli.OutputPath(INDEX), cli.INPUT_VIDEO):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is empty; the current folder is \."):
            kind("")
        if kind is not cli.INPUT_VIDEO:
            assert kind("~/a") == tmp_path / "a"
    assert tmp_path / "a" in cli.INPUT_VIDEO.files(cli.INPUT_VIDEO("~/a"))
    with pytest.raises(UserError, match="argument jpg_dir: is empty"):
        PARSERS["generate_video_jpgs"].parse_args(["videos", "", "x"])


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 1 / 3, 5e-5, 1.25e-7])
def test_an_accuracy_is_recognised(tmp_path, accuracy):
    assert ACCURACY.is_of(write(tmp_path / "top1.txt", str(accuracy)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_argument_is_an_input_or_an_output(command):
    undeclared = {
        action.dest
        for action in PARSERS[command]._actions
        if action.nargs != 0 and action.type in (None, str, Path) and action.choices is None
    }
    assert undeclared <= TEXTS


@pytest.mark.parametrize(
    ("command", "lists", "made"),
    [
        ("ucf101_json", "trainlist02.txt", "ucf101_02.json"),
        ("hmdb51_json", "wave_test_split3.txt", "hmdb51_3.json"),
        ("make_demo_videos", "", "finetuning/lists/trainlist03.txt"),
        ("report", "", "report.html"),
    ],
)
def test_files_without_an_argument_are_checked(command, lists, made, tmp_path):
    other = tmp_path / "folder" / made
    other.parent.mkdir(parents=True)
    (tmp_path / "folder" / (lists or "empty")).write_text("")
    given = {action: str(tmp_path / "folder") for action in PARSERS[command]._actions[1:4]
             if action.required}  # fmt: skip
    argv = command_line(command, tmp_path, given)
    PARSERS[command].parse_args(argv)
    write(other, "mine")
    with pytest.raises(UserError, match=f"{made}: (exists|lies in the input .*), and is not"):
        PARSERS[command].parse_args(argv)


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def dataset(tmp_path):
    """Write index.json, and val.json with results of its validation videos."""
    index = make_dataset(tmp_path)
    results = {v: [{"label": "a", "score": 1.0}] for v in index["database"]}
    write(tmp_path / "val.json", json.dumps({"results": results}))
    return tmp_path


def test_refused_outputs_end_to_end(dataset):
    """Commands as a user starts them: status 2, one line, nothing changed."""
    before = {path: path.read_bytes() for path in dataset.glob("*.json")}
    index, result = dataset / "index.json", dataset / "val.json"
    for name, arguments in (
        ("compare", (index, result, "--json", index)),
        ("compare", (index, result, "--json", result)),
        ("report", (dataset, "--index", index, "--out", index)),
        ("folder_json", (dataset / "jpg", result)),
        ("add_fps_into_activitynet_json", (dataset, index, result)),
    ):
        done = run_util(name, *arguments)
        assert done.status == 2, (name, done.text)
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
    assert {path: path.read_bytes() for path in dataset.glob("*.json")} == before


def test_commands_run_twice(dataset):
    index, result = dataset / "own.json", dataset / "val.json"
    for name, arguments in (
        ("folder_json", (dataset / "jpg", index)),
        ("eval_accuracy", (dataset / "index.json", result, "--save")),
        ("compare", (dataset / "index.json", result, "--json", dataset / "figures.json")),
    ):
        for _ in range(2):
            done = run_util(name, *arguments)
            assert done.status == 0, done.text


def test_saved_accuracy_does_not_replace_notes(dataset):
    notes = write(dataset / "top1.txt", "mine")
    done = run_util("eval_accuracy", dataset / "index.json", dataset / "val.json", "--save")
    assert (done.status, notes.read_text()) == (2, "mine")
    assert "top1.txt: exists, and is not an accuracy" in done.stderr


@pytest.mark.parametrize("name", ["val.json", "opts.json", "val.run.json", "report.html"])
def test_run_does_not_replace_its_index(tmp_path, name, capsys):
    make_dataset(tmp_path)
    (tmp_path / "res").mkdir()
    index = (tmp_path / "index.json").rename(tmp_path / "res" / name)
    before = index.read_bytes()
    assert small_run(tmp_path, "--inference", "--annotation_path", f"res/{name}", report=True) == 2
    error = capsys.readouterr().err
    assert f"{name}: is the input --annotation_path" in error
    assert len(error.splitlines()) == 1
    assert index.read_bytes() == before
    write(tmp_path / "index.json", before.decode())
    assert small_run(tmp_path, "--inference", report=True) == 2
    assert f"{name}: exists, and is not" in capsys.readouterr().err
    assert index.read_bytes() == before


@pytest.mark.parametrize("name", ["save_1.pth", "save_2.pth", "best.pth", "last.pth"])
def test_run_does_not_replace_its_initial_weights(tmp_path, name, capsys):
    (tmp_path / "res").mkdir()
    path = write(tmp_path / "res" / name, "weights")
    flags = ("--pretrain_path", f"res/{name}", "--checkpoint", "1")
    assert small_run(tmp_path, *flags) == 2
    assert f"{name}: is the input --pretrain_path" in capsys.readouterr().err
    assert path.read_text() == "weights"


def test_devices_and_pipes_are_written_to(tmp_path):
    null = tmp_path / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with atomic_write(null) as part:
        part.write_text("gone")
    assert stat.S_ISCHR(null.stat().st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(pipe) as part:
        part.write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


def test_standard_output_as_a_file(dataset):
    index, result = dataset / "index.json", dataset / "val.json"
    done = run_util("compare", index, result, "--json", "/dev/stdout")
    assert done.status == 0
    text, _, figures = done.stdout.partition('{"runs"')
    assert "A 0.5000" in text
    assert json.loads('{"runs"' + figures)["means"] == [0.5]
    done = run_util("compare", index, result, "--json", "/dev/full")
    assert done.status == 2
    assert done.stderr == "error: /dev/full: can't be written: No space left on device\n"


def test_full_disk_keeps_the_previous_file(tmp_path):
    path = write(tmp_path / "a.json", "earlier")
    message = "a.json: can't be written: File too large; the previous file is unchanged"
    with (
        limit_file_size(100),
        pytest.raises(UserError, match=message),
        atomic_write(path) as part,
    ):
        part.write_bytes(b"x" * 1000)
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    with atomic_write(path) as part:
        part.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    too_long = Output("", tmp_path / ("ä" * 128), INDEX)
    with pytest.raises(UserError, match="File name too long"):
        check_outputs([too_long], [])


def test_two_threads_may_write_one_file(tmp_path):
    path = tmp_path / "a.json"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the last to end
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_link_is_replaced_not_its_target(tmp_path):
    kept, link = write(tmp_path / "save_1.pth", "weights"), tmp_path / "best.pth"
    link.symlink_to(kept.name)
    with atomic_write(link) as part:
        part.write_text("better")
    assert (kept.read_text(), link.read_text()) == ("weights", "better")


def test_backups_are_numbered(tmp_path):
    path = write(tmp_path / "a", "one")
    assert back_up(path).name == "a.bak"
    assert back_up(path).name == "a.bak"  # it exists already
    write(path, "two")
    assert back_up(path).name == "a.bak2"
    (tmp_path / "a.bak3").mkdir()
    (tmp_path / "a.bak4").symlink_to("nowhere")
    write(path, "three")
    assert back_up(path).name == "a.bak5"
    kept = {name: (tmp_path / name).read_text() for name in ("a.bak", "a.bak2", "a.bak5")}
    assert kept == {"a.bak": "one", "a.bak2": "two", "a.bak5": "three"}


def test_file_in_an_input_folder_is_never_replaced(tmp_path):
    clip = write(tmp_path / "clip.mp4", "video")
    own = write(tmp_path / "index.json", '{"labels": [], "database": {}}')
    folder = [Input("", tmp_path)]
    check_outputs([Output("", own, INDEX)], folder)
    with pytest.raises(UserError, match=r"clip.mp4: lies in the input .* and is not an index"):
        check_outputs([Output("", clip, INDEX)], folder, overwrite=True)


def test_fixing_twice_keeps_the_first_backup(dataset):
    index = dataset / "index.json"
    versions = []
    for number in (20, 19):
        versions.append(index.read_bytes())
        for folder in (dataset / "jpg").glob("*/*"):
            (folder / f"image_{number:05d}.jpg").unlink()
        run_util("check_dataset", index, dataset / "jpg", "--fix")
    assert [(dataset / f"index.json.bak{n}").read_bytes() for n in ("", "2")] == versions


def test_assumptions_about_argparse():
    assert any(isinstance(a, argparse._StoreAction) for a in PARSERS["compare"]._actions)
    assert len(PAIRS) > 20
    assert len(OUTPUTS) > 10


def test_a_second_double_dash_is_refused():
    parser = cli.Parser()
    parser.add_argument("file", type=cli.INPUT)
    parser.add_argument("out", nargs="?", type=cli.INPUT)
    with pytest.raises(UserError, match="-- occurs twice"):
        parser.parse_args(["--", "a", "--", "b"])
    assert parser.parse_args(["--", "a", "./--"]).out == Path("--")
