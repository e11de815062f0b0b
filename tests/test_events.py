import pytest

from predict.events import Event, EventFinder

LABELS = ("fight", "calm", "rain")


def run(scores, *, alerts=("fight",), threshold=0.5, width=2):
    """Windows of `width` seconds, one a second, through a finder: (began, ended, left open)."""
    finder = EventFinder(LABELS, alerts, threshold)
    steps = [finder.add(i, i + width, row) for i, row in enumerate(scores)]
    began = [(i, event.label) for i, (new, _) in enumerate(steps) for event in new]
    ended = [(i, event) for i, (_, over) in enumerate(steps) for event in over]
    return began, ended, finder.finish()


def test_an_event_lasts_from_its_first_window_to_the_end_of_its_last():
    began, ended, left = run([[0.1], [0.5], [0.9], [0.6], [0.49], [0.1]], alerts=("fight",))
    assert began == [(1, "fight")]
    assert ended == [(4, Event("fight", 1, 5, 0.9))]
    assert left == []


def test_open_events_end_with_the_stream():
    assert run([[0.7], [0.8]])[2] == [Event("fight", 0, 3, 0.8)]


def test_each_label_has_its_own_events():
    rows = [[0.6, 0.1, 0.6], [0.6, 0.1, 0.1], [0.1, 0.1, 0.7]]
    _, ended, left = run(rows, alerts=("fight", "rain"))
    assert ended == [(1, Event("rain", 0, 2, 0.6)), (2, Event("fight", 0, 3, 0.6))]
    assert left == [Event("rain", 2, 4, 0.7)]


@pytest.mark.parametrize("alerts", [(), LABELS])
def test_without_alerts_all_labels_count(alerts):
    began, _, _ = run([[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]], alerts=alerts)
    assert began == [(0, "calm"), (1, "rain")]


def test_no_events_below_the_threshold():
    assert run([[0.79]] * 5, threshold=0.8) == ([], [], [])
