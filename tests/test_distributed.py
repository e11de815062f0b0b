"""Two gloo processes against one, and what happens when one of them dies."""

import json
import os
import signal
import socket
from contextlib import ExitStack
from datetime import timedelta

import pytest
import torch

import main
from engine.distributed import SINGLE_PROCESS, World, _signals_of_torchrun, find_launcher, join
from errors import UserError
from tests.commands import Command
from tests.runs import frozen_norms, make_dataset, read_results, read_table

pytestmark = pytest.mark.numeric

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
FLAGS = (
    "--video_path", "jpg", "--annotation_path", "index.json", "--dataset", "folder",
    "--n_classes", "2", "--model_depth", "10", "--resnet_widen_factor", "0.25",
    "--sample_size", "32", "--sample_duration", "8", "--batch_size", "4", "--n_epochs", "3",
    "--no_cuda", "--n_threads", "0", "--precision", "fp32", "--learning_rate", "0.01",
    "--inference", "--no_report",
)  # fmt: skip


@pytest.fixture
def start():
    """Starts main.py; what still runs at the end of a test is ended. `how` is its environment."""
    with ExitStack() as commands:

        def start(
            root, result, *flags, launcher=(), program="main.py", on_gpus=False, frozen=True, **how
        ):
            flags = (*FLAGS, *(frozen_norms(root) if frozen else ()), *flags)
            arguments = ["--root_path", root, "--result_path", result, *flags]
            if on_gpus:
                arguments.remove("--no_cuda")
            if launcher:
                launcher = (*launcher, "--log_dir", root / "torchrun")  # else it stays in TMPDIR
            command = Command(*launcher, program, *arguments, environ=ONE_THREAD | how)
            return commands.enter_context(command)

        yield start


@pytest.fixture
def meeting_place():
    """A URL to meet at. Bound here, its port is given to no other program, but the first process,
    which sets SO_REUSEADDR too, can listen on it."""
    with socket.socket() as reserving:
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserving.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{reserving.getsockname()[1]}"


@pytest.fixture
def launched():
    """Starts main.py through the launch() of a machine with several GPUs."""
    with ExitStack() as commands:

        def launched(root, result, n_processes, *flags, node=SINGLE_PROCESS, url="", **how):
            flags = (*FLAGS, *frozen_norms(root), *flags)
            arguments = ["--root_path", str(root), "--result_path", result, *flags]
            call = f"launch({arguments!r}, {n_processes}, node={node!r}, dist_url={url!r})"
            code = f"import sys; from engine.distributed import *; sys.exit({call})"
            return commands.enter_context(Command("-c", code, environ=ONE_THREAD, **how))

        yield launched


def finish(command, status=0, **how):
    done = command.finish(**how)
    assert done.status == status, done.text
    return done.text


def wait_for(command, path):
    command.wait_until(path.exists)


def assert_same_run(one, two, atol=1e-5):
    weights, others = (
        torch.load(run / "save_3.pth", weights_only=True)["state_dict"] for run in (one, two)
    )
    assert list(weights) == list(others)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=atol)
    for name in ("train.log", "train_batch.log", "val.log"):
        rows, other_rows = (read_table((run / name).read_text()) for run in (one, two))
        assert len(rows) == len(other_rows)
        for row, other in zip(rows, other_rows, strict=True):
            assert row == pytest.approx(other, abs=atol)
    results, other_results = (
        json.loads((run / "val.json").read_text())["results"] for run in (one, two)
    )
    assert list(results) == list(other_results)
    for video, entries in results.items():
        for entry, other in zip(entries, other_results[video], strict=True):
            assert entry["label"] == other["label"]
            assert entry["score"] == pytest.approx(other["score"], abs=atol)


