"""Folds for cross-validation."""

import tracemalloc
from collections import Counter
from random import Random

import numpy as np
import pytest

from datasets.folds import draw_folds, stratify
from datasets.index_writer import Video
from datasets.split import draw_validation
from errors import UserError
from tests.test_index_scripts import make_frames, read, videos_of
from util_scripts import csv_json, folder_json


def unevenness(sources, fold_of, n_folds):
    """The standard deviation over the folds of each class's share, averaged over the classes."""
    table = np.array([[counts[label] for label in "abc"] for counts in sources])
    folds = np.array([table[np.array(fold_of) == fold].sum(axis=0) for fold in range(n_folds)])
    return (folds / table.sum(axis=0)).std(axis=0).mean()


def test_classes_are_spread_as_evenly_as_by_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(20):
        draw = Random(seed)
        sources = [
            Counter({"a": 1 + draw.randrange(6), "b": draw.randrange(4), "c": draw.randrange(3)})
            for _ in range(30)
        ]
        groups = [n for n, counts in enumerate(sources) for _ in range(counts.total())]
        labels = [label for counts in sources for label in sorted(counts.elements())]
        splitter = selection.StratifiedGroupKFold(4)
        parts = splitter.split(np.zeros(len(labels)), labels, groups)
        fold_of = {groups[i]: fold for fold, (_, rest) in enumerate(parts) for i in rest}
        ours.append(unevenness(sources, stratify(sources, 4), 4))
        theirs.append(unevenness(sources, [fold_of[n] for n in range(30)], 4))
    assert np.mean(ours) < 1.05 * np.mean(theirs)
    assert max(ours) < 0.05


def stratify_plainly(sources, n_folds):
    """The rule of `stratify` with a table of all sources and one of all folds per choice."""
    labels = sorted({label for counts in sources for label in counts})
    table = np.array([[counts[label] for label in labels] for counts in sources], np.float64)
    folds, fold_of = np.zeros((n_folds, len(labels))), [0] * len(sources)
    for number in np.argsort(-table.std(axis=1), kind="stable"):
        after = np.broadcast_to(folds, (n_folds, *folds.shape)).copy()
        after[np.arange(n_folds), np.arange(n_folds)] += table[number]
        unevenness = (after / table.sum(axis=0)).std(axis=1).mean(axis=1).round(9)
        sizes = after.sum(axis=2).diagonal()
        fold_of[number] = min(range(n_folds), key=lambda fold: (unevenness[fold], sizes[fold]))
        folds[fold_of[number]] += table[number]
    return fold_of


@pytest.mark.parametrize("seed", range(12))
def test_folds_do_not_depend_on_how_they_are_computed(seed):
    draw = Random(seed)
    labels, most = range(2 + 3 * seed), 1 + seed % 4
    sources = [
        Counter(draw.choices(labels, k=1 + draw.randrange(most))) for _ in range(20 + 10 * seed)
    ]
    n_folds = 2 + draw.randrange(9)
    assert stratify(sources, n_folds) == stratify_plainly(sources, n_folds)


