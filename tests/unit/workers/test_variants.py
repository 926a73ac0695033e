"""workers.variants: what is kept, what is compiled next, who waits."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.messages import Execute, RequestKey, TensorRef, VersionId
from workers.ports import Shapes
from workers.variants import MAX_REFUSALS, REFUSAL_NS, Step, Variants

VERSION = VersionId("m", 1)
A, B, C = ((1,),), ((2,),), ((3,),)


def request(number: int, shapes: Shapes, frontend: str = "f", deadline: int = 0) -> Execute:
    references = tuple(TensorRef(0, shape) for shape in shapes)
    return Execute(RequestKey(frontend, number), VERSION, 0, references, (), deadline)


def variants(limit: int, *shapes: Shapes) -> Variants:
    made = Variants(limit)
    for one in shapes:
        made.add(one)
    return made


def compile_next(kept: Variants, expected: Shapes) -> list[Execute]:
    assert kept.step().compile == expected
    return kept.compiled()


def test_what_is_compiled_runs_and_anything_else_waits_for_it() -> None:
    kept = variants(4, A)
    assert kept.admit(request(1, A), 0).runs
    assert kept.step() == Step()
    waiting = [request(2, B), request(3, B)]
    assert [kept.admit(one, 0) for one in waiting] == [(False, "")] * 2
    assert kept.waiting() == [one.key for one in waiting]
    assert compile_next(kept, B) == waiting
    assert kept.waiting() == []
    assert kept.admit(request(4, B), 0).runs


def test_others_run_while_one_is_compiled_and_one_is_compiled_at_a_time() -> None:
    kept = variants(4, A)
    kept.admit(request(1, B), 0)
    assert kept.step().compile == B
    kept.admit(request(2, C), 0)
    assert kept.step() == Step()
    assert kept.admit(request(3, A), 0).runs
    kept.admit(late := request(4, B), 0)
    assert kept.compiled()[-1] == late
    assert kept.step().compile == C


def test_least_recently_used_goes_once_its_successor_is_compiled() -> None:
    kept = variants(2, A, B)
    assert kept.admit(request(1, A), 0).runs
    kept.leave(request(1, A).key)
    kept.admit(request(2, C), 0)
    assert kept.step() == Step(compile=C)
    kept.compiled()
    assert kept.step() == Step(evicted=(B,))


def test_shapes_that_cannot_be_compiled_drive_nothing_out() -> None:
    kept = variants(1, A)
    kept.admit(request(1, B), 0)
    assert kept.step() == Step(compile=B)
    assert kept.failed("no", 0) == [request(1, B)]
    assert kept.step() == Step()
    assert kept.admit(request(2, A), 0).runs


def test_what_runs_is_never_evicted() -> None:
    kept = variants(1, A)
    kept.admit(request(1, A), 0)
    kept.admit(request(2, B), 0)
    assert kept.step() == Step(compile=B)
    kept.compiled()
    assert kept.step() == Step()
    kept.leave(request(1, A).key)
    assert kept.step() == Step(evicted=(A,))


def test_a_stream_of_requests_for_what_is_there_keeps_nobody_out() -> None:
    kept = variants(1, A)
    kept.admit(request(1, A), 0)
    kept.admit(request(2, B), 0)
    compile_next(kept, B)
    kept.admit(third := request(3, C), 0)
    assert kept.step() == Step()
    assert not kept.admit(again := request(4, A), 0).runs, "its room is wanted"
    kept.leave(request(1, A).key)
    assert kept.step() == Step((A,), (), C)
    assert kept.compiled() == [third]
    kept.leave(request(2, B).key)
    assert kept.step() == Step((B,), (), A)
    assert kept.compiled() == [again]


def test_what_has_not_gone_when_its_turn_comes_stays() -> None:
    kept = variants(1, A)
    kept.admit(request(1, A), 0)
    kept.admit(request(2, B), 0)
    compile_next(kept, B)
    kept.admit(request(3, C, deadline=5), 0)
    kept.step()
    kept.admit(again := request(4, A), 0)
    assert kept.expire(5) == [request(3, C, deadline=5)]
    assert kept.step() == Step((), (again,))


def test_refusals_are_remembered_for_a_while_and_not_without_bound() -> None:
    kept = variants(1)
    for number in range(MAX_REFUSALS + 1):
        kept.admit(request(number, ((number,),)), 0)
        assert kept.step().compile == ((number,),)
        kept.failed(f"no {number}", 0)
    assert kept.admit(request(1000, ((5,),)), REFUSAL_NS - 1).refusal == "no 5"
    assert kept.admit(request(1001, ((0,),)), 1) == (False, ""), "the oldest is forgotten"
    assert kept.admit(request(1002, ((5,),)), REFUSAL_NS) == (False, ""), "it is tried again"


def test_nothing_is_compiled_for_those_that_have_gone() -> None:
    kept = variants(1)
    gone = [request(1, A, "gone"), request(2, B, "gone")]
    stays = request(3, B, "stays")
    for one in (*gone, stays):
        kept.admit(one, 0)
    assert kept.drop("gone") == gone
    assert kept.step().compile == B
    assert kept.drop("stays") == [stays]
    assert kept.compiled() == []
    assert kept.admit(request(4, B), 0).runs, "what was compiled all the same is kept"


def test_leaving_of_one_that_only_waited_is_nothing() -> None:
    kept = variants(1)
    kept.admit(request(1, A), 0)
    kept.leave(request(1, A).key)
    kept.check()


class Machine(RuleBasedStateMachine):
    """Any order of events: nothing that runs goes, nobody is forgotten, and everybody's turn comes."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Variants(2)
        self.number = 0
        self.ready: set[Shapes] = set()
        self.compiling: Shapes | None = None
        self.waiting: set[RequestKey] = set()
        self.running: dict[RequestKey, Shapes] = {}

    def step(self) -> None:
        step = self.kept.step()
        for one in step.resumed:
            self.run(one)
        for shapes in step.evicted:
            assert shapes not in self.running.values()
            self.ready.remove(shapes)
        if step.compile is not None:
            assert self.compiling is None
            assert step.compile not in self.ready
            self.compiling = step.compile

    def run(self, one: Execute) -> None:
        self.waiting.discard(one.key)
        self.running[one.key] = tuple(reference.shape for reference in one.inputs)
        assert self.running[one.key] in self.ready

    @rule(length=st.integers(1, 5), frontend=st.sampled_from("fg"), deadline=st.integers(0, 3))
    def admit(self, length: int, frontend: str, deadline: int) -> None:
        self.number += 1
        one = request(self.number, ((length,),), frontend, deadline)
        admission = self.kept.admit(one, 1)
        if admission.runs:
            self.run(one)
        elif not admission.refusal:
            self.waiting.add(one.key)
        self.step()

    @precondition(lambda self: self.compiling is not None)
    @rule(works=st.booleans())
    def end(self, works: bool) -> None:
        shapes, self.compiling = self.compiling, None
        assert shapes is not None
        if works:
            self.ready.add(shapes)
            for one in self.kept.compiled():
                self.run(one)
        else:
            self.waiting -= {one.key for one in self.kept.failed("no", 1)}
        self.step()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        self.kept.leave(key)
        self.step()

    @rule(frontend=st.sampled_from("fg"))
    def drop(self, frontend: str) -> None:
        self.waiting -= {one.key for one in self.kept.drop(frontend)}
        assert not any(key.frontend == frontend for key in self.waiting)
        self.step()

    @rule()
    def expire(self) -> None:
        self.waiting -= {one.key for one in self.kept.expire(2)}
        self.step()

    @invariant()
    def consistent(self) -> None:
        self.kept.check()
        assert set(self.kept.waiting()) == self.waiting
        assert self.kept.compiling == self.compiling

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Those that wait wait for what is compiled, or for the end of what runs."""
        if self.waiting and self.compiling is None:
            assert len(self.ready) > 2
            assert self.running

    def teardown(self) -> None:
        """Left alone, it answers everybody."""
        for _ in range(1000):
            if self.compiling is not None:
                self.end(works=True)
            elif self.running:
                key = min(self.running)
                del self.running[key]
                self.kept.leave(key)
                self.step()
            else:
                break
        assert not self.waiting


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
