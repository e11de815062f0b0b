"""Helpers of the tests that run main.py: small frame folders, indexes, and the golden runs."""

import copy
import json
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import main
from engine.optim import Optimization
from engine.scoring import clip_network
from models.build import build
from tests.golden.weights import weights_from_names
from training import Trainer

GOLDEN = Path(__file__).parent / "golden"


def make_frames(folder, n_frames, *, size=(40, 32), seed=0):
    """Make a frame folder of smooth random pictures; return the number of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for number in range(1, n_frames + 1):
        pixels = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"image_{number:05d}.jpg")
    return n_frames


def make_dataset(root, *, train=3, val=2, n_frames=20, labels=("a", "b")):
    """Make root/jpg and root/index.json with `train` and `val` videos of each label."""
    database = {}
    for number, label in enumerate(labels):
        for i in range(train + val):
            video = f"{label}_{i}"
            make_frames(root / "jpg" / label / video, n_frames, seed=100 * number + i)
            database[video] = {
                "subset": "training" if i < train else "validation",
                "annotations": {"label": label, "segment": [1, n_frames + 1]},
            }
    index = {"labels": list(labels), "database": database}
    (root / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return index


def small_flags(root, *flags, result="res", report=False):
    """The flags of main.py for a small dataset and a tiny model."""
    return [
        "--root_path", str(root), "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", result, "--dataset", "folder", "--n_classes", "2",
        "--model_depth", "10", "--resnet_widen_factor", "0.25", "--sample_size", "32",
        "--sample_duration", "8", "--batch_size", "4", "--n_epochs", "2", "--no_cuda",
        "--n_threads", "0", "--precision", "fp32", "--learning_rate", "0.01",
        *(() if report else ("--no_report",)), *flags,
    ]  # fmt: skip


def small_run(root, *flags, result="res", report=False):
    """Run main.py on a small dataset with a tiny model; returns the exit status."""
    return main.main(small_flags(root, *flags, result=result, report=report))


def frozen_norms(root):
    """Write the tiny model with its initial weights; return the flags that start from it and freeze
    batch norm, so that an output depends on one clip alone."""
    path = root / "initial.pth"
    if not path.exists():  # a run that was started may be reading it
        torch.manual_seed(1)
        model = build("resnet", 10, n_classes=2, resnet_widen_factor=0.25)
        torch.save({"arch": "resnet-10", "state_dict": model.state_dict()}, path)
    return "--pretrain_path", str(path), "--freeze_bn"


def limit_file_size_here(size):
    """Limit the file size for the rest of this process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


@contextmanager
def limit_file_size(size):
    """Inside the block, writes beyond `size` bytes of a file fail as on a full disk."""
    handler = signal.getsignal(signal.SIGXFSZ)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_file_size_here(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def write_golden_checkpoint(spec, path):
    """The checkpoint that an expected.json asks for."""
    model = build(
        spec["model"], spec["model_depth"], n_classes=spec["n_classes"], **spec["options"]
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    arch = f"{spec['model']}-{spec['model_depth']}"
    torch.save({"epoch": 0, "arch": arch, "state_dict": weights_from_names(shapes)}, path)


def golden_arguments(case, data, work):
    """Write the checkpoint of a case of expected.json whose frames and index lie in `data`; return
    its arguments of main.py. The results go to work/res."""
    write_golden_checkpoint(case["checkpoint"], work / "c.pth")
    return [
        "--root_path", str(work), "--video_path", str(data / "jpg"),
        "--annotation_path", str(data / "index.json"), "--result_path", "res",
        "--dataset", "ucf101", "--no_cuda", "--n_threads", "0", "--n_classes", "2",
        "--precision", "fp32", "--no_report", *case["args"],
    ]  # fmt: skip


def run_golden(case, data, work):
    """Run a case of expected.json on the CPU; return its results folder."""
    assert main.main(golden_arguments(case, data, work)) == 0
    return work / "res"


def as_of_the_original(content, in_layout=torch.Tensor.contiguous):
    """A checkpoint's content as the original writes it: five keys, contiguous tensors, saved before
    the schedule steps. `in_layout` takes a tensor to another memory layout."""
    keys = ("epoch", "arch", "state_dict", "optimizer", "scheduler")
    kept = copy.deepcopy({key: content[key] for key in keys})
    kept["scheduler"]["last_epoch"] -= 1
    if kept["scheduler"]["milestones"].get(content["epoch"]):
        for group in kept["optimizer"]["param_groups"]:
            group["lr"] /= kept["scheduler"]["gamma"]
    for tensors in (kept["state_dict"], *kept["optimizer"]["state"].values()):
        for name, tensor in tensors.items():
            if tensor.dim() == 5:
                tensors[name] = in_layout(tensor)
    return kept


def read_table(text):
    """A tab-separated log as a list of {column: number}."""
    header, *rows = [line.split("\t") for line in text.splitlines()]
    return [dict(zip(header, map(float, row), strict=True)) for row in rows]


def read_results(run, subset="val"):
    """The scores of a result file: {video id: entries}."""
    return json.loads((run / f"{subset}.json").read_text(encoding="utf-8"))["results"]


def make_trainer(model, optimizer, device, **fields):
    """A trainer of a whole model, whose learning rate stays as it is."""
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1000])
    optim = Optimization(optimizer, schedule, "multistep", device.grad_scaler())
    fields = {"network": clip_network(model, device), "n_classes": 2, "optim": optim} | fields
    return Trainer(model=model, device=device, **fields)
