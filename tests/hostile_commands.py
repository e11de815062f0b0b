"""Command lines of all util_scripts with hostile words, for tests/test_fuzz.py."""

import contextlib
import importlib
import io
import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

from errors import UserError
from tests.fuzzing import NASTY_WORDS
from tests.runs import make_dataset, small_run
from tests.videos import draw as draw_video
from utils.command_line import InputPath, InputVideo, OutputFolder, OutputPath, Parser

# Not train_videos: it trains for minutes, and its parts are commands that are tried here.
COMMANDS = sorted(
    path.stem for path in Path("util_scripts").glob("[a-z]*.py") if path.stem != "train_videos"
)
# Neither walk the whole disk nor write to places outside the folder of the test.
WORDS = [word for word in NASTY_WORDS if word not in ("/", "/nonexistent/x", "/dev/zero")]
NOT_DRAWN = {"help", "speed", "markdown"}  # the last two of model_info take half a minute
N_FLAGS = (0, 0, 0, 1, 1, 2)


class Captured(Exception):
    """The parser of a command."""


def parser_of(command):
    def capture(parser, *arguments):
        raise Captured(parser)

    with patch.object(Parser, "parse_known_args", capture):
        try:
            command.main([])
        except Captured as captured:
            return captured.args[0]
    raise AssertionError(f"{command.__name__}: has no Parser")


def make_inputs(folder):
    """Files and folders for every kind of argument; returns {argument: fitting path}."""
    make_dataset(folder, train=2, val=2, n_frames=16)
    assert small_run(folder, "--resnet_widen_factor", "0.1", "--inference") == 0
    video = draw_video(folder / "videos" / "a" / "x.mp4")
    for copy in ("videos/b/y.mp4", "videos/v_x.mp4"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(video, folder / copy)
    lists = folder / "lists"
    lists.mkdir()
    kinetics = "label,youtube_id,time_start,time_end\na,yt,1,11\n"
    for name, text in {
        "classInd.txt": "1 a\n2 b\n", "trainlist01.txt": "a/a_0.avi 1\n",
        "testlist01.txt": "b/b_0.avi\n", "a_test_split1.txt": "a_0.avi 1\na_1.avi 2\n",
        "train.csv": kinetics, "val.csv": kinetics, "moments_categories.txt": "a,0\nb,1\n",
        "list.csv": "path;label\na/a_0.mp4;a\nb/b_0;b\n",
        "trainingSet.csv": "a/a_0.mp4,a\n", "validationSet.csv": "b/b_0.mp4,b\n",
    }.items():  # fmt: skip
        (lists / name).write_text(text)
    (folder / "empty").touch()
    (folder / "empty folder").mkdir()
    (folder / "noise.pth").write_bytes(bytes(range(256)) * 9)
    part = {"label": "a", "segment": [0, 1]}
    untrimmed = {
        "taxonomy": [{"nodeName": "a", "parentName": "Root"}],
        "database": {"x": {"subset": "training", "fps": 25.0, "annotations": [part]}},
    }
    (folder / "untrimmed.json").write_text(json.dumps(untrimmed))
    index, frames, res = folder / "index.json", folder / "jpg", folder / "res"
    return {
        "index": index, "frames_dir": frames, "frames": frames, "jpg_dir": frames,
        "src_json": folder / "untrimmed.json", "video_dir": folder / "videos", "csv_dir": lists,
        "lists_dir": lists, "splits_dir": lists, "checkpoint": res / "save_2.pth",
        "file_path": res / "save_2.pth", "result": res / "val.json", "results": res / "val.json",
        "results_dir": res, "inputs": video, "video": video, "labels": lists / "classInd.txt",
        "n_classes": "700", "file_type": "jpg", "csv": lists / "list.csv", "folds": "2",
    }  # fmt: skip


def value_of(action, draw, fitting, paths):
    """A word for an argument: mostly a fitting one, else nasty, or a path of any kind."""
    is_output = isinstance(action.type, OutputPath | OutputFolder)
    kind = draw.random()
    if is_output:
        return (
            draw.choice(WORDS) if kind < 0.3 else str(Path("out", draw.choice(("new", "x.json"))))
        )
    if kind < 0.6 and action.dest in fitting:
        return str(fitting[action.dest])
    if isinstance(action.type, InputPath | InputVideo) and kind < 0.85:
        return str(draw.choice(paths))
    if action.choices is not None and kind < 0.85:
        return str(draw.choice(list(action.choices)))
    return draw.choice(WORDS)


def words_of(parser, draw, fitting, paths):
    """A command line: all positional arguments, and a few flags."""
    flags = [a for a in parser._actions if a.option_strings and a.dest not in NOT_DRAWN]
    words = []
    required = [flag for flag in flags if flag.required]
    for flag in [*required, *draw.sample(flags, min(len(flags), draw.choice(N_FLAGS)))]:
        words.append(flag.option_strings[-1])
        if flag.nargs != 0:
            words.append(value_of(flag, draw, fitting, paths))
    if "--no_cuda" in parser._option_string_actions:
        words.append("--no_cuda")
    places = [a for a in parser._actions if not a.option_strings and draw.random() < 0.97]
    return [*words, "--", *(value_of(action, draw, fitting, paths) for action in places)]


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def script_command_lines(folder):
    inputs = folder / "in"
    inputs.mkdir()
    fitting = make_inputs(inputs)
    before = content_of(inputs)
    paths = [*inputs.iterdir(), *(inputs / "res").iterdir(), inputs / "jpg" / "a" / "a_0"]
    commands = [importlib.import_module(f"util_scripts.{name}") for name in COMMANDS]
    parsers = {command: parser_of(command) for command in commands}

    # A server ends only with a signal.
    serving_ends = patch("serving.worker.Worker.run", lambda worker: None)

    def attempt(draw):
        command = draw.choice(commands)
        work = folder / "work" / "deep"  # for ".." as an output
        work.mkdir(parents=True)
        here = Path.cwd()
        os.chdir(work)
        words = words_of(parsers[command], draw, fitting, paths)
        try:
            # A program's own standard output takes names that are not UTF-8.
            with contextlib.redirect_stdout(io.StringIO()), serving_ends:
                assert command.main(words) in (0, 1), words
        except UserError as error:
            lines = str(error).splitlines()
            assert lines, words
            assert all(line.strip() for line in lines), words
        except SystemExit as ended:
            assert ended.code == 0, words
        except Exception as error:
            raise AssertionError(f"{command.__name__} {words}") from error
        finally:
            os.chdir(here)
            shutil.rmtree(folder / "work")
            after = content_of(inputs)
            changed = {path for path, data in before.items() if after.get(path) != data}
            for path in changed:  # corrected in place, with a backup
                backup = path.with_name(f"{path.name}.bak")
                assert backup.is_file(), (command, words)
                assert backup.read_bytes() == before[path], (command, words)
            for path in after.keys() - before.keys():
                path.unlink()
            for path in changed:
                path.write_bytes(before[path])

    return attempt
