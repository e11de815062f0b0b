"""All the ways in which a command ends while its loader processes run."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from engine.run_training import STOPPING
from tests.commands import ROOT, Command, run_command
from tests.runs import make_dataset, read_results, small_flags, small_run
from tests.videos import draw

RESUMED = ("--resume_path", "trained/save_1.pth", "--no_train")
TUNED = ("--pretrain_path", "trained/save_1.pth", "--ft_begin_module", "fc", "--freeze_bn")
TRAIN = ("--n_threads", "2", "--n_epochs", "1")
UNREADABLE = "no_picture"  # label of videos whose middle can't be read


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset, the checkpoint trained/save_1.pth and a video."""
    root = tmp_path_factory.mktemp("endings")
    make_dataset(root, train=6)
    assert small_run(root, "--n_epochs", "1", result="trained") == 0
    damaged = root / "damaged"
    make_dataset(damaged, train=6, n_frames=20)
    for number in range(6):
        (damaged / f"jpg/b/b_{number}/image_00010.jpg").write_bytes(b"no picture")
    draw(root / "video.avi", seconds=3)
    collected = root / "site/sitecustomize.py"
    collected.parent.mkdir()
    collected.write_text("import gc\n\ngc.disable()\n", encoding="utf-8")
    return root


def environ_of(root):
    return {"PYTHONPATH": f"{root / 'site'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def main_py(root, result, *flags, report=False):
    return ("main.py", *small_flags(root, *flags, result=result, report=report))


def util(name, *arguments):
    return ("-m", f"util_scripts.{name}", *arguments)


def finished(root, arguments, status=0, **how):
    done = run_command(*arguments, environ=environ_of(root), **how)
    assert done.status == status, done.text
    assert "Traceback" not in done.text, done.text
    return done


RUNS = {
    "tensorboard": (*TRAIN, "--tensorboard", "--inference"),
    "validation": (*RESUMED, "--n_threads", "2", "--inference"),
    "cached": (*TRAIN, *TUNED, "--cache_features", "2"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_succeeds(root, name):
    finished(root, main_py(root, f"res_{name}", *RUNS[name]))


def test_a_run_that_ends_with_a_report(root):
    flags = (*TRAIN, "--model_depth", "50", "--inference", "--inference_batch_size", "1")
    finished(root, main_py(root, "res_report", *flags, report=True))
    assert (root / "res_report/report.html").exists()


def test_extract_features(root):
    places = (root / "index.json", root / "jpg", root / "features.npz")
    flags = ("--checkpoint", root / "trained/save_1.pth", "--no_cuda", "--n_threads", "2")
    finished(root, util("extract_features", *places, *flags))


def test_predict_video(root):
    flags = ("--checkpoint", root / "trained/save_1.pth", "--no_cuda")
    finished(root, util("predict_video", root / "video.avi", *flags))


def test_a_run_that_diverges(root):
    flags = (*TRAIN, "--n_epochs", "9", "--learning_rate", "1e30")
    done = finished(root, main_py(root, "res_nan", *flags), 2)
    assert "the loss is" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_run_with_unreadable_frames(root):
    flags = (*TRAIN, "--sample_duration", "20")
    done = finished(root, main_py(root / "damaged", "res", *flags), 2)
    assert "image_00010.jpg: not a JPEG" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def has_rows(root, result, n_rows=3):
    """Whether a run has trained some batches, so that its loader processes are working."""
    log = root / result / "train_batch.log"
    return lambda: log.exists() and len(log.read_text(encoding="utf-8").splitlines()) > n_rows


def endless(root, result, *flags, **how):
    """A run that never ends by itself."""
    many = ("--n_threads", "2", "--n_epochs", "100000", "--checkpoint", "100000", *flags)
    return Command(*main_py(root, result, *many), environ=environ_of(root), **how)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_all_processes_saves(root, number):
    """A batch system sends SIGTERM, a closed terminal SIGHUP."""
    result = f"res_{number.name}"
    with endless(root, result, "--accumulate", "2") as command:
        command.wait_until(has_rows(root, result))
        os.killpg(command.process.pid, number)
        done = command.finish()
    assert done.status == 128 + number, done.text
    assert "Traceback" not in done.text, done.text
    assert "and saved in" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (root / result / "last.pth").exists()


def press_ctrl_c(command, gap):
    """Send SIGINT to a command every `gap` seconds until it has ended."""
    while command.process.poll() is None:
        command.process.send_signal(signal.SIGINT)
        time.sleep(gap)


@pytest.mark.parametrize("gap", [0.01, 0.1])
def test_ctrl_c_until_the_run_ends(root, gap):
    result = f"res_{gap}"
    with endless(root, result) as command:
        command.wait_until(has_rows(root, result))
        press_ctrl_c(command, gap)
        done = command.finish()
    assert done.status == 130, done.text
    assert "Traceback" not in done.text, done.text
    notice, last = done.stderr.splitlines()
    assert notice == STOPPING
    assert re.search(r"saved in|nothing had been saved yet", last)


def test_nohup(root):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with endless(root, "res_nohup", before=ignore) as command:
        command.wait_until(has_rows(root, "res_nohup"))
        os.killpg(command.process.pid, signal.SIGHUP)
        n_rows = len((root / "res_nohup/train_batch.log").read_text().splitlines())
        command.wait_until(has_rows(root, "res_nohup", n_rows + 3))
        command.process.terminate()
        assert command.finish().status == 128 + signal.SIGTERM


def test_killed_worker_ends_the_run_with_one_line(root):
    with endless(root, "res_killed") as command:
        command.wait_until(has_rows(root, "res_killed"))
        os.kill(command.processes()[0], signal.SIGKILL)
        done = command.finish()
    assert done.status == 2, done.text
    assert "Traceback" not in done.text, done.text
    assert "was killed by SIGKILL: probably out of memory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def with_little_shared_memory(size, arguments):
    """Run a command with a /dev/shm of `size`, as in a container."""
    mounting = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", mounting, "sh", "true"]).returncode:
        pytest.skip("a /dev/shm of one's own is root's")
    return ("-m", "sh", "-c", mounting, "sh", sys.executable, *arguments)


def test_batches_larger_than_shared_memory(root):
    """Four batches of 3 MiB in flight, with 1 MiB of shared memory."""
    flags = ("--batch_size", "16", "--sample_size", "64", "--sample_duration", "16")
    arguments = main_py(root, "res_shm", *TRAIN, *flags, "--n_val_samples", "8", "--inference")
    finished(root, with_little_shared_memory("1m", arguments), program="unshare")
    assert len(read_results(root / "res_shm")) == 4


def test_no_shared_memory_at_all(root):
    arguments = with_little_shared_memory("4k", main_py(root, "res_none", *TRAIN))
    done = finished(root, arguments, 2, program="unshare")
    assert "loader processes can't be started: No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def limit_files(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised():
    code = (
        "import resource; from utils.program import run_program;"
        "run_program(lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE)))"
    )
    done = run_command("-c", code, before=limit_files(64, 1024))
    assert done.stdout == "(1024, 1024)\n", done.text


def test_few_open_files(root):
    arguments = main_py(root, "res_files", *TRAIN)
    done = finished(root, arguments, before=limit_files(100, 100))
    assert "0 loader processes instead of 2: the limit of 100 open files" in done.stdout
