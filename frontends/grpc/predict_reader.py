"""Reads PredictRequests, and remembers how those before were read. Pure.

A client sends the same bytes again and again but for its tensors' elements, at which `predict_wire.walk` never looks.
So the form of a message is kept by all its other bytes, and that of an equal one is found by one look-up.
"""

from frontends.forms import Form
from frontends.grpc.predict_wire import walk

MAX_FORMS = 256
"""Forms that are kept; the oldest go."""

MAX_FORM_BYTES = 2048
"""Of the bytes by which a form is kept."""


class PredictReader:
    """Reads requests, and remembers the forms that it has seen."""

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}
        """Length of a message → where the first tensor's elements began in the last one of this length."""
        self._forms: dict[tuple[int, bytes], Form] = {}
        """Length of a message and its bytes up to there → its form."""

    def read(self, message: memoryview) -> Form | None:
        """The form of the message; None when protobuf's parser is to read it."""
        length = len(message)
        head = self._heads.get(length)
        if head is not None:
            form = self._forms.get((length, message[:head].tobytes()))
            if form is not None and (not form.rest or _has_rest(message, form)):
                return form
        form = walk(message)
        if form is not None:
            self._keep(message, form)
        return form

    def _keep(self, message: memoryview, form: Form) -> None:
        length = len(message)
        elements = sum(one.stop - one.start for one in form.inputs)
        if not form.inputs or length - elements > MAX_FORM_BYTES:
            return
        if len(self._heads) >= MAX_FORMS:
            del self._heads[next(iter(self._heads))]
        if len(self._forms) >= MAX_FORMS:
            del self._forms[next(iter(self._forms))]
        head = form.inputs[0].start
        self._heads[length] = head
        self._forms[length, message[:head].tobytes()] = form


def _has_rest(message: memoryview, form: Form) -> bool:
    return all(message[start:stop].tobytes() == rest for start, stop, rest in form.rest)
