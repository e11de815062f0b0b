"""Parts of one recording in training and another subset, judging by the names."""

import random

import pytest

from datasets.activitynet import read_any_index
from datasets.index_checks import SAME_NAME, SAME_RECORDING, check_index
from datasets.index_writer import entry_of, write_index
from datasets.split import find_sources
from tests.videos import shared
from util_scripts import hmdb51_json, ucf101_json

TRAIN, VAL = "training", "validation"
PATTERNS = {kind: pattern for pattern, kind in SAME_RECORDING.items()}


def findings(folder, videos):
    """Findings in an index of `videos`, which are (subset, label, id)."""
    labels = sorted({label for _, label, _ in videos})
    database = {name: entry_of(subset, label, 9) for subset, label, name in videos}
    write_index(folder / "index.json", labels, database)
    return list(check_index(read_any_index(folder / "index.json")))


def recordings(folder, videos):
    """(pattern, text) of the recordings found."""
    found = findings(folder, videos)
    return [(PATTERNS[kind], text) for kind, text in found if kind in PATTERNS]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("match3_clip01", "match3_clip07"),
        ("match3clip1", "match3clip2"),
        ("beach part 1", "beach part 2"),
        ("Match 3 - Scene 04", "Match 3 - Scene 11"),
        ("Jump_11_1", "Jump_11_14"),
        ("wedding (1)", "wedding (2)"),
        ("-bC_e1Ghijk_000010_000020", "-bC_e1Ghijk_000110_000120"),
        ("abcdEFGhijk_7_17", "abcdEFGhijk_40_50"),
        ("lecture_10.5_20.5", "lecture_31.0_41.0"),
        ("比赛3_clip01", "比赛3_clip07"),
    ],
)
def test_parts_of_a_recording_in_two_subsets(tmp_path, train, val):
    others = [(TRAIN, "fight", f"another{n}") for n in range(30)] + [(VAL, "rest", "no1")]
    videos = [(TRAIN, "fight", train), (VAL, "fight", val), *others]
    [(pattern, text)] = recordings(tmp_path, videos)
    assert text == f"{train} (training) and {val}"
    # The suggested --group_by groups these two together, and apart from the others.
    sources = find_sources([f"{label}/{name}" for _, label, name in videos], pattern)
    assert sources[f"fight/{train}"] == sources[f"fight/{val}"]
    assert len({*sources.values()}) == len(videos) - 1


@pytest.mark.parametrize("stem", ["match3_clip", "match3clip", "-bC_e1Ghijk_00001_0000"])
def test_recording_may_be_the_only_one_of_its_label(tmp_path, stem):
    videos = [(TRAIN, "fight", f"{stem}1"), (VAL, "fight", f"{stem}7"), (TRAIN, "rest", "a")]
    assert len(recordings(tmp_path, videos)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "{short}{n:03d}", "{short}_{n}", "{label}_{n:03d}", "{label}_clip_{n:03d}", "{n:03d}",
        "clip_{n}", "IMG_{n:04d}", "video ({n})", "{label}{n:03d}_x264", "set1_clip_{total}",
    ],
)  # fmt: skip
def test_numbered_videos_are_not_recordings(tmp_path, name):
    draw = random.Random(1)
    videos = {}
    for label, short in {"fight 1": "fi", "fight 2": "nofi"}.items():
        for n in range(40):
            own = name.format(label=label, short=short, n=n, total=len(videos))
            video_id = f"{label}/{own}" if own in videos else own  # the id that folder_json gives
            videos[video_id] = draw.choice([TRAIN, TRAIN, VAL]), label, video_id
    kinds = {kind for kind, _ in findings(tmp_path, videos.values())}
    assert not kinds & {SAME_NAME, *PATTERNS}


def published_splits():
    lists = shared("data/ucfTrainTestlist")
    labels = ucf101_json.read_labels(lists / "classInd.txt")
    for number in ("01", "02", "03"):
        yield ucf101_json.read_split(lists, number, labels)
    for number in (1, 2, 3):
        files = shared("data/testTrainMulti_7030_splits").glob(f"*_test_split{number}.txt")
        yield hmdb51_json.read_split({file.name.partition("_test")[0]: file for file in files})


def test_published_splits_have_no_findings(tmp_path):
    for split in published_splits():
        videos = [(v.subset, v.label, v.path.partition("/")[2]) for v in split.videos]
        assert len(videos) > 5000
        assert findings(tmp_path, videos) == []


@pytest.mark.parametrize("name", ["fight", "thermal", "dark"])
def test_real_clips(tmp_path, name):
    sides = {"train": TRAIN, "val": VAL}
    files = list(shared(f"data/{name}").glob("*/*/*.mp4"))
    split = [(sides[file.parts[-3]], file.parts[-2], file.stem) for file in files]
    assert len(split) > 200
    assert not recordings(tmp_path, split)
    # Only the names of "dark" show the recording, a scene: Jump_11_3.
    draw = random.Random(1)
    shuffled = [(draw.choice([TRAIN, VAL]), label, video) for _, label, video in split]
    assert (len(recordings(tmp_path, shuffled)) > 10) == (name == "dark")
