"""common.messages: what goes out comes back, and nothing else is taken for a message."""

import contextlib
import random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import messages
from common.config import BatchingParameters, DeviceConfig, ModelConfig, VersionPolicy
from common.errors import Code, WireError
from common.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    ArenaGone,
    BatchFailed,
    Cancel,
    Catalogue,
    Completed,
    ConfigRead,
    Deferred,
    Done,
    Envelope,
    Execute,
    ExecuteBatch,
    FrontendHello,
    Keep,
    Leaving,
    Listening,
    Load,
    Loaded,
    LoadedVersion,
    LoadFailed,
    Message,
    ModelStatus,
    OutputRef,
    OutputResult,
    ProcessId,
    ReadConfig,
    Reconfigure,
    Reconfigured,
    Refused,
    Released,
    RequestKey,
    RestartLink,
    Resumed,
    ScaleQuery,
    ScaleReply,
    Snapshot,
    Stale,
    StatusQuery,
    StatusReply,
    StorekeeperHello,
    Submit,
    TensorRef,
    Timing,
    Unload,
    Unloaded,
    VersionId,
    VersionStatus,
    Watch,
    Watched,
    Welcome,
    WorkerHello,
    decode,
    encode,
)
from common.tensors import Signature, TensorSpec

MODEL = VersionId("resnet", (1 << 63) - 1, 3)
KEY = RequestKey("grpc-0.1.abc", 1 << 40)
PROCESS = ProcessId(4_194_304, 1 << 50)
ERROR = WireError(Code.INTERNAL, "a reason with ünïcode")
SIGNATURE = Signature(
    (TensorSpec("data", "float32", (1, -1, 224)), TensorSpec("any", "bfloat16", (), True)),
    (TensorSpec("prob", "float16", ()),),
    max_rows=8,
)
LOADED = LoadedVersion(MODEL, 4, SIGNATURE, ("MYRIAD is absent",), BatchingParameters(8, 50, (4, 8), 3))
CONFIG = ModelConfig("resnet", "s3://models/resnet", shape={"": (1, 3, 224, 224)}, labels={"stable": 2})
AUTO_CONFIG = ModelConfig("other", "/models/other", batch_size="auto", shape="auto")
DEVICES = {"MYRIAD": DeviceConfig(emulate_on="CPU")}
INPUTS = (TensorRef(0, (1, 3, 224, 224)), TensorRef(1 << 40, ()))
OUTPUTS = (OutputRef(64, 4000), OutputRef(128, 0))
RESULTS = (OutputResult((1, 1000)), OutputResult((0, 7), 3))
SUBMIT = Submit(1, MODEL, 1 << 34, 0, INPUTS, OUTPUTS, 1 << 60)
STATUS = ModelStatus(
    "resnet",
    (VersionStatus(1, 20, ERROR), VersionStatus(2, 30, None, SIGNATURE, servable=True, revision=2)),
    {"stable": 2},
)

EXAMPLES: list[Message] = [
    SUBMIT,
    Cancel(7),
    FrontendHello("f", PROCESS, "rest", True, (SUBMIT, SUBMIT), (3, 4)),
    Acknowledge(1 << 33),
    Listening(),
    Leaving(),
    Refused({"UNAVAILABLE": 3, "RESOURCE_EXHAUSTED": 1}),
    Welcome(PROCESS),
    RestartLink(),
    Catalogue(5, True, (STATUS,)),
    Completed(9, RESULTS, None, Timing(10, 20)),
    Completed(9, (), ERROR),
    Reconfigure(4, (CONFIG, AUTO_CONFIG)),
    Reconfigured(4, True, None, ("model resnet version 1: corrupt",)),
    Reconfigured(5, error=ERROR),
    Released(9),
    Stale(9, 1 << 33),
    Load(MODEL, "/models/resnet/1", CONFIG, trial=True),
    Unload(MODEL),
    Execute(KEY, MODEL, 3, INPUTS, OUTPUTS, 5),
    ExecuteBatch((Execute(KEY, MODEL, 3, INPUTS, OUTPUTS, 5), Execute(KEY, MODEL, 0, INPUTS, OUTPUTS))),
    ArenaGone("f"),
    WorkerHello("CPU-0", PROCESS, (LOADED,), (MODEL,), (KEY,), (MODEL,), ("f", "g"), (1,)),
    Loaded(LOADED),
    LoadFailed(MODEL, "no such layer"),
    Unloaded(MODEL),
    Done(KEY, RESULTS, None, 77),
    Done(KEY, (), ERROR),
    Deferred((KEY,)),
    Resumed((KEY, KEY)),
    BatchFailed((KEY, KEY)),
    StorekeeperHello(PROCESS),
    Watch((Watched("resnet", "/models/resnet", VersionPolicy()),)),
    Snapshot("resnet", {1: "/a", 2: "/b"}, "cannot be listed", ("a warning",), "/models", {3: "no such key"}),
    Keep(("/cache/a/1",)),
    ReadConfig(4),
    ConfigRead((CONFIG, AUTO_CONFIG), DEVICES, "", 4),
    ConfigRead(error="not JSON"),
    StatusQuery(),
    StatusReply("{}"),
    ScaleQuery("MULTI:CPU,GPU", 4),
    ScaleReply("no"),
]


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(get_args(Message))


