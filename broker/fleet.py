"""Which worker processes should exist, and what supervisord is to be told for that. Pure.

Reconciliation is level-triggered: `programs_seen` brings the whole list of programs that supervisord knows, `plan`
compares it with the wanted slots and returns whatever still differs; a command that failed is simply found missing in
the next list. One batch of commands is under way at a time.

    slot:  wanted, no program ─▶ Add ─▶ stopped ─▶ Start ─▶ process ─Hello─▶ connected ─▶ serving
                                          ▲                     │ dies
                                          └──── back-off ◀──────┘
           retiring: drained ─▶ Stop ─▶ Remove

Scaling replaces a pool's workers one by one, each new one serving before an old one goes, because a worker's share of
the cores is fixed when it compiles. A device that is to be run otherwise (by another interpreter, emulated) is replaced
in the same way.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

from common.backoff import delay_ns
from common.config import DeviceConfig
from common.messages import ProcessId

HELLO_TIMEOUT_NS = 60_000_000_000
"""A worker that was started and stays silent for so long is killed: importing OpenVINO on a loaded machine is slow."""

SILENCE_TIMEOUT_NS = 5_000_000_000
"""A worker that runs already when the broker starts, and stays silent for so long, is killed."""

PROOF_OF_LIFE_NS = 10_000_000_000
"""A worker that lived so long has not failed to start: its next death begins the back-off anew."""

FAILED_STARTS = 3
"""A worker that has ended so often in a row is said not to come up; it is started again all the same."""

RELIST_NS = 1_000_000_000
"""Between two lists while anything is on its way: a worker that ends before its Hello is found by them alone."""

SETTLED_RELIST_NS = 30_000_000_000
"""Between two lists while every worker is there, connected and watched by its pidfd: they can tell nothing that it does
not tell first, unless somebody else orders supervisord about. A list costs broker and supervisord 5 ms."""

RETRY_NS = 20_000_000
"""supervisord takes a moment to notice a death; until then it answers that the program runs."""

NEVER = 1 << 62

STOPPED_STATES = frozenset({"STOPPED", "EXITED", "FATAL", "BACKOFF"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A worker's place: what its program is called and what it is told. Written down as wanted state."""

    name: str
    device: str
    index: int = 0
    of: int = 1
    trial: bool = False
    python: str = ""
    """Interpreter that runs it; empty: the server's."""
    emulate_on: str = ""
    """Device that stands in for its own; empty: none."""

    @property
    def program(self) -> str:
        """The program's name with supervisord: the slot's, in letters that its configuration allows."""
        return f"worker-{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)}"


@dataclass(frozen=True, slots=True)
class Program:
    """A worker program as supervisord sees it."""

    name: str
    state: str
    process: ProcessId | None


