import copy
import io
import json
import math
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from datasets.frame_readers import JpgFolder, default_decoder
from engine.scoring import make_scorer
from errors import UserError
from models.build import build
from predict import export as deployment
from predict.classifier import load_classifier
from spatial_transforms import MEAN, EvalView, apply_view
from tests.commands import run_util
from tests.golden.weights import weights_from_names
from tests.runs import limit_file_size_here, make_dataset, make_frames
from tests.videos import draw, draw_sound
from util_scripts import export_model
from utils.outputs import ONNX, PT2

pytestmark = pytest.mark.numeric

DOCS = Path(__file__).parent.parent / "docs/using-models.md"
NAMES = ["run", "walk", "läuft"]


def write_checkpoint(path, family, depth, **options):
    """Save weights whose batch norms are far from the identity, so that folding matters."""
    model = build(family, depth, n_classes=3, **options)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    about = {"class_names": NAMES, "options": {"sample_size": 32, "sample_duration": 8}}
    torch.save({"state_dict": weights_from_names(shapes)} | about, path)
    return path


def export(checkpoint, *flags):
    """Return the exit status and the output."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = export_model.main(["--checkpoint", str(checkpoint), "--no_cuda", *flags])
    return status, printed.getvalue()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a tiny checkpoint, both exported files and frames; and the output."""
    root = tmp_path_factory.mktemp("exported")
    tiny = {"resnet_widen_factor": 0.25, "resnet_shortcut": "A"}
    checkpoint = write_checkpoint(root / "c.pth", "resnet", 10, **tiny)
    make_dataset(root, train=1, val=3)
    flags = ["--onnx", str(root / "model.onnx"), "--pt2", str(root / "made" / "model.pt2")]
    clips = ["--index", str(root / "index.json"), "--frames", str(root / "jpg")]
    status, printed = export(checkpoint, *flags, *clips, "--n_clips", "5", "--n_threads", "0")
    assert status == 0, printed
    assert ONNX.is_of(root / "model.onnx")
    assert PT2.is_of(root / "made" / "model.pt2")
    return root, printed


def test_both_files_agree_with_the_checkpoint_on_real_clips(exported):
    root, printed = exported
    reports = re.findall(
        r"on (\d) clips of (\S+): largest logit difference (\S+) \(logits up to (\S+)\), "
        r"same top-1 class for (\d)",
        printed,
    )
    assert len(reports) == 2
    for n_clips, index, difference, largest, n_agreeing in reports:
        assert (n_clips, index, n_agreeing) == ("3", str(root / "index.json"), "3")
        assert float(difference) < 1e-4 < 0.1 < float(largest)
    assert "onnxruntime" in printed
    assert "torch.export" in printed
    assert [path.name for path in (root / "made").iterdir()] == ["model.pt2"]  # no partial files


