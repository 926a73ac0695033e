"""frontends.admission: every bound, and what was refused."""

import pytest

from common.errors import ResourceExhaustedError, UnavailableError
from frontends.admission import MAX_FRAME_BYTES, Admission


@pytest.mark.parametrize("lent", [0, 1, 9])
def test_below_the_bound_a_request_may_start(lent: int) -> None:
    admission = Admission(10)
    admission.check(lent)
    assert admission.refused() == {}


@pytest.mark.parametrize("lent", [10, 11, 1000])
def test_at_the_bound_it_is_refused_and_the_bound_named(lent: int) -> None:
    admission = Admission(10)
    with pytest.raises(ResourceExhaustedError, match=f"{lent} requests in flight"):
        admission.check(lent)


def test_while_the_server_ends_everything_is_refused() -> None:
    admission = Admission(10)
    admission.draining = True
    with pytest.raises(UnavailableError, match="shutting down"):
        admission.check(0)
    assert admission.refused() == {"UNAVAILABLE": 1}


def test_refusals_are_counted_since_the_last_call() -> None:
    admission = Admission(0)
    for _ in range(3):
        with pytest.raises(ResourceExhaustedError):
            admission.check(0)
    with pytest.raises(ResourceExhaustedError):
        admission.take_frames(MAX_FRAME_BYTES + 1)
    assert admission.refused() == {"RESOURCE_EXHAUSTED": 4}
    assert admission.refused() == {}


def test_frames_are_bounded_together_and_given_back() -> None:
    admission = Admission(10)
    admission.take_frames(MAX_FRAME_BYTES - 10)
    admission.take_frames(10)
    with pytest.raises(ResourceExhaustedError, match=f"of {MAX_FRAME_BYTES} bytes"):
        admission.take_frames(1)
    admission.drop_frames(10)
    admission.take_frames(10)
    admission.drop_frames(MAX_FRAME_BYTES)
    admission.take_frames(MAX_FRAME_BYTES)
