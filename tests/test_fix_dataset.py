"""check_dataset --fix."""

import json

from tests.runs import make_dataset, make_frames, small_run
from tests.test_check_dataset import change_index, check


def test_fix_keeps_parts_of_videos(tmp_path):
    make_frames(tmp_path / "jpg/m", 20)
    parts = {"m_1": [1, 9], "m_2": [9, 15], "m_3": [15, 31]}
    database = {
        name: {
            "subset": "training",
            "annotations": {"label": "a", "segment": segment},
            "video_path": "m",
        }
        for name, segment in parts.items()
    }
    (tmp_path / "index.json").write_text(json.dumps({"labels": ["a"], "database": database}))
    check(tmp_path, "--fix")
    fixed = json.loads((tmp_path / "index.json").read_text())["database"]
    segments = {name: entry["annotations"]["segment"] for name, entry in fixed.items()}
    assert segments == parts | {"m_3": [15, 21]}


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
