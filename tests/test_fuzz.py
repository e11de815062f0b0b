"""Damaged files and hostile command lines: a result or a one-line error, never a traceback, a hang
or a lost byte. A few hundred cases by default; `make fuzz` runs 20,000 ($FUZZ_CASES)."""

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from random import Random
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch

import main
from datasets.activitynet import UntrimmedIndex, read_any_index, select_parts, select_whole
from datasets.frame_readers import FrameError, Hdf5Videos, JpgFolder, VideoFiles, default_decoder
from datasets.hdf5 import count_hdf5, has_flow
from datasets.index_checks import check_index
from datasets.selection import select_videos
from datasets.video_files import count_video
from engine.checkpoint import load_checkpoint
from engine.run_log import COLUMNS, Resumed, RunLog
from errors import UserError
from evaluation.results import accuracy_of, averaged, describe, read_results
from flags import as_words
from media.manifest import Manifest
from opts import FLAGS, Options
from parsing import parse_opts
from predict.classifier import load_classifier, read_labels
from reporting.facts import read_facts, read_log
from tests import strange_weights
from tests.fuzzing import NASTY_WORDS, damaged_bytes, damaged_json, damaged_value
from tests.hostile_commands import script_command_lines
from tests.playlists import concat, dash, hls, sdp
from tests.runs import make_dataset, make_frames, small_flags, small_run
from tests.videos import draw as draw_video
from util_scripts import hmdb51_json, kinetics_json, mit_json, ucf101_json
from util_scripts.inspect_checkpoint import describe as describe_checkpoint

N_CASES = int(os.environ.get("FUZZ_CASES", "400"))
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 120  # per case, on a loaded machine
LONGEST_LINE = 20_000

TAXONOMY = [
    {"nodeName": "Root", "parentName": None},
    {"nodeName": "a", "parentName": "Root"},
    {"nodeName": "b", "parentName": "Root"},
]


class Hangs(BaseException):
    """Not an Exception, so that the code under test does not catch it."""


