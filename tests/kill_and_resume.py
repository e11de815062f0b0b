"""Kill a run at random moments, resume it each time, and compare with an undisturbed one.

python -m tests.kill_and_resume --kills 20 --workers 0 1 3 --signal KILL --variant plain

With --group the signal goes to a run's loader processes, too, as a batch system may send it. Every
run is a fork of this process, which has imported what a run needs but computed nothing.
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
import torch._dynamo

import engine.runner  # noqa: F401  which main.py imports late
import main as program
from tests.commands import PATIENCE
from tests.runs import make_dataset
from utils.program import run_program

LOGS = ("train.log", "train_batch.log", "val.log", "val.json")
LAST_EPOCH = 4
TUNE = ("--pretrain_path", "pretrained/save_1.pth", "--freeze_bn")
RECIPE = (
    "--optimizer", "adamw", "--learning_rate", "0.001", "--lr_scheduler", "cosine",
    "--warmup_epochs", "0.5", "--layer_decay", "0.8", "--no_norm_decay", "--sampler", "balanced",
    "--label_smoothing", "0.1", "--mixup", "0.4", "--cutmix", "1", "--dropout", "0.3",
    "--rand_augment", "1", "5", "--random_erasing", "0.5", "--ema", "0.9",
)  # fmt: skip
VARIANTS = {
    "plain": (),
    "recipe": RECIPE,
    "plateau": ("--lr_scheduler", "plateau", "--plateau_patience", "0"),
    "accumulate": ("--accumulate", "3", "--clip_grad", "1"),  # of 4 batches: 3 and 1
    "cached": (*TUNE, "--ft_begin_module", "fc", "--cache_features", "2"),
    "frozen": (*TUNE, "--ft_begin_module", "layer4", "--keep_checkpoints", "1"),
}


def arguments(root, result, flags):
    return [
        "--root_path", str(root), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", result, "--dataset", "folder", "--n_classes", "2",
        "--model_depth", "10", "--resnet_widen_factor", "0.25", "--sample_size", "32",
        "--sample_duration", "8", "--batch_size", "4", "--n_epochs", str(LAST_EPOCH),
        "--no_cuda", "--precision", "fp32", "--learning_rate", "0.01", "--n_val_samples", "2",
        "--multistep_milestones", "2", "--checkpoint", "2", "--checkpoint_minutes", "0.0005",
        "--inference_stride", "1", "--inference", "--no_report", "--resume_path", "auto", *flags,
    ]  # fmt: skip


def start(root, result, flags):
    """Fork a run; its process id. What it prints goes to root/RESULT.out."""
    out = os.open(root / f"{result}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = os.fork()
    if child:
        os.setpgid(child, child)  # before it is sent a signal as a group
        os.close(out)
        return child
    status = 70
    try:
        os.setpgid(0, 0)  # before it starts others
        tempfile.tempdir = str(root)  # of multiprocessing, which os._exit keeps from tidying up
        os.dup2(out, 1)
        os.dup2(out, 2)
        torch.set_num_threads(1)
        status = run_program(lambda: program.main(arguments(root, result, flags)))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child, seconds=PATIENCE):
    """The exit status if the run ends in time, else None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def finish(root, result, flags):
    status = wait(start(root, result, flags))
    if status != 0:
        raise SystemExit(f"a run ended with {status}:\n{(root / f'{result}.out').read_text()}")


def outcome(folder):
    """Everything that must be equal: logs, results, checkpoints and what is in them."""
    found = {name: (folder / name).read_text(encoding="utf-8") for name in LOGS}
    saved = sorted([*folder.glob("save_*.pth"), folder / "best.pth"])
    assert folder / f"save_{LAST_EPOCH}.pth" in saved
    for path in saved:
        content = torch.load(path, weights_only=True)
        tensors = dict(content["state_dict"])
        tensors |= {f"trained {n}": t for n, t in content.get("trained_state_dict", {}).items()}
        for number, state in content["optimizer"]["state"].items():
            tensors |= {f"{key} {number}": tensor for key, tensor in state.items()}
        found |= {f"{path.name} {n}": tensor.numpy().tobytes() for n, tensor in tensors.items()}
        rest = {name: content[name] for name in ("epoch", "scheduler", "best")}
        found[f"{path.name} rest"] = json.dumps(rest, sort_keys=True)
    return found


