"""broker.fleet: from any state, planning and listing come to exactly the wanted programs."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.fleet import (
    HELLO_TIMEOUT_NS,
    PROOF_OF_LIFE_NS,
    RELIST_NS,
    RETRY_NS,
    SETTLED_RELIST_NS,
    SILENCE_TIMEOUT_NS,
    Add,
    Fleet,
    Post,
    Program,
    ProgramCommand,
    Remove,
    Slot,
    Start,
    Stop,
)
from common.config import DeviceConfig
from common.messages import ProcessId

SECOND = 1_000_000_000


@dataclass
class SimProgram:
    """A program as supervisord has it."""

    state: str = "STOPPED"
    process: ProcessId | None = None


class Supervisord:
    """What matters of supervisord: commands that make no sense are faults, and deaths are noticed late."""

    def __init__(self) -> None:
        self.programs: dict[str, SimProgram] = {}
        self.pids = 100
        self.starts = 0
        self.spoilt = False
        """Whether programs end as soon as they are started."""

    def run(self, commands: list[ProgramCommand], *, fails: bool = False) -> None:
        for command in commands if not fails else []:
            if isinstance(command, Add):
                self.programs.setdefault(command.slot.program, SimProgram())
                continue
            program = self.programs.get(command.program)
            if program is None:
                continue
            if isinstance(command, Start) and self.spoilt:
                self.starts += 1
                program.state, program.process = "EXITED", None
            elif isinstance(command, Start) and program.state != "RUNNING":
                self.pids += 1
                self.starts += 1
                program.state, program.process = "RUNNING", ProcessId(self.pids, self.pids)
            elif isinstance(command, Stop):
                program.state, program.process = "STOPPED", None
            elif isinstance(command, Remove) and program.state != "RUNNING":
                del self.programs[command.program]

    def listing(self) -> tuple[Program, ...]:
        return tuple(Program(name, one.state, one.process) for name, one in self.programs.items())

    def notice_deaths(self) -> None:
        for program in self.programs.values():
            if program.state == "RUNNING" and program.process is None:
                program.state = "EXITED"


class Harness:
    """A fleet, its supervisord, and workers that say Hello and serve when they are told to."""

    def __init__(self, replicas: int = 1, slots: tuple[Slot, ...] = (), serial: int = 0) -> None:
        self.fleet = Fleet({"CPU": replicas}, slots, serial)
        self.supervisord = Supervisord()
        self.now = SECOND
        self.serving: set[str] = set()
        self.vital = {"CPU"}
        """Devices of which something is served, if only by workers that are dead now."""
        self.drains: list[str] = []
        self.least = 0

    def round(self, *, fails: bool = False) -> list[ProgramCommand] | None:
        """Advance and plan once; carry the batch out and list."""
        self.drains += self.fleet.advance(frozenset(self.serving), frozenset(self.vital), self.now)
        batch = self.fleet.plan(self.now)
        if batch is None:
            return None
        self.supervisord.run(batch, fails=fails)
        self.fleet.programs_seen(self.supervisord.listing(), self.now)
        return batch

    def hellos(self) -> None:
        """Every running worker greets and serves; those that were told to drain have nothing in hand."""
        for post in self.fleet.posts.values():
            program = self.supervisord.programs.get(post.slot.program)
            if program is not None and program.process is not None:
                assert self.fleet.hello(post.slot.name, program.process, self.now) is post
                if not post.retiring and not post.slot.trial:
                    self.serving.add(post.slot.name)
            else:
                self.serving.discard(post.slot.name)
            if post.retiring and not post.drained:
                post.drained = True
                self.serving.discard(post.slot.name)
                self.fleet.hurry(self.now)
        self.serving &= set(self.fleet.posts)

    def settle(self, rounds: int = 60) -> None:
        for _ in range(rounds):
            self.round()
            self.hellos()
            self.supervisord.notice_deaths()
            self.now += RELIST_NS

    def kill(self, name: str, *, noticed: bool = False) -> None:
        """A worker's process dies; `noticed`: supervisord has seen it."""
        program = self.supervisord.programs[self.fleet.posts[name].slot.program]
        assert program.process is not None
        process, program.process = program.process, None
        if noticed:
            program.state = "EXITED"
        self.serving.discard(name)
        self.fleet.died(process, self.now)

    def restart(self) -> int:
        """Go from one of the fleet's deadlines to the next until a worker is started; how long that took."""
        since = self.now
        for _ in range(100):
            batch = self.round()
            if batch:
                assert all(isinstance(command, Start) for command in batch)
                self.hellos()
                return self.now - since
            self.now = max(self.now, self.fleet.next_deadline())
        raise AssertionError("it is not started again")

    def running(self) -> set[str]:
        return {name for name, one in self.supervisord.programs.items() if one.state == "RUNNING"}

    def shares(self) -> list[tuple[int, int]]:
        return sorted((post.slot.index, post.slot.of) for post in self.fleet.posts.values())