@contextlib.contextmanager
def time_limit():
    def stop(number, frame):
        raise Hangs(f"still runs after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def index_files(folder):
    content = make_dataset(folder, train=2, val=1, n_frames=4)
    content["database"]["a_0"]["video_path"] = "a/a_0"
    content["database"]["t"] = {"subset": "testing", "annotations": {}}
    path = folder / "fuzzed.json"

    def attempt(draw):
        path.write_bytes(damaged_json(content, draw))
        index = read_any_index(path)
        if isinstance(index, UntrimmedIndex):
            return
        list(check_index(index))
        select_videos(index, draw.choice(("train", "val", "test")), folder / "jpg")

    return attempt


def activitynet_files(folder):
    make_frames(folder / "jpg" / "v_x", 30)
    part = {"label": "a", "segment": [0.5, 2.5]}
    entry = {"subset": "training", "fps": 10.0, "annotations": [part, part | {"label": "b"}]}
    content = {"taxonomy": TAXONOMY, "database": {"x": entry}}
    path = folder / "fuzzed.json"

    def attempt(draw):
        path.write_bytes(damaged_json(content, draw))
        index = read_any_index(path)
        if isinstance(index, UntrimmedIndex):
            select_whole(index, "train", folder / "jpg")
            select_parts(index, "train", folder / "jpg")

    return attempt


def result_files(folder):
    make_dataset(folder, train=1, val=3, n_frames=2)
    index = read_any_index(folder / "index.json")
    scores = [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]
    window = {"segment": [1, 9], "result": scores}
    forms = ({"a_1": scores, "b_1": scores[::-1], "x": []}, {"a_1": [window, window], "b_1": []})
    path = folder / "fuzzed.json"

    def attempt(draw):
        path.write_bytes(damaged_json({"results": draw.choice(forms)}, draw))
        results = read_results(path)
        for entries in results.values():
            averaged(entries)
        describe(accuracy_of(index, results, "val"))

    return attempt


def files_beside_results(folder):
    """{subset}.run.json, opts.json and logs, without which a report is still written."""
    make_dataset(folder, train=2, val=2, n_frames=16)
    assert small_run(folder, "--inference") == 0
    sound = {
        path.name: path.read_bytes()
        for path in (folder / "res").iterdir()
        if path.name == "opts.json" or path.suffix == ".log" or path.name.endswith(".run.json")
    }

    def attempt(draw):
        name = draw.choice(sorted(sound))
        path = folder / "res" / name
        if path.suffix == ".json":
            path.write_bytes(damaged_json(json.loads(sound[name]), draw))
            if name == "opts.json":
                (folder / "res" / "val.run.json").unlink(missing_ok=True)
        else:
            path.write_bytes(damaged_bytes(sound[name], draw))
            read_log(path)
        try:
            read_facts(folder / "res", "val")
        finally:
            for other, data in sound.items():
                (folder / "res" / other).write_bytes(data)

    return attempt


def logs_on_resume(folder):
    rows = {name: dict.fromkeys(columns, 1) for name, columns in COLUMNS.items()}
    for epoch in (1, 2):
        log = RunLog(folder, options={}, start=Resumed(epoch, 0, folder / "last.pth"))
        for name, row in rows.items():
            log.write(name, row | {"epoch": epoch})
    sound = {name: (folder / f"{name}.log").read_bytes() for name in COLUMNS}

    def attempt(draw):
        name = draw.choice(sorted(COLUMNS))
        path = folder / f"{name}.log"
        path.write_bytes(damaged_bytes(sound[name], draw))
        log = RunLog(folder, options={}, start=Resumed(2, 1, folder / "last.pth"))
        log.write(name, rows[name] | {"epoch": 2})
        assert path.read_text(encoding="utf-8").startswith("\t".join(COLUMNS[name]))

    return attempt


def recipes(folder):
    """Text files, and the opts.json of a run."""
    paths = ["--video_path", "v", "--annotation_path", "a", "--result_path", "r"]
    values = {n: f.default for n, f in FLAGS.items() if f.default and not f.is_path}
    text = "".join(f"{shlex.join(as_words(name, value))}\n" for name, value in values.items())
    saved = Options().as_plain()

    def attempt(draw):
        path = folder / draw.choice(["own.txt", "opts.json"])
        if path.suffix == ".json":
            path.write_bytes(damaged_json(saved, draw))
        else:
            path.write_bytes(damaged_bytes(text.encode(), draw))
        parse_opts([*paths, "--recipe", str(path)])

    return attempt


def manifests(folder):
    row = {
        "source": "a/x.mp4", "n_bytes": 10, "mtime_ns": 10**18, "status": "done", "reason": "",
        "arguments": {"size": 240, "fps": None, "quality": None, "interpolate": False},
        "complaint": "", "frames": 3, "width": 320, "height": 240, "rate": 25.0, "seconds": 1.0,
        "ffmpeg": "9", "time": 1.7e9,
    }  # fmt: skip

    def attempt(draw):
        line = damaged_json(row, draw).replace(b"\n", b" ")
        sound = json.dumps(row).encode()
        (folder / "manifest.jsonl").write_bytes(line + b"\n" + sound + b"\n")
        with Manifest(folder) as manifest:
            assert manifest.previous("a/x.mp4").frames in (3, 0) or line

    return attempt


def video_lists(folder):
    """The lists of the four datasets, read by their commands."""
    for label in ("a", "b", "test"):
        for video in ("v1", "v2", "yt_000001_000011"):
            make_frames(folder / "jpg" / label / video, 2)
    kinetics = b"label,youtube_id,time_start,time_end,split\na,yt,1,11,train\nb,v,2,12,train\n"
    ucf = b"a/v1.avi 1\r\nb/v1.avi 2\r\n"
    sound = {
        (ucf101_json, "l", "j", "d"): {
            "classInd.txt": b"1 a\n2 b\n", "trainlist01.txt": ucf, "testlist01.txt": b"a/v2.avi\n",
        },
        (hmdb51_json, "l", "j", "d"): {
            "a_test_split1.txt": b"v1.avi 1 \nv2.avi 2 \n", "b_test_split1.txt": b"v1.avi 1 \n",
        },
        (kinetics_json, "l", "700", "j", "jpg", "d.json"): {
            "kinetics-700_train.csv": kinetics, "kinetics-700_val.csv": kinetics,
            "kinetics-700_test.csv": kinetics,
        },
        (mit_json, "l", "j", "d.json"): {
            "moments_categories.txt": b"a,0\nb,1\n", "trainingSet.csv": b"a/v1.mp4,a,3\n",
            "validationSet.csv": b"b/v2.mp4,b,3\n", "testingSet.csv": b"v1.mp4\n",
        },
    }  # fmt: skip
    names = {"l": folder / "l", "j": folder / "jpg", "d": folder / "d", "d.json": folder / "d.json"}

    def attempt(draw):
        key = draw.choice(list(sound))
        script, *arguments = key
        shutil.rmtree(folder / "l", ignore_errors=True)
        (folder / "l").mkdir()
        files = sound[key]
        damaged = draw.choice(list(files))
        for name, data in files.items():
            data = damaged_bytes(data, draw) if name == damaged else data
            (folder / "l" / name).write_bytes(data)
        script.main([str(names.get(argument, argument)) for argument in arguments])

    return attempt


def label_lists(folder):
    path = folder / "labels.txt"

    def attempt(draw):
        path.write_bytes(damaged_bytes(b"1 ApplyEyeMakeup\n2 Archery\n3 b c\n", draw))
        read_labels(path)

    return attempt


def checkpoint_bytes(folder):
    make_dataset(folder, train=2, val=1, n_frames=16)
    assert small_run(folder, "--resnet_widen_factor", "0.1") == 0
    sound = (folder / "res" / "save_2.pth").read_bytes()
    path = folder / "c.pth"

    def attempt(draw):
        path.write_bytes(damaged_bytes(sound, draw))
        with patch.dict(os.environ, CHECK_CRC=draw.choice("01")):
            load_classifier(path, flags={"no_cuda": True, "precision": "fp32"})

    return attempt


def checkpoint_contents(folder):
    make_dataset(folder, train=2, val=1, n_frames=16)
    assert small_run(folder, "--resnet_widen_factor", "0.1") == 0
    sound = torch.load(folder / "res" / "save_2.pth", weights_only=True)
    path = folder / "c.pth"

    def attempt(draw):
        content = dict(sound)
        for _ in range(draw.randint(1, 3)):
            key = draw.choice([*content, "position", "position"])
            content[key] = damaged_value(content.get(key), draw)
        try:
            torch.save(content, path)
        except (OverflowError, UnicodeError, ValueError):  # can't be written
            return
        checkpoint = load_checkpoint(path)
        list(describe_checkpoint(checkpoint))
        load_classifier(path, flags={"no_cuda": True, "precision": "fp32"})

    return attempt


def checkpoint_weights(folder):
    sound = {family: strange_weights.base(family) for family in ("resnet", "resnet2p1d")}
    path = folder / "c.pth"

    def attempt(draw):
        weights = strange_weights.mutate(sound[draw.choice(sorted(sound))], draw)
        try:
            torch.save({"state_dict": weights}, path)
        except UnicodeError:  # the name can't be written
            return
        list(describe_checkpoint(load_checkpoint(path)))
        load_classifier(path, flags={"no_cuda": True, "precision": "fp32"})

    return attempt


def hdf5_files(folder):
    picture = (make_frames(folder / "jpg", 3) and folder / "jpg" / "image_00001.jpg").read_bytes()
    path = folder / "x.hdf5"
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("video", (3,), h5py.vlen_dtype(np.uint8))
        for number in range(3):
            frames[number] = np.frombuffer(picture, np.uint8)
    sound = path.read_bytes()
    source = Hdf5Videos(default_decoder())

    def attempt(draw):
        path.write_bytes(damaged_bytes(sound, draw))
        count_hdf5(path)
        has_flow(path)
        source.read(path, [0, 2])

    return attempt


def frames(folder):
    make_frames(folder, 1)
    path = folder / "image_00001.jpg"
    sound = path.read_bytes()
    source = JpgFolder(default_decoder())

    def attempt(draw):
        path.write_bytes(damaged_bytes(sound, draw))
        source.read(folder, [1])

    return attempt


def videos(folder):
    """Containers and playlists; following a playlist would give the frames of other.mkv."""
    coders = {"mp4": "libx264", "ts": "libx264", "avi": "mpeg4", "flv": "flv", "gif": "gif"}
    sound = {
        suffix: draw_video(folder / f"sound.{suffix}", extra=["-c:v", coder]).read_bytes()
        for suffix, coder in coders.items()
    }
    other = draw_video(folder / "other.mkv", seconds=5)
    playlists = [hls, concat, dash, sdp]
    source = VideoFiles(default_decoder())

    def attempt(draw):
        path = folder / f"a.{draw.choice([*sound, 'm3u8', 'mpd', 'txt'])}"
        if is_playlist := draw.random() < 0.3:
            data = draw.choice(playlists)(draw.choice([other.name, f"file:{other}"])).encode(
                "latin-1"
            )
        else:
            data = sound[draw.choice(list(sound))]
        path.write_bytes(damaged_bytes(data, draw))
        n_frames = count_video(path)
        assert not is_playlist, path.read_bytes()
        source.read(path, [1, n_frames])

    return attempt


def command_lines(folder):
    """Flags of main.py with hostile values: an error, or a run that does not touch its inputs."""
    make_dataset(folder, train=2, val=1, n_frames=16)
    assert small_run(folder, "--resnet_widen_factor", "0.1", result="pretrained") == 0
    keep = {"root_path", "dist_url", "distributed", "world_size", "compile", "accimage", "profile"}
    names = [name for name in FLAGS if name not in keep]
    inputs = sorted(path for path in folder.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in inputs}
    small = ("--resnet_widen_factor", "0.1", "--n_epochs", "1")

    def attempt(draw):
        words = []
        for name in draw.sample(names, draw.randint(1, 2)):
            words.append(f"--{name}")
            if not isinstance(FLAGS[name].default, bool):
                words.append(draw.choice(NASTY_WORDS))
        try:
            status = main.main([*small_flags(folder, *small), *words])
            assert status in (0, 2), words
        except MemoryError as error:
            raise AssertionError(f"{words}: {error!r}") from error
        finally:
            shutil.rmtree(folder / "res", ignore_errors=True)
            assert {path: path.read_bytes() for path in inputs} == before, words

    return attempt


# Shares of the cases, by cost.
TARGETS = {
    index_files: 5,
    activitynet_files: 4,
    result_files: 5,
    files_beside_results: 4,
    logs_on_resume: 3,
    recipes: 3,
    manifests: 4,
    video_lists: 3,
    label_lists: 2,
    checkpoint_bytes: 2,
    checkpoint_contents: 2,
    checkpoint_weights: 2,
    hdf5_files: 3,
    frames: 3,
    videos: 1,
    command_lines: 1,
    script_command_lines: 2,
}


# torch warns about features that may still change.
@pytest.mark.filterwarnings("ignore:Sparse CSR|torch.quantize|The PyTorch API of nested")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_damage_gives_one_line(tmp_path, target, capsys):
    attempt = target(tmp_path)
    share = max(1, N_CASES * TARGETS[target] // sum(TARGETS.values()))
    for seed in range(FIRST_SEED, FIRST_SEED + share):
        try:
            with time_limit(), contextlib.redirect_stderr(io.StringIO()):
                attempt(Random(seed))
        except (UserError, FrameError) as error:
            text = str(error)
            lines = text.splitlines() or [""]
            assert text, f"seed {seed}"
            assert len(text) < LONGEST_LINE, f"seed {seed}: {text[:300]!r}"
            is_flags = all(line.startswith("--") for line in lines)  # a line for each fault
            is_one = len(lines) == text.count("\nno") + 1
            assert is_one or is_flags, f"seed {seed}: {text[:300]!r}"
        except BaseException as error:
            raise AssertionError(f"FUZZ_SEED={seed} for {target.__name__}") from error
    assert not list(Path(tmp_path).glob(".*.tmp"))
