import pickle

import pytest

from datasets.compact import CompactEntries, CompactRecords, Entry, VideoRecord

NAMES = ["plain", "a.b.c", "naïve 猫", "two  spaces", "bytes\udcff", "a\0null", ""]


def check(made, kind, monkeypatch):
    monkeypatch.setattr("datasets.compact.CHUNK", 3)
    rows = pickle.loads(pickle.dumps(kind.of(iter(made))))
    assert list(rows) == made
    assert rows[-1] == made[-1] and rows[1:3] == made[1:3] and len(rows) == len(made)
    with pytest.raises(IndexError):
        rows[len(made)]
    assert list(kind.of([])) == []


def test_records_come_back_as_they_were(tmp_path, monkeypatch):
    check(
        [VideoRecord(n, tmp_path / f"{i}", i, i + 9, i - 1) for i, n in enumerate(NAMES)],
        CompactRecords,
        monkeypatch,
    )


def test_entries_come_back_as_they_were(monkeypatch):
    made = [Entry(n, "training", i - 1, (i, i + 9), None) for i, n in enumerate(NAMES)]
    made += [
        Entry("a", "testing", -1, None, "x/y"),
        Entry("b", "validation", 2**31 - 1, (0, 0), ""),
    ]
    check(made[:-1], CompactEntries, monkeypatch)
    entries = CompactEntries.of(made)
    assert entries[-1] == made[-1]._replace(video_path=".")  # the same place
    assert list(entries.of_subset("testing")) == [made[-2]]
    assert list(entries.of_subset("training")) == made[:-2]