def settled(replicas: int = 1) -> Harness:
    harness = Harness(replicas)
    harness.settle(10)
    assert len(harness.serving) == replicas
    return harness


def only(harness: Harness) -> Post:
    (post,) = harness.fleet.posts.values()
    return post


# ---- starting


def test_the_first_thing_is_to_look() -> None:
    h = Harness()
    h.fleet.advance(frozenset(), frozenset(), h.now)
    assert h.fleet.silent_devices() is None
    assert h.fleet.plan(h.now) == []
    assert h.fleet.plan(h.now) is None, "one batch at a time"
    assert h.fleet.plan(h.now + 100 * SECOND) is None


def test_the_first_start() -> None:
    h = Harness(2)
    assert h.round() == []
    h.now += RELIST_NS
    assert h.round() == [
        Add(Slot("CPU-0", "CPU", 0, 2)),
        Start("worker-CPU-0"),
        Add(Slot("CPU-1", "CPU", 1, 2)),
        Start("worker-CPU-1"),
    ]
    h.now += RELIST_NS
    assert h.round() == []
    assert h.running() == {"worker-CPU-0", "worker-CPU-1"}
    assert h.fleet.serial == 2
    assert h.fleet.slots() == (Slot("CPU-0", "CPU", 0, 2), Slot("CPU-1", "CPU", 1, 2))


@pytest.mark.parametrize(
    ("device", "program"),
    [
        ("CPU", "worker-CPU-0"),
        ("MULTI:MYRIAD,CPU", "worker-MULTI_MYRIAD_CPU-0"),
        ("HETERO:GPU.1,CPU", "worker-HETERO_GPU.1_CPU-0"),
        ("a b%c[d]\n", "worker-a_b_c_d__-0"),
    ],
)
def test_programs_have_names_that_supervisord_takes(device: str, program: str) -> None:
    assert Slot(f"{device}-0", device).program == program


def test_devices_that_look_alike_get_names_of_their_own() -> None:
    fleet = Fleet({"A:B": 1, "A,B": 1}, (), 0)
    fleet.advance(frozenset(), frozenset(), 0)
    assert len({post.slot.program for post in fleet.posts.values()}) == 2


def test_a_hello_of_the_listed_process_connects() -> None:
    h = Harness()
    h.settle(1)
    h.round()
    h.now += RELIST_NS
    h.settle(2)
    post = only(h)
    assert post.connected
    assert post.process is not None
    assert h.fleet.overdue(h.now + 10 * HELLO_TIMEOUT_NS) == []


def test_a_hello_without_a_place() -> None:
    h = settled()
    assert h.fleet.hello("CPU-77", ProcessId(9, 9), h.now) is None


def test_a_hello_that_was_under_way_when_its_sender_died() -> None:
    h = settled()
    process = only(h).process
    assert process is not None
    h.kill("CPU-0")
    assert h.fleet.hello("CPU-0", process, h.now) is None


def test_a_hello_before_the_list_is_taken() -> None:
    """A worker may greet before supervisord's list that shows it has come."""
    h = Harness()
    h.fleet.advance(frozenset(), frozenset(), h.now)
    h.fleet.plan(h.now)
    h.fleet.programs_seen((), h.now)
    h.now += RELIST_NS
    batch = h.fleet.plan(h.now)
    assert batch is not None
    h.supervisord.run(batch)
    process = h.supervisord.programs["worker-CPU-0"].process
    assert process is not None
    assert h.fleet.hello("CPU-0", process, h.now) is only(h)
    assert h.fleet.programs_seen(h.supervisord.listing(), h.now) == []
    assert only(h).connected