@dataclass(frozen=True, slots=True)
class Add:
    """Make the program known to supervisord."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Start:
    """Start a program that is known and stopped."""

    program: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a running program."""

    program: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Make supervisord forget a stopped program."""

    program: str


ProgramCommand: TypeAlias = Add | Start | Stop | Remove


@dataclass(slots=True, eq=False)
class Post:
    """What is known of a slot at run time."""

    slot: Slot
    process: ProcessId | None = None
    connected: bool = False
    inherited: bool = False
    """Ran already when this broker started, and has not said Hello yet."""
    silent_since: int = 0
    started_at: int = 0
    deaths: int = 0
    restarts: int = 0
    next_start: int = 0
    retiring: bool = False
    drained: bool = False
    known: bool = False
    """Whether supervisord knows the program."""
    running: bool = False
    """Whether supervisord believes that it runs."""
    kill_sent: bool = False
    ordered: bool = False
    """Was told to start, and no process has been seen since."""

    def note_death(self, now: int) -> None:
        """Its process has ended, or never came to be: it starts again after its back-off."""
        lived = now - self.started_at if self.process is not None else 0
        self.deaths = 1 if lived >= PROOF_OF_LIFE_NS else self.deaths + 1
        self.restarts += 1
        self.next_start = now + delay_ns(self.deaths)
        self.process = None
        self.connected = self.inherited = self.ordered = False


class Fleet:
    """All pools of workers."""

    def __init__(
        self,
        wanted: dict[str, int],
        slots: tuple[Slot, ...],
        serial: int,
        devices: dict[str, DeviceConfig] | None = None,
    ) -> None:
        self.wanted = dict(wanted)
        """Replicas by device; workers of other devices are to go."""
        self.devices = dict(devices or {})
        """How the workers of a device are run, where that is special."""
        self.serial = serial
        """Number of the next slot."""
        self.posts = {slot.name: Post(slot) for slot in slots}
        self.listed = False
        """Whether supervisord's list was seen by this broker."""
        self._strays: dict[str, bool] = {}
        self._busy = False
        self._next_plan = 0
        self._dead: set[ProcessId] = set()

    # ---- events

    def programs_seen(self, programs: tuple[Program, ...], now: int) -> list[Post]:
        """supervisord's list, after a batch or on its own. Returns posts with a process that is new to this broker."""
        first = not self.listed
        self.listed = True
        self._busy = False
        by_program = {post.slot.program: post for post in self.posts.values()}
        seen = {program.name for program in programs}
        ran = {name for name, post in self.posts.items() if post.running}
        found = []
        for program in programs:
            post = by_program.get(program.name)
            if post is None:
                self._strays[program.name] = program.state not in STOPPED_STATES
                continue
            post.known = True
            post.running = program.state not in STOPPED_STATES
            if self._has_new_process(post, program):
                post.process = program.process
                post.connected = False
                post.kill_sent = False
                post.silent_since = post.started_at = now
                post.inherited = first
                post.ordered = False
                found.append(post)
        for post in self.posts.values():
            if post.slot.program not in seen:
                post.known = post.running = False
            elif post.ordered and not post.running:
                # It ended before anybody saw its process, or there is no such program.
                post.note_death(now)
        # One whose name a slot has been given since is that slot's now.
        strays = seen - by_program.keys()
        self._strays = {name: runs for name, runs in self._strays.items() if name in strays}
        alive = {program.process for program in programs}
        self._dead &= {process for process in self._dead if process in alive}
        # The first list is what everything waits for: until it is there, nothing is started.
        self._next_plan = now if first else self._next_look(ran, now)
        return found

    def unreachable(self, now: int) -> None:
        """supervisord did not answer: look again soon."""
        self._busy = False
        self._next_plan = now + RELIST_NS // 4
        for post in self.posts.values():
            post.ordered = False

    def hello(self, name: str, process: ProcessId, now: int) -> Post | None:
        """A worker has said who it is; None for one that has no place (it is left to `plan` to stop it)."""
        post = self.posts.get(name)
        if post is None or process in self._dead:
            return None
        if post.process != process:
            post.process = process
            post.started_at = now
        post.connected = True
        post.inherited = post.ordered = False
        return post

    def died(self, process: ProcessId, now: int) -> Post | None:
        """A worker's process has ended: its post, which starts again after its back-off."""
        self._dead.add(process)
        for post in self.posts.values():
            if post.process == process:
                post.note_death(now)
                self._next_plan = now
                return post
        return None

    def configure(self, wanted: dict[str, int], devices: dict[str, DeviceConfig], now: int) -> None:
        """Want this many workers of these devices, run in this way, and no other workers from now on."""
        if wanted != self.wanted or devices != self.devices:
            self.wanted, self.devices = dict(wanted), dict(devices)
            self._next_plan = now

    def scale(self, device: str, replicas: int, now: int) -> None:
        """Want this many workers of a device from now on."""
        self.configure({**self.wanted, device: replicas}, self.devices, now)

    def hurry(self, now: int) -> None:
        """Something has changed that `plan` should see at once."""
        self._next_plan = min(self._next_plan, now)

    def want_trial(self, device: str, now: int) -> None:
        """Have one worker that serves nothing, beside the pool."""
        trials = [post for post in self.posts.values() if post.slot.device == device and post.slot.trial]
        if any(not self.is_run_as_wanted(post.slot) for post in trials):
            self.end_trial(device, now)
        elif not trials:
            self._new_slot(device, 0, 1, trial=True)
            self._next_plan = now

    def end_trial(self, device: str, now: int) -> None:
        """The version on trial has loaded, or is not wanted any more."""
        for post in self.posts.values():
            if post.slot.device == device and post.slot.trial and not post.retiring:
                post.retiring = post.drained = True
                self._next_plan = now

    # ---- decisions

    def advance(self, serving: frozenset[str], vital: frozenset[str], now: int) -> list[str]:
        """Bring each pool one step nearer to what is wanted. Returns the slots that are to be drained now.

        `serving` are workers that serve all there is to serve of their device, `vital` devices of which anything is
        served: only those need their old workers while new ones get ready.
        """
        drain: list[str] = []
        for device, replicas in self.wanted.items():
            current, old = self._pool(device, replicas, serving)
            starting = [post for post in current if post.slot.name not in serving]
            missing = sorted(set(range(replicas)) - {post.slot.index for post in current})
            if missing and (not old or not starting):
                for index in missing if not old else missing[:1]:
                    self._new_slot(device, index, replicas, trial=False)
                    self._next_plan = now
            if device in vital:
                drain.extend(self._retire_old(old, len(current) - len(starting), replicas, serving))
            elif current:
                drain.extend(self._retire(old))
        leaving = [post for post in self.posts.values() if post.slot.device not in self.wanted]
        drain.extend(self._retire([post for post in leaving if not post.retiring]))
        if drain:
            self._next_plan = now
        return drain

    def _pool(self, device: str, replicas: int, serving: frozenset[str]) -> tuple[list[Post], list[Post]]:
        """A device's workers that are to stay, one a share of the cores, and those that are to be replaced."""
        pool = [
            post
            for post in self.posts.values()
            if post.slot.device == device and not post.slot.trial and not post.retiring
        ]
        current: dict[int, Post] = {}
        # Scaled to and fro, a share may have two workers: the one that serves stays.
        for post in sorted(pool, key=lambda one: one.slot.name not in serving):
            if post.slot.of == replicas and self.is_run_as_wanted(post.slot):
                current.setdefault(post.slot.index, post)
        stay = list(current.values())
        return stay, [post for post in pool if post not in stay]

    def _retire_old(self, old: list[Post], served: int, replicas: int, serving: frozenset[str]) -> list[str]:
        """Old workers that the new ones make up for, those that serve nothing (dead, or failing to start) first."""
        if not old:
            return []
        floor = min(replicas, max(post.slot.of for post in old))
        spare = served + len(old) - floor if served else 0
        return self._retire(sorted(old, key=lambda post: post.slot.name in serving)[: max(0, spare)])

    @staticmethod
    def _retire(posts: list[Post]) -> list[str]:
        for post in posts:
            post.retiring = True
        return [post.slot.name for post in posts]

    def plan(self, now: int) -> list[ProgramCommand] | None:
        """The batch that supervisord is to be given now (empty: only list the programs); None for nothing yet."""
        if self._busy or now < self._next_plan:
            return None
        if not self.listed:
            self._busy = True
            return []
        commands = [command for post in self.posts.values() for command in self._step(post, now)]
        for name, running in self._strays.items():
            commands.append(Stop(name) if running else Remove(name))
        self._forget_gone()
        self._busy = True
        return commands

    def overdue(self, now: int) -> list[ProcessId]:
        """Processes that are to be killed because they have not said Hello in time."""
        late = []
        for post in self.posts.values():
            if post.process is None or post.connected or post.kill_sent:
                continue
            limit = SILENCE_TIMEOUT_NS if post.inherited else HELLO_TIMEOUT_NS
            if now - post.silent_since >= limit:
                post.kill_sent = True
                late.append(post.process)
        return late

    # ---- facts

    def silent_devices(self) -> frozenset[str] | None:
        """Devices with inherited workers that may be running requests unheard; None while that is unknown."""
        if not self.listed:
            return None
        return frozenset(
            post.slot.device for post in self.posts.values() if post.inherited and post.process is not None
        )

    def failing(self) -> dict[str, int]:
        """Devices of which no worker comes up: how often in a row their workers have ended, at the least."""
        deaths: dict[str, int] = {}
        for post in self.posts.values():
            if not post.slot.trial and not post.retiring:
                count = 0 if post.connected else post.deaths
                deaths[post.slot.device] = min(count, deaths.get(post.slot.device, count))
        return {device: count for device, count in deaths.items() if count >= FAILED_STARTS}

    def is_run_as_wanted(self, slot: Slot) -> bool:
        """Whether a worker is run as its device is configured now."""
        how = self.devices.get(slot.device, DeviceConfig())
        return (slot.python, slot.emulate_on) == (how.python, how.emulate_on)

    def is_restless(self) -> bool:
        """Whether a worker is to go that is not told so yet, or may still have something in hand."""
        return any(
            not post.drained if post.retiring else post.slot.device not in self.wanted
            for post in self.posts.values()
        )

    def slots(self) -> tuple[Slot, ...]:
        """To be written down as wanted state."""
        return tuple(post.slot for post in self.posts.values())

    def next_deadline(self) -> int:
        """When `plan` should be asked again; not while a batch is under way, whose answer is an event."""
        return NEVER if self._busy else self._next_plan

    def is_awaiting(self) -> bool:
        """Whether a worker was started that has not said Hello yet; `overdue` looks at those."""
        return any(post.process is not None and not post.connected for post in self.posts.values())

    # ---- bookkeeping

    def _has_new_process(self, post: Post, program: Program) -> bool:
        return (
            program.process is not None
            and program.process != post.process
            and program.process not in self._dead
            and not (post.connected and post.process is not None)
        )

    def _next_look(self, ran: set[str], now: int) -> int:
        """After a list; `ran` are the slots whose programs ran by the list before."""
        posts = [post for post in self.posts.values() if not post.retiring]
        if any(post.slot.name in ran and not post.running for post in posts):
            return now
        if any(post.running and post.process is None for post in posts):
            return now + RETRY_NS
        starts = [post.next_start for post in posts if not post.running and post.next_start > now]
        return min([now + (SETTLED_RELIST_NS if self._is_settled() else RELIST_NS), *starts])

    def _is_settled(self) -> bool:
        """Whether supervisord runs what is wanted and nothing else, and each of it is linked to this broker."""
        return not self._strays and all(
            post.connected and post.running and not post.retiring for post in self.posts.values()
        )

    def _step(self, post: Post, now: int) -> list[ProgramCommand]:
        """What this post lacks; several steps at once where their order is safe."""
        program = post.slot.program
        if post.retiring:
            if post.running and (post.drained or post.process is None):
                return [Stop(program)]
            return [Remove(program)] if post.known and not post.running else []
        if post.running:
            return []
        if now < post.next_start:
            self._next_plan = min(self._next_plan, post.next_start)
            return []
        post.ordered = True
        return [Start(program)] if post.known else [Add(post.slot), Start(program)]

    def _forget_gone(self) -> None:
        for name in [post.slot.name for post in self.posts.values() if post.retiring and not post.known]:
            del self.posts[name]

    def _new_slot(self, device: str, index: int, of: int, *, trial: bool) -> None:
        name = f"{device}-{self.serial}" + ("-trial" if trial else "")
        self.serial += 1
        how = self.devices.get(device, DeviceConfig())
        self.posts[name] = Post(Slot(name, device, index, of, trial, how.python, how.emulate_on))
