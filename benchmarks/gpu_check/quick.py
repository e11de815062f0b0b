"""The first half minute: packages, the device, one step, and a run that is resumed."""

import importlib
import math
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.gpu_check.kit import ROOT
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import Setting, run_main
from benchmarks.gpu_check.tables import Row
from benchmarks.steps import make_trainer
from tests.runs import make_dataset, read_table, small_flags

PACKAGES = {
    "simplejpeg": "simplejpeg",
    "msgspec": "msgspec",
    "tqdm": "tqdm",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "pillow": "PIL",
    "tensorboard": "torch.utils.tensorboard",
    "matplotlib": "matplotlib.pyplot",
    "jinja2": "jinja2",
    "pytest": "pytest",
    "onnxruntime": "onnxruntime",
}


def machine() -> dict[str, str]:
    """Return what the results depend on, in words."""
    found = {
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {version('torchvision')}, numpy {version('numpy')}",
        "CPU": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    if not torch.cuda.is_available():
        return {"GPU": "none: a rehearsal, whose figures say nothing", **found}
    card = torch.cuda.get_device_properties(0)
    memory = card.total_memory / 2**30
    cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return {"GPU": f"{card.name}, {memory:.0f} GiB, {cuda}", **found}


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    for package, module in PACKAGES.items():
        yield _imported(package, module)
    started = time.perf_counter()
    names = sorted(_own_modules(ROOT))
    for name in names:
        importlib.import_module(name)
    yield _checked(f"import of all {len(names)} modules", started)
    started = time.perf_counter()
    loss = one_step(setting)
    yield _checked(f"one training step, loss {loss:.3f}", started, passed=math.isfinite(loss))
    started = time.perf_counter()
    epochs = resumed_run(setting)
    text = f"main.py: a run, resumed, has epochs {epochs}"
    yield _checked(text, started, passed=epochs == [1, 2])


def one_step(setting: Setting) -> float:
    """Return the loss of the first step of a model, in the precision of --precision auto."""
    device = setting.device()
    model = device.place(setting.build("resnet"))
    trainer = make_trainer(model, torch.optim.SGD(model.parameters(), lr=0.01, fused=True), device)
    trainer.begin_epoch()
    n_clips = min(setting.batch_sizes)
    return float(trainer.run_batch(setting.batch(n_clips, device), n_clips=n_clips).loss) / n_clips


def resumed_run(setting: Setting) -> list[int]:
    """Train one epoch and, resumed, a second; return the epochs of train.log."""
    root = setting.work / "quick"
    make_dataset(root)
    flags = small_flags(root, "--precision", "auto", "--inference", "--checkpoint", "1")
    if not setting.on_cpu:
        flags.remove("--no_cuda")
    run_main([*flags, "--n_epochs", "1"])
    run_main([*flags, "--n_epochs", "2", "--resume_path", "auto"])
    log = (root / "res" / "train.log").read_text(encoding="utf-8")
    return [int(row["epoch"]) for row in read_table(log)]


def _imported(package: str, module: str) -> Row:
    started = time.perf_counter()
    try:
        importlib.import_module(module)
        return _checked(f"{package} {version(package)}", started)
    except Exception as error:  # any: a library of another version can raise anything
        return _checked(f"{package}: {type(error).__name__}: {error}", started, passed=False)


def _checked(check: str, started: float, *, passed: bool = True) -> Row:
    return {"check": check, "seconds": time.perf_counter() - started, "passed": passed}


def _own_modules(root: Path) -> Iterator[str]:
    """Yield the names of all modules of the source, without tests and benchmarks."""
    from tests.check_imports import find_modules

    yield from (name for name in find_modules(root) if name != "main")
