"""util_scripts.csv_json: tables as spreadsheets write them, parts of videos, frames and videos."""

import shutil

import pytest

from datasets.hdf5_extraction import write_frames
from datasets.index import read_index
from datasets.index_checks import check_index
from datasets.listed_videos import read_listed_videos
from datasets.selection import select_videos
from errors import UserError
from media.rates import Timing
from tests.commands import run_util
from tests.test_index_scripts import make_frames, read, videos_of
from tests.videos import draw
from util_scripts import csv_json, generate_video_jpgs

ODD_LABELS = ("Küche, Flur", "打架", "🥊 a/b", 'say "hi"')


def index_of(tmp_path, table, *flags, frames="jpg"):
    """Write the table, as text or bytes, and run csv_json."""
    raw = table if isinstance(table, bytes) else table.encode("utf-8")
    (tmp_path / "list.csv").write_bytes(raw)
    path = tmp_path / "index.json"
    argv = [str(tmp_path / "list.csv"), str(tmp_path / frames), str(path), *flags]
    assert csv_json.main(argv) == 0
    return path


def fault_of(tmp_path, table, *flags):
    with pytest.raises(UserError) as raised:
        index_of(tmp_path, table, *flags)
    assert not (tmp_path / "index.json").exists()
    return str(raised.value).replace(f"{tmp_path}/list.csv: ", "")


def subsets_of(path):
    return {video_id: subset for video_id, (subset, *_) in videos_of(path).items()}


PLAIN = "path,label,split\na/x.mp4,a,train\nb/y.avi,b,val\n"


@pytest.mark.parametrize(
    "table",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";").replace("\n", "\r\n"),
        PLAIN.replace(",", "\t"),
        "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
        "sep=;\r" + PLAIN.replace(",", ";").replace("\n", "\r"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        'Label;"Notes; more";SPLIT;Path\n a ;;train;a\\x.mp4\n'
        '"b";"two\nlines";"VAL";./b/y.avi\n;;;\n',
        "\n" + PLAIN.rstrip().replace("val", "Test"),
        'path, label, split\na/x.mp4, "a", train\n"b/y.avi",  "b", "val"\n',
    ],
    ids=["plain", "bom", "semicolons", "tabs", "sep", "mac", "utf-16", "any order", "test for val",
         "spaces before quotes"],
)  # fmt: skip
def test_forms_of_tables(tmp_path, table):
    make_frames(tmp_path / "jpg", "a/x", "b/y")
    path = index_of(tmp_path, table)
    assert read(path)["labels"] == ["a", "b"]
    assert videos_of(path) == {
        "x": ("training", "a", 2, None),
        "y": ("validation", "b", 2, None),
    }


def test_odd_labels_and_names(tmp_path):
    make_frames(tmp_path / "jpg", *(f"clips/clip {n}" for n in range(4)))
    rows = [
        f'"clips/clip {n}.mp4","{label.replace(chr(34), chr(34) * 2)}"'
        for n, label in enumerate(ODD_LABELS)
    ]
    path = index_of(tmp_path, "\n".join(["path,label", *rows]), "--val_fraction", "0.5")
    assert [label for _, label, *_ in videos_of(path).values()] == list(ODD_LABELS)
    records = select_videos(read_index(path), "train", tmp_path / "jpg").records
    assert [record.path.name for record in records] == [f"clip {n}" for n in range(4)]


def test_accents_written_in_two_ways_are_one_label_and_one_group(tmp_path):
    make_frames(tmp_path / "jpg", "x", "y", "z", n_frames=2)
    table = "path,label,group\nx,caf\xe9,\xe9\ny,cafe\u0301,e\u0301\nz,b,c\n"
    path = index_of(tmp_path, table)
    assert read(path)["labels"] == ["b", "caf\xe9"]
    assert subsets_of(path)["x"] == subsets_of(path)["y"]


def test_other_encodings_are_named(tmp_path):
    make_frames(tmp_path / "jpg", "x", "y")
    table = "path,label\nx.mp4,a\ny.mp4,größe\n".encode("cp1252")
    assert fault_of(tmp_path, table).startswith("line 3: not UTF-8 text; save the table as")
    path = index_of(tmp_path, table, "--encoding", "cp1252")
    assert read(path)["labels"] == ["a", "größe"]
    with pytest.raises(UserError, match="--encoding 'klingon': no such encoding"):
        index_of(tmp_path, table, "--encoding", "klingon")