def check_equal(expected, got):
    differing = [name for name in expected if expected[name] != got.get(name)]
    if differing or expected.keys() != got.keys():
        raise SystemExit(f"differs from the undisturbed run: {differing or got.keys()}")


def trial(root, name, expected, duration, *, flags, kills, send, number, draw):
    """Disturb runs until `kills` of them were hit past their start; returns where they were."""
    hits = Counter()
    run = 0

    def is_done():
        return hits.total() - hits["start"] >= kills

    while not is_done():
        run += 1
        result = f"{name}_{run}"
        while not is_done():
            child = start(root, result, flags)
            status = wait(child, draw.uniform(0.01, duration))
            if status is not None:
                break
            send(child, number)
            status = wait(child)
            if status not in (-number, 128 + number, 0):
                text = (root / f"{result}.out").read_text()
                raise SystemExit(f"after {number.name} a run ended with {status}:\n{text}")
            hits[where(root / f"{result}.out", root / result)] += 1
        finish(root, result, flags)
        check_equal(expected, outcome(root / result))
        leftovers = list((root / result).glob(".*.pth.*.tmp*"))
        if leftovers and number != signal.SIGKILL:
            raise SystemExit(f"left behind: {leftovers}")
    return hits


def where(out, folder):
    """The phase of a run that ended, by the last line it printed."""
    if any(folder.glob(".*.pth.*.tmp*")):
        return "saving"
    lines = out.read_text(encoding="utf-8").splitlines()
    last = lines[-1] if lines else ""
    if last.startswith("interrupted"):
        saved = "training or validation, which saved" if "saved" in last else "start"
        return "inference" if "inference" in last else saved
    if last.startswith((f"epoch {LAST_EPOCH}: val", f"all {LAST_EPOCH} epochs")):
        return "inference"
    if last.startswith("epoch") and " of " in last.split(":")[0]:
        return "validation"
    if last.startswith(("epoch", "training videos:", "going on")):
        return "training"
    return "the end" if last.startswith(("video top", "mean class", "all ")) else "start"


def check_variant(root, variant, workers, first, **how):
    """All trials of one variant with one number of workers; returns the undisturbed outcome."""
    flags = (*VARIANTS[variant], "--n_threads", str(workers))
    name = f"{variant}_{how['number'].name}_{workers}"
    began = time.monotonic()
    finish(root, f"undisturbed_{name}", flags)
    duration = time.monotonic() - began
    expected = outcome(root / f"undisturbed_{name}")
    check_equal(first or expected, expected)
    hits = trial(root, name, expected, duration, flags=flags, **how)
    counts = ", ".join(f"{count} in {phase}" for phase, count in sorted(hits.items()))
    print(
        f"{variant}, {workers} workers, {how['number'].name}: "
        f"{hits.total()} kills ({counts}): equal",
        flush=True,
    )
    return expected


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--signal", choices=("KILL", "TERM", "HUP", "INT"), default="KILL")
    parser.add_argument("--group", action="store_true", help="signal all processes of a run")
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=["plain"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    number = signal.Signals[f"SIG{options.signal}"]
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root, train=8, val=4)
        if any("pretrained" in " ".join(VARIANTS[variant]) for variant in options.variant):
            finish(root, "pretrained", ("--n_epochs", "1", "--checkpoint", "1"))
        for variant in options.variant:
            first = None
            for workers in options.workers:
                first = check_variant(
                    root, variant, workers, first, kills=options.kills, number=number, draw=draw,
                    send=os.killpg if options.group else os.kill,
                )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