def test_a_worker_that_never_greets_is_killed_once() -> None:
    h = Harness()
    h.round()
    h.now += RELIST_NS
    h.round()
    started = h.now
    assert h.fleet.overdue(started + HELLO_TIMEOUT_NS - 1) == []
    assert h.fleet.overdue(started + HELLO_TIMEOUT_NS) == [only(h).process]
    assert h.fleet.overdue(started + HELLO_TIMEOUT_NS + 1) == []


# ---- death and back-off


def test_back_off_after_deaths_in_a_row() -> None:
    h = settled()
    waits = []
    for _ in range(9):
        h.kill("CPU-0", noticed=True)
        waits.append(h.restart() / SECOND)
    # The first lived for ten seconds while the fleet settled, so its death is the first in a row.
    assert waits == [0, 1, 1, 2, 3, 5, 8, 13, 13]
    assert only(h).restarts == 9


def test_a_worker_that_lived_long_enough_starts_again_at_once() -> None:
    h = settled()
    for _ in range(4):
        h.kill("CPU-0", noticed=True)
        h.settle(20)
    assert only(h).deaths == 1
    h.kill("CPU-0", noticed=True)
    assert only(h).next_start == h.now


def test_proof_of_life_is_counted_from_the_start() -> None:
    h = settled()
    h.kill("CPU-0", noticed=True)
    assert h.restart() == 0
    h.now += PROOF_OF_LIFE_NS - 1
    h.kill("CPU-0", noticed=True)
    assert only(h).deaths == 2
    assert h.restart() == SECOND
    h.now += PROOF_OF_LIFE_NS
    h.kill("CPU-0", noticed=True)
    assert only(h).deaths == 1


def test_supervisord_says_running_although_the_process_is_gone() -> None:
    h = settled()
    h.kill("CPU-0")
    assert h.round() == [], "starting it now would be a fault"
    assert h.fleet.next_deadline() == h.now + RETRY_NS, "looked at again soon"
    h.now += RETRY_NS
    assert h.round() == []
    h.supervisord.notice_deaths()
    h.now += RETRY_NS
    assert h.round() == [], "the list says now that it has ended"
    assert h.round() == [Start("worker-CPU-0")], "at once"


def test_a_list_that_still_shows_the_dead_process_does_not_bring_it_back() -> None:
    h = settled()
    stale = h.supervisord.listing()
    h.kill("CPU-0")
    assert h.fleet.plan(h.now) is not None
    assert h.fleet.programs_seen(stale, h.now) == []
    assert only(h).process is None


def test_the_death_of_a_stranger_changes_nothing() -> None:
    h = settled()
    assert h.fleet.died(ProcessId(1, 1), h.now) is None
    assert only(h).connected


def test_a_new_process_is_reported_to_be_watched_once() -> None:
    h = Harness()
    h.round()
    h.now += RELIST_NS
    h.fleet.advance(frozenset(), frozenset(), h.now)
    batch = h.fleet.plan(h.now)
    assert batch is not None
    h.supervisord.run(batch)
    assert h.fleet.programs_seen(h.supervisord.listing(), h.now) == [only(h)]
    assert h.fleet.programs_seen(h.supervisord.listing(), h.now) == []


# ---- scaling


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 3), (3, 2), (1, 1), (5, 2)])
def test_scaling_comes_to_exactly_the_wanted_shares(before: int, after: int) -> None:
    h = settled(before)
    h.fleet.scale("CPU", after, h.now)
    floor = min(before, after)
    for _ in range(60):
        h.round()
        assert len(h.serving) >= floor, "fewer serve than before and after"
        staying = [post for post in h.fleet.posts.values() if not post.retiring]
        assert len(staying) <= max(before, after) + 1, "more than one beside the pool"
        h.hellos()
        assert len(h.serving) >= floor
        h.now += RELIST_NS
    assert h.shares() == [(index, after) for index in range(after)]
    assert h.running() == {post.slot.program for post in h.fleet.posts.values()}
    assert set(h.supervisord.programs) == h.running()


