"""Untrusted frames: HDF5 files and pictures that are damaged, of another kind, or that refer to
other files. Each gives one line that names the file."""

import io
import os
import random
import resource
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from datasets.frame_readers import (
    FrameError,
    Hdf5Videos,
    JpgFolder,
    decode_with_pillow,
    decode_with_simplejpeg,
    default_decoder,
)
from datasets.hdf5 import Hdf5Writer, count_hdf5, has_flow
from datasets.jpeg_header import MAX_PIXELS, PictureError, jpeg_size
from errors import UserError
from tests.commands import ROOT, run_command, run_util
from tests.runs import make_frames
from tests.videos import draw
from util_scripts.generate_flow_hdf5 import main as to_flow

BYTES = h5py.vlen_dtype(np.dtype("uint8"))
N_FRAMES = 12


def jpeg(size=(32, 24), **how):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **how)
    return file.getvalue()


def write_hdf5(path, n_frames=N_FRAMES, **how):
    """Write a file; by default like extraction, in chunks of 256 frames."""
    data = np.frombuffer(jpeg(), np.uint8)
    how = how or {"chunks": (256,), "maxshape": (None,)}
    with Hdf5Writer(path) as writer:
        dataset = writer.create_frames("video", n_frames, **how)
        for number in range(n_frames):
            dataset[number] = data
    return path


def as_group(file, path):
    file.create_group("video")


def as_pixels(file, path):
    file["video"] = np.zeros((N_FRAMES, 24, 32, 3), np.uint8)


def as_fixed_strings(file, path):
    file["video"] = np.array([b"abc"] * N_FRAMES)


def as_floats(file, path):
    file.create_dataset("video", (N_FRAMES,), h5py.vlen_dtype(np.dtype("float32")))


def as_text(file, path):
    file.create_dataset("video", (N_FRAMES,), h5py.string_dtype())


def as_compound(file, path):
    file["video"] = np.zeros(N_FRAMES, [("a", "i4"), ("b", "f8")])


def as_table_of_bytes(file, path):
    file.create_dataset("video", (N_FRAMES, 2), BYTES)


def as_scalar(file, path):
    file["video"] = 1.5


def as_nothing(file, path):
    file["video"] = h5py.Empty("u1")


def as_a_type(file, path):
    file["video"] = np.dtype("u1")


def as_soft_link(file, path):
    file["video"] = h5py.SoftLink("/elsewhere")
    file["elsewhere"] = h5py.ExternalLink(path.with_name("other.hdf5"), "video")


def as_dangling_link(file, path):
    file["video"] = h5py.SoftLink("/nowhere")


def as_external_link(file, path):
    file["video"] = h5py.ExternalLink(path.with_name("other.hdf5"), "video")


def as_virtual_dataset(file, path):
    layout = h5py.VirtualLayout((N_FRAMES,), BYTES)
    layout[:] = h5py.VirtualSource(path.with_name("other.hdf5"), "video", (N_FRAMES,), BYTES)
    file.create_virtual_dataset("video", layout)


def as_external_bytes(file, path):
    external = [(path.with_name("other.hdf5"), 0, 16 * N_FRAMES)]
    file.create_dataset("video", (N_FRAMES,), BYTES, external=external)


def of_absurd_length(file, path):
    file.create_dataset("video", (10**15,), BYTES, chunks=(256,))


def under_another_name(file, path):
    file.create_dataset("vdeo", (N_FRAMES,), BYTES)


KINDS = [value for name, value in list(globals().items()) if name.startswith(("as_", "of_", "und"))]


