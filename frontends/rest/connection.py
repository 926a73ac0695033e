"""gunicorn's connection, with a shorter way for short Predicts of heads that are known (frontends.rest.quick_predict).

    bytes ─▶ one whole request, and gunicorn waits for one? ─▶ begun at the data plane ─▶ answered by one write
       │ else                                                      │ failed, long, or the last of its connection
       ▼                                                           ▼
    gunicorn: parser, ASGI, the application            the same, with what has come of it in the scope

To gunicorn a connection is idle while such a request is under way. So whatever else comes in on it waits here until the
request is answered, and the timer for idle connections looks at when the last answer was. Errors and long answers are
left to the application, which finds them done: there is one place that writes errors, and one that packs.
"""

import asyncio
import time
from typing import Any

from gunicorn.asgi.protocol import _CACHED_SERVER_HEADER, ASGIProtocol, _get_cached_date_header
from gunicorn.workers import gasgi

from common.messages import Completed
from frontends.interface import Prediction
from frontends.requests import RecipeRequest, StaleVersionError
from frontends.rest import heads
from frontends.rest.body import HANDOVER, Handover
from frontends.rest.content import COMPRESSED_FROM_BYTES
from frontends.rest.in_flight import InFlight
from frontends.rest.quick_predict import Begun, QuickPredict, Way

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n%b"
"""What gunicorn writes for the application's two headers: its own Server and Date, and the body."""

_MORE_S = 0.02
"""That the rest of a body is waited for before gunicorn gets what is there."""

_Base: Any = ASGIProtocol


