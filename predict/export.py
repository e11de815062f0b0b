"""Export a trained model to a format that runs without this program: ONNX or torch.export."""

import copy
import importlib.util
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from datasets.build import build_eval_view
from engine.device import Device, Normalization
from errors import UserError
from models import cpu_kernels
from models.folding import folded
from predict.classifier import Classifier
from spatial_transforms import EvalView
from utils.files import as_utf8, atomic_write

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_ONNX_BYTES = 2**31 - 2**20  # of weights: an ONNX file is limited to 2 GiB
ABOUT = "preprocessing"  # key in the metadata of an ONNX file; ABOUT.json is in a .pt2 archive


class Deployed(nn.Module):
    """The model on the CPU in float32, batch norm folded, from clips (B, C, T, H, W) to logits.

    The clips are uint8 pixels, which are normalised here, or with `normalization` None normalised
    float32.
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
    """Describe the model's input and output for programs that run it, as JSON values."""
    options = classifier.options
    size, view = options.sample_size, build_eval_view(options)
    pixels = "float32, normalised" if takes_floats else "uint8 pixels, normalised inside the model"
    channels = "RGB" if options.input_type == "rgb" else "optical flow, horizontal and vertical"
    return {
        "arch": options.arch,
        "class_names": list(classifier.labels),
        "input": f"clips: {pixels}; (batch, channel, time, row, column); channels: {channels}",
        "output": "logits: (batch, class); softmax makes scores of them",
        "sample_size": size,
        "sample_duration": options.sample_duration,
        "sample_t_stride": options.sample_t_stride,
        "frames": f"every {options.sample_t_stride}. frame, {options.sample_duration} of these a "
        "clip; a shorter video is looped; scores of a longer one are the mean over its windows",
        "resize": f"{_resizing(view)}, then the centre square",
        "resize_to": list(view.resize or (size,)),
        "antialias": view.antialias,
        **asdict(classifier.device.normalization),
        "normalization": "(pixel / 255 * value_scale - mean) / std, channel by channel",
        "normalized_inside": not takes_floats,
    }


def _resizing(view: EvalView) -> str:
    how = "bilinear, antialiased" if view.antialias else "bilinear, without antialiasing"
    if len(view.resize) == 2:
        return f"height to {view.resize[0]}, width to {view.resize[1]} ({how})"
    return f"shorter side to {(*view.resize, view.size)[0]} ({how})"


def example_clips(classifier: Classifier, n_clips: int = 2) -> Tensor:
    """Return seeded random pixels in the model's input shape, uint8 (N, C, T, H, W)."""
    options = classifier.options
    side = options.sample_size
    shape = (n_clips, options.n_input_channels, options.sample_duration, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(0))


def traced(model: Deployed, clips: Tensor) -> ExportedProgram:
    """Trace the graph with sample clips; the batch dimension is dynamic."""
    with torch.no_grad():
        return torch.export.export(
            model, (clips,), dynamic_shapes={"clips": {0: Dim("batch", min=1)}}
        )


@contextmanager
def written_onnx(
    program: ExportedProgram, path: Path, description: dict[str, Any]
) -> Iterator[Path]:
    """Write one ONNX file; yield its temporary path, which becomes `path` at the end of the block.

    Raises UserError if the weights are too large for one.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if n_bytes > MAX_ONNX_BYTES:
        raise UserError(
            f"{path}: {n_bytes / 1e9:.1f} GB of weights exceed the 2 GiB of an ONNX file; "
            "export with --pt2 instead"
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
    with atomic_write(path) as part:
        onnx.save(part, external_data=False)
        yield part


@contextmanager
def written_pt2(
    program: ExportedProgram, path: Path, description: dict[str, Any]
) -> Iterator[Path]:
    """Write an archive of torch.export; yield its temporary path, which becomes `path` at the end
    of the block."""
    extra = {f"{ABOUT}.json": _as_json(description)}
    archive = io.BytesIO()  # torch aborts the process if it writes to a full disk itself
    torch.export.save(program, archive, extra_files=extra)
    with atomic_write(path) as part:
        part.write_bytes(archive.getbuffer())
        yield part


def _as_json(description: Mapping[str, Any]) -> str:
    return as_utf8(json.dumps(description, ensure_ascii=False, allow_nan=False))


def require_onnx() -> None:
    """Raise UserError if a package is missing."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx needs more packages: pip install {' '.join(missing)}")


Runner = Callable[[Tensor], Tensor]  # clips, as the exported model expects them -> logits (B, K)


def onnx_runner(path: Path, n_threads: int) -> Runner:
    """Load an ONNX file in onnxruntime, on the CPU."""
    with _temporary_files_removed():
        import onnxruntime

    onnxruntime.disable_telemetry_events()  # releases for Linux send them too
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


@contextmanager
def _temporary_files_removed() -> Iterator[None]:
    """Give a library that leaves files in the temporary folder one that is removed."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before


def pt2_runner(path: Path) -> Runner:
    """Load an archive of torch.export, on the CPU."""
    return torch.no_grad()(torch.export.load(path).module())


class Reference:
    """The model of the checkpoint in float32 on the CPU, without folding: what an exported model is
    compared with."""

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
    """A comparison of two models' logits on the same clips."""

    difference: float  # largest absolute difference; infinite if a logit is not finite
    largest: float  # absolute value of the reference's logits
    n_agreeing: int  # clips with the same top-1 class
    n_clips: int

    def holds(self, tolerance: float) -> bool:
        return self.difference < tolerance and self.n_agreeing == self.n_clips


def compare_logits(expected: Tensor, found: Tensor) -> Parity:
    """Compare logits of shape (N, K)."""
    difference = (found - expected).abs().max().item()
    return Parity(
        difference if math.isfinite(difference) else math.inf,
        expected.abs().max().item(),
        int((found.argmax(1) == expected.argmax(1)).sum()),
        len(expected),
    )
