"""Which of a model's versions are wanted, and when unwanted ones may go. Pure.

The whole list comes in, the whole answer goes out: nothing is remembered between two calls.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet

from common.config import VersionPolicy


def wanted_versions(policy: VersionPolicy, stored: Collection[int]) -> frozenset[int]:
    """The versions that the policy wants of those that storage holds.

    A `specific` version that storage does not hold is wanted as soon as it does.
    """
    if policy.kind == "all":
        return frozenset(stored)
    if policy.kind == "latest":
        return frozenset(sorted(stored)[-policy.num_versions :])
    return frozenset(policy.versions) & frozenset(stored)


def may_leave(wanted: AbstractSet[int], loaded: AbstractSet[int], failing: AbstractSet[int]) -> bool:
    """Whether the versions that are no longer wanted may go: make before break.

    `loaded` are those that every live worker of the pool can run. With nothing wanted (they were deleted) they may go;
    otherwise once all that can be had are there, and that is at least one.
    """
    if not wanted:
        return True
    obtainable = wanted - failing
    return bool(obtainable) and obtainable <= loaded
