"""Answers as messages."""

from common.errors import Code, WireError
from common.messages import Done, Execute, OutputResult, RequestKey, VersionId
from workers.answers import to_done
from workers.engine import RunResult, all_in_place, failure

KEY = RequestKey("f", 1)
REQUEST = Execute(KEY, VersionId("m", 1), 0, (), ())


def test_what_lies_in_place_is_said_as_it_was_made() -> None:
    frames: list[bytes] = []
    result = all_in_place(((2, 3), ()))
    done = to_done((REQUEST, result, 7), frames)
    assert done == Done(KEY, (OutputResult((2, 3)), OutputResult(())), None, 7)
    assert done == to_done((REQUEST, RunResult(result.shapes, result.data), 7), frames)
    assert frames == []


def test_what_travels_gets_the_next_frames() -> None:
    frames = [b"of an earlier answer"]
    done = to_done((REQUEST, RunResult(((1,), (2,), (3,)), (b"a", None, b"c")), 7), frames)
    assert done.outputs == (OutputResult((1,), 2), OutputResult((2,)), OutputResult((3,), 3))
    assert frames == [b"of an earlier answer", b"a", b"c"]


def test_a_failure_has_no_outputs() -> None:
    done = to_done((REQUEST, failure(Code.INTERNAL, "why"), 7), [])
    assert done == Done(KEY, (), WireError(Code.INTERNAL, "why"), 7)
