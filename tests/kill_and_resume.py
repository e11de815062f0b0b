"""Kill a run at random moments, resume it each time, and compare with an undisturbed one.

python -m tests.kill_and_resume --kills 20 --workers 0 1 3 --signal KILL

Every run is a fork of this process, which has imported torch but computed nothing.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

import main as program
from tests.runs import make_dataset

LOGS = ("train.log", "train_batch.log", "val.log", "val.json")
LAST_EPOCH = 4


def arguments(root, result, workers):
    return [
        "--root_path", str(root), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", result, "--dataset", "folder", "--n_classes", "2",
        "--model_depth", "10", "--resnet_widen_factor", "0.25", "--sample_size", "32",
        "--sample_duration", "8", "--batch_size", "4", "--n_epochs", str(LAST_EPOCH),
        "--no_cuda", "--precision", "fp32", "--learning_rate", "0.01", "--n_val_samples", "2",
        "--multistep_milestones", "2", "--checkpoint", "2", "--checkpoint_minutes", "0.0005",
        "--inference_stride", "1", "--n_threads", str(workers),
        "--inference", "--resume_path", "auto",
    ]  # fmt: skip


def start(root, result, workers):
    """Fork a run; its process id. What it prints goes to root/RESULT.out."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        out = os.open(root / f"{result}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        torch.set_num_threads(1)
        status = program.main(arguments(root, result, workers))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child, seconds):
    """The exit status if the run ends in time, else None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def finish(root, result, workers):
    status = wait(start(root, result, workers), 600)
    if status != 0:
        raise SystemExit(f"a run ended with {status}:\n{(root / f'{result}.out').read_text()}")


def outcome(folder):
    """Everything that must be equal: logs, results, weights, optimiser and schedule."""
    found = {name: (folder / name).read_text(encoding="utf-8") for name in LOGS}
    saved = torch.load(folder / f"save_{LAST_EPOCH}.pth", weights_only=True)
    tensors = dict(saved["state_dict"])
    for number, state in saved["optimizer"]["state"].items():
        tensors[f"momentum {number}"] = state["momentum_buffer"]
    found |= {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    rest = {"scheduler": saved["scheduler"], "best": saved["best"]}
    return found | {"rest": json.dumps(rest, sort_keys=True)}


def check_equal(expected, got):
    differing = [name for name in expected if expected[name] != got.get(name)]
    if differing or expected.keys() != got.keys():
        raise SystemExit(f"differs from the undisturbed run: {differing}")


def trial(root, expected, duration, *, workers, kills, number, draw):
    """Disturb runs until `kills` of them were hit past their start; returns where they were."""
    hits = Counter()
    run = 0

    def is_done():
        return hits.total() - hits["start"] >= kills

    while not is_done():
        run += 1
        result = f"{number.name}_{workers}_{run}"
        while not is_done():
            child = start(root, result, workers)
            status = wait(child, draw.uniform(0.01, duration))
            if status is not None:
                break
            os.kill(child, number)
            status = wait(child, 60)
            if status not in (-number, 128 + number, 0):
                text = (root / f"{result}.out").read_text()
                raise SystemExit(f"after {number.name} a run ended with {status}:\n{text}")
            hits[where(root / f"{result}.out")] += 1
        finish(root, result, workers)
        check_equal(expected, outcome(root / result))
        leftovers = list((root / result).glob(".*.pth.*.tmp"))
        if leftovers and number != signal.SIGKILL:
            raise SystemExit(f"left behind: {leftovers}")
    return hits


def where(path):
    """The phase of a run that ended, by the last line it printed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    last = lines[-1] if lines else ""
    if last.startswith(f"epoch {LAST_EPOCH}: val"):
        return "saving or inference"
    if last.startswith("epoch") and " of " in last.split(":")[0]:
        return "validation"
    if last.startswith(("epoch", "validation:", "going on")):
        return "training or saving"
    if "interrupted" in last:
        return "as it asked for"
    return "start" if "video" not in last else "the end"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    number = signal.Signals[f"SIG{options.signal}"]
    draw = random.Random(options.seed)
    first = None
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root, train=8, val=4)
        for workers in options.workers:
            began = time.monotonic()
            undisturbed = f"undisturbed_{number.name}_{workers}"
            finish(root, undisturbed, workers)
            duration = time.monotonic() - began
            expected = outcome(root / undisturbed)
            first = first or expected
            check_equal(first, expected)
            hits = trial(
                root, expected, duration, workers=workers, kills=options.kills, number=number,
                draw=draw,
            )  # fmt: skip
            told = ", ".join(f"{count} in {phase}" for phase, count in sorted(hits.items()))
            print(f"{workers} workers, {number.name}: {hits.total()} kills ({told}): equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
