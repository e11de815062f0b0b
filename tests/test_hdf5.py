"""Frames in HDF5 files: pictures and optical flow, read and run end to end."""

import io
import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.frame_readers import FrameError, Hdf5Videos, JpgFolder, default_decoder
from errors import UserError
from spatial_transforms import TrainView, apply_view
from tests.runs import make_dataset, small_run
from util_scripts.folder_json import main as folder_json
from util_scripts.ucf101_json import main as ucf101_json

BYTES = h5py.vlen_dtype(np.dtype("uint8"))


def grey_jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def write_arrays(path, **arrays):
    """Write each list of JPEGs as a dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, frames in arrays.items():
            dataset = file.create_dataset(name, (len(frames),), BYTES)
            for number, frame in enumerate(frames):
                dataset[number] = frame


def hdf5_twin(root):
    """Convert the folders of make_dataset to HDF5 files, with an index that counts from 0."""
    index = json.loads((root / "index.json").read_text())
    for video, entry in index["database"].items():
        folder = root / "jpg" / entry["annotations"]["label"] / video
        frames = [np.frombuffer(p.read_bytes(), np.uint8) for p in sorted(folder.iterdir())]
        write_arrays(root / "hdf5" / folder.parent.name / f"{video}.hdf5", video=frames)
        entry["annotations"]["segment"] = [0, len(frames)]
    (root / "hdf5.json").write_text(json.dumps(index))


def test_hdf5_and_jpg_give_the_same_results(tmp_path):
    make_dataset(tmp_path)
    hdf5_twin(tmp_path)
    hdf5 = ("--file_type", "hdf5", "--video_path", "hdf5", "--annotation_path", "hdf5.json")
    assert small_run(tmp_path, "--inference", result="jpg_run") == 0
    assert small_run(tmp_path, "--inference", *hdf5, result="hdf5_run") == 0
    for name in ("train.log", "val.log", "val.json"):
        assert (tmp_path / "jpg_run" / name).read_text() == (
            tmp_path / "hdf5_run" / name
        ).read_text()


def test_frames_are_numbered_from_0(tmp_path):
    make_dataset(tmp_path, train=1, val=1)
    hdf5_twin(tmp_path)
    decode = default_decoder()
    one = JpgFolder(decode).read(tmp_path / "jpg/a/a_0", [1, 20])
    other = Hdf5Videos(decode).read(tmp_path / "hdf5/a/a_0.hdf5", [0, 19])
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_errors_name_the_file(tmp_path):
    source = Hdf5Videos(default_decoder())
    path = tmp_path / "a.hdf5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(FrameError, match=r"a\.hdf5: can't be read"):
        source.read(path, [0])
    write_arrays(path, other=[np.zeros(3, np.uint8)])
    with pytest.raises(FrameError, match="no dataset 'video'"):
        source.read(path, [0])
    write_arrays(path, video=[np.zeros(3, np.uint8)])
    with pytest.raises(FrameError, match="video 0: not a JPEG"):
        source.read(path, [0])
    with pytest.raises(FrameError, match="no frame 1, but"):
        source.read(path, [1])


def test_missing_file_is_left_out(tmp_path, capsys):
    make_dataset(tmp_path)
    hdf5_twin(tmp_path)
    capsys.readouterr()
    (tmp_path / "hdf5/a/a_0.hdf5").unlink()
    hdf5 = ("--file_type", "hdf5", "--video_path", "hdf5", "--annotation_path", "hdf5.json")
    assert small_run(tmp_path, *hdf5, "--batch_size", "5", "--n_epochs", "1") == 0
    assert "a_0: no file" in capsys.readouterr().out


def test_flow_trains_and_infers(tmp_path):
    make_dataset(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    draw = np.random.default_rng(0)
    for video, entry in index["database"].items():
        label = entry["annotations"]["label"]
        u, v = (
            [grey_jpeg(draw.integers(0, 256, (24, 32), np.uint8)) for _ in range(9)] for _ in "uv"
        )
        write_arrays(tmp_path / "flow" / label / f"{video}.hdf5", video_u=u, video_v=v)
        entry["annotations"]["segment"] = [0, 9]
    (tmp_path / "flow.json").write_text(json.dumps(index))
    flow = ("--input_type", "flow", "--file_type", "hdf5", "--video_path", "flow")
    flags = (*flow, "--annotation_path", "flow.json", "--inference")
    assert small_run(tmp_path, *flags) == 0
    weights = torch.load(tmp_path / "res/save_2.pth", weights_only=True)["state_dict"]
    assert weights["conv1.weight"].shape[1] == 2
    assert len(json.loads((tmp_path / "res/val.json").read_text())["results"]) == 4


def test_flow_channels_are_u_and_v(tmp_path):
    u, v = np.full((8, 8), 40, np.uint8), np.full((8, 8), 200, np.uint8)
    write_arrays(tmp_path / "f.hdf5", video_u=[grey_jpeg(u)], video_v=[grey_jpeg(v)])
    source = Hdf5Videos(default_decoder(), ("video_u", "video_v"), channels=1)
    (frame,) = source.read(tmp_path / "f.hdf5", [0])
    assert frame.shape == (2, 8, 8)
    assert frame[0].unique().tolist() == [40]
    assert frame[1].unique().tolist() == [200]


def test_flip_negates_horizontal_flow():
    from random import Random

    frame = torch.stack([torch.full((16, 16), 40), torch.full((16, 16), 200)]).to(torch.uint8)
    how = TrainView(16, "center", is_flow=True)
    seeds = range(20)
    found = {
        (int(view[0, 0, 0, 0]), int(view[0, 1, 0, 0]))
        for view in (apply_view([frame], how.draw(16, 16, Random(s))) for s in seeds)
    }
    assert found == {(40, 200), (215, 200)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--input_type", "flow"), "--input_type flow needs --file_type hdf5"),
        (("--input_type", "flow", "--file_type", "hdf5", "--colorjitter"), "flow has no colours"),
    ],
)
def test_flags_of_flow(tmp_path, capsys, flags, message):
    make_dataset(tmp_path, train=1, val=1)
    assert small_run(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err


def test_scripts_count_hdf5_from_0(tmp_path, capsys):
    make_dataset(tmp_path)
    hdf5_twin(tmp_path)
    (tmp_path / "hdf5/a/damaged.hdf5").write_bytes(b"nothing")
    assert folder_json([str(tmp_path / "hdf5"), str(tmp_path / "own.json")]) == 0
    out = capsys.readouterr().out
    assert "  a/damaged: " in out
    assert "damaged.hdf5: can't be read" in out
    entries = json.loads((tmp_path / "own.json").read_text())["database"]
    assert {tuple(e["annotations"]["segment"]) for e in entries.values()} == {(0, 20)}
    assert set(entries) == {f"{label}_{i}" for label in "ab" for i in range(5)}
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 a\n2 b\n")
    (lists / "trainlist01.txt").write_text("a/a_0.avi 1\nb/b_0.avi 2\n")
    (lists / "testlist01.txt").write_text("a/a_1.avi\nb/b_9.avi\n")
    assert ucf101_json([str(lists), str(tmp_path / "hdf5"), str(tmp_path)]) == 0
    entries = json.loads((tmp_path / "ucf101_01.json").read_text())["database"]
    assert [e["annotations"]["segment"] for e in entries.values()] == [[0, 20]] * 3
    assert "b/b_9: no folder" in capsys.readouterr().out


def test_mixed_formats_are_refused(tmp_path):
    make_dataset(tmp_path, train=1, val=1)
    hdf5_twin(tmp_path)
    (tmp_path / "hdf5/a/a_0.hdf5").rename(tmp_path / "jpg/a/twin.hdf5")
    with pytest.raises(UserError, match=r"in several formats: hdf5 .for example a/twin. and jpg"):
        folder_json([str(tmp_path / "jpg"), str(tmp_path / "own.json")])
