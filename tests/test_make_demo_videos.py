"""The demo's videos: classes differ only in the order of the frames."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from errors import UserError
from media.demo_videos import MOTIONS, STILL, draw_set, filter_graph
from media.ffmpeg import Ffmpeg
from util_scripts.make_demo_videos import main

BRIGHT = 130  # backgrounds stay below 110 in every channel, squares above 150


def graph_of(name, label, *, group=1, clip=1):
    key = f"1/{name}/{group}"
    return filter_graph(MOTIONS[name][label], Random(key), Random(f"{key}/{clip}"))


def frames_of(graph, folder):
    folder.mkdir()
    out = f"file:{folder}/%03d.png"
    assert Ffmpeg().run(["-filter_complex", graph, "-t", "2", out]).returncode == 0
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def squares(frames):
    """Centre (x, y) and side of the bright square of each frame, in pixels."""
    found = []
    for frame in frames:
        rows, columns = np.nonzero((frame > BRIGHT).all(axis=2))
        found.append((columns.mean(), rows.mean(), np.ptp(columns) + 1))
    return np.array(found)


@pytest.mark.parametrize("name", MOTIONS)
def test_classes_share_backgrounds_colours_and_draws(name):
    for group in (1, 2):
        graphs = [graph_of(name, label, group=group) for label in MOTIONS[name]]
        fixed = {graph[: graph.index(",scale")] for graph in graphs}  # background and colour
        assert len(fixed) == 1
    assert len({graph_of(name, label) for label in MOTIONS[name]}) == len(MOTIONS[name])


def test_motions_match_their_names(tmp_path):
    def steps(label):
        """Median change per frame of x, y and side."""
        found = squares(frames_of(graph_of("pretraining", label), tmp_path / label))
        return np.median(np.diff(found, axis=0), axis=0)

    assert steps("Rise")[1] < -0.5
    assert steps("Fall")[1] > 0.5
    assert steps("Grow")[2] >= 0.5
    assert steps("Shrink")[2] <= -0.5
    assert (steps("Still") == 0).all()


def test_single_frames_do_not_show_the_class(tmp_path):
    """Over several videos, the squares of both classes cover the same positions."""
    places = {}
    for label in ("Rise", "Fall"):
        heights = [
            squares(frames_of(graph_of("pretraining", label, group=g), tmp_path / f"{label}{g}"))
            for g in range(1, 7)
        ]
        places[label] = np.concatenate(heights)[:, 1]
    edges = np.quantile(places["Rise"], [0.25, 0.5, 0.75])
    shares = np.bincount(np.digitize(places["Fall"], edges), minlength=4) / len(places["Fall"])
    assert shares == pytest.approx(np.full(4, 0.25), abs=0.06)


def test_mirrored_videos_keep_their_class():
    """No motion prefers a direction in x: it is constant, goes both ways, or jumps."""
    sides = {motion["x"] for motions in MOTIONS.values() for motion in motions.values()}
    assert sides <= {"{x}", "{v}", "{jx}"}


def test_drawing_is_reproducible(tmp_path, monkeypatch):
    monkeypatch.setattr("media.demo_videos.N_GROUPS", 3)
    monkeypatch.setattr("media.demo_videos.GROUPS_PER_TEST", 1)
    for folder in ("one", "two"):
        assert draw_set(tmp_path / folder, "finetuning", seed=5) == 4 * 3 * 2
    videos = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(videos) == 4 * 3 * 2 + 7 + 1
    for path in videos:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_videos_of_another_seed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("media.demo_videos.N_GROUPS", 1)
    monkeypatch.setattr("media.demo_videos.MOTIONS", {"finetuning": {"Still": STILL}})
    draw_set(tmp_path, "finetuning", seed=1)
    draw_set(tmp_path, "finetuning", seed=1)
    with pytest.raises(UserError, match=r"--seed 2: \S* holds videos of --seed 1; remove it"):
        draw_set(tmp_path, "finetuning", seed=2)
    (tmp_path / "lists/seed.txt").unlink()  # as earlier versions left it
    with pytest.raises(UserError, match=r"is unknown, .* if it is 2, write 2 to \S*/seed\.txt,"):
        draw_set(tmp_path, "finetuning", seed=2)
    (tmp_path / "lists/seed.txt").write_text("2")
    draw_set(tmp_path, "finetuning", seed=2)


def test_lists_split_by_group(tmp_path, monkeypatch):
    monkeypatch.setattr("media.demo_videos.N_GROUPS", 3)
    monkeypatch.setattr("media.demo_videos.GROUPS_PER_TEST", 1)
    for _ in range(2):
        assert main([str(tmp_path)]) == 0
    lists = tmp_path / "finetuning/lists"
    assert lists.joinpath("classInd.txt").read_text() == "1 UpAndDown\n2 Pulse\n3 Jump\n4 Slide\n"
    test = lists.joinpath("testlist02.txt").read_text().splitlines()
    train = lists.joinpath("trainlist02.txt").read_text().splitlines()
    assert len(test) == 4 * 2
    assert len(train) == 4 * 4
    assert all("_g02_" in line for line in test)
    assert not any("_g02_" in line for line in train)