def test_many_classes_and_sources_take_little_memory():
    sources = [Counter([n % 500]) for n in range(1500)]
    tracemalloc.start()
    try:
        stratify(sources, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(sources) * 500 * 8  # bytes of a table of both


def test_drawing_validation_looks_at_a_source_a_few_times_however_many_classes_there_are():
    class Counted(dict):
        n_reads = 0

        def __getitem__(self, name):
            Counted.n_reads += 1
            return super().__getitem__(name)

    sources = Counted({f"s{n}": Counter([f"class {n}"]) for n in range(300)})
    assert draw_validation(sources, fraction=0.2, seed=1) == set()
    assert Counted.n_reads < 10 * len(sources)


def test_every_video_once_no_source_on_both_sides_and_even_classes():
    videos = [Video("training", "ab"[n % 3 == 0], f"v{n}") for n in range(120)]
    source_of = {f"v{n}": f"s{n // 4}" for n in range(120)}
    videos.append(Video("testing", "a", "t"))
    folds = draw_folds(videos, source_of, n_folds=5, seed=1)
    seen = Counter()
    for fold in folds:
        assert [video.path for video in fold] == [video.path for video in videos]
        assert fold[-1] == videos[-1]
        sides = {(source_of[video.path], video.subset) for video in fold[:-1]}
        assert len(sides) == 30
        chosen = [video for video in fold if video.subset == "validation"]
        seen.update(video.path for video in chosen)
        assert Counter(video.label for video in chosen) == {"a": 16, "b": 8}
    assert set(seen.values()) == {1}
    assert len(seen) == 120
    assert draw_folds(videos, source_of, n_folds=5, seed=1) == folds
    assert draw_folds(videos, source_of, n_folds=5, seed=2) != folds


def test_the_commands_write_one_index_per_fold(tmp_path, capsys):
    names = [f"{label}/{label}{n}_part{part}" for label in "ab" for n in range(6) for part in "12"]
    make_frames(tmp_path / "jpg", *names)
    jpg, own = str(tmp_path / "jpg"), str(tmp_path / "own.json")
    assert folder_json.main([jpg, own, "--folds", "3", "--group_by", "^[^_]+"]) == 0
    rows = [f"{name},{name[0]},{name[2:].partition('_')[0]}" for name in names]
    table = "\n".join(["path,label,group", *rows])
    (tmp_path / "list.csv").write_text(table)
    listed = [str(tmp_path / "list.csv"), jpg, str(tmp_path / "t.json")]
    assert csv_json.main([*listed, "--folds", "3"]) == 0
    assert not (tmp_path / "own.json").exists()
    for stem in ("own", "t"):
        seen = Counter()
        for number in (1, 2, 3):
            path = tmp_path / f"{stem}_fold{number}.json"
            sides = {}
            for video_id, (subset, *_) in videos_of(path).items():
                sides.setdefault(video_id.partition("_")[0], set()).add(subset)
                seen[video_id] += subset == "validation"
            assert all(len(side) == 1 for side in sides.values())
            assert len(read(path)["database"]) == 24
        assert set(seen.values()) == {1}
    assert capsys.readouterr().out.count("8 validation") == 6


def test_folds_of_a_draw_into_more_folds_do_not_remain(tmp_path):
    make_frames(tmp_path / "jpg", "a/1", "a/2", "b/3", "b/4")
    arguments = [str(tmp_path / "jpg"), str(tmp_path / "own.json")]
    assert folder_json.main([*arguments, "--folds", "3"]) == 0
    assert folder_json.main([*arguments, "--folds", "3"]) == 0
    before = (tmp_path / "own_fold1.json").read_bytes()
    with pytest.raises(UserError, match=r"--folds 2: \S*/own_fold3.json would remain"):
        folder_json.main([*arguments, "--folds", "2"])
    assert (tmp_path / "own_fold1.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--folds", "1"], "--folds 1: must be from 2 to 100"),
        (["--folds", "5"], "--folds 5: there are only 4 sources"),
        (["--folds", "2", "--val_fraction", "0.2"], "--val_fraction cannot be combined with"),
    ],
)
def test_folds_that_make_no_sense(tmp_path, flags, complaint):
    make_frames(tmp_path / "jpg", "a/1", "a/2", "b/3", "b/4")
    with pytest.raises(UserError, match=complaint):
        folder_json.main([str(tmp_path / "jpg"), str(tmp_path / "own.json"), *flags])


def test_folders_that_are_split_already_have_no_folds(tmp_path):
    make_frames(tmp_path / "jpg", "train/a/1", "val/a/2")
    with pytest.raises(UserError, match=r"--folds: .* already split"):
        folder_json.main([str(tmp_path / "jpg"), str(tmp_path / "own.json"), "--folds", "2"])
