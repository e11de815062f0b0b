"""A trained model in a form that runs without this program: ONNX, or torch.export's archive."""

import copy
import importlib.util
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from engine.device import Device, Normalization
from errors import UserError
from models import cpu_kernels
from models.folding import folded
from predict.classifier import Classifier
from utils.files import as_utf8, written_whole

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST_ONNX = 2**31 - 2**20  # bytes of weights: one ONNX file holds less than 2 GiB
ABOUT = "preprocessing"  # the entry of the metadata; in a .pt2, the extra file ABOUT.json


class Deployed(nn.Module):
    """The model on the CPU in float32, batch norm folded, from clips (B, C, T, H, W) to logits.

    The clips are uint8 pixels, normalised here; or with `normalization` None float32, normalised
    already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalization: Normalization | None) -> None:
        super().__init__()
        ready = cpu_kernels.remove(folded(model)).to(device="cpu", dtype=torch.float32)
        self.model = ready.to(memory_format=torch.contiguous_format)
        self.normalization = normalization
        if normalization is not None:
            for name in ("mean", "std"):
                values = torch.tensor(getattr(normalization, name)).view(-1, 1, 1, 1)
                self.register_buffer(name, values, persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        if self.normalization is not None:
            clips = clips.to(torch.float32) * (self.normalization.value_scale / 255)
            clips = (clips - self.mean) / self.std
        return self.model(clips)


def deployed(classifier: Classifier, *, takes_floats: bool = False) -> Deployed:
    normalization = None if takes_floats else classifier.device.normalization
    return Deployed(classifier.model, normalization).eval()


def about(classifier: Classifier, *, takes_floats: bool = False) -> dict[str, Any]:
    """What a program that uses the exported model has to know, as JSON values."""
    options = classifier.options
    size = options.sample_size
    given = "float32, normalised" if takes_floats else "uint8 pixels, normalised inside the model"
    channels = "RGB" if options.input_type == "rgb" else "optical flow, horizontal and vertical"
    return {
        "arch": options.arch,
        "class_names": list(classifier.labels),
        "input": f"clips: {given}; (batch, channel, time, row, column); channels: {channels}",
        "output": "logits: (batch, class); softmax makes scores of them",
        "sample_size": size,
        "sample_duration": options.sample_duration,
        "sample_t_stride": options.sample_t_stride,
        "frames": f"every {options.sample_t_stride}. frame, {options.sample_duration} of these a "
        "clip; a shorter video is looped; scores of a longer one are the mean over its windows",
        "resize": f"shorter side to {size} (bilinear, antialiased), then the centre square",
        **asdict(classifier.device.normalization),
        "normalization": "(pixel / 255 * value_scale - mean) / std, channel by channel",
        "normalized_inside": not takes_floats,
    }


def example_clips(classifier: Classifier, n_clips: int = 2) -> Tensor:
    """Seeded random pixels of the right shape, uint8 (N, C, T, H, W)."""
    options = classifier.options
    side = options.sample_size
    shape = (n_clips, options.n_input_channels, options.sample_duration, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(0))


def traced(model: Deployed, clips: Tensor) -> ExportedProgram:
    """The graph for any number of clips like these, of the shape and type the model takes."""
    with torch.no_grad():
        return torch.export.export(
            model, (clips,), dynamic_shapes={"clips": {0: Dim("batch", min=1)}}
        )


def write_onnx(program: ExportedProgram, path: Path, description: dict[str, Any]) -> None:
    """Write one ONNX file, whole or not at all. Raises UserError."""
    n_bytes = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if n_bytes > LARGEST_ONNX:
        raise UserError(
            f"{path}: {n_bytes / 1e9:.1f} GB of weights are more than an ONNX file holds"
        )
    with torch.no_grad():
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["clips"],
            output_names=["logits"],
            dynamic_shapes={"clips": {0: "batch"}},
            verbose=False,
        )
    assert onnx is not None
    onnx.model.metadata_props[ABOUT] = _as_json(description)
    with written_whole(path) as part:
        onnx.save(part, external_data=False)


def write_pt2(program: ExportedProgram, path: Path, description: dict[str, Any]) -> None:
    """Write torch.export's archive, whole or not at all. Raises UserError."""
    extra = {f"{ABOUT}.json": _as_json(description)}
    archive = io.BytesIO()  # torch's own writing to a file aborts the process on a full disk
    torch.export.save(program, archive, extra_files=extra)
    with written_whole(path) as part:
        part.write_bytes(archive.getbuffer())


def _as_json(description: Mapping[str, Any]) -> str:
    return as_utf8(json.dumps(description, ensure_ascii=False, allow_nan=False))


def require_onnx() -> None:
    """Raises UserError where a package is absent."""
    lacking = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(f"ONNX needs more packages: pip install {' '.join(lacking)}")


Runner = Callable[[Tensor], Tensor]  # clips as the exported model takes them -> logits (B, K)


def onnx_runner(path: Path, n_threads: int) -> Runner:
    """The file in onnxruntime, on the CPU."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # which its releases for Linux send, too
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


def pt2_runner(path: Path) -> Runner:
    """The file as torch.export loads it, on the CPU."""
    return torch.no_grad()(torch.export.load(path).module())


class Reference:
    """The checkpoint's own model in float32 on the CPU, nothing folded: what an exported one must
    equal."""

    def __init__(self, classifier: Classifier) -> None:
        self.device = Device(torch.device("cpu"), "fp32", classifier.device.normalization)
        self.model = copy.deepcopy(classifier.model).cpu().eval()

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 (B, C, T, H, W) -> logits (B, K)."""
        with torch.inference_mode():
            return self.model(self.normalized(clips))

    def normalized(self, clips: Tensor) -> Tensor:
        return self.device.model_input(clips).contiguous()


class Parity(NamedTuple):
    """How two models' logits compare on the same clips."""

    difference: float  # the largest of any logit; infinite where one is no number
    largest: float  # of the reference's logits, without sign
    n_agreeing: int  # clips whose first class is the same
    n_clips: int

    def holds(self, tolerance: float) -> bool:
        return self.difference < tolerance and self.n_agreeing == self.n_clips


def compare_logits(expected: Tensor, found: Tensor) -> Parity:
    """(N, K) and (N, K)."""
    difference = (found - expected).abs().max().item()
    return Parity(
        difference if math.isfinite(difference) else math.inf,
        expected.abs().max().item(),
        int((found.argmax(1) == expected.argmax(1)).sum()),
        len(expected),
    )