def check_refused(path, *numbers):
    """Check that every reader refuses the file in one line that names it."""
    source = Hdf5Videos(default_decoder())
    for read in (count_hdf5, lambda path: source.read(path, numbers or [0])):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert message.isprintable(), message


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_hdf5_files_are_refused(tmp_path, kind):
    write_hdf5(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        kind(file, tmp_path / "a.hdf5")
    check_refused(tmp_path / "a.hdf5")
    has_flow(tmp_path / "a.hdf5")


@pytest.mark.parametrize("data", [b"", b"text", jpeg(), bytes(5000), b"\x89HDF\r\n\x1a\n"])
def test_non_hdf5_files_are_refused(tmp_path, data):
    (tmp_path / "a.hdf5").write_bytes(data)
    check_refused(tmp_path / "a.hdf5")
    (tmp_path / "folder.hdf5").mkdir()
    check_refused(tmp_path / "folder.hdf5")
    check_refused(tmp_path / "none.hdf5")


@pytest.mark.parametrize("how", [{}, {"chunks": None}, {"compression": "gzip"}, {"chunks": (5,)}])
def test_all_storage_layouts_are_read(tmp_path, how):
    path = write_hdf5(tmp_path / "a.hdf5", 600, **how)
    assert count_hdf5(path) == 600
    assert not has_flow(path)
    source = Hdf5Videos(default_decoder())
    frames = source.read(path, [0, 1, 599, 300, 2])
    assert {tuple(frame.shape) for frame in frames} == {(3, 24, 32)}


def mutated(whole, draw_from):
    """Make a file with one to twenty faults of one kind."""
    data = bytearray(whole)
    kind = draw_from.choice(["bit", "byte", "hole", "inserted", "cut"])
    if kind == "cut":
        return bytes(data[: draw_from.randrange(len(data))])
    for _ in range(draw_from.choice([1, 1, 3, 20])):
        place = draw_from.randrange(draw_from.choice([len(whole), min(len(whole), 3000)]))
        if kind == "bit":
            data[place] ^= 1 << draw_from.randrange(8)
        elif kind == "byte":
            data[place] = draw_from.choice([0, 255, draw_from.randrange(256)])
        elif kind == "hole":
            data[place : place + 64] = bytes(len(data[place : place + 64]))
        else:
            data[place:place] = bytes(draw_from.randrange(1, 9))
    return bytes(data)


def read_mutated(folder, n_cases):
    """Read files with faults; raises anything except FrameError and UserError."""
    whole = write_hdf5(folder / "whole.hdf5").read_bytes()
    source, path = Hdf5Videos(default_decoder()), folder / "a.hdf5"
    for seed in range(n_cases):
        path.write_bytes(mutated(whole, random.Random(seed)))
        try:
            n_frames = count_hdf5(path)
            source.read(path, [0, 1, 5, min(11, max(n_frames - 1, 0))])
        except UserError as error:
            assert str(error).isprintable(), seed


def test_damaged_hdf5_files_give_one_line(tmp_path):
    """In a separate process, since HDF5 could crash or hang it."""
    code = (
        "import sys; from pathlib import Path; from tests.test_strange_frames import read_mutated; "
        "read_mutated(Path(sys.argv[1]), 600)"
    )
    ended = run_command("-c", code, tmp_path)
    assert (ended.status, ended.stderr) == (0, "")


def test_hole_in_the_heap_does_not_hang(tmp_path):
    path = write_hdf5(tmp_path / "a.hdf5")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)  # the header of the first object
    path.write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from datasets.frame_readers import *; "
        "Hdf5Videos(default_decoder()).read(Path(sys.argv[1]), [0])"
    )
    ended = run_command("-c", code, path)
    assert ended.status == 1
    assert "FrameError" in ended.stderr
    assert "has no object" in ended.stderr


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_full_disk_during_hdf5_extraction(tmp_path, share):
    draw(tmp_path / "v/a/one.mp4", seconds=4, size="320x240")
    arguments = ("generate_video_hdf5", tmp_path / "v", tmp_path / "hdf5", "test")
    assert run_util(*arguments).status == 0
    whole = (tmp_path / "hdf5/a/one.hdf5").read_bytes()
    limit = max(int(share * len(whole)), 3000)  # enough for the manifest
    draw(tmp_path / "v/a/two.mp4", seconds=4, size="320x240")
    ended = run_util(
        *arguments,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.status == 2, ended.text
    assert ended.stderr.strip().endswith("can't be written: File too large; run again to continue")
    assert [p.name for p in (tmp_path / "hdf5/a").iterdir()] == ["one.hdf5"]
    assert (tmp_path / "hdf5/a/one.hdf5").read_bytes() == whole
    assert run_util(*arguments).status == 0
    assert count_hdf5(tmp_path / "hdf5/a/two.hdf5") == count_hdf5(tmp_path / "hdf5/a/one.hdf5")


def test_full_file_system(tmp_path):
    """The same on a file system that is really full."""
    place = tmp_path / "small"
    place.mkdir()
    draw(tmp_path / "v/a/one.mp4", seconds=4, size="320x240")
    mount = f"mount -t tmpfs -o size=48k none {place} || exit 77; exec "
    command = f"{sys.executable} -m util_scripts.generate_video_hdf5 {tmp_path}/v {place} test"
    if subprocess.run(["which", "unshare"], capture_output=True).returncode:
        pytest.skip("unshare is not here")
    ended = run_command("-m", "sh", "-c", mount + command, program="unshare", cwd=ROOT)
    if ended.status in (1, 77) and "can't be written" not in ended.text:
        pytest.skip(f"no file system may be mounted here: {ended.stderr.strip()}")
    assert ended.status == 2, ended.text
    assert "No space left on device" in ended.stderr, ended.text


def test_full_disk_raises_oserror(tmp_path):
    """Without our file object, HDF5 ends the process with a segmentation fault."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from datasets.hdf5 import Hdf5Writer
for limit in range(100, 40_000, 1300):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Hdf5Writer(Path(sys.argv[1])) as writer:
            dataset = writer.create_frames("video", 40)
            for number in range(40):
                dataset[number] = np.zeros(1000, np.uint8)
                if limit % 200:
                    writer.check()
    except OSError as error:
        print(error.strerror)
"""
    ended = run_command("-c", code, tmp_path / "a.hdf5")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["File too large"] * 31


def huge(side=65_500):
    """A JPEG of a few hundred bytes that claims 4,290 million pixels."""
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("decode", [decode_with_simplejpeg, decode_with_pillow])
def test_huge_picture_is_not_decoded(tmp_path, decode):
    path = tmp_path / "image_00001.jpg"
    path.write_bytes(huge())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match=r"00001\.jpg: 65500 x 65500 pixels: more than 64 million"):
        JpgFolder(decode).read(tmp_path, [1])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    write_hdf5(tmp_path / "a.hdf5", 1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["video"][0] = np.frombuffer(huge(), np.uint8)
    with pytest.raises(FrameError, match=r"a\.hdf5, video 0: 65500 x 65500"):
        Hdf5Videos(decode).read(tmp_path / "a.hdf5", [0])


def test_flow_of_a_huge_picture(tmp_path, capsys):
    make_frames(tmp_path / "jpg/a/one", 3)
    (tmp_path / "jpg/a/one/image_00002.jpg").write_bytes(huge())
    assert to_flow([str(tmp_path / "jpg"), str(tmp_path / "flow")]) == 1
    assert "image_00002.jpg: 65500 x 65500 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"progressive": True},
        {"comment": b"x" * 60_000},
        {"exif": b"Exif\0\0" + bytes(60_000)},
        {"icc_profile": bytes(200_000)},
        {"subsampling": 0, "restart_marker_rows": 1},
        {"dpi": (72, 72), "optimize": True},
    ],
)
def test_jpeg_size(how):
    for size in ((1, 1), (33, 47), (640, 360)):
        assert jpeg_size(jpeg(size, **how)) == size


