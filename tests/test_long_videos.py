"""Inference on an hour of video needs no more memory than on a minute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.build import build
from tests.runs import make_frames, read_results

ROOT = Path(__file__).parent.parent
FPS, N_DIFFERENT = 25, 50


def looped_video(folder, n_frames):
    """Make a folder of `n_frames` links to a few pictures."""
    pictures = folder.parent / "pictures"
    if not pictures.exists():
        make_frames(pictures, N_DIFFERENT, size=(320, 240))
    folder.mkdir()
    for number in range(n_frames):
        picture = pictures / f"image_{number % N_DIFFERENT + 1:05d}.jpg"
        (folder / f"image_{number + 1:05d}.jpg").symlink_to(picture)


def peak_of_inference(root, n_frames):
    """Measure the memory of the largest process of main.py on one video, in MiB."""
    name = f"v_{n_frames}"
    looped_video(root / name, n_frames)
    entry = {"subset": "validation", "video_path": name}
    entry["annotations"] = {"label": "a", "segment": [1, n_frames + 1]}
    index = {"labels": ["a", "b"], "database": {name: entry}}
    (root / f"{name}.json").write_text(json.dumps(index))
    command = [
        sys.executable, "main.py", "--root_path", str(root), "--video_path", ".",
        "--annotation_path", f"{name}.json", "--result_path", f"res_{name}",
        "--dataset", "folder", "--n_classes", "2", "--resume_path", "c.pth", "--no_train",
        "--no_val", "--inference", "--sample_size", "64", "--no_cuda", "--n_threads", "1",
        "--precision", "fp32",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    assert list(read_results(root / f"res_{name}")) == [name]
    return usage.ru_maxrss / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_video_length(tmp_path):
    model = build("resnet", 10, n_classes=2, resnet_widen_factor=0.25)
    content = {"epoch": 1, "arch": "resnet-10", "state_dict": model.state_dict()}
    torch.save(content, tmp_path / "c.pth")
    minute = peak_of_inference(tmp_path, 60 * FPS)
    hour = peak_of_inference(tmp_path, 3600 * FPS)
    print(f"peak: a minute {minute:.0f} MiB, an hour {hour:.0f} MiB")
    assert hour <= 1.1 * minute
