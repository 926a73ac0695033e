"""broker.store_pool: what blocks does so in its own lane, and its result comes back to the loop."""

import select
import threading
from collections.abc import Callable, Iterator

import pytest

from broker import store_pool
from broker.store_pool import LOCAL, Lane, Pool, remote_lane

PATIENCE_S = 10.0
QUICK = Lane("quick", 1, quick=True)


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


def settle_until(pool: Pool, condition: Callable[[], object]) -> None:
    pool.start()
    while not condition():
        assert select.select([pool.descriptor], [], [], PATIENCE_S)[0], "nothing came"
        pool.settle()
        pool.start()


def ignore(_: object) -> None:
    pass


def test_results_come_to_the_thread_of_the_loop(pool: Pool) -> None:
    came: list[tuple[int, int]] = []
    for number in range(100):
        pool.submit(
            LOCAL,
            lambda number=number: (number, threading.get_ident()),  # type: ignore[misc]
            lambda result: came.append((result[0], threading.get_ident())),
            ignore,
        )
    settle_until(pool, lambda: len(came) == 100)
    assert came == [(number, threading.get_ident()) for number in range(100)]


def test_an_error_of_ours_is_told_without_its_text(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        raise KeyError("AKIASECRET")

    failures: list[str] = []
    pool.submit(remote_lane("s3://b"), work, ignore, failures.append)
    settle_until(pool, lambda: failures)
    assert failures == ["KeyError"]
    assert "an unexpected KeyError in " in caplog.text
    assert "AKIASECRET" not in caplog.text


def test_a_lane_that_hangs_holds_no_other_up(pool: Pool) -> None:
    go_on = threading.Event()
    came: list[str] = []
    running = threading.Semaphore(0)

    def hang() -> str:
        running.release()
        assert go_on.wait(PATIENCE_S)
        return "hung"

    for _ in range(5):
        pool.submit(remote_lane("s3://dead"), hang, came.append, ignore)
    for bucket in ("s3://a", "gs://b"):
        pool.submit(remote_lane(bucket), lambda: "fetched", came.append, ignore)
    pool.submit(LOCAL, lambda: "looked", came.append, ignore)
    settle_until(pool, lambda: len(came) == 3)
    assert sorted(came) == ["fetched", "fetched", "looked"]
    for _ in range(2):
        assert running.acquire(timeout=PATIENCE_S)
    assert not running.acquire(blocking=False), "a lane has two threads, and no more"
    go_on.set()
    settle_until(pool, lambda: len(came) == 8)


def test_what_a_hanging_look_keeps_from_the_others_is_given_to_another_thread(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    begun = threading.Event()
    came: list[int] = []

    def look(number: int) -> int:
        if number == 1:
            begun.set()
            assert go_on.wait(PATIENCE_S)
        return number

    for number in range(4):
        pool.submit(QUICK, lambda number=number: look(number), came.append, ignore)  # type: ignore[misc]
    pool.start()
    assert begun.wait(PATIENCE_S)
    pool.settle()
    monkeypatch.setattr(store_pool, "STUCK_S", 0.0)
    pool.start()
    monkeypatch.setattr(store_pool, "STUCK_S", 1e9)
    settle_until(pool, lambda: len(came) == 3)
    assert came == [0, 2, 3]
    go_on.set()
    settle_until(pool, lambda: len(came) == 4)


def test_threads_that_hang_are_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pool, "STUCK_S", 0.0)
    go_on = threading.Event()
    came: list[bool] = []
    before = threading.active_count()
    for _ in range(20):
        pool.submit(QUICK, lambda: go_on.wait(PATIENCE_S), came.append, ignore)
    for _ in range(20):
        pool.start()
    assert threading.active_count() <= before + store_pool.MAX_STUCK + 2
    go_on.set()
    settle_until(pool, lambda: len(came) == 20)