def test_the_largest_video_there_is_passes():
    assert MAX_PIXELS > 7680 * 4320
    assert jpeg_size(huge(8000)) == (8000, 8000)
    with pytest.raises(PictureError):
        jpeg_size(huge(8001))


@pytest.mark.parametrize("decode", [decode_with_simplejpeg, decode_with_pillow])
def test_damaged_pictures_give_one_line(tmp_path, decode):
    wholes = [jpeg(), jpeg(progressive=True), jpeg(exif=b"Exif\0\0II*\0" + bytes(100))]
    file = io.BytesIO()
    Image.new("CMYK", (20, 10), (10, 200, 30, 40)).save(file, "JPEG")
    path, source = tmp_path / "image_00001.jpg", JpgFolder(decode)
    for seed in range(600):
        path.write_bytes(mutated([*wholes, file.getvalue()][seed % 4], random.Random(seed)))
        try:
            [frame] = source.read(tmp_path, [1])
        except FrameError as error:
            assert str(error).startswith(str(path)), seed
            assert str(error).isprintable(), seed
        else:
            assert frame.shape[0] == 3


@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_other_pictures_named_jpg(tmp_path, form):
    Image.new("RGB", (20, 10)).save(tmp_path / "image_00001.jpg", form)
    with pytest.raises(FrameError, match=r"image_00001\.jpg: not a JPEG"):
        JpgFolder(default_decoder()).read(tmp_path, [1])


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "image_00001.jpg")
    (tmp_path / "image_00002.jpg").symlink_to("/dev/zero")
    with (tmp_path / "image_00003.jpg").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "a.hdf5")
    code = (
        "import sys; from pathlib import Path; from datasets.frame_readers import *; "
        "here, name, number = "
        "Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]); decode = default_decoder(); "
        "(Hdf5Videos(decode) if name else JpgFolder(decode)).read(here / name, [number])"
    )
    for name, number, cause in (
        ("", 1, "not a regular file"),
        ("", 2, "not a regular file"),
        ("", 3, "too many for a frame"),
        ("a.hdf5", 0, "not a regular file"),
    ):
        ended = run_command("-c", code, tmp_path, name, number)
        assert "FrameError" in ended.stderr
        assert cause in ended.stderr.splitlines()[-1]