def test_wrong_rows_are_named_with_their_line(tmp_path):
    make_frames(tmp_path / "jpg", "x", "y")
    table = (
        'path,label,split,group,start,end\nx,"two\nlines",train,,,\ny,,train,,,\n,b,train,,,\n'
        "x,b,maybe,,,\nx,b,train,,soon,\nx,b,train,,3,2\n../x,b,val,,,\nx,/b,val,,,\ny,c,,,,\n"
        "x,b,train,g,,\n"
    )
    assert fault_of(tmp_path, table).split("\n") == [
        "line 4: no label",
        "line 5: no path",
        "line 6: split 'maybe' is not one of train, training, val, validation, test, testing",
        "line 7: start 'soon' is not a time in seconds, such as 12.5 or 1:02.5",
        "line 8: the part ends at 2 s, but starts at 3 s",
        "line 9: path '../x' is not the name of a video below FRAMES",
        "line 10: label '/b' leads out of the folder of frames",
        "line 12: x is listed in line 2 already, with the label two lines",
        "line 12: x has group none in line 2",
        "line 11: no split, though other rows have one",
    ]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("", "line 1: no column path and no column label, only empty ones; the first line must"),
        ("path,class\nx,a\n", "line 1: no column label, only path, class; the first line must"),
        ("path,label,Label\nx,a,b\n", "line 1: there are 2 columns label"),
        ("path,label\n", "the table has no rows"),
        ("path,label\nx,a,b\n", "line 2: 3 values for 2 columns; put values that contain"),
        ('path,label\nx,"a\ny,b\n', "line 2: not a row of a table: unexpected end of data"),
    ],
)
def test_what_is_no_table(tmp_path, table, fault):
    make_frames(tmp_path / "jpg", "x")
    assert fault_of(tmp_path, table).startswith(fault)


def test_rows_without_frames_and_repeated_rows(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "x", "y", "z")
    make_frames(tmp_path / "jpg", "empty", n_frames=0)
    table = "path,label\nx,a\ny.mp4,a\ngone.mp4,b\nx,a\nempty,b\nz,b\n"
    assert list(videos_of(index_of(tmp_path, table))) == ["x", "y", "z"]
    out = capsys.readouterr().out
    assert "1 rows repeat an earlier one" in out
    assert "2 rows are left out" in out
    assert "  line 4: gone.mp4: no folder" in out
    assert "  line 6: empty: no frames" in out


@pytest.mark.parametrize("is_hdf5", [False, True])
def test_a_note_beside_frames_is_no_video(tmp_path, capsys, is_hdf5):
    make_frames(tmp_path / "jpg", "x", "y", "z")
    if is_hdf5:
        for folder in sorted((tmp_path / "jpg").iterdir()):
            write_frames(folder.with_suffix(".hdf5"), iter([b"jpeg"] * 11))
            shutil.rmtree(folder)
    (tmp_path / "jpg/gone.txt").write_text("to be cut again")
    table = "path,label\nx,a\ny,a\nz,b\ngone,b\n"
    assert list(videos_of(index_of(tmp_path, table))) == ["x", "y", "z"]
    assert "  line 5: gone: no folder" in capsys.readouterr().out
    draw(tmp_path / "jpg/gone.mp4")
    with pytest.raises(UserError, match="holds frames in several formats"):
        index_of(tmp_path, table)


