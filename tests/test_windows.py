"""Plain use where the system is Windows, as far as another system can show it: see
tests/windows/sitecustomize.py."""

import pickle

import pytest

from datasets.build import build_inference_loader, build_train_loader, build_val_loader
from datasets.index import read_index
from parsing import parse_opts
from tests.commands import ROOT, run_command
from tests.videos import draw

ENVIRON = {"PYTHONPATH": f"{ROOT / 'tests/windows'}:{ROOT}"}
SHOW = """
import signal
from utils import program
print(hasattr(signal, "SIGHUP"), hasattr(program.signal, "SIGHUP"), program.sys.platform)
"""
TINY = ["--annotation_path", "own.json", "--dataset", "folder", "--n_classes", "2", "--no_cuda",
        "--model_depth", "10", "--sample_size", "32", "--sample_duration", "8", "--n_epochs", "1",
        "--batch_size", "2", "--resnet_widen_factor", "0.25"]  # fmt: skip


def run(root, name, *arguments):
    place = [ROOT / "main.py"] if name == "main" else ["-m", f"util_scripts.{name}"]
    finished = run_command(*place, *arguments, cwd=root, environ=ENVIRON)
    assert finished.status == 0, finished.text
    return finished


def test_only_the_program_s_own_modules_see_windows():
    assert run_command("-c", SHOW, environ=ENVIRON).stdout == "True False win32\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos, JPGs of them, and an index that serves both."""
    root = tmp_path_factory.mktemp("windows")
    for number, name in enumerate(("train/a/1", "train/b/2", "val/a/3", "val/b/4")):
        draw(root / f"videos/{name}.avi", seconds=2, rate=8 + number)
    run(root, "generate_video_jpgs", "videos", "jpg", "own")
    run(root, "folder_json", "jpg", "own.json")
    return root


def test_plain_use(root):
    """With a spawned worker at a time, which reads the videos through ffmpeg."""
    flags = ["--video_path", "videos", "--file_type", "video", "--result_path", "res"]
    finished = run(root, "main", *TINY, *flags, "--n_threads", "1", "--inference", "--tensorboard")
    assert "report: " in finished.stdout
    assert "Traceback" not in finished.text
    assert "Warning" not in finished.text
    assert "4 already there" in run(root, "generate_video_jpgs", "videos", "jpg", "own").stdout
    run(root, "generate_video_hdf5", "videos", "hdf5", "own")
    run(root, "check_dataset", "own.json", "jpg")
    model = ["--checkpoint", "res/best.pth", "--no_cuda"]
    run(root, "predict_video", "videos/val/a/3.avi", *model, "--overlay", "o.avi")


@pytest.mark.parametrize("form", ["jpg", "video"])
@pytest.mark.parametrize("build", [build_train_loader, build_val_loader, build_inference_loader])
def test_what_a_spawned_worker_gets_can_be_pickled(root, form, build):
    flags = ["--root_path", str(root), "--video_path", "videos" if form == "video" else "jpg"]
    flags += ["--file_type", form, "--result_path", "r"]
    options = parse_opts([*TINY, *flags, "--n_threads", "0", "--inference"])
    loader = build(options, read_index(options.annotation_path))
    dataset = pickle.loads(pickle.dumps(loader.dataset))
    [key, *_] = next(iter(loader.batches))
    assert dataset[key].clips.equal(loader.dataset[key].clips)
