"""Which arithmetic a device gets."""

import platform

import pytest
import torch

from engine.device import Device, Normalization, tune_process
from tests.commands import run_command

pytestmark = pytest.mark.numeric

PRECISION = (
    "from engine.device import Normalization, choose_device;"
    "normalization = Normalization.of('kinetics');"
    "device = choose_device(no_cuda=True, precision='auto', normalization=normalization);"
    "print(device.precision)"
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is a level of x86 alone")
@pytest.mark.parametrize("level", ["SSE41", "AVX2"])
def test_auto_is_fp32_where_onednn_has_no_bf16(level):
    """oneDNN may be held to less than the CPU has, as these variables do for tests."""
    done = run_command("-c", PRECISION, environ={"ONEDNN_MAX_CPU_ISA": level})
    assert (done.status, done.stdout) == (0, "fp32\n"), done.stderr


def test_a_device_is_named_with_its_threads(monkeypatch):
    device = Device(torch.device("cpu"), "fp32", Normalization.of("kinetics"))
    for n_threads, text in ((1, "CPU with 1 thread, fp32"), (2, "CPU with 2 threads, fp32")):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        assert str(device) == text


@pytest.mark.parametrize(("precision", "is_allowed"), [("bf16", True), ("fp32", False)])
def test_fp32_on_a_gpu_does_not_round_to_tf32(precision, is_allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    tune_process(Device(torch.device("cuda", 0), precision, Normalization.of("kinetics")))
    assert torch.backends.cudnn.allow_tf32 is is_allowed