def test_every_tagged_struct_is_a_message() -> None:
    """One that is missing from the union could be sent but never read."""
    tagged = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, messages._Message) and kind is not messages._Message
    }
    assert tagged == set(get_args(Message))


def test_every_field_of_the_examples_differs_from_its_default_somewhere() -> None:
    """Else a field could be lost on the way unseen."""
    for kind in get_args(Message):
        examples = [example for example in EXAMPLES if type(example) is kind]
        for field in msgspec.structs.fields(kind):
            if field.default is not msgspec.NODEFAULT:
                values = [getattr(example, field.name) for example in examples]
                assert any(value != field.default for value in values), f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_round_trip(message: Message) -> None:
    envelope = Envelope(PROTOCOL_VERSION, 3, 4, [message, message])
    decoded = decode(encode(envelope))
    assert decoded == envelope
    assert type(decoded.messages[0]) is type(message)


@given(st.lists(st.sampled_from(EXAMPLES), max_size=50), st.integers(0, 1 << 62), st.integers(0, 1 << 62))
@settings(max_examples=50, deadline=None)
def test_any_messages_travel_together_in_order(some: list[Message], epoch: int, sequence: int) -> None:
    envelope = Envelope(PROTOCOL_VERSION, epoch, sequence, some)
    assert decode(memoryview(encode(envelope))) == envelope


@given(st.from_type(Submit))
@settings(max_examples=50, deadline=None)
def test_any_submit_travels(submit: Submit) -> None:
    try:
        frame = encode(Envelope(PROTOCOL_VERSION, 0, 0, [submit]))
    except (OverflowError, UnicodeEncodeError):
        return  # no 64-bit number, or a lone surrogate: never made by us
    assert decode(frame).messages == [submit]


def test_an_envelope_of_another_protocol_version_is_read_as_far_as_its_head() -> None:
    """The receiver has to see the number to say what is wrong."""
    assert (
        decode(encode(Envelope(PROTOCOL_VERSION + 1, 0, 0, [Listening()]))).protocol == PROTOCOL_VERSION + 1
    )


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        [1, 0, 0],
        [1, 0, 0, [[999, 1]]],
        [1, 0, 0, [[2, "seven"]]],
        [1, 0, 0, [[2]]],
        [1, 0, 0, [2, 7]],
        ["1", 0, 0, []],
        {"protocol": 1},
    ],
)
def test_what_is_no_envelope_is_refused(content: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(msgspec.msgpack.encode(content))


def test_text_that_is_not_utf8_is_refused() -> None:
    frame = encode(Envelope(PROTOCOL_VERSION, 0, 0, [ArenaGone("abc")]))
    with pytest.raises(msgspec.DecodeError):
        decode(frame.replace(b"abc", b"\xff\xfe\xff"))


def test_bottomless_nesting_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\x95\x01\x01\x00\x90" + b"\x91" * 100_000)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_junk_is_refused_or_an_envelope(junk: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        assert isinstance(decode(junk), Envelope)


@given(st.sampled_from(EXAMPLES), st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None)
def test_damaged_frames_are_refused_or_an_envelope(message: Message, seed: int) -> None:
    chance = random.Random(seed)
    frame = bytearray(encode(Envelope(PROTOCOL_VERSION, 3, 4, [message])))
    for _ in range(chance.randrange(1, 4)):
        frame[chance.randrange(len(frame))] = chance.randrange(256)
    with contextlib.suppress(msgspec.DecodeError):
        assert isinstance(decode(bytes(frame)), Envelope)