@pytest.mark.parametrize(
    "flags",
    [(), ("--rand_augment", "1", "5", "--random_erasing", "0.5", "--label_smoothing", "0.1")],
    ids=["plain", "augmented"],
)
def test_two_processes_compute_what_one_does(tmp_path, start, flags):
    """12 steps; the last batch of an epoch leaves one process without a clip."""
    make_dataset(tmp_path, train=7, val=2, labels=("a", "b"))
    index = json.loads((tmp_path / "index.json").read_text())
    del index["database"]["b_0"]  # 13 training videos: batches of 4, 4, 4 and 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    alone = start(tmp_path, "one", *flags)
    together = start(tmp_path, "two", *flags, launcher=TORCHRUN)
    finish(alone)
    output = finish(together)
    assert output.count("video top-1") == 1
    assert "2 processes" in output
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_mixing_where_a_process_has_one_clip_or_none(tmp_path, start):
    """7 training videos in batches of 3: 2 and 1, 2 and 1, 1 and 0."""
    make_dataset(tmp_path, train=4, val=1)
    index = json.loads((tmp_path / "index.json").read_text())
    del index["database"]["b_0"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    flags = ("--batch_size", "3", "--mixup", "1", "--cutmix", "1", "--dropout", "0.5")
    finish(start(tmp_path, "two", *flags, launcher=TORCHRUN))
    rows = read_table((tmp_path / "two/train_batch.log").read_text())
    assert len(rows) == 9
    assert all(0 < row["loss"] < 3 for row in rows)


@pytest.mark.parametrize("flags", [(), ("--ema", "0.9")])
def test_what_two_processes_score_is_what_the_first_saves(tmp_path, start, flags):
    """Each has batch norm statistics of its own clips."""
    make_dataset(tmp_path, train=8, val=3)
    flags = ("--sample_size", "48", *flags)
    together = start(tmp_path, "two", *flags, frozen=False, launcher=TORCHRUN)
    finish(together)
    saved = ("--resume_path", "two/save_3.pth", "--no_train", "--no_val")
    finish(start(tmp_path, "one", *flags, *saved, frozen=False))
    scores, others = (read_results(tmp_path / run) for run in ("two", "one"))
    assert len(scores) == 6
    for video, entries in scores.items():
        found, other = ({e["label"]: e["score"] for e in es} for es in (entries, others[video]))
        assert found == pytest.approx(other, abs=1e-5)


def test_cached_features_under_torchrun_are_refused(tmp_path, start):
    make_dataset(tmp_path, train=2, val=1)
    finish(start(tmp_path, "pre", "--n_epochs", "1", "--no_val"))
    flags = ("--pretrain_path", "pre/save_1.pth", "--ft_begin_module", "fc")
    cached = start(tmp_path, "res", *flags, "--cache_features", "2", launcher=TORCHRUN)
    output = finish(cached, status=1)
    assert "error: --cache_features runs in one process: start it without torchrun" in output


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_compute_what_one_does(tmp_path, start):
    """Over nccl, without being asked. TF32 would round to 10 bits."""
    make_dataset(tmp_path, train=7, val=2)
    exact = {"NVIDIA_TF32_OVERRIDE": "0"}
    together = start(tmp_path, "two", on_gpus=True, CUDA_VISIBLE_DEVICES="0,1", **exact)
    finish(together)
    finish(start(tmp_path, "one", on_gpus=True, CUDA_VISIBLE_DEVICES="0", **exact))
    assert_same_run(tmp_path / "one", tmp_path / "two", atol=1e-4)


def test_slurm_s_variables_and_a_meeting_place_are_enough(tmp_path, start):
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
    assert "video top-1" in first
    assert "video top-1" not in second
    assert (tmp_path / "res/save_1.pth").exists()


def test_a_process_that_dies_takes_the_job_down(tmp_path, start):
    """The second process finds a frame damaged; the first would wait for it for ever."""
    make_dataset(tmp_path, train=20, val=1)
    for number in range(20):
        (tmp_path / f"jpg/b/b_{number}/image_00010.jpg").write_bytes(b"no picture")
    job = start(tmp_path, "res", "--sample_duration", "20", launcher=TORCHRUN)
    done = job.finish()
    assert done.status != 0
    assert "image_00010.jpg: not a JPEG" in done.text
    assert not list((tmp_path / "res").glob("*.pth"))


# main.py, of which the first process waits for SIGTERM inside the second epoch.
HELD = """
import runpy, signal, time
from engine.run_log import RunLog

def hold(run_log, log, row):
    write(run_log, log, row)
    if not run_log.is_silent and log == "train_batch" and (row["epoch"], row["batch"]) == (2, 1):
        came, handle = [], signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *how: came.append(handle(*how)))
        (run_log.folder / "is held").touch()
        while not came:
            time.sleep(0.01)

write, RunLog.write = RunLog.write, hold
runpy.run_path("main.py", run_name="__main__")
"""


def test_a_signal_saves_and_a_resumed_job_ends_as_one_process_does(tmp_path, start):
    make_dataset(tmp_path, train=15, val=1)
    slowly = ("--learning_rate", "0.001")
    finish(start(tmp_path, "whole", *slowly))
    program, interrupted = tmp_path / "held.py", tmp_path / "res"
    program.write_text(HELD)
    job = start(tmp_path, "res", *slowly, launcher=TORCHRUN, program=program)
    wait_for(job, interrupted / "is held")
    job.process.terminate()
    assert "continue with the same command" in job.finish().text
    assert (interrupted / "last.pth").exists()
    finish(start(tmp_path, "res", "--resume_path", "auto", launcher=TORCHRUN))
    weights, others = (
        torch.load(tmp_path / run / "save_3.pth", weights_only=True)["state_dict"]
        for run in ("whole", "res")
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=1e-5)


def test_two_machines_that_start_one_process_each(tmp_path, launched, meeting_place):
    """As mpirun and srun do on nodes of several GPUs; --batch_size counts a node's clips."""
    make_dataset(tmp_path, train=7, val=1)  # 14 clips: batches of 8 and 6
    nodes = [
        launched(tmp_path, "res", 1, "--n_epochs", "1", node=World(rank, 2), url=meeting_place)
        for rank in range(2)
    ]
    first, second = (finish(node) for node in nodes)
    assert "2 processes on 2 machines" in first
    assert "video top-1" not in second
    assert len(read_table((tmp_path / "res/train_batch.log").read_text())) == 2


def test_what_ends_a_launched_process_ends_the_launcher(tmp_path, launched):
    make_dataset(tmp_path, train=4, val=1)
    failing = launched(tmp_path, "res", 2, "--video_path", "nowhere")
    job = launched(tmp_path, "res", 2, "--checkpoint", "1", "--n_epochs", "5000")
    assert "error:" in finish(failing, status=2)
    wait_for(job, tmp_path / "res/save_1.pth")
    job.process.terminate()
    output = finish(job, status=128 + signal.SIGTERM)
    assert "continue with the same command" in output
    assert "Traceback" not in output


def test_a_terminal_that_is_closed_saves_and_under_nohup_does_not_matter(tmp_path, launched):
    make_dataset(tmp_path, train=4, val=1)
    flags = ("--checkpoint", "1", "--n_epochs", "5000")
    job = launched(tmp_path, "res", 2, *flags)
    ignoring = launched(tmp_path, "nohup", 2, *flags, before=ignore_hangup)
    wait_for(job, tmp_path / "res/save_1.pth")
    wait_for(ignoring, tmp_path / "nohup/save_1.pth")
    for command in (job, ignoring):
        for pid in (command.process.pid, *command.processes()):
            os.kill(pid, signal.SIGHUP)
    assert "continue with the same command" in finish(job, status=128 + signal.SIGHUP)
    n_saved = len(list((tmp_path / "nohup").glob("save_*")))
    wait_for(ignoring, tmp_path / f"nohup/save_{n_saved + 2}.pth")
    ignoring.process.terminate()
    finish(ignoring, status=128 + signal.SIGTERM)


def ignore_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_process_that_is_killed_ends_the_others_without_torchrun(tmp_path, start):
    make_dataset(tmp_path, train=4, val=1)
    url = f"file://{tmp_path}/meet"
    first, second = (
        start(
            tmp_path, "res", "--distributed", "--dist_url", url, "--n_epochs", "5000",
            "--checkpoint", "1", SLURM_PROCID=str(rank), SLURM_NTASKS="2", SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    )  # fmt: skip
    wait_for(first, tmp_path / "res/save_1.pth")
    second.process.kill()
    output = finish(first, status=2)
    finish(second, status=-signal.SIGKILL)
    assert "error: another process of this run has ended" in output
    assert "Traceback" not in output


def test_without_a_launcher_one_line_says_how_to_start(tmp_path, start):
    make_dataset(tmp_path, train=1, val=1)
    assert "start with torchrun" in finish(start(tmp_path, "res", "--distributed"), status=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("distributed", [(), ("--distributed",)])
def test_synchronised_batch_norm_is_refused_without_a_gpu(tmp_path, capsys, distributed):
    flags = [flag for flag in FLAGS if flag != "--no_cuda"] + ["--batchnorm_sync", *distributed]
    assert main.main(["--root_path", str(tmp_path), "--result_path", "res", *flags]) == 2
    output = capsys.readouterr().err
    assert output == "error: --batchnorm_sync needs GPUs, and none is visible\n"


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
        (
            {
                "SLURM_PROCID": "6",
                "SLURM_NTASKS": "7",
                "SLURM_LOCALID": "0",
                "SLURM_NODEID": "3",
                "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
            },
            (6, 7, 0, 1),
        ),
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
    assert SINGLE_PROCESS.sums([1, 2]) == [1, 2]
    assert SINGLE_PROCESS.gather("x") == ["x"]


def test_what_gloo_still_holds_does_not_abort_a_process_that_ends(tmp_path):
    """Gloo wants to let a tensor go at the very end; with sys.exit the status would be -6."""
    code = f"""
import atexit, io, sys, time
from engine.distributed import ProcessExit, join

process_exit = ProcessExit()

@atexit.register  # so called after all but ProcessExit's own hook
def exchange():
    sys.setswitchinterval(100)
    held = torch.ones(1)
    dist.all_reduce(held, async_op=True)
    del held
    late = time.monotonic() + 3
    while time.monotonic() < late:
        pass  # gloo's thread waits for this one to let the interpreter go

class Slow(io.StringIO):
    def flush(self):
        time.sleep(1)  # lets it go

import torch
import torch.distributed as dist

join("file://{tmp_path}/meet", use_cuda=False)
sys.stdout = Slow()
process_exit.status = 7
sys.exit(7)
"""
    environ = {"SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    with (
        Command("-c", code, environ=environ | {"SLURM_PROCID": "0"}) as one,
        Command("-c", code, environ=environ | {"SLURM_PROCID": "1"}) as other,
    ):
        assert [one.finish().status, other.finish().status] == [7, 7]


def test_processes_that_nobody_started_are_not_waited_for_for_ever(monkeypatch, meeting_place):
    monkeypatch.setattr("engine.distributed.JOIN_TIMEOUT", timedelta(seconds=2))
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the 2 processes that SLURM announces could not join"):
        join(meeting_place, use_cuda=False)


def test_torchrun_ends_its_processes_on_its_own_signals_but_ignored_ones():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(_signals_of_torchrun().split(",")) == {
            "SIGINT", "SIGTERM", "SIGQUIT"
        }  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