def test_groups_stay_together(tmp_path):
    names = [f"v{n}" for n in range(30)]
    make_frames(tmp_path / "jpg", *names)
    rows = [f"{name},{'ab'[n % 2]},g{n // 6}" for n, name in enumerate(names)]
    for seed in "123":
        path = index_of(tmp_path, "\n".join(["path,label,group", *rows]), "--seed", seed)
        sides = {(n // 6, subset) for n, subset in enumerate(subsets_of(path).values())}
        assert len(sides) == 5
        assert len({side for _, side in sides}) == 2


def test_a_split_that_takes_groups_apart_is_said(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "x", "y")
    index_of(tmp_path, "path,label,split,group\nx,a,train,p1\ny,a,val,p1\n")
    said = "1 groups or videos have rows both in training and in validation or test"
    assert said in capsys.readouterr().out
    index_of(tmp_path, "path,label,split,group\nx,a,train,p1\ny,a,test,p1\n")
    assert said in capsys.readouterr().out
    parts = "path,label,split,start,end\nx,a,train,0,1\nx.mp4,a,val,1,2\n"
    index_of(tmp_path, parts, "--fps", "1")
    assert f"{said}, so the accuracy will be too high: x;" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--seed, --folds: .* has a column split"):
        index_of(tmp_path, PLAIN, "--seed", "1", "--folds", "2")


def test_no_video_gets_the_frames_of_another(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "v", "w", "x")
    table = "path,label,split\nv.mp4,A,train\nv.avi,B,val\nx.7,A,val\n"
    assert fault_of(tmp_path, table) == (
        "line 3: v.avi and v.mp4 in line 2 are different videos, but only v has frames"
    )
    path = index_of(tmp_path, table.replace("v.avi", "w.avi"))
    assert list(videos_of(path)) == ["v", "w"]
    assert "line 4: x.7: no folder" in capsys.readouterr().out
    draw(tmp_path / "videos/x.mp4")
    draw(tmp_path / "videos/x.7.mp4", seconds=2)
    path = index_of(tmp_path, "path,label\nx,a\nx.7,b\n", frames="videos")
    assert {key: n for key, (_, _, n, _) in videos_of(path).items()} == {"x": 10, "x.7": 20}


def test_the_manifest_says_whose_frames_they_are(tmp_path, capsys):
    draw(tmp_path / "videos/v.mp4", size="32x32")
    draw(tmp_path / "videos/x.7.mkv", size="32x32").rename(tmp_path / "videos/x.7")
    jpg = tmp_path / "jpg"
    assert generate_video_jpgs.main([str(tmp_path / "videos"), str(jpg), "own"]) == 0
    path = index_of(tmp_path, "path,label\nv.avi,a\nv.MP4,a\nx.7,b\n")
    assert list(videos_of(path)) == ["v", "x"]
    assert "line 2: v.avi: the frames in v are those of v.mp4" in capsys.readouterr().out
    path.unlink()
    fault = fault_of(tmp_path, "path,label\nv.avi,a\n")
    assert fault.endswith("for example v.avi: the frames in v are those of v.mp4")


def test_rows_that_name_one_video_in_two_ways(tmp_path, capsys):
    make_frames(tmp_path / "jpg", "x", "y")
    table = "path,label\nx,a\ny,b\nx.mp4,b\n"
    assert fault_of(tmp_path, table) == "line 4: x is listed in line 2 already, with the label a"
    path = index_of(tmp_path, table.replace("x.mp4,b", "x.mp4,a"))
    assert list(videos_of(path)) == ["x", "y"]
    assert "1 rows repeat an earlier one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90:00", 5400), ("1:02.5", 62.5), ("1:30:00", 5400), ("75", 75), ("12,5 s", 12.5)]
    + [(text, None) for text in ("1:75", "1:60", "1:60:00", "1:00:60", ":30")],
)
def test_times(tmp_path, text, seconds):
    table = tmp_path / "t.csv"
    table.write_text(f"path;label;start\nx;a;{text}\n")
    if seconds is None:
        with pytest.raises(UserError, match=f"start '{text}' is not a time"):
            read_listed_videos(table)
    else:
        assert read_listed_videos(table)[0].start == seconds


def test_parts_of_videos(tmp_path):
    """The same table for extracted frames and for the videos, of 10 frames per second."""
    draw(tmp_path / "videos/m 1.avi", seconds=3)
    draw(tmp_path / "videos/m2.mp4", seconds=2)
    assert run_util("generate_video_jpgs", tmp_path / "videos", tmp_path / "jpg", "own").status == 0
    table = (
        "path;label;start;end;split\nm 1.avi;a;0;1,5;train\nm 1.avi;b;1.5;0:03;train\n"
        "m2.mp4;a;;1;val\nm2.mp4;b;1;;val\n"
    )
    expected = {
        "m 1_000001_000015": [1, 16],
        "m 1_000016_000030": [16, 31],
        "m2_000001_000010": [1, 11],
        "m2_000011_000020": [11, 21],
    }
    for frames in ("jpg", "videos"):
        path = index_of(tmp_path, table, frames=frames)
        index = read(path)["database"]
        assert {key: entry["annotations"]["segment"] for key, entry in index.items()} == expected
        file_type = "jpg" if frames == "jpg" else "video"
        for subset in ("train", "val"):
            chosen = select_videos(read_index(path), subset, tmp_path / frames, file_type=file_type)
            assert (len(chosen.records), chosen.omitted) == (2, [])
    assert not [kind for kind, _ in check_index(read_index(path)) if "both" in kind]


LATE = ("-f", "lavfi", "-i", "sine=d=5", "-vf", "setpts=PTS+2/TB")
UNEVEN = ("-vf", "setpts=(if(lt(N\\,20)\\,N/10\\,2+(N-20)/30))/TB", "-fps_mode", "vfr")


