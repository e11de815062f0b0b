import pickle

import pytest

from datasets.records import CompactEntries, Entry, VideoRecord, compact_records

NAMES = ["plain", "a.b.c", "naïve 猫", "two  spaces", "bytes\udcff", "a\0null", ""]


def check(made, compact):
    rows = pickle.loads(pickle.dumps(compact(iter(made))))
    assert list(rows) == made
    assert rows[-1] == made[-1]
    assert rows[1:3] == made[1:3]
    assert len(rows) == len(made)
    with pytest.raises(IndexError):
        rows[len(made)]
    assert list(compact([])) == []


def test_records_round_trip(tmp_path):
    made = [VideoRecord(n, tmp_path / f"{i}", i, i + 9, i - 1) for i, n in enumerate(NAMES)]
    check(made, compact_records)


def test_entries_round_trip():
    made = [Entry(n, "training", i - 1, (i, i + 9), None) for i, n in enumerate(NAMES)]
    made += [
        Entry("a", "testing", -1, None, "x/y"),
        Entry("b", "validation", 2**31 - 1, (0, 0), ""),
    ]
    check(made, CompactEntries)
    entries = CompactEntries(made)
    assert list(entries.of_subset("testing")) == [made[-2]]
    assert list(entries.of_subset("training")) == made[:-2]
