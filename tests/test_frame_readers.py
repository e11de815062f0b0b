"""Reading frames from folders of JPGs."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.frame_readers import (
    FrameError,
    JpgFolder,
    decode_with_pillow,
    decode_with_simplejpeg,
    default_decoder,
)
from tests.runs import make_frames


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("side", [(1, 1), (33, 47), (240, 320)])
def test_decoders_give_the_same_pixels(side):
    draw = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    grey = jpeg(draw[..., 0])
    for data in (jpeg(draw), jpeg(draw, subsampling=0), jpeg(draw, progressive=True), grey):
        one, other = decode_with_simplejpeg(data), decode_with_pillow(data)
        assert one.shape == other.shape == (3, *side)
        assert (one.int() - other.int()).abs().max() <= 1


def test_pillow_is_the_fallback_decoder(monkeypatch):
    assert default_decoder() is decode_with_simplejpeg
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert default_decoder() is decode_with_pillow


@pytest.mark.parametrize("decode", [decode_with_simplejpeg, decode_with_pillow])
def test_unreadable_frames_are_named(tmp_path, decode):
    make_frames(tmp_path, 3)
    source = JpgFolder(decode)
    assert source.read(tmp_path, [1])[0].dtype == torch.uint8
    whole = (tmp_path / "image_00001.jpg").read_bytes()
    (tmp_path / "image_00001.jpg").write_bytes(whole[:100])
    (tmp_path / "image_00002.jpg").write_bytes(b"")
    (tmp_path / "image_00003.jpg").write_bytes(b"no picture")
    causes = ("no such frame.*from 0, as for HDF5", "decoded", "empty", "not a JPEG", "no such")
    for number, cause in enumerate(causes):
        with pytest.raises(FrameError, match=f"image_0000{number}.jpg: .*{cause}"):
            source.read(tmp_path, [number])


def test_cmyk_jpeg_is_close_to_pillow():
    buffer = io.BytesIO()
    Image.new("CMYK", (20, 10), (10, 200, 30, 40)).save(buffer, "JPEG")
    data = buffer.getvalue()
    one, other = decode_with_simplejpeg(data), decode_with_pillow(data)
    assert (one.int() - other.int()).abs().max() <= 4


@pytest.mark.parametrize(
    ("size", "least", "shape"),
    [
        ((320, 240), 112, (3, 120, 160)),
        ((640, 480), 112, (3, 120, 160)),
        ((320, 240), 121, (3, 240, 320)),
        ((320, 200), 112, (3, 200, 320)),
        ((320, 240), 0, (3, 240, 320)),
    ],
)
def test_scaled_decoding_keeps_the_minimum_size(size, least, shape):
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "jpeg")
    frame = decode_with_simplejpeg(file.getvalue(), min_size=least)
    assert frame.shape == shape
    whole = decode_with_simplejpeg(file.getvalue())
    assert abs(frame.float().mean() - whole.float().mean()) < 2
