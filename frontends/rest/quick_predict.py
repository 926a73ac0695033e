"""Short Predicts of heads that are known, carried out without ASGI, tasks and falcon.

For a few numbers, what stands between the socket and the data plane costs more than what they are sent for. A request
is read here from the bytes that came, begun at the data plane by an array's form, and answered by bytes, if all of this
holds; else the ordinary way is asked, which refuses what is to be refused:

- gunicorn has read the very same head before, as that of a Predict, and nothing in it asks for more than an answer;
- the body is all that came behind it, short, and of the kind that frontends.rest.short_text reads.
"""

from enum import Enum

from gunicorn.asgi.parser import CallbackRequest

from common.config import ServerConfig
from common.errors import ServingError
from common.messages import Completed
from frontends.forms import ArrayForm, RecipeDataplane
from frontends.interface import OutputTensor, Prediction, Selector
from frontends.requests import Owner, RecipeRequest
from frontends.rest.heads import END_OF_HEAD, KEPT_BYTES, KEPT_HEADS, known_request
from frontends.rest.json_tensors import FLOATS
from frontends.rest.predict_format import write_answer
from frontends.rest.routes import parse_path
from frontends.rest.short_text import SHORT_BYTES, read_numbers
from frontends.rest.tensorflow_serving import selector_of, write_prediction

_MAX_FORMS = 16
"""Of a head."""

_MEANINGFUL = frozenset((b"expect", b"content-encoding", b"transfer-encoding", b"upgrade"))
"""Headers with which a request is more than a head and a body."""

_SCHEMES = frozenset((b"x-forwarded-proto", b"x-forwarded-protocol", b"x-forwarded-ssl"))
"""Headers of proxies that must not contradict each other, if the peer is one that gunicorn trusts."""


class Way(Enum):
    """Where bytes belong that are no quick request."""

    ORDINARY = 0
    UNSURE = 1
    """The rest of a body is missing. It will often come a moment later, from clients that send head and body apart."""


class _KnownPredict:
    """What a head comes to."""

    __slots__ = ("forms", "length", "selector")

    def __init__(self, selector: Selector, length: int) -> None:
        self.selector = selector
        self.length = length
        """Bytes of its body."""
        self.forms: dict[tuple[int, ...], ArrayForm] = {}
        """By the array's shape."""


class Begun:
    """A request that is under way."""

    __slots__ = ("_dataplane", "_request", "_rows", "arrived", "data")

    def __init__(
        self, dataplane: RecipeDataplane, request: RecipeRequest, rows: bool, data: bytes, arrived: int
    ) -> None:
        self._dataplane = dataplane
        self._request = request
        self._rows = rows
        """Whether its body was in row format."""
        self.data = data
        """All of it, head and body, as it came."""
        self.arrived = arrived
        """When, by CLOCK_MONOTONIC [ns]."""

    def finish(self, completed: Completed) -> bytes | Prediction:
        """The text of the answer; or the answer, if that is out of the ordinary: see `write`. Raises ServingError."""
        recipe, place = self._request.recipe, self._request.place
        if recipe.expected is None or recipe.expected != completed.outputs:
            return self._dataplane.finish(self._request, completed, frozenset(), self.arrived)
        outputs: dict[str, OutputTensor] = {}
        try:
            for spec, output in zip(recipe.served.signature.outputs, place.results, strict=True):
                assert output is not None, "what is expected has shapes that are known"
                outputs[spec.name] = output
            return write_answer(outputs, self._rows)
        finally:
            self._dataplane.put_back(self._request)

    async def write(self, prediction: Prediction) -> bytes:
        """The text of an answer that may be long. Raises InvalidArgumentError."""
        return await write_prediction(prediction, self._rows)

    def put_back(self) -> None:
        """It is to begin anew."""
        self._dataplane.put_back(self._request)

    def give_up(self) -> None:
        """The client has gone."""
        self._dataplane.give_up(self._request)


class QuickPredict:
    """One an application."""

    def __init__(self, dataplane: RecipeDataplane, config: ServerConfig) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(config.request_timeout_s * 1e9)
        self._longest = min(SHORT_BYTES, config.message_bytes)
        self._known: dict[bytes, _KnownPredict | None] = {}
        """By the head's bytes; None: its requests go the ordinary way. The oldest goes when there are too many."""

    def begin(self, data: bytes, arrived: int, owner: Owner) -> Begun | Exception | Way:
        """Submit the request that `data` is, which began to come at `arrived`; else what was raised for it, or its way.

        The owner is told of the end, unless it gives the request up before.
        """
        end = data.find(END_OF_HEAD, 0, KEPT_BYTES) + len(END_OF_HEAD)
        head = data[:end]
        try:
            known = self._known[head]
        except KeyError:
            known = self._look_at(head)
        if known is None or len(data) - end != known.length:
            return Way.ORDINARY if known is None or len(data) - end > known.length else Way.UNSURE
        read = read_numbers(data[end:])
        if read is None:
            return Way.ORDINARY
        rows, array = read
        form = known.forms.get(array.shape) or _add_form(known, array.shape)
        try:
            request = self._dataplane.begin_array(form, array, owner, arrived, arrived + self._timeout_ns)
        except Exception as error:  # noqa: BLE001 - whatever it is, the application writes it
            return error
        return Way.ORDINARY if request is None else Begun(self._dataplane, request, rows, data, arrived)

    def _look_at(self, head: bytes) -> _KnownPredict | None:
        """A head that was not asked for before, or that the parser did not know then."""
        request = known_request(head)
        if request is None:
            return None
        known = self._known_predict(request)
        if len(self._known) >= KEPT_HEADS:
            del self._known[next(iter(self._known))]
        self._known[head] = known
        return known

    def _known_predict(self, request: CallbackRequest) -> _KnownPredict | None:
        length = request.content_length
        if not _is_plain(request) or not length or length > self._longest:
            return None
        target = parse_path(request.raw_path.decode("latin-1"))
        if target is None or target.kind != "predict":
            return None
        try:
            return _KnownPredict(selector_of(target), length)
        except ServingError:
            return None


def _add_form(known: _KnownPredict, shape: tuple[int, ...]) -> ArrayForm:
    if len(known.forms) >= _MAX_FORMS:
        del known.forms[next(iter(known.forms))]
    form = known.forms[shape] = ArrayForm(known.selector, "float64", shape, FLOATS)
    return form


def _is_plain(request: CallbackRequest) -> bool:
    """Whether it is a POST after which the connection stays, and nobody but the resource has a say in it."""
    if request.method != "POST" or request.version != (1, 1) or request.chunked:
        return False
    if request.should_close() or request.may_upgrade():
        return False
    schemes = 0
    for name, _ in request.headers_bytes:
        # What gunicorn makes of an underscore depends on who the peer is.
        if name in _MEANINGFUL or b"_" in name:
            return False
        schemes += name in _SCHEMES
    return schemes <= 1
