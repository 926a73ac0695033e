"""broker.policy and common.backoff: which versions are wanted, when the others may go, how long to wait."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy import may_leave, wanted_versions
from common.backoff import delay_ns
from common.config import VersionPolicy

LATEST = VersionPolicy()
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("policy", "stored", "wanted"),
    [
        (LATEST, (), ()),
        (LATEST, (1,), (1,)),
        (LATEST, (3, 1, 2), (3,)),
        (LATEST, (9, 10), (10,)),
        (VersionPolicy("latest", 2), (3, 1, 2), (2, 3)),
        (VersionPolicy("latest", 5), (3, 1), (1, 3)),
        (VersionPolicy("all"), (3, 1, 2), (1, 2, 3)),
        (VersionPolicy("all"), (), ()),
        (VersionPolicy("specific", versions=(1, 3)), (1, 2, 3), (1, 3)),
        (VersionPolicy("specific", versions=(1, 7)), (1, 2, 3), (1,)),
        (VersionPolicy("specific", versions=(7,)), (1, 2, 3), ()),
    ],
)
def test_what_a_policy_wants(policy: VersionPolicy, stored: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert wanted_versions(policy, stored) == frozenset(wanted)


def test_a_specific_version_is_wanted_as_soon_as_it_is_there() -> None:
    policy = VersionPolicy("specific", versions=(7,))
    assert wanted_versions(policy, (1,)) == frozenset()
    assert wanted_versions(policy, (1, 7)) == {7}


@pytest.mark.parametrize(
    ("wanted", "loaded", "failing", "may"),
    [
        ((), (), (), True),
        ((2,), (), (), False),
        ((2,), (2,), (), True),
        ((2,), (), (2,), False),
        ((2, 3), (2,), (), False),
        ((2, 3), (2,), (3,), True),
        ((2, 3), (2, 3), (), True),
        ((2, 3), (), (2, 3), False),
    ],
)
def test_when_versions_may_leave(
    wanted: Collection[int], loaded: Collection[int], failing: Collection[int], may: bool
) -> None:
    assert may_leave(frozenset(wanted), frozenset(loaded), frozenset(failing)) is may


numbers = st.frozensets(st.integers(1, 5))


@given(wanted=numbers, loaded=numbers, failing=numbers)
def test_nothing_leaves_before_something_wanted_is_there(
    wanted: frozenset[int], loaded: frozenset[int], failing: frozenset[int]
) -> None:
    if wanted and may_leave(wanted, loaded, failing):
        assert wanted & loaded
        assert wanted - failing <= loaded


def test_back_off() -> None:
    seconds = [delay_ns(failures) // SECOND for failures in range(11)]
    assert seconds == [0, 0, 1, 1, 2, 3, 5, 8, 13, 13, 13]
    assert delay_ns(-1) == 0
