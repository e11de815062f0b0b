"""One GPU: training and inference of R3D-50 and R(2+1)D-50 with batches of 128, ours in bf16 and
the plain implementation in fp32; GPU utilisation, and the loader cores needed to feed the GPU."""

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks import loading, plain
from benchmarks.limits import clips_per_second
from benchmarks.steps import make_trainer
from benchmarks.timing import Comparison, compare, rate
from datasets.video_dataset import ClipBatch
from engine.device import Device, Normalization, choose_device
from engine.scoring import make_scorer
from model import freeze_before
from models.build import build

FAMILIES = {"resnet": "R3D", "resnet2p1d": "R(2+1)D"}
CLASSES = 700
STEPS = 5  # per measurement
QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

Work = Callable[[], float]


def comparisons() -> Iterator[Comparison]:
    """Yield nothing, and print one line, if torch sees no GPU."""
    if not torch.cuda.is_available():
        print("gpu: skipped, torch sees no GPU")
        return
    print(f"gpu: {torch.cuda.get_device_name()}")
    torch.backends.cudnn.benchmark = True  # as main.py and the original do
    with contextlib.closing(loading.comparisons()) as rows:
        per_core = next(rows)
    yield per_core
    device = choose_device(
        no_cuda=False, precision="auto", normalization=Normalization.of("kinetics")
    )
    for family in FAMILIES:
        for row in of_model(family, device):
            yield row
            if row.name.startswith("training"):
                needed = row.ours / per_core.ours, row.plain / per_core.plain
                name = f"  loader cores that feed this {row.name.partition(',')[0]}"
                yield Comparison(name, "cores", *needed, needed[1] / needed[0])


def of_model(
    family: str,
    device: Device,
    *,
    batch_size: int = 128,
    depth: int = 50,
    side: int = 112,
    compiles: tuple[bool, ...] = (False, True),
) -> Iterator[Comparison]:
    """Compare training steps of one model, the whole of it and only its head, and inference."""
    name = f"{FAMILIES[family]}-{depth}, batch {batch_size}"
    clips = torch.randint(0, 256, (batch_size, 3, 16, side, side), dtype=torch.uint8)
    clips, labels = (
        clips.to(device.torch_device),
        torch.arange(batch_size, device=device.torch_device),
    )
    limit = _limit(family, depth, clips, device)
    for begin, part in (("", "all of it"), ("fc", "head only")):
        theirs = _plain_steps(family, depth, begin, clips, labels)
        for is_compiled in compiles:
            ours = _our_steps(family, depth, begin, clips, labels, device, is_compiled=is_compiled)
            how = f"{part}, {device.precision}" + (", compiled" if is_compiled else "")
            title = f"training step, {name}, {how}"
            share = limit / (1 if begin else 3)
            yield compare(title, "clips/s", ours, theirs, limit=share)
        yield from _busy(f"  GPU busy, {part}", device, ours, theirs)
    yield _scoring(family, depth, clips, device, f"inference, {name}, {device.precision}", limit)


def _limit(family: str, depth: int, clips: Tensor, device: Device) -> float:
    model = build(family, depth, n_classes=CLASSES).eval().to(device.torch_device)
    return clips_per_second(model, clips[0].float(), device.inference_dtype)


def _built(family: str, depth: int, begin: str) -> tuple[nn.Module, list[nn.Parameter]]:
    model = build(family, depth, n_classes=CLASSES)
    trained = model.get_submodule(begin) if begin else model
    return model, list(trained.parameters())


def _plain_steps(family: str, depth: int, begin: str, clips: Tensor, labels: Tensor) -> Work:
    model, trained = _built(family, depth, begin)
    model.to(clips.device).train()
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)

    def work() -> float:
        for _ in range(STEPS):
            plain.train_step(model, optimizer, clips, labels)
        return STEPS * len(clips)

    return work


def _our_steps(
    family: str,
    depth: int,
    begin: str,
    clips: Tensor,
    labels: Tensor,
    device: Device,
    *,
    is_compiled: bool,
) -> Work:
    model, trained = _built(family, depth, begin)
    freeze_before(model, family, begin)
    device.place(model)
    if is_compiled:
        model.compile()
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, fused=True)
    trainer = make_trainer(model, optimizer, device)
    trainer.begin_epoch()
    batch = ClipBatch(clips, labels, labels, [], [])

    def work() -> float:
        sums = [trainer.run_batch(batch, n_clips=len(clips)) for _ in range(STEPS)]
        sums[-1].loss.item()  # synchronises
        return STEPS * len(clips)

    return work


def _scoring(
    family: str, depth: int, clips: Tensor, device: Device, name: str, limit: float
) -> Comparison:
    model = build(family, depth, n_classes=CLASSES).eval().to(device.torch_device)
    score = make_scorer(model, device)

    def ours() -> float:
        scores = [score(clips) for _ in range(STEPS)]
        scores[-1].sum().item()
        return STEPS * len(clips)

    def theirs() -> float:
        with torch.no_grad():
            scores = [model(plain.model_input(clips)) for _ in range(STEPS)]
        scores[-1].sum().item()
        return STEPS * len(clips)

    return compare(name, "clips/s", ours, theirs, limit=limit)


def _busy(name: str, device: Device, ours: Work, theirs: Work) -> Iterator[Comparison]:
    """Compare the GPU utilisation that nvidia-smi reports; yield nothing on a CPU."""
    if device.torch_device.type == "cuda":
        a, b = _utilisation(ours), _utilisation(theirs)
        yield Comparison(name, "%", a, b, a / max(b, 1.0))


def _utilisation(work: Work) -> float:
    readings: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            output = subprocess.run(QUERY, capture_output=True, text=True, check=False).stdout
            readings.extend(float(line) for line in output.split() if line.isdigit())

    watcher = threading.Thread(target=watch)
    watcher.start()
    rate(work, rounds=4)
    ended.set()
    watcher.join()
    return statistics.median(readings or [0.0])
