"""Training steps and inference of R3D-50 and R(2+1)D-50 on one GPU, ours in the precision of
--precision auto and the plain implementation in torch's default: fp32, whose convolutions use TF32.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import DURATION, NAMES, Setting, backends_restored, free_memory
from benchmarks.gpu_check.tables import Row
from benchmarks.gpu_check.utilisation import Utilisation
from benchmarks.limits import flops_of_training, flops_per_clip, flops_per_second
from benchmarks.steps import make_trainer
from benchmarks.timing import compare, rate
from engine.scoring import make_scorer
from errors import UserError
from model import freeze_before
from models.catalog import FAMILIES

BUSY_SECONDS = 2.0

PARTS = ("all layers", "head only", "inference")

Step = Callable[[], Tensor]  # queues a step and returns something of it


@dataclass(frozen=True)
class Kind:
    """One row: training of all layers, of the head only, or inference."""

    family: str
    batch_size: int
    part: str  # one of PARTS
    is_compiled: bool = False

    @property
    def is_inference(self) -> bool:
        return self.part == "inference"

    @property
    def begin(self) -> str:
        """The module from which on layers are trained; '' for all."""
        return FAMILIES[self.family].head if self.part == "head only" else ""


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    """Yield the rows in order of worth, should time run out."""
    for batch_size in setting.batch_sizes:
        for part in PARTS:
            for family in NAMES:
                yield measured(setting, Kind(family, batch_size, part))


def compiled_rows(setting: Setting, record: Record) -> Iterator[Row]:
    for family in NAMES:
        kind = Kind(family, setting.batch_sizes[0], "all layers", is_compiled=True)
        yield measured(setting, kind)


def measured(setting: Setting, kind: Kind) -> Row:
    """Measure both implementations in turns; a lack of memory is noted instead."""
    device = setting.device()
    title: Row = {
        "network": f"{NAMES[kind.family]}-{setting.depth}",
        "batch": kind.batch_size,
        "what": kind.part + (", compiled" if kind.is_compiled else ""),
        "ours": device.precision,
    }
    with backends_restored():
        torch.backends.cudnn.benchmark = True  # as main.py and the original do
        try:
            return title | _figures(setting, kind)
        except (torch.OutOfMemoryError, UserError) as error:  # the latter from a Trainer
            return title | {"note": _first_sentence(error)}
        finally:
            free_memory()


def _figures(setting: Setting, kind: Kind) -> Row:
    ours = _Prepared(our_step(setting, kind), setting, kind)
    device = setting.device()
    matrix_rate = flops_per_second(device.inference_dtype, device.torch_device, setting.matrices)
    row: Row
    try:
        theirs = _Prepared(_plain_step(setting, kind), setting, kind)
        found = compare("", "clips/s", ours, theirs, warms_up=False)
        row = {"clips/s": found.ours, "plain": found.plain, "ratio": found.ratio}
        row["plain GiB"] = theirs.memory
        ours_rate = found.ours
    except torch.OutOfMemoryError as error:
        free_memory()
        ours_rate = rate(ours)
        row = {"clips/s": ours_rate, "note": f"plain: {_first_sentence(error)}"}
    return row | {
        "of the matrix rate, %": 100 * ours_rate * _flops(setting, kind) / matrix_rate,
        "GPU busy, %": _busy(ours, setting),
        "GiB": ours.memory,
        "first step, s": ours.first_seconds,
    }


def _first_sentence(error: BaseException) -> str:
    return str(error).partition(". ")[0].partition(":")[0]


class _Prepared:
    """Several steps in a row, after a first one, which autotunes or compiles, and a second, whose
    memory is measured: the largest in GiB, without that of other models."""

    def __init__(self, make: Callable[[], Step], setting: Setting, kind: Kind) -> None:
        self.n_steps, self.n_clips = setting.steps, kind.batch_size
        self.memory: float | None = None
        before = 0 if setting.on_cpu else torch.cuda.memory_allocated()
        self._step = make()
        started = time.perf_counter()
        self._step().sum().item()  # synchronises
        self.first_seconds = time.perf_counter() - started
        if not setting.on_cpu:
            torch.cuda.reset_peak_memory_stats()
        self._step().sum().item()
        if not setting.on_cpu:
            self.memory = (torch.cuda.max_memory_allocated() - before) / 2**30

    def __call__(self) -> float:
        results = [self._step() for _ in range(self.n_steps)]
        results[-1].sum().item()
        return self.n_steps * self.n_clips


def our_step(setting: Setting, kind: Kind) -> Callable[[], Step]:
    device = setting.device()

    def make() -> Step:
        model = setting.build(kind.family)
        batch = setting.batch(kind.batch_size, device)
        if kind.is_inference:
            score = make_scorer(model.eval(), device)
            return lambda: score(batch.clips)
        freeze_before(model, kind.family, kind.begin)
        device.place(model)
        if kind.is_compiled:
            model.compile()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, fused=True)
        trainer = make_trainer(model, optimizer, device)
        trainer.begin_epoch()
        return lambda: trainer.run_batch(batch, n_clips=kind.batch_size).loss

    return make


def _plain_step(setting: Setting, kind: Kind) -> Callable[[], Step]:
    device = setting.device("fp32")

    def make() -> Step:
        model = setting.build(kind.family).to(device.torch_device)
        batch = setting.batch(kind.batch_size, device)
        if kind.is_inference:
            return partial(_plain_scores, model.eval(), batch.clips)
        trained = model.get_submodule(kind.begin) if kind.begin else model
        optimizer = torch.optim.SGD(trained.parameters(), lr=1e-4, momentum=0.9)
        step = partial(plain.train_step, model.train(), optimizer, batch.clips, batch.labels)
        return lambda: torch.tensor(step())

    return make


def _plain_scores(model: nn.Module, clips: Tensor) -> Tensor:
    with torch.no_grad():
        return model(plain.model_input(clips))


def _flops(setting: Setting, kind: Kind) -> float:
    """Return the operations per clip of what our step has to compute."""
    model = setting.build(kind.family).to("meta")  # counts without computing
    clips = torch.empty((2, 3, DURATION, setting.side, setting.side), device="meta")
    if kind.is_inference:
        return flops_per_clip(model.eval(), clips[0])
    freeze_before(model, kind.family, kind.begin)
    return flops_of_training(model, clips)


def _busy(work: Callable[[], float], setting: Setting) -> float | None:
    if setting.on_cpu:
        return None
    with Utilisation() as utilisation:
        started = time.time()
        while time.time() - started < BUSY_SECONDS:
            work()
    return utilisation.mean(start=started + 0.5)
