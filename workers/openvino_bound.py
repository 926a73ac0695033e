"""Infer requests that stay bound to the places at which runs of a quick model lie.

Setting a tensor takes OpenVINO a microsecond, and requests of several clients that come together lie each at a place of
its own: with one infer request for all, every run would set every tensor. An infer request itself is small, since those
of a stream share its working memory.
"""

from collections import OrderedDict

import workers.openvino_api as ov
from common.tensors import Signature
from workers.engine import Binding, MemoryId, RunResult

MOST = 32
"""Places of a model that are kept, at most."""
MOST_BYTES = 16 << 20
"""Their tensors together, at most: a release of OpenVINO may keep the room that an infer request was created with."""


class Bound:
    """An infer request and where it is bound to."""

    __slots__ = ("infer", "memory", "request", "result")

    def __init__(self, request: ov.InferRequest, memory: MemoryId, result: RunResult | None) -> None:
        self.request = request
        self.infer = ov.infer_of(request)
        """To be called with openvino_api.INFER_ARGUMENTS."""
        self.memory = memory
        self.result = result
        """Of every run there that goes well; None where it has to be collected from the request."""


class BoundRequests:
    """Those of one model. A binding that is kept here keeps the memory behind it alive."""

    def __init__(self, signature: Signature) -> None:
        self._most = most_of(signature)
        self._kept: OrderedDict[Binding, Bound] = OrderedDict()
        """By the identity of the binding; the least recently used comes first."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, binding: Binding) -> Bound | None:
        """The request that is bound to these very places, and has been used now."""
        found = self._kept.get(binding)
        if found is not None:
            self._kept.move_to_end(binding)
        return found

    def give_up(self) -> tuple[Binding, Bound] | None:
        """The least recently used, taken out, if there is no room for one more.

        The caller keeps the binding until the request is bound to another: some of its tensors are set until then.
        """
        return self._kept.popitem(last=False) if len(self._kept) >= self._most else None

    def keep(self, binding: Binding, bound: Bound) -> None:
        """From now on it is found. There is room, see `give_up`."""
        self._kept[binding] = bound

    def forget(self, binding: Binding) -> None:
        """Let go of what is bound to these places, if anything is."""
        self._kept.pop(binding, None)

    def release(self, memory: MemoryId) -> None:
        """Let go of all that is bound in this segment."""
        for binding in [binding for binding, bound in self._kept.items() if bound.memory == memory]:
            del self._kept[binding]

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()


def most_of(signature: Signature) -> int:
    """How many infer requests of a model stay bound: the fewer, the larger its tensors are."""
    nbytes = sum(spec.nbytes for spec in (*signature.inputs, *signature.outputs) if spec.is_static)
    return max(1, min(MOST, MOST_BYTES // max(1, nbytes)))
