"""Files of other programs, random weights in their names and shapes: recognised, translated, and
equal to the networks they are of."""

import json

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.transforms._presets import VideoClassification

import main
from datasets.frame_readers import JpgFolder, default_decoder
from engine.checkpoint import load_checkpoint
from errors import UserError
from models.arch_detect import identify
from models.build import build
from models.namings import NAMINGS, Inflation, find_naming
from predict.classifier import load_classifier
from spatial_transforms import MEAN, STD, EvalView, apply_view
from tests.golden.weights import weights_from_names
from tests.runs import make_dataset, read_results
from util_scripts import export_model, inspect_checkpoint

pytestmark = pytest.mark.numeric

VIDEO_MODELS = {
    "r3d_18": ("resnet-18", "torchvision_video", {"conv1_t_size": 3, "resnet_2d_layers": 0}),
    "mc3_18": ("resnet-18", "torchvision_video", {"conv1_t_size": 3, "resnet_2d_layers": 3}),
    "r2plus1d_18": (
        "resnet2p1d-18",
        "torchvision_r2plus1d",
        {"conv1_mid_planes": 45, "shared_mid_planes": True},
    ),
}
SMALL_CLIPS = {"sample_size": 32, "sample_duration": 8, "eval_resize": (37, 49)}
FP32 = {"no_cuda": True, "precision": "fp32"}


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def filled(model):
    """The model in evaluation mode, its batch norms far from the identity."""
    model.load_state_dict(weights_from_names(shapes_of(model)))
    return model.eval()


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


def run(root, *flags, result="res"):
    """Run main.py on small clips of the videos of make_dataset(root)."""
    small = ["--sample_size", "32", "--sample_duration", "8", "--eval_resize", "37", "49"]
    arguments = [
        "--root_path", root, "--video_path", "jpg", "--annotation_path", "index.json",
        "--result_path", result, "--dataset", "folder", *small, "--no_cuda", "--n_threads", "0",
        "--precision", "fp32", "--no_report", "--batch_size", "4", *flags,
    ]  # fmt: skip
    assert main.main([*map(str, arguments)]) == 0


@pytest.fixture(params=VIDEO_MODELS)
def theirs(request, tmp_path):
    """A video model of torchvision with 2 classes: its name, itself, and a file of its weights."""
    model = filled(getattr(torchvision.models.video, request.param)(num_classes=2))
    return request.param, model, saved(model, tmp_path / f"{request.param}.pth")


def test_a_video_model_of_torchvision_gives_its_logits_and_scores(theirs, tmp_path):
    name, model, path = theirs
    classifier = load_classifier(path, flags=FP32 | SMALL_CLIPS)
    arch, naming, architecture = VIDEO_MODELS[name]
    options = classifier.options
    assert options.arch == arch
    assert classifier.checkpoint.naming is NAMINGS[naming]
    assert architecture.items() <= options.model_options().items()
    assert (options.no_max_pool, options.no_antialias, options.frame_rate) == (True, True, 15)
    assert load_classifier(path, flags=FP32).options.eval_resize == (128, 171)

    make_dataset(tmp_path, train=1, val=1, n_frames=8)
    run(tmp_path, "--resume_path", path, "--no_train", "--no_val", "--inference")
    preprocess = VideoClassification(crop_size=(32, 32), resize_size=(37, 49))
    read = JpgFolder(default_decoder()).read
    for label in "ab":
        frames = torch.stack(read(tmp_path / "jpg" / label / f"{label}_1", range(1, 9)))
        inputs = preprocess(frames[None])  # (1, T, C, H, W) -> (1, C, T, h, w)
        with torch.inference_mode():
            expected = model(inputs)
            found = classifier.model(inputs)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        scores = {e["label"]: e["score"] for e in read_results(tmp_path / "res")[f"{label}_1"]}
        wanted = expected.softmax(1)[0].tolist()
        assert [scores["a"], scores["b"]] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [(240, 320), (90, 160), (320, 180)])
