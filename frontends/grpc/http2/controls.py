"""Frames that are no part of a call: what they must be, and what a client's settings change. Pure."""

from collections.abc import Iterable

from frontends.grpc.http2 import frames as f
from frontends.grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from frontends.grpc.http2.sending import Sender
from frontends.grpc.http2.streams import Stream

_OF_CONNECTION = {f.SETTINGS: "SETTINGS", f.PING: "PING", f.GOAWAY: "GOAWAY"}


def check_control(kind: int, flags: int, number: int, payload: memoryview) -> None:
    """SETTINGS, PING, GOAWAY, PRIORITY, PUSH_PROMISE (section 6). Raises ConnectionFault, StreamFault.

    What is unknown is legal. After a client's GOAWAY it opens no more streams; those that are open are answered still.
    """
    if kind in _OF_CONNECTION and number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{_OF_CONNECTION[kind]} of a stream")
    if kind == f.SETTINGS and (len(payload) % 6 or (flags & f.ACK and payload)):
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    if kind == f.PING and len(payload) != 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
    if kind == f.GOAWAY and len(payload) < 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
    if kind == f.PRIORITY:
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            raise StreamFault(number, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
    if kind == f.PUSH_PROMISE:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client does not push")


def apply_setting(sender: Sender, streams: Iterable[Stream], setting: int, value: int) -> None:
    """One of the client's settings (section 6.5.2). Raises ConnectionFault."""
    if setting == f.INITIAL_WINDOW_SIZE:
        if value > f.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        change = value - sender.initial_window
        sender.initial_window = value
        for stream in streams:
            stream.send_window += change
            if stream.send_window > f.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
    elif setting == f.MAX_FRAME_SIZE:
        if not f.DEFAULT_MAX_FRAME <= value <= f.LARGEST_MAX_FRAME:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
        sender.max_frame = value
    elif setting == f.ENABLE_PUSH and value > 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")


def unpadded(flags: int, payload: memoryview) -> memoryview:
    """The payload of DATA or HEADERS without its padding (section 6.1). Raises ConnectionFault."""
    if not flags & f.PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the length of the padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return payload[1 : len(payload) - padding]