def test_parts_whose_frames_may_lie_at_other_times(tmp_path, capsys):
    """Sound 2 s before the pictures; 10, then 30 frames per second; both for frames and videos."""
    draw(tmp_path / "videos/even.mkv", seconds=3, extra=("-f", "lavfi", "-i", "sine=d=3"))
    draw(tmp_path / "videos/late.mkv", seconds=3, extra=LATE)
    draw(tmp_path / "videos/uneven.mp4", rate=30, seconds=2, extra=UNEVEN)
    names = ("even.mkv", "late.mkv", "uneven.mp4")
    table = "path,label,start,end\n" + "".join(f"{name},a,1,2\n" for name in names)
    for frames, flags in (("jpg", []), ("jpg10", ["--fps", "10"])):
        folders = [str(tmp_path / "videos"), str(tmp_path / frames)]
        assert generate_video_jpgs.main([*folders, "own", "--size", "32", *flags]) == 0
    late = "  late: the file lasts 5.0 s, but its 30 frames 3.0 s (at 10 per second): they may"
    uneven = "  uneven: the frame rate varies: "
    for frames, doubts in (("jpg", 2), ("videos", 2), ("jpg10", 1)):
        capsys.readouterr()
        index_of(tmp_path, table, frames=frames)
        out = capsys.readouterr().out
        assert f"{doubts} videos are cut into parts that may have frames of other times:" in out
        assert late in out
        assert (uneven in out) == (doubts == 2)
        assert "even: " not in out.replace(uneven, "")
    index_of(tmp_path, table.replace(",1,2", ",,"), frames="videos")
    assert "of other times" not in capsys.readouterr().out


def test_parts_of_a_time_lapse(tmp_path, capsys):
    """ffmpeg logs its 1/30 frames per second as 0.03."""
    draw(tmp_path / "videos/m.mp4", rate="1/30", seconds=3600)
    path = index_of(tmp_path, "path,label,start,end\nm.mp4,a,3000,3300\n", frames="videos")
    assert list(videos_of(path)) == ["m_000101_000110"]
    assert "of other times" not in capsys.readouterr().out


def test_sound_after_the_last_frame_does_not_move_parts(tmp_path, capsys):
    """ffmpeg's duration of a file includes it."""
    sound = ("-f", "lavfi", "-i", "sine=d=202.5:r=8000", "-threads", "1")
    draw(tmp_path / "videos/m.mkv", size="32x32", seconds=200, rate="1/5", extra=sound)
    folders = [str(tmp_path / "videos"), str(tmp_path / "jpg")]
    assert generate_video_jpgs.main([*folders, "own", "--size", "32", "--fps", "0.2"]) == 0
    path = index_of(tmp_path, "path,label,start,end\nm.mkv,a,100,200\n")
    assert list(videos_of(path)) == ["m_000021_000040"]
    assert "m: the file lasts 202.5 s, but its 40 frames 200.0 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("timing", "n_frames", "rate", "doubt"),
    [
        (Timing(25, 25, 7201.3), 180000, 25, "lasts 7201.3 s"),
        (Timing(0.1, None, 602.5, is_exact=True), 60, 0.1, "lasts 602.5 s"),
        (Timing(0.03, 0.03, 3600), 120, 1 / 30, None),
        (Timing(23.98, 23.98, 7200), 172627, 24000 / 1001, None),
        (Timing(25, 50), 250, 25, None),  # raw streams: fields are counted
        (Timing(25, 50, 0.0), 250, 25, None),
        (Timing(25, 60), 250, 25, "the frame rate varies"),
    ],
)
def test_rates_of_long_videos_and_raw_streams(timing, n_frames, rate, doubt):
    assert timing.rate_of(n_frames) == pytest.approx(rate, rel=1e-6)
    found = timing.doubt(n_frames)
    assert (found is None) if doubt is None else (doubt in found)


def test_parts_outside_their_video_and_unknown_rates(tmp_path):
    make_frames(tmp_path / "jpg", "x", "y", n_frames=20)
    table = "path,label,start,end\nx,a,0,1\nx,b,1,4\ny,b,5,6\ny,b,0.01,0.02\n"
    assert fault_of(tmp_path, table).startswith(
        "line 2: the frame rate of x is unknown; give --fps"
    )
    assert fault_of(tmp_path, table, "--fps", "10").split("\n") == [
        "line 3: the part ends at 4 s, but the video lasts 2.0 s (20 frames at 10 per second)",
        "line 4: the part starts at 5 s, but the video lasts 2.0 s (20 frames at 10 per second)",
        "line 5: the part holds no frame: the video lasts 2.0 s (20 frames at 10 per second)",
    ]
    path = index_of(tmp_path, table.replace("0.02", "1").replace("5,6", "1,"), "--fps", "5")
    assert videos_of(path)["x_000006_000020"][2] == 20


def test_parts_of_one_video_stay_together(tmp_path):
    make_frames(tmp_path / "jpg", *(f"m{n}" for n in range(8)), n_frames=20)
    rows = [f"m{n},{label},{t},{t + 1}" for n in range(8) for t, label in enumerate("ab")]
    path = index_of(tmp_path, "\n".join(["path,label,start,end", *rows]), "--fps", "10")
    sides = {(video_id[:2], subset) for video_id, subset in subsets_of(path).items()}
    assert len(sides) == 8