def test_preprocessing_is_that_of_torchvision(size):
    noise = torch.rand(1, 3, size[0] // 4, size[1] // 4, generator=torch.manual_seed(0))
    frame = (F.interpolate(noise, size, mode="bilinear")[0] * 255).to(torch.uint8)
    view = EvalView(112, resize=(128, 171), antialias=False).draw(*size, None)
    pixels = apply_view([frame], view)[0]
    mean, std = (torch.tensor(table["torchvision"]).view(3, 1, 1) for table in (MEAN, STD))
    expected = VideoClassification(crop_size=(112, 112), resize_size=(128, 171))(frame[None])
    torch.testing.assert_close((pixels / 255 - mean) / std, expected[:, 0])


def check_fine_tuning(root, weights, *flags):
    """Fine-tune a head, resume, export; returns the options saved with the result."""
    make_dataset(root, train=2, val=1, n_frames=8)
    training = ("--learning_rate", "0.01", "--ft_begin_module", "fc", "--checkpoint", "1")
    run(root, "--pretrain_path", weights, *training, *flags, "--n_epochs", "1")
    run(root, "--resume_path", "auto", *training, "--n_epochs", "2")
    best = root / "res" / "save_2.pth"
    onnx = [
        "--checkpoint",
        str(best),
        "--no_cuda",
        "--n_clips",
        "2",
        "--onnx",
        str(root / "m.onnx"),
    ]
    assert export_model.main(onnx) == 0  # logits within 1e-3
    checkpoint = load_checkpoint(best)
    assert checkpoint.naming is None
    assert checkpoint.class_names == ["a", "b"]
    return checkpoint.options


@pytest.mark.parametrize(
    "name",
    ["mc3_18", *(pytest.param(name, marks=pytest.mark.slow) for name in ("r3d_18", "r2plus1d_18"))],
)
def test_what_is_fine_tuned_keeps_the_preprocessing(tmp_path, name):
    model = filled(getattr(torchvision.models.video, name)(num_classes=400))
    options = check_fine_tuning(tmp_path, saved(model, tmp_path / f"{name}.pth"))
    assert f"{options['model']}-{options['model_depth']}" == VIDEO_MODELS[name][0]
    wanted = VIDEO_MODELS[name][2] | {
        "mean_dataset": "torchvision",
        "no_antialias": True,
        "eval_resize": (37, 49),
        "frame_rate": 15.0,
        "no_max_pool": True,
        "bn_eps": 1e-5,
    }
    assert wanted.items() <= options.items()


class Pair(nn.Sequential):
    """A convolution of VMZ's R(2+1)D, in space and then in time."""

    def __init__(self, in_planes, planes, stride):
        mid = in_planes * planes * 27 // (9 * in_planes + 3 * planes)
        super().__init__(
            nn.Conv3d(in_planes, mid, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(mid, eps=1e-3),
            nn.ReLU(),
            nn.Conv3d(mid, planes, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class VmzBlock(nn.Module):
    def __init__(self, in_planes, planes, stride):
        super().__init__()
        norms = (nn.BatchNorm3d(planes, eps=1e-3) for _ in range(3))
        self.conv1 = nn.Sequential(Pair(in_planes, planes, stride), next(norms), nn.ReLU())
        self.conv2 = nn.Sequential(Pair(planes, planes, 1), next(norms))
        if stride > 1:
            conv = nn.Conv3d(in_planes, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, next(norms))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return F.relu(self.conv2(self.conv1(x)) + shortcut)


class Vmz(nn.Module):
    """R(2+1)D as in the files of IG-65M."""

    def __init__(self, n_blocks, n_classes):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(45, eps=1e-3),
            nn.ReLU(),
            nn.Conv3d(45, 64, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(64, eps=1e-3),
            nn.ReLU(),
        )
        in_planes = 64
        for number, (planes, n) in enumerate(zip((64, 128, 256, 512), n_blocks, strict=True), 1):
            first = VmzBlock(in_planes, planes, 1 if number == 1 else 2)
            rest = (VmzBlock(planes, planes, 1) for _ in range(n - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            in_planes = planes
        self.fc = nn.Linear(512, n_classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(x.mean((2, 3, 4)))


def test_ig65m_is_recognised_by_its_published_shapes():
    with torch.device("meta"):
        shapes = shapes_of(Vmz((3, 4, 6, 3), 487))
    inside = [shapes[f"layer{layer}.0.conv2.0.0.weight"][0] for layer in (2, 3, 4)]
    assert (shapes["stem.0.weight"][0], inside) == (45, [288, 576, 1152])
    naming = find_naming(shapes)
    assert naming is NAMINGS["vmz_r2plus1d"]
    renamed = {naming.renamed(name): shape for name, shape in shapes.items()}
    identity = identify(renamed)
    assert (identity.arch, identity.n_classes) == ("resnet2p1d-34", 487)
    assert (identity.options["conv1_mid_planes"], identity.options["shared_mid_planes"]) == (45, 0)
    with torch.device("meta"):
        options = identity.options | {"no_max_pool": True}
        model = build("resnet2p1d", 34, n_classes=487, **options)
    assert shapes_of(model) == renamed


def test_ig65m_gives_the_logits_of_its_network(tmp_path):
    model = filled(Vmz((1, 1, 1, 1), 7))
    path = saved(model, tmp_path / "ig65m.pth")
    classifier = load_classifier(path, flags=FP32 | SMALL_CLIPS)
    assert (classifier.options.bn_eps, classifier.options.eval_resize) == (1e-3, (37, 49))
    clips = torch.randn(1, 3, 8, 32, 32, generator=torch.manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(classifier.model(clips), model(clips), atol=1e-5, rtol=0)


def test_a_trunk_without_a_head_is_fine_tuned_but_not_used(tmp_path):
    model = filled(Vmz((1, 1, 1, 1), 7))
    del model.fc
    path = saved(model, tmp_path / "xdc.pth")
    assert load_checkpoint(path).naming is NAMINGS["vmz_r2plus1d"]
    assert dict(inspect_checkpoint.describe(load_checkpoint(path)))["classes"] == (
        "none: it has no head"
    )
    with pytest.raises(UserError, match=r"xdc.pth: the checkpoint has no head; train one with"):
        load_classifier(path, flags=FP32)
    make_dataset(tmp_path, train=2, val=1, n_frames=8)
    run(tmp_path, "--pretrain_path", path, "--ft_begin_module", "fc", "--n_epochs", "1")
    trained = load_checkpoint(tmp_path / "res" / "save_1.pth")
    assert trained.options["bn_eps"] == 1e-3
    stem = trained.state_dict["conv1_s.weight"]
    assert torch.equal(stem, model.state_dict()["stem.0.weight"])


IMAGE_MODELS = {
    "resnet18": "resnet-18",
    "resnet34": "resnet-34",
    "resnet50": "resnet-50",
    "resnet101": "resnet-101",
    "resnet152": "resnet-152",
    "resnext50_32x4d": "resnext-50",
    "resnext101_64x4d": "resnext-101",
    "wide_resnet50_2": "wideresnet-50",
    "wide_resnet101_2": "wideresnet-101",
}
QUICK = ("resnet18", "resnet50", "resnext50_32x4d")
STAGES = ("maxpool", "layer1", "layer2", "layer3", "layer4", "fc")


def features_of(model, inputs):
    """The outputs of STAGES."""
    outputs = {}
    for stage in STAGES:
        keep = lambda _, __, output, stage=stage: outputs.update({stage: output.detach()})  # noqa: E731
        model.get_submodule(stage).register_forward_hook(keep)
    with torch.inference_mode():
        model(inputs)
    return outputs


def repeat_at_the_ends(model):
    """Pad convolutions in time by repeating the first and last frame instead of with zeros."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv3d) and (n := conv.padding[0]):
            conv.padding = (0, *conv.padding[1:])
            pad = lambda _, inputs, n=n: (F.pad(inputs[0], (0, 0, 0, 0, n, n), "replicate"),)  # noqa: E731
            conv.register_forward_pre_hook(pad)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in IMAGE_MODELS
    ],
)
def test_inflated_features_of_a_repeated_frame_are_those_of_the_frame(tmp_path, name):
    image_model = filled(getattr(torchvision.models, name)(num_classes=3))
    checkpoint = load_checkpoint(saved(image_model, tmp_path / "2d.pth"))
    identity = checkpoint.identity
    assert identity.arch == IMAGE_MODELS[name]
    assert checkpoint.options == {"mean_dataset": "imagenet"}
    model = build(identity.model, identity.model_depth, n_classes=3, **identity.options)
    model.load_state_dict(checkpoint.state_dict)
    repeat_at_the_ends(model.eval())
    frame = torch.randn(1, 3, 48, 48, generator=torch.manual_seed(0))
    expected = features_of(image_model, frame)
    found = features_of(model, frame[:, :, None].repeat(1, 1, 8, 1, 1))
    for stage in STAGES[:-1]:
        n_frames = found[stage].shape[2]
        wanted = expected[stage][:, :, None].expand(-1, -1, n_frames, -1, -1)
        torch.testing.assert_close(found[stage], wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["fc"], expected["fc"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_image_model_fits_a_family(name):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
        naming = find_naming({k: tuple(v.shape) for k, v in state.items()})
        inflated = naming.translate(state, Inflation(t_size=5))
        shapes = {k: tuple(v.shape) for k, v in inflated.items()}
        identity = identify(shapes)
        model = build(identity.model, identity.model_depth, n_classes=1000, **identity.options)
    assert (identity.arch, identity.options["conv1_t_size"]) == (IMAGE_MODELS[name], 5)
    assert shapes_of(model) == shapes


def test_the_flags_decide_the_kernels_of_inflation(tmp_path):
    model = filled(torchvision.models.resnet18())
    path = saved(model, tmp_path / "resnet18.pth")
    flags = ("--conv1_t_size", "3", "--resnet_2d_layers", "3")
    options = check_fine_tuning(tmp_path, path, *flags)
    assert (options["conv1_t_size"], options["resnet_2d_layers"]) == (3, 3)
    assert (options["mean_dataset"], options["no_max_pool"]) == ("imagenet", False)
    trained = load_checkpoint(tmp_path / "res" / "save_2.pth").state_dict
    torch.testing.assert_close(trained["conv1.weight"].sum(2), model.conv1.weight)
    assert trained["layer2.0.conv1.weight"].shape == (128, 64, 1, 3, 3)


def test_counters_that_old_files_lack_are_added(tmp_path):
    weights = torchvision.models.resnet18(num_classes=3).state_dict()
    old = {name: t for name, t in weights.items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    checkpoint = load_checkpoint(tmp_path / "old.pth")
    assert checkpoint.state_dict["bn1.num_batches_tracked"].dtype == torch.int64
    assert checkpoint.shapes.keys() == weights.keys()


def test_names_of_two_programs_in_one_file_are_an_error(tmp_path):
    weights = torchvision.models.video.mc3_18(num_classes=3).state_dict()
    torch.save(weights | {"conv1.weight": weights["stem.0.weight"]}, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"both.pth: mixes the names of torchvision's r3d or mc3"):
        load_checkpoint(tmp_path / "both.pth")


def test_other_networks_are_of_no_naming():
    with torch.device("meta"):
        for name in ("vgg11", "densenet121", "mobilenet_v2", "swin_t"):
            assert find_naming(shapes_of(getattr(torchvision.models, name)())) is None
        assert find_naming(shapes_of(torchvision.models.video.s3d())) is None
        assert find_naming(shapes_of(build("resnet", 18, n_classes=3))) is None
    assert find_naming({"stem.0.weight": (3,), "conv1.weight": ()}) is None


def test_a_file_is_described_with_its_flags(tmp_path):
    path = saved(torchvision.models.video.mc3_18(num_classes=5), tmp_path / "mc3.pth")
    facts = dict(inspect_checkpoint.describe(load_checkpoint(path)))
    assert (facts["model"], facts["written as"]) == ("resnet-18", "torchvision's r3d or mc3")
    assert facts["flags"] == (
        "--model resnet --model_depth 18 --conv1_t_size 3 --resnet_2d_layers 3 --no_max_pool "
        "--eval_resize 128 171 --no_antialias --frame_rate 15.0 --mean_dataset torchvision"
    )


def test_a_frame_rate_that_the_weights_do_not_expect_is_reported(tmp_path, capsys):
    path = saved(torchvision.models.video.mc3_18(num_classes=2), tmp_path / "mc3.pth")
    make_dataset(tmp_path, train=2, val=1, n_frames=8)
    row = {"source": "a/a_0.mp4", "n_bytes": 1, "mtime_ns": 1, "status": "done", "rate": 30.0,
           "arguments": {"size": 240}, "time": 1.0}  # fmt: skip
    (tmp_path / "jpg" / "manifest.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    inference = ("--resume_path", path, "--no_train", "--no_val", "--inference")
    run(tmp_path, *inference)
    expected = "clips have 30 frames per second, the weights expect 15"
    assert f"{expected}: --sample_t_stride 2 gives 15" in capsys.readouterr().out
    run(tmp_path, *inference, "--sample_t_stride", "2")
    assert "frames per second" not in capsys.readouterr().out
    run(tmp_path, "--pretrain_path", path, "--ft_begin_module", "fc", "--n_epochs", "1")
    assert expected in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "res" / "save_1.pth").options["frame_rate"] == 30
