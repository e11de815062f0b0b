"""Extraction to HDF5 gives the bytes that generate_video_jpgs writes."""

import io
import json
import subprocess

import h5py

from datasets.hdf5_extraction import Hdf5Files, write_frames
from datasets.video_files import read_parts
from tests.runs import make_frames, small_run
from tests.videos import draw, names, shared
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_flow_hdf5 import main as generate_flow
from util_scripts.generate_video_hdf5 import main as to_hdf5
from util_scripts.generate_video_jpgs import main as to_jpgs


def frames_of(path):
    with h5py.File(path) as file:
        return [data.tobytes() for data in file["video"]]


def check_twins(root):
    """Every HDF5 file has the bytes of its folder of JPGs, and there are no other files."""
    files = {str(p.relative_to(root / "hdf5")) for p in (root / "hdf5").rglob("*.hdf5")}
    folders = {p.parent.relative_to(root / "jpg") for p in (root / "jpg").rglob("*.jpg")}
    assert files == {f"{path}.hdf5" for path in folders}
    for path in folders:
        expected = [p.read_bytes() for p in sorted((root / "jpg" / path).iterdir())]
        assert frames_of(root / "hdf5" / f"{path}.hdf5") == expected
    return len(folders)


def extract_both(videos, root, *flags):
    statuses = [
        command([str(videos), str(root / name), "test", *flags])
        for command, name in ((to_jpgs, "jpg"), (to_hdf5, "hdf5"))
    ]
    assert statuses[0] == statuses[1]
    return statuses[0]


def test_the_same_bytes(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/A/deep/b.mp4", seconds=30, rate=12)  # more frames than GROWTH
    draw(tmp_path / "v/c.c.mkv", size="48x64")
    (tmp_path / "v/A/none.avi").touch()
    assert extract_both(tmp_path / "v", tmp_path, "--size", "24", "--quality", "4") == 1
    assert check_twins(tmp_path) == 3
    assert len(frames_of(tmp_path / "hdf5/A/deep/b.hdf5")) == 360
    assert names(tmp_path / "hdf5") == ["A", "c.c.hdf5", "manifest.jsonl"]


def test_second_run_redoes_only_changes(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/A/b.avi")
    arguments = [str(tmp_path / "v"), str(tmp_path / "hdf5"), "test"]
    assert to_hdf5(arguments) == 0
    assert to_hdf5(arguments) == 0
    assert "0 done, 2 already there" in capsys.readouterr().out
    draw(tmp_path / "v/A/a.avi", seconds=2)
    (tmp_path / "hdf5/A/b.hdf5").write_bytes(b"damaged")
    assert to_hdf5(arguments) == 0
    assert "2 done, 0 already there" in capsys.readouterr().out
    assert len(frames_of(tmp_path / "hdf5/A/a.hdf5")) == 20
    assert len(frames_of(tmp_path / "hdf5/A/b.hdf5")) == 10


def test_files_of_other_data_are_kept(tmp_path, capsys):
    draw(tmp_path / "v/A/a.avi")
    draw(tmp_path / "v/A/b.avi")
    arguments = [str(tmp_path / "v"), str(tmp_path / "hdf5"), "test"]
    assert to_hdf5(arguments) == 0
    make_frames(tmp_path / "jpg/A/a", 11)  # flow of as many frames as the video has
    (tmp_path / "hdf5/A/a.hdf5").unlink()
    assert generate_flow([str(tmp_path / "jpg"), str(tmp_path / "hdf5")]) == 0
    flow = (tmp_path / "hdf5/A/a.hdf5").read_bytes()
    for manifest in ("kept", "gone"):
        if manifest == "gone":
            (tmp_path / "hdf5/manifest.jsonl").unlink()
        capsys.readouterr()
        assert to_hdf5(arguments) == 1
        out = capsys.readouterr().out
        assert "A/a.avi: " in out
        assert "a.hdf5 exists, but does not fit the video; move it away" in out
        assert "0 done, 1 already there, 0 partial, 0 left out, 1 failed" in out
        assert (tmp_path / "hdf5/A/a.hdf5").read_bytes() == flow


def test_truncated_stream():
    part = b"--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: 3\r\n\r\nabc\r\n"
    assert list(read_parts(io.BytesIO(part * 3))) == [b"abc"] * 3
    assert list(read_parts(io.BytesIO(part + part[:-4]))) == [b"abc"]
    odd = part.replace(b"abc", b"\n\r\n")
    assert list(read_parts(io.BytesIO(odd + part))) == [b"\n\r\n", b"abc"]


def test_child_process_does_not_keep_files_locked(tmp_path):
    begun = []

    def parts():
        yield b"abc"
        begun.append(subprocess.Popen(["sleep", "60"], close_fds=False))

    try:
        write_frames(tmp_path / "a.hdf5", parts())
        assert Hdf5Files().count(tmp_path / "a.hdf5") == 1
    finally:
        for process in begun:
            process.kill()
            process.wait()


def test_jpg_and_hdf5_give_the_same_run(tmp_path):
    for label, size in (("a", "64x48"), ("b", "48x64")):
        for number in range(5):
            draw(tmp_path / f"v/{label}/{label}{number}.avi", size=size, seconds=2, rate=6 + number)
    assert extract_both(tmp_path / "v", tmp_path) == 0
    assert check_twins(tmp_path) == 10
    for form in ("jpg", "hdf5"):
        index = f"{form}.json"
        assert folder_json([str(tmp_path / form), str(tmp_path / index)]) == 0
        flags = ("--video_path", form, "--file_type", form, "--annotation_path", index)
        assert (
            small_run(tmp_path, *flags, "--inference", "--n_epochs", "1", result=f"r_{form}") == 0
        )
    one, other = (json.loads((tmp_path / f"r_{f}/val.json").read_text()) for f in ("jpg", "hdf5"))
    assert one == other


def test_awkward_videos(tmp_path):
    assert extract_both(shared("data/awkward"), tmp_path) == 1
    assert check_twins(tmp_path) == 23
