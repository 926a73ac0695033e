"""broker.lines: a line lives as long as a worker can run its version or a request of it is open."""

from broker.lines import Lines
from broker.work import Worker
from common.messages import VersionId

A, B = VersionId("a", 1), VersionId("b", 1)


def lines(*slots: str) -> tuple[Lines, dict[str, Worker]]:
    workers = {slot: Worker(slot) for slot in slots}
    return Lines(workers, {B: None}), workers


def test_a_line_without_workers_and_requests_is_forgotten() -> None:
    made, _ = lines()
    first, again = made.opened(A), made.opened(VersionId("a", 1))
    assert first is again
    assert made.open == {A: first}
    made.closed(first)
    assert made.known == {A: first}
    made.closed(first)
    assert made.open == made.known == {}


def test_a_line_outlives_its_requests_while_a_worker_can_run_it() -> None:
    made, workers = lines("w")
    line = made.opened(A)
    made.add_lane(workers["w"], line, 1)
    made.closed(line)
    assert made.open == {}
    assert made.opened(A) is line
    made.remove_lanes(workers["w"])
    assert made.known == {A: line}, "a request is open"
    made.closed(line)
    assert made.known == {}
    assert workers["w"].lanes == {}


def test_lanes_stand_in_the_order_of_the_workers() -> None:
    """Of workers that have equally much in hand the first gets the next request, whichever loaded the version first."""
    made, workers = lines("u", "v", "w")
    line = made.of(A)
    for slot in ("w", "u", "v"):
        made.add_lane(workers[slot], line, 1)
    assert [lane.worker.slot for lane in line.lanes] == ["u", "v", "w"]
    made.remove_lane(workers["v"], A)
    assert [lane.worker.slot for lane in line.lanes] == ["u", "w"]
    assert made.remove_lane(workers["v"], B) is None


def test_a_line_knows_whether_its_requests_are_gathered() -> None:
    made, _ = lines()
    assert not made.of(A).is_gathered
    assert made.of(B).is_gathered