def test_scaling_replaces_one_worker_at_a_time() -> None:
    h = settled(2)
    h.fleet.scale("CPU", 3, h.now)
    h.round()
    assert sorted(h.running()) == ["worker-CPU-0", "worker-CPU-1", "worker-CPU-2"]
    assert h.drains == []
    h.hellos()
    h.round()
    assert len(h.drains) == 1
    assert h.drains[0] in ("CPU-0", "CPU-1")


def test_a_drained_worker_is_stopped_and_forgotten_only_when_it_has_nothing_in_hand() -> None:
    h = settled(1)
    h.fleet.scale("CPU", 2, h.now)
    for _ in range(10):
        h.round()
        for post in h.fleet.posts.values():
            program = h.supervisord.programs.get(post.slot.program)
            if program is not None and program.process is not None:
                h.fleet.hello(post.slot.name, program.process, h.now)
                if not post.retiring:
                    h.serving.add(post.slot.name)
        h.now += RELIST_NS
    assert h.drains == ["CPU-0"]
    assert "worker-CPU-0" in h.running(), "it has requests in hand"
    old = h.fleet.posts["CPU-0"]
    old.drained = True
    h.settle(5)
    assert "worker-CPU-0" not in h.supervisord.programs
    assert "CPU-0" not in h.fleet.posts


def test_workers_that_serve_nothing_go_first() -> None:
    h = settled(3)
    h.kill("CPU-1")
    h.fleet.scale("CPU", 2, h.now)
    for _ in range(4):
        h.round()
        h.hellos()
        h.now += RETRY_NS
        if h.drains:
            break
    assert h.drains[0] == "CPU-1"


def test_scaling_to_and_fro_leaves_one_worker_a_share() -> None:
    h = settled(2)
    for replicas in (3, 2, 4, 2):
        h.fleet.scale("CPU", replicas, h.now)
        h.round()
        h.hellos()
        h.now += RELIST_NS
    h.settle()
    assert h.shares() == [(0, 2), (1, 2)]


def test_a_new_size_whose_workers_serve_nothing_leaves_the_old_ones_alone() -> None:
    """Its versions do not load, say."""
    h = settled(2)
    old = set(h.serving)
    h.fleet.scale("CPU", 4, h.now)
    for _ in range(10):
        h.round()
        h.now += RELIST_NS
    assert h.drains == []
    assert h.serving == old
    assert len(h.running()) == 3


def test_where_nothing_is_served_the_old_workers_are_not_waited_for() -> None:
    """Else each correction of a device that does not work would leave a worker more."""
    h = settled(1)
    h.serving.clear()
    h.vital.clear()
    for python in ("/opt/a", "/opt/b"):
        h.fleet.configure({"CPU": 1}, {"CPU": DeviceConfig(python)}, h.now)
        for _ in range(6):
            h.round()
            h.now += RELIST_NS
            for post in h.fleet.posts.values():
                post.drained = post.retiring
        (post,) = h.fleet.posts.values()
        assert post.slot.python == python


# ---- devices


def test_a_device_that_is_run_otherwise_is_replaced_one_by_one() -> None:
    h = settled(2)
    old = set(h.fleet.posts)
    h.fleet.configure({"CPU": 2}, {"CPU": DeviceConfig("/opt/python", "GPU")}, h.now)
    for _ in range(40):
        h.round()
        assert len(h.serving) >= 2
        h.hellos()
        assert len(h.serving) >= 2
        h.now += RELIST_NS
    assert not old & h.fleet.posts.keys()
    assert h.shares() == [(0, 2), (1, 2)]
    assert {(post.slot.python, post.slot.emulate_on) for post in h.fleet.posts.values()} == {
        ("/opt/python", "GPU")
    }


