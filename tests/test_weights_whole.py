"""From a name to predictions: download, fine-tune, predict, inspect, with random weights of
torchvision's smallest video network on a host of our own."""

import hashlib
import re
from dataclasses import replace

import pytest
import torch
from torchvision.models.video import mc3_18

import main
from models.weights import WEIGHTS
from tests.runs import make_dataset
from tests.servers import serving
from tests.videos import draw
from util_scripts import inspect_checkpoint, predict_video

NAME = "torchvision:mc3_18"
CLIPS = ["--sample_size", "32", "--sample_duration", "8"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small data set, a video, and a host with the weights, whose name has their SHA-256."""
    root = tmp_path_factory.mktemp("whole")
    make_dataset(root, train=2, val=1, n_frames=9)
    draw(root / "video.mp4", seconds=1)
    torch.manual_seed(1)
    (root / "host/models").mkdir(parents=True)
    torch.save(mc3_18().state_dict(), root / "w.pth")
    digest = hashlib.sha256((root / "w.pth").read_bytes()).hexdigest()[:8]
    row = replace(WEIGHTS[NAME], file=f"mc3_18-{digest}.pth")
    (root / "w.pth").rename(root / "host/models" / row.file)
    with pytest.MonkeyPatch.context() as patch, serving(root / "host") as server:
        patch.setitem(WEIGHTS, NAME, row)
        patch.setenv("WEIGHTS_MIRROR", server.url)
        patch.setenv("TORCH_HOME", str(root / "cache"))
        yield root
        assert server.requests == [f"/models/{row.file}"]


def test_weights_are_fine_tuned_and_both_models_predict(root, capsys):
    flags = ["--root_path", str(root), "--video_path", "jpg", "--annotation_path", "index.json"]
    flags += ["--result_path", "res", "--dataset", "folder", "--batch_size", "2", *CLIPS]
    flags += ["--pretrain_path", NAME, "--ft_begin_module", "fc", "--n_epochs", "1", "--no_cuda"]
    assert main.main([*flags, "--n_threads", "0", "--no_report"]) == 0
    log = capsys.readouterr().out
    assert "loaded resnet-18 without its head of 400 classes; new head 'fc' of 2" in log
    assert "400 (abseiling, air drumming, answering questions, …) in the checkpoint" in log

    predicted = {}
    for weights in (NAME, root / "res/save_1.pth"):
        words = [root / "video.mp4", "--checkpoint", weights, "--no_cuda", *CLIPS, "--topk", 400]
        assert predict_video.main([str(word) for word in words]) == 0
        predicted[weights] = capsys.readouterr().out
    assert "abseiling" in predicted[NAME]
    assert "zumba" in predicted[NAME]
    assert "abseiling" not in predicted[root / "res/save_1.pth"]


def test_inspect_checkpoint_takes_the_name(root, capsys):
    assert inspect_checkpoint.main([NAME]) == 0
    found = capsys.readouterr().out
    assert re.match(rf"{NAME}: 4\d\.\d MB", found)
    assert "abseiling, air drumming" in found
    assert "11,695,440" in found
