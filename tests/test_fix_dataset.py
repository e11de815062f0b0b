"""check_dataset --fix."""

import json

import pytest

from tests.runs import make_dataset, make_frames, small_run
from tests.test_check_dataset import change_index, check


@pytest.mark.parametrize(
    ("segments", "fixed", "left"),
    [
        ({"m_1": [1, 9], "m_2": [9, 15], "m_3": [15, 21]}, {}, []),
        # Extracted again with half the frames: a segment may hold another time than before.
        ({"m_1": [1, 11], "m_2": [11, 21], "m_3": [21, 31], "m_4": [15, 41]}, {}, ["m_3", "m_4"]),
        ({"m_1": [0, 10], "m_2": [10, 20]}, {}, ["m_1"]),
        ({"m_1": None, "m_2": [1, 9]}, {}, ["m_1"]),
        ({"m_000021_000030": [21, 31]}, {}, ["m_000021_000030"]),
        ({"m_000001_000030": [1, 31]}, {}, ["m_000001_000030"]),
        ({"m": [21, 31]}, {}, ["m"]),
        ({"m": [15, 31]}, {"m": [15, 21]}, []),
        ({"m": [0, 20]}, {"m": [1, 21]}, []),
        ({"m": [0, 19]}, {"m": [1, 21]}, []),  # from 0 to the last frame
        ({"m": [0, 10]}, {"m": [1, 11]}, []),
        ({"m": None}, {"m": [1, 21]}, []),
        ({"m_000010_000020": [1, 31]}, {"m_000010_000020": [1, 21]}, []),  # times, as in Kinetics
    ],
)
def test_fix_never_makes_a_part_the_whole_video(tmp_path, capsys, segments, fixed, left):
    make_frames(tmp_path / "jpg/m", 20)
    database = {
        name: {
            "subset": "training",
            "annotations": {"label": "a"} | ({"segment": segment} if segment else {}),
            "video_path": "m",
        }
        for name, segment in segments.items()
    }
    (tmp_path / "index.json").write_text(json.dumps({"labels": ["a"], "database": database}))
    check(tmp_path, "--fix")
    found = json.loads((tmp_path / "index.json").read_text())["database"]
    assert {n: e["annotations"].get("segment") for n, e in found.items()} == segments | fixed
    out = capsys.readouterr().out
    assert (f"{len(left)} segments do not fit the frames found; write" in out) == bool(left)
    for name in left:
        assert f"  {name}: {'' if segments[name] else 'no '}segment" in out


def test_fix_keeps_the_only_part_of_a_video(tmp_path):
    make_dataset(tmp_path)
    part = {"label": "a", "segment": [5, 11]}  # of 20 frames
    change_index(tmp_path, lambda index: index["database"]["a_0"].update(annotations=part))
    before = (tmp_path / "index.json").read_bytes()
    check(tmp_path, "--fix")
    assert (tmp_path / "index.json").read_bytes() == before


def test_fix_corrects_frame_counts(tmp_path, capsys):
    make_dataset(tmp_path)
    before = (tmp_path / "index.json").read_bytes()
    for number in range(15, 21):
        (tmp_path / f"jpg/a/a_0/image_{number:05d}.jpg").unlink()
    assert check(tmp_path, "--fix") == 1
    assert "1 frame counts corrected" in capsys.readouterr().out
    assert (tmp_path / "index.json.bak").read_bytes() == before
    assert check(tmp_path) == 0
    assert small_run(tmp_path, "--n_epochs", "1") == 0