def test_a_device_that_appears_gets_a_pool_and_one_that_disappears_loses_it() -> None:
    h = settled(1)
    h.fleet.configure({"CPU": 1, "GPU": 2}, {}, h.now)
    h.settle(5)
    assert sorted(post.slot.device for post in h.fleet.posts.values()) == ["CPU", "GPU", "GPU"]
    h.fleet.configure({"GPU": 2}, {}, h.now)
    h.round()
    assert h.drains == ["CPU-0"]
    assert "worker-CPU-0" in h.running(), "it is drained first"
    h.settle(5)
    assert [post.slot.device for post in h.fleet.posts.values()] == ["GPU", "GPU"]
    assert len(h.running()) == 2


def test_the_same_configuration_disturbs_nothing() -> None:
    h = settled(2)
    deadline = h.fleet.next_deadline()
    h.fleet.configure({"CPU": 2}, {}, h.now)
    assert h.fleet.next_deadline() == deadline
    h.settle(5)
    assert h.drains == []


def test_a_trial_worker_is_run_as_its_device_is() -> None:
    h = settled(1)
    h.fleet.want_trial("CPU", h.now)
    h.settle(3)
    h.fleet.configure({"CPU": 1}, {"CPU": DeviceConfig("/opt/python")}, h.now)
    for _ in range(8):
        h.fleet.want_trial("CPU", h.now)
        h.settle(1)
    (trial,) = [post for post in h.fleet.posts.values() if post.slot.trial]
    assert trial.slot.python == "/opt/python"


# ---- workers that do not come up


