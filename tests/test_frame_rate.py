import json

import pytest

from datasets.activitynet import read_any_index
from datasets.frame_rate import describe_mismatch, find_frame_rate
from tests.runs import make_dataset
from tests.videos import draw


@pytest.mark.parametrize(
    ("rate", "expected", "t_stride", "text"),
    [
        (30, 15, 1, "clips have 30 frames per second, the weights expect 15: "
                    "--sample_t_stride 2 gives 15"),
        (30, 15, 4, "clips have 7.5 frames per second, the weights expect 15: "
                    "--sample_t_stride 2 gives 15"),
        (25, 15, 1, "clips have 25 frames per second, the weights expect 15: "
                    "--sample_t_stride 2 gives 12.5; REMEDY"),
        (10, 15, 1, "clips have 10 frames per second, the weights expect 15: REMEDY"),
        (30, 15, 2, None),
        (30, 25, 1, None),
        (24, 25, 1, None),
        (30, 0, 1, None),
    ],
)  # fmt: skip
def test_the_closest_stride_is_named(rate, expected, t_stride, text):
    assert describe_mismatch(rate, expected, t_stride=t_stride, remedy="REMEDY") == text


def test_the_rate_is_that_of_the_manifest_or_of_activitynet(tmp_path):
    make_dataset(tmp_path, train=1, val=1, n_frames=1)
    index = read_any_index(tmp_path / "index.json")
    frames = tmp_path / "jpg"
    assert find_frame_rate(index, frames) is None

    def row(number, status="done", fps=None, rate=25.0):
        arguments = {"size": 240, "fps": fps}
        facts = {"status": status, "arguments": arguments, "rate": rate, "time": 1.0}
        return json.dumps({"source": f"a/{number}.avi", "n_bytes": 1, "mtime_ns": 1, **facts})

    rows = [row(1), row(2), row(3, rate=30.0), row(4, "failed", rate=60.0), row(5, rate=None)]
    (frames / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert find_frame_rate(index, frames) == 25
    (frames / "manifest.jsonl").write_text(row(1, fps=15) + "\n", encoding="utf-8")
    assert find_frame_rate(index, frames) == 15

    draw(tmp_path / "videos" / "a" / "a_0.mp4", rate=12)
    draw(tmp_path / "videos" / "b" / "b_1.avi", rate=12)
    assert find_frame_rate(index, tmp_path / "videos", "video") == 12
    assert find_frame_rate(index, tmp_path, "video") is None

    videos = {f"v{n}": {"subset": "training", "fps": fps} for n, fps in enumerate((10.0, 20.0))}
    content = {"taxonomy": [{"nodeName": "a"}], "database": videos}
    (tmp_path / "untrimmed.json").write_text(json.dumps(content), encoding="utf-8")
    assert find_frame_rate(read_any_index(tmp_path / "untrimmed.json"), frames) == 15