def test_batch_size_is_dynamic_and_metadata_describes_the_input(exported):
    root, _ = exported
    classifier = load_classifier(root / "c.pth", flags={"no_cuda": True, "precision": "fp32"})
    session = onnxruntime.InferenceSession(root / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 8, 32, 32]
    extra = {"preprocessing.json": ""}
    program = torch.export.load(root / "made" / "model.pt2", extra_files=extra).module()
    for n_clips in (1, 3):
        clips = deployment.example_clips(classifier, n_clips)
        with torch.no_grad():
            expected = classifier.model(classifier.device.model_input(clips))
            np.testing.assert_allclose(program(clips), expected, atol=1e-4)
        found = session.run(None, {"clips": clips.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)

    about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert about == json.loads(extra["preprocessing.json"])
    assert about["class_names"] == NAMES
    assert about["mean"] == list(MEAN["kinetics"])
    assert (about["sample_size"], about["sample_duration"], about["value_scale"]) == (32, 8, 1)
    assert about["arch"] == "resnet-10"
    assert about["normalized_inside"]


def test_batch_norms_are_folded(exported):
    import onnx

    graph = onnx.load(exported[0] / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert "Conv" in kinds
    assert not any("Norm" in kind for kind in kinds)


def test_the_exported_graph_is_free_of_cpu_kernels(tmp_path):
    path = write_checkpoint(tmp_path / "c.pth", "resnet", 50, resnet_widen_factor=0.125)
    classifier = load_classifier(path, flags={"no_cuda": True, "precision": "fp32"})
    n_convs = sum(isinstance(m, torch.nn.Conv3d) for m in classifier.model.modules())
    model = deployment.deployed(classifier)
    program = deployment.traced(model, deployment.example_clips(classifier))
    operations = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("conv3d" in name for name in operations) == n_convs
    assert not [n for n in operations if re.search("permute|slice|unfold|transpose|clone", n)]
    assert "CpuConv3d" in {type(m).__name__ for m in classifier.model.modules()}


def test_the_documented_program_gives_the_same_scores(exported, tmp_path, monkeypatch):
    root, _ = exported
    make_frames(tmp_path / "frames", 17, size=(53, 40))
    (tmp_path / "model.onnx").symlink_to(root / "model.onnx")
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    [program] = [block for block in blocks if "import onnxruntime" in block]
    monkeypatch.chdir(tmp_path)
    names = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(program, str(DOCS), "exec"), names)

    classifier = load_classifier(root / "c.pth", flags={"no_cuda": True, "precision": "fp32"})
    frames = JpgFolder(default_decoder()).read(tmp_path / "frames", range(1, 17))
    pixels = apply_view(frames, EvalView(32).draw(40, 53, None))  # (16, 3, 32, 32)
    clips = pixels.view(2, 8, 3, 32, 32).transpose(1, 2)
    assert np.abs(names["clips"].astype(int) - clips.numpy()).max() <= 2
    expected = make_scorer(classifier.model, classifier.device)(clips).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(names["scores"], expected, atol=5e-3)
    first = printed.getvalue().splitlines()[0]
    assert first == f"{expected.max():.3f}  {NAMES[expected.argmax()]}"


def test_a_mismatch_with_the_checkpoint_exits_with_status_1(tmp_path, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "c.pth", "resnet", 10, resnet_widen_factor=0.25)

    def fold_wrongly(model):
        copied = copy.deepcopy(model).eval()
        copied.bn1 = torch.nn.Identity()
        return copied

    monkeypatch.setattr(deployment, "folded", fold_wrongly)
    flags = ["--pt2", str(tmp_path / "m.pt2"), "--n_clips", "2", "--float_input"]
    status, printed = export(checkpoint, *flags)
    assert status == 1
    assert f"DISAGREES with {checkpoint} (--tolerance 0.001)" in printed
    assert "2 clips of seeded noise" in printed


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_a_full_disk_gives_a_one_line_error(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path / "c.pth", "resnet", 10, resnet_widen_factor=0.25)
    flag = "--" + name.partition(".")[2]
    arguments = ["--checkpoint", checkpoint, "--no_cuda", flag, tmp_path / name]
    done = run_util("export_model", *arguments, before=lambda: limit_file_size_here(100_000))
    assert done.status == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]  # torch may warn before it
    assert last == f"error: {tmp_path / name}: can't be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_float_input_is_not_normalised_and_videos_are_compared(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c.pth", "resnet", 10, resnet_widen_factor=0.25)
    video = draw(tmp_path / "clip.mkv", seconds=3)  # 30 frames: 4 windows
    draw_sound(tmp_path / "sound.wav")
    status, printed = export(checkpoint, "--pt2", str(tmp_path / "m.pt2"), "--float_input",
                             "--value_scale", "255", "--n_clips", "6",
                             "--video", str(video), str(tmp_path / "sound.wav"))  # fmt: skip
    assert status == 0
    assert f"on 3 clips of {video}" in printed
    assert f"skipped: {tmp_path / 'sound.wav'}: " in printed
    extra = {"preprocessing.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    assert program(torch.zeros(3, 3, 8, 32, 32)).shape == (3, 3)
    about = json.loads(extra["preprocessing.json"])
    assert not about["normalized_inside"]
    assert "float32" in about["input"]
    assert about["mean"][0] == pytest.approx(255 * MEAN["kinetics"][0])


def test_models_agree_if_all_logits_and_the_top_class_do():
    expected = torch.tensor([[1.0, 2.0], [3.0, 2.9995]])
    near = deployment.compare_logits(expected, expected + 5e-4)
    assert near.holds(1e-3)
    assert (near.n_agreeing, near.largest) == (2, 3.0)
    assert not near.holds(1e-4)
    swapped = deployment.compare_logits(expected, expected + torch.tensor([[0.0, 0.0], [0, 6e-4]]))
    assert swapped.difference < 1e-3
    assert swapped.n_agreeing == 1
    assert not swapped.holds(1e-3)
    broken = deployment.compare_logits(expected, torch.tensor([[1.0, math.nan], [3.0, 2.0]]))
    assert broken.difference == math.inf
    assert not broken.holds(1e9)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_ctrl_c_before_the_comparison_ends_keeps_the_earlier_file(tmp_path, monkeypatch, name):
    checkpoint = write_checkpoint(tmp_path / "c.pth", "resnet", 10, resnet_widen_factor=0.25)
    flags = [f"--{Path(name).suffix[1:]}", str(tmp_path / name), "--n_clips", "1"]
    assert export(checkpoint, *flags)[0] == 0
    before = (tmp_path / name).read_bytes()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("predict.export_check.check_export", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, *flags, "--float_input")
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pth", name]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "nothing to write"),
        (["--onnx", "model.pb"], "--onnx model.pb: the file name must end in .onnx"),
        (["--pt2", "model.pt"], "--pt2 model.pt: the file name must end in .pt2"),
        (["--pt2", "m.pt2", "--index", "i.json"], "--index and --frames must be given together"),
        (
            ["--pt2", "m.pt2", "--index", "i", "--frames", "f", "--video", "v"],
            "--video cannot be combined",
        ),
        (["--pt2", "m.pt2", "--n_clips", "0"], "--n_clips 0: must be at least 1"),
    ],
)
def test_invalid_flags(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        export("gone.pth", *flags)


def test_missing_packages_are_listed(monkeypatch):
    monkeypatch.setattr(deployment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export("gone.pth", "--onnx", "m.onnx")


FULL_WIDTH = [("resnet", 18), ("resnet", 50), ("resnet2p1d", 18), ("resnext", 50),
              ("densenet", 121), ("preresnet", 18), ("wideresnet", 50)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("family", "depth"), FULL_WIDTH)
def test_every_family_at_full_size(tmp_path, family, depth):
    checkpoint = write_checkpoint(tmp_path / "c.pth", family, depth)
    size = ["--sample_size", "112", "--sample_duration", "16", "--n_clips", "3"]
    status, printed = export(checkpoint, *size, "--onnx", str(tmp_path / "m.onnx"))
    assert status == 0, printed
