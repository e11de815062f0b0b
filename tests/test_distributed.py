"""Two gloo processes against one, and what happens when one of them dies."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from errors import UserError
from runtime.distributed import ALONE, World, find_launcher
from tests.runs import make_dataset, read_table

ROOT = Path(__file__).parent.parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
LONGEST = 200  # seconds; a hang ends the test
FLAGS = (
    "--video_path", "jpg", "--annotation_path", "index.json", "--dataset", "folder",
    "--n_classes", "2", "--model_depth", "10", "--resnet_widen_factor", "0.25",
    "--sample_size", "32", "--sample_duration", "8", "--batch_size", "4", "--n_epochs", "3",
    "--no_cuda", "--n_threads", "0", "--precision", "fp32", "--learning_rate", "0.01",
    "--freeze_bn", "--inference", "--no_report",
)  # fmt: skip


def start(root, result, *flags, launcher=(), **environ):
    command = [*(launcher or (sys.executable,)), str(ROOT / "main.py")]
    arguments = ["--root_path", str(root), "--result_path", result, *FLAGS, *flags]
    return subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, status=0):
    told, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == status, told
    return told


def assert_same_run(one, two):
    weights, others = (
        torch.load(run / "save_3.pth", weights_only=True)["state_dict"] for run in (one, two)
    )
    assert list(weights) == list(others)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=1e-5)
    for name in ("train.log", "train_batch.log", "val.log"):
        rows, other_rows = (read_table((run / name).read_text()) for run in (one, two))
        assert len(rows) == len(other_rows)
        for row, other in zip(rows, other_rows, strict=True):
            assert row == pytest.approx(other, abs=1e-5)
    results, other_results = (
        json.loads((run / "val.json").read_text())["results"] for run in (one, two)
    )
    assert list(results) == list(other_results)
    for video, entries in results.items():
        for entry, other in zip(entries, other_results[video], strict=True):
            assert entry["label"] == other["label"]
            assert entry["score"] == pytest.approx(other["score"], abs=1e-5)


def test_two_processes_compute_what_one_does(tmp_path):
    """12 steps; the last batch of an epoch leaves one process without a clip."""
    make_dataset(tmp_path, train=7, val=2, labels=("a", "b"))
    index = json.loads((tmp_path / "index.json").read_text())
    del index["database"]["b_0"]  # 13 training videos: batches of 4, 4, 4 and 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    alone = start(tmp_path, "one")
    together = start(tmp_path, "two", launcher=TORCHRUN)
    finish(alone)
    told = finish(together)
    assert told.count("video top-1") == 1 and "2 processes" in told
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_slurm_s_variables_and_a_meeting_place_are_enough(tmp_path):
    make_dataset(tmp_path, train=4, val=1)
    url = f"file://{tmp_path}/meet"  # free of ports that another test may take
    processes = [
        start(
            tmp_path, "res", "--distributed", "--dist_url", url, "--n_epochs", "1",
            SLURM_PROCID=str(rank), SLURM_NTASKS="2", SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]  # fmt: skip
    first, second = (finish(process) for process in processes)
    assert "video top-1" in first and "video top-1" not in second
    assert (tmp_path / "res/save_1.pth").exists()


def test_a_process_that_dies_takes_the_job_down(tmp_path):
    """The second process finds a frame damaged; the first would wait for it for ever."""
    make_dataset(tmp_path, train=20, val=1)
    for number in range(20):
        (tmp_path / f"jpg/b/b_{number}/image_00010.jpg").write_bytes(b"no picture")
    started = time.monotonic()
    job = start(tmp_path, "res", "--sample_duration", "20", launcher=TORCHRUN)
    told, _ = job.communicate(timeout=LONGEST)
    assert job.returncode != 0
    assert "image_00010.jpg: not a JPEG" in told
    assert time.monotonic() - started < LONGEST
    assert not list((tmp_path / "res").glob("*.pth"))


def test_a_signal_saves_and_a_resumed_job_ends_as_one_process_does(tmp_path):
    make_dataset(tmp_path, train=6, val=1)
    finish(start(tmp_path, "whole"))
    job = start(tmp_path, "res", "--checkpoint", "1", launcher=TORCHRUN)
    while not (tmp_path / "res/save_1.pth").exists() and job.poll() is None:
        time.sleep(0.05)
    job.terminate()
    job.communicate(timeout=LONGEST)
    finish(start(tmp_path, "res", "--resume_path", "auto", launcher=TORCHRUN))
    weights, others = (
        torch.load(tmp_path / run / "save_3.pth", weights_only=True)["state_dict"]
        for run in ("whole", "res")
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=1e-5)


def test_without_a_launcher_one_line_says_how_to_start(tmp_path):
    make_dataset(tmp_path, train=1, val=1)
    assert "start with torchrun" in finish(start(tmp_path, "res", "--distributed"), status=2)


def test_synchronised_batch_norm_is_refused_without_a_gpu(tmp_path):
    make_dataset(tmp_path, train=1, val=1)
    told = finish(start(tmp_path, "res", "--distributed", "--batchnorm_sync"), status=2)
    assert "--batchnorm_sync works on GPUs alone" in told


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK": "1"}, None),
        (
            {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            (1, 4, 1, 2),
        ),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, (3, 4, 0, 4)),
    ],
)
def test_launchers(environ, expected):
    found = find_launcher(environ)
    assert found is None if expected is None else found[1] == World(*expected)


def test_launcher_s_variables_that_are_no_numbers():
    with pytest.raises(UserError, match="SLURM_NTASKS=x"):
        find_launcher({"SLURM_PROCID": "3", "SLURM_NTASKS": "x", "SLURM_LOCALID": "0"})


def test_shares_hold_every_item_once():
    for size in (1, 2, 5):
        shares = [World(rank, size).share(7) for rank in range(size)]
        assert sorted(item for share in shares for item in share) == list(range(7))
    assert ALONE.sums([1, 2]) == [1, 2] and ALONE.gather("x") == ["x"]