def test_a_program_that_ends_before_its_process_is_seen_is_backed_off_from() -> None:
    h = settled(1)
    h.kill("CPU-0", noticed=True)
    h.supervisord.spoilt = True
    starts = []
    for _ in range(200):
        before = h.supervisord.starts
        h.round()
        if h.supervisord.starts > before:
            starts.append(h.now)
        h.now += SECOND // 4
    waits = [(later - earlier) // SECOND for earlier, later in itertools.pairwise(starts)]
    assert waits == sorted(waits), "ever longer"
    assert waits[-1] >= 8


def test_a_device_of_which_no_worker_comes_up_says_so() -> None:
    h = settled(2)
    for _ in range(3):
        h.kill("CPU-0", noticed=True)
        h.restart()
        h.serving.clear()
    assert h.fleet.failing() == {}, "the other one lives"
    for name in ("CPU-0", "CPU-1"):
        h.kill(name, noticed=True)
    h.fleet.posts["CPU-1"].deaths = 3
    assert h.fleet.failing() == {"CPU": 3}
    h.fleet.configure({"CPU": 2, "GPU": 1}, {}, h.now)
    h.settle(30)
    assert h.fleet.failing() == {}


# ---- strays, and supervisord's troubles


def test_programs_without_a_place_are_stopped_and_removed() -> None:
    h = settled()
    h.supervisord.programs["worker-CPU-99"] = SimProgram("RUNNING", ProcessId(1, 1))
    h.supervisord.programs["worker-CPU-98"] = SimProgram("FATAL")
    h.now = h.fleet.next_deadline()
    h.settle(5)
    assert set(h.supervisord.programs) == {"worker-CPU-0"}


def test_a_stray_whose_name_a_slot_is_given_is_that_slots() -> None:
    """Else the fleet would stop its own worker again and again."""
    h = settled()
    h.supervisord.programs["worker-CPU-1"] = SimProgram("RUNNING", ProcessId(1, 1))
    h.now = h.fleet.next_deadline()
    h.round()
    h.fleet.scale("CPU", 2, h.now)
    h.settle()
    assert h.shares() == [(0, 2), (1, 2)]
    assert len(h.running()) == 2


def test_a_program_that_somebody_removed_is_added_again() -> None:
    h = settled()
    process = only(h).process
    assert process is not None
    del h.supervisord.programs["worker-CPU-0"]
    h.fleet.died(process, h.now)
    h.settle(5)
    assert h.running() == {"worker-CPU-0"}


def test_commands_that_failed_are_given_again() -> None:
    h = Harness(2)
    h.round()
    for _ in range(3):
        h.now += RELIST_NS
        batch = h.round(fails=True)
        assert batch is not None
        assert len(batch) == 4
    h.now += RELIST_NS
    h.round()
    assert len(h.running()) == 2


def test_an_unreachable_supervisord_is_asked_again_soon() -> None:
    h = settled()
    h.now = h.fleet.next_deadline()
    assert h.fleet.plan(h.now) == []
    h.fleet.unreachable(h.now)
    assert h.fleet.plan(h.now) is None
    assert h.now < h.fleet.next_deadline() < h.now + RELIST_NS
    assert h.fleet.plan(h.fleet.next_deadline()) == []


def test_the_list_is_asked_for_each_second_until_every_worker_is_linked() -> None:
    h = Harness(2)
    h.round()
    h.now = h.fleet.next_deadline()
    h.round()
    assert len(h.running()) == 2
    assert h.fleet.next_deadline() == h.now + RELIST_NS
    h.now = h.fleet.next_deadline()
    one, other = h.fleet.posts.values()
    assert one.process is not None
    h.fleet.hello(one.slot.name, one.process, h.now)
    assert h.round() == []
    assert h.fleet.next_deadline() == h.now + RELIST_NS, "the other may end unseen"
    assert other.process is not None
    h.fleet.hello(other.slot.name, other.process, h.now)
    h.now = h.fleet.next_deadline()
    assert h.round() == []
    assert h.fleet.next_deadline() == h.now + SETTLED_RELIST_NS


def test_the_list_is_asked_for_at_once_when_something_has_changed() -> None:
    h = settled()
    h.now = h.fleet.next_deadline()
    assert h.round() == []
    assert h.round() is None
    h.fleet.hurry(h.now)
    assert h.round() == []


def test_nothing_is_due_while_supervisord_is_asked() -> None:
    """Else the loop would turn without a pause until the answer comes."""
    h = settled()
    h.now = h.fleet.next_deadline()
    assert h.fleet.plan(h.now) == []
    assert h.fleet.next_deadline() > h.now + 1000 * SECOND
    h.fleet.programs_seen(h.supervisord.listing(), h.now)
    assert h.now < h.fleet.next_deadline() <= h.now + SETTLED_RELIST_NS


# ---- a new broker


def test_a_new_broker_takes_its_predecessors_workers_over() -> None:
    old = settled(2)
    h = Harness(2, old.fleet.slots(), old.fleet.serial)
    h.supervisord = old.supervisord
    starts = h.supervisord.starts
    assert h.round() == []
    assert h.fleet.silent_devices() == frozenset({"CPU"})
    processes = {one.process for one in h.supervisord.programs.values()}
    assert {post.process for post in h.fleet.posts.values()} == processes
    h.hellos()
    assert h.fleet.silent_devices() == frozenset()
    h.settle(10)
    assert h.supervisord.starts == starts, "nothing is started anew"


def test_a_silent_inherited_worker_is_killed_after_five_seconds() -> None:
    old = settled()
    h = Harness(1, old.fleet.slots(), old.fleet.serial)
    h.supervisord = old.supervisord
    h.round()
    process = only(h).process
    assert h.fleet.overdue(h.now + SILENCE_TIMEOUT_NS - 1) == []
    assert h.fleet.overdue(h.now + SILENCE_TIMEOUT_NS) == [process]
    h.kill("CPU-0")
    assert h.fleet.silent_devices() == frozenset()


def test_a_worker_that_died_with_the_broker_is_not_waited_for() -> None:
    old = settled()
    h = Harness(1, old.fleet.slots(), old.fleet.serial)
    h.supervisord = old.supervisord
    h.supervisord.programs["worker-CPU-0"] = SimProgram("EXITED")
    h.round()
    assert h.fleet.silent_devices() == frozenset()


def test_new_slots_get_numbers_that_were_never_used() -> None:
    h = Harness(1, (Slot("CPU-3", "CPU", 0, 1),), 7)
    h.settle(5)
    h.fleet.scale("CPU", 2, h.now)
    h.settle()
    assert {post.slot.name for post in h.fleet.posts.values()} == {"CPU-7", "CPU-8"}


# ---- trials


def test_a_trial_worker_stands_beside_the_pool() -> None:
    h = settled(2)
    h.fleet.want_trial("CPU", h.now)
    h.fleet.want_trial("CPU", h.now)
    h.settle(5)
    (trial,) = [post for post in h.fleet.posts.values() if post.slot.trial]
    assert trial.slot == Slot("CPU-2-trial", "CPU", 0, 1, trial=True)
    assert len(h.running()) == 3
    assert h.drains == []
    h.fleet.end_trial("CPU", h.now)
    h.settle(5)
    assert len(h.running()) == 2
    assert not any(post.slot.trial for post in h.fleet.posts.values())


def test_trials_of_other_devices_are_left_alone() -> None:
    h = settled()
    h.fleet.want_trial("CPU", h.now)
    h.fleet.end_trial("GPU", h.now)
    h.settle(3)
    assert len(h.running()) == 2


def test_a_trial_that_dies_is_started_again_after_its_back_off() -> None:
    h = settled()
    h.fleet.want_trial("CPU", h.now)
    h.settle(3)
    starts = h.supervisord.starts
    h.kill("CPU-1-trial", noticed=True)
    h.settle(5)
    assert h.supervisord.starts == starts + 1


# ---- from any state


def remembered_slot(number: int, share: tuple[int, int], trial: bool) -> Slot:
    return Slot(f"CPU-{number}-trial" if trial else f"CPU-{number}", "CPU", *share, trial)


shares = st.integers(1, 4).flatmap(lambda of: st.tuples(st.integers(0, of - 1), st.just(of)))
slots = st.builds(remembered_slot, st.integers(0, 9), shares, st.booleans())
states = st.sampled_from(["RUNNING", "STOPPED", "EXITED", "FATAL", "DEAD"])


def kill_one(h: Harness, number: int) -> None:
    alive = [
        name
        for name, post in h.fleet.posts.items()
        if h.supervisord.programs.get(post.slot.program, SimProgram()).process is not None
    ]
    if alive:
        h.kill(alive[number % len(alive)], noticed=number > 2)


def fail_to_answer(h: Harness, _: int) -> None:
    if h.fleet.plan(h.now) is not None:
        h.fleet.unreachable(h.now)


def pass_time(h: Harness, number: int) -> None:
    h.now += number * SECOND


EVENTS: dict[str, Callable[[Harness, int], object]] = {
    "round": lambda h, _: h.round(),
    "failing round": lambda h, _: h.round(fails=True),
    "hello": lambda h, _: h.hellos(),
    "kill": kill_one,
    "reap": lambda h, _: h.supervisord.notice_deaths(),
    "scale": lambda h, number: h.fleet.scale("CPU", number, h.now),
    "time": pass_time,
    "unreachable": fail_to_answer,
    "trial": lambda h, _: h.fleet.want_trial("CPU", h.now),
}
happenings = st.sampled_from(sorted(EVENTS))


@given(
    remembered=st.lists(slots, max_size=6, unique_by=lambda slot: slot.name),
    programs=st.dictionaries(
        st.integers(0, 12).map(lambda number: f"worker-CPU-{number}"), states, max_size=8
    ),
    events=st.lists(st.tuples(happenings, st.integers(1, 4)), max_size=25),
    replicas=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_from_any_state_everything_comes_to_exactly_what_is_wanted(
    remembered: list[Slot], programs: dict[str, str], events: list[tuple[str, int]], replicas: int
) -> None:
    h = Harness(replicas, tuple(remembered), 10)
    for number, (name, state) in enumerate(programs.items()):
        process = ProcessId(number + 1, 1) if state == "RUNNING" else None
        h.supervisord.programs[name] = SimProgram("RUNNING" if state == "DEAD" else state, process)
    for event, number in events:
        EVENTS[event](h, number)
    h.fleet.end_trial("CPU", h.now)
    h.settle()
    wanted = h.fleet.wanted["CPU"]
    assert h.shares() == [(index, wanted) for index in range(wanted)]
    assert h.running() == {post.slot.program for post in h.fleet.posts.values()}
    assert set(h.supervisord.programs) == h.running()
    assert h.serving == set(h.fleet.posts)
    starts = h.supervisord.starts
    h.settle(10)
    assert h.supervisord.starts == starts, "it does not rest"