class Connection(_Base):  # type: ignore[misc]
    """One of a client's. It is the owner of what it begins (see frontends.requests.Owner)."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._quick: QuickPredict | None = getattr(self.app, "quick", None) if self._keepalive else None
        self._in_flight: InFlight = getattr(self.app, "in_flight", None) or InFlight()
        self._begun: Begun | None = None
        """The request under way that gunicorn knows nothing of."""
        self._writing: asyncio.Task[None] | None = None
        """Its answer, if that takes long to write."""
        self._handover: Handover | None = None
        """Of the request that gunicorn was given and has not asked the application for."""
        self._held = bytearray()
        """What came in the meantime."""
        self._started = b""
        """Of a request that may become quick: a head that is known, and less than its body."""
        self._arrived = 0
        """When the request began to come that is under way, by CLOCK_MONOTONIC [ns]."""
        self._answered_at = 0.0

    # ---- in

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._begun is not None or self._held:
            self._hold(data)
        elif self._started:
            data, self._started = self._started + data, b""
            if not self._take(data, first=False):
                self._give_on(data, None)
        elif self._quick is not None and self._awaiting_request and self._is_idle():
            self._arrived = time.monotonic_ns()
            self._in_flight.begin()
            if not self._take(data, first=True):
                self._in_flight.end()
                super().data_received(data)
        else:
            super().data_received(data)

    def _take(self, data: bytes, *, first: bool) -> bool:
        """Whether this is a quick request, which is begun, or may become one."""
        begun = self._quick.begin(data, self._arrived, self)  # type: ignore[union-attr]
        if isinstance(begun, Begun):
            self._begun = begun
        elif begun is Way.ORDINARY:
            return False
        elif begun is Way.UNSURE:
            self._started = data
            if first:
                self.worker.loop.call_later(_MORE_S, self._wait_no_more, self._arrived)
        else:
            self._give_on(data, begun)
        return True

    def _wait_no_more(self, arrived: int) -> None:
        """The rest of a body has not come soon."""
        if self._started and self._arrived == arrived:
            data, self._started = self._started, b""
            self._give_on(data, None)

    def _is_idle(self) -> bool:
        """Whether nothing is under way or half read, and the next answer would not be the connection's last."""
        return (
            self._callback_parser.is_idle()
            and not self._finishing_calls
            and not self._flow_control.write_paused
            and not self._closed
            and self.worker.alive
        )

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_buffer_size:
            self._pause_reading()

    def _feed_held(self) -> None:
        """The request that it waited for is out of the way."""
        data = bytes(self._held)
        self._held.clear()
        if not self._closed:
            self._resume_reading()
            self.data_received(data)

    def _resume_reading(self) -> None:
        """Called by gunicorn after each request, also while it holds all that it wants to hold of the next ones.

        A client that sends on and never reads would have it take in, and copy, more with each.
        """
        if not self._is_buffer_full():
            super()._resume_reading()

    # ---- out

    def answered(self, request: RecipeRequest, completed: Completed) -> None:
        """See Owner."""
        begun = self._begun
        assert begun is not None, "what ends was begun"
        try:
            answer = begun.finish(completed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the application writes it
            self._hand_over(error)
            return
        if isinstance(answer, bytes):
            self._answer(answer)
        else:
            self._writing = self.worker.loop.create_task(self._write(answer, begun))
            # Also of a task that is cancelled before it runs.
            self._writing.add_done_callback(lambda _: answer.release())

    def failed(self, request: RecipeRequest, error: Exception) -> None:
        """See Owner."""
        if isinstance(error, StaleVersionError) and self._begun is not None:
            self._begun.put_back()
        self._hand_over(error)

    async def _write(self, prediction: Prediction, begun: Begun) -> None:
        try:
            text = await begun.write(prediction)
        except Exception as error:  # noqa: BLE001 - see `answered`
            self._hand_over(error)
        else:
            self._answer(text)

    def _answer(self, text: bytes) -> None:
        worker = self.worker
        if len(text) >= COMPRESSED_FROM_BYTES or not worker.alive or worker.nr + 1 >= worker.max_requests:
            self._hand_over(text)
            return
        self._begun = self._writing = None
        worker.nr += 1
        self.req_count += 1
        if not self._closed:
            self._safe_write(_HEAD % (len(text), _CACHED_SERVER_HEADER, _get_cached_date_header(), text))
        self._in_flight.end()
        self._answered_at = worker.loop.time()
        if self._keepalive_handle is None:
            self._arm_keepalive_timer()
        if self._held:
            worker.loop.call_soon(self._feed_held)

    def _hand_over(self, outcome: bytes | Exception | None) -> None:
        """Have the application answer what was begun."""
        begun = self._begun
        assert begun is not None, "what ends was begun"
        self._begun = self._writing = None
        self._give_on(begun.data, outcome)
        if self._held:
            self._feed_held()

    def _give_on(self, data: bytes, outcome: bytes | Exception | None) -> None:
        self._handover = Handover(self._arrived, outcome)
        super().data_received(data)

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._build_http_scope(request, sockname, peername)
        if self._handover is not None:
            scope[HANDOVER], self._handover = self._handover, None
            # From here on it is counted by the application, which is asked at once.
            self._in_flight.end()
        return scope

    # ---- end

    def _keepalive_timeout(self) -> None:
        """Called by the timer, which is not set anew for each quick request."""
        quiet_s = (
            0.0 if self._begun is not None or self._started else self.worker.loop.time() - self._answered_at
        )
        left_s = self._keepalive - quiet_s
        if left_s > 0:
            self._keepalive_handle = self.worker.loop.call_later(left_s, self._keepalive_timeout)
        else:
            super()._keepalive_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        if self._begun is not None or self._handover is not None or self._started:
            self._in_flight.end()
        if self._writing is not None:
            self._writing.cancel()
        elif self._begun is not None:
            self._begun.give_up()
        self._begun = self._writing = self._handover = None
        self._started = b""
        self._held.clear()
        super().connection_lost(exc)


def install() -> None:
    """Have gunicorn's workers use this and the parser of heads; they look both up by name for each connection."""
    heads.install()
    gasgi.ASGIProtocol = Connection
