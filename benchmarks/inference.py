"""Inference of an R3D-50: the model alone, and the whole program from JPG folders to val.json."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.frames import frame_folders, index_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.gpu_check.setting import run_main
from benchmarks.limits import clips_per_second
from benchmarks.steps import devices
from benchmarks.timing import Comparison, compare
from engine.scoring import make_scorer
from models.build import build
from temporal_transforms import sliding_starts

DEPTH, BATCH, CLASSES = 50, 16, 101
MOST_VIDEOS = 90  # of the validation set, for the whole program
ROUNDS, PROGRAMS = 7, 3


def comparisons() -> Iterator[Comparison]:
    clips = torch.randint(0, 256, (BATCH, 3, 16, 112, 112), dtype=torch.uint8)
    model = build("resnet", DEPTH, n_classes=CLASSES).eval()
    with in_fresh_process(_plain_scores, clips) as theirs:
        for device in devices():
            score = make_scorer(model, device)

            def ours() -> float:
                score(clips).softmax(dim=1)  # noqa: B023  called in the same iteration
                return len(clips)

            name = f"inference, R3D-{DEPTH} alone, {device.precision}"
            limit = clips_per_second(model, clips[0].float(), device.inference_dtype)
            yield compare(name, "clips/s", ours, theirs, rounds=ROUNDS, limit=limit)
    with tempfile.TemporaryDirectory() as folder:
        yield _whole_program(Path(folder))


def _plain_scores(clips: Tensor) -> Callable[[], float]:
    model = build("resnet", DEPTH, n_classes=CLASSES).eval()

    def work() -> float:
        with torch.no_grad():
            model(plain.model_input(clips)).softmax(dim=1)
        return len(clips)

    return work


def _plain_program(videos: plain.PlainVideos, work: Path) -> Callable[[], float]:
    """Run from the checkpoint to the result file."""

    def run() -> float:
        model = build("resnet", DEPTH, n_classes=len(videos.labels))
        model.load_state_dict(torch.load(work / "save_1.pth")["state_dict"])
        return plain.infer(model, videos, work / "plain.json")

    return run


def _whole_program(work: Path) -> Comparison:
    frames = frame_folders(work)
    index = index_of(frames, work, most=MOST_VIDEOS)
    videos = plain.PlainVideos(frames, index, subset="validation")
    n_classes = len(videos.labels)
    model = build("resnet", DEPTH, n_classes=n_classes)
    content = {"epoch": 1, "arch": f"resnet-{DEPTH}", "state_dict": model.state_dict()}
    torch.save(content, work / "save_1.pth")
    n_windows = sum(len(sliding_starts(video[2], 16, 16)) for video in videos.videos)

    def ours() -> float:
        arguments = [
            "--video_path", str(frames), "--annotation_path", str(index),
            "--result_path", str(work / "res"), "--dataset", "folder",
            "--n_classes", str(n_classes), "--resume_path", str(work / "save_1.pth"),
            "--no_train", "--no_val", "--inference", "--no_report", "--no_cuda", "--n_threads", "2",
        ]  # fmt: skip
        run_main(arguments)
        return n_windows

    name = f"inference, R3D-{DEPTH}, JPG folders to val.json, auto"
    with in_fresh_process(_plain_program, videos, work) as theirs:
        return compare(name, "clips/s", ours, theirs, rounds=PROGRAMS, warms_up=False)
