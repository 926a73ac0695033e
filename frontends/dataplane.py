"""The use cases of the server, in its own terms: no protobuf, no HTTP.

A rim (gRPC or REST) hands over named arrays and gets named arrays back; between the two lie shared memory and the
broker. The life of a request here:

    choose version ─▶ read inputs ─▶ decode images ─▶ check names, shapes, types ─▶ one block for inputs and outputs
      ─▶ write inputs (converting) ─▶ Submit ─▶ Completed ─▶ views of the outputs ─▶ the rim encodes them ─▶ release

A block goes back to the arena only when no worker can write to it any more; a rim that gives up earlier (deadline,
client gone) leaves it lent, and the broker's Released or Completed frees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import numpy as np

from common.config import ModelConfig
from common.errors import ServingError, UnavailableError
from common.messages import Completed, Submit, VersionStatus
from common.strings import encode_into
from common.tensors import STRING
from frontends.admission import Admission
from frontends.broker_client import BrokerClient
from frontends.catalogue import CatalogueView
from frontends.checks import check_outputs
from frontends.conversion import copy_into
from frontends.forms import ArrayForm, Form
from frontends.images import ImageDecoder
from frontends.interface import BuildInputs, InputTensor, Reconfiguration, Selector, Served
from frontends.memory import ARENA, Block, Memory
from frontends.plans import Place, Plan, Plans, find_in_place
from frontends.prediction import Prediction, frame_bytes_of, read_answer
from frontends.recipe_making import array_recipe_of, recipe_of
from frontends.recipes import Recipe
from frontends.requests import Answer, Owner, RecipeRequest, StaleVersionError

_logger = logging.getLogger("frontends")

_MAX_CHOICES = 5
"""Times that a request is resolved anew because its version left meanwhile."""

_NOWHERE: Mapping[str, int] = {}
_BYTES = np.dtype(np.uint8)


class Dataplane:
    """One a frontend process."""

    def __init__(self, client: BrokerClient, memory: Memory, admission: Admission) -> None:
        self._client = client
        self._memory = memory
        self._admission = admission
        self._images = ImageDecoder()
        self._plans = Plans(memory)

    @property
    def ready(self) -> bool:
        """Linked to a broker, and each served version has a live worker."""
        catalogue = self._client.catalogue
        return (
            self._client.linked and not self._admission.draining and catalogue is not None and catalogue.ready
        )

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """One version, or all of a model, ascending. Raises NotFoundError, UnavailableError."""
        return self._catalogue().statuses(selector)

    def all_statuses(self) -> Mapping[str, tuple[VersionStatus, ...]]:
        """Every model's versions, ascending, by the model's name. Raises UnavailableError."""
        return self._catalogue().all_statuses()

    def choose(self, selector: Selector) -> Served:
        """The version that a request would use. Raises NotFoundError, UnavailableError."""
        return self._catalogue().choose(selector)

    def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> Coroutine[Any, Any, Prediction]:
        """Infer; `outputs` names the wanted ones (empty: all). `deadline_ns` is CLOCK_MONOTONIC.

        Inputs that lie in `body` are read there by the worker, if they can be. It is freed by this in any case.

        Raises ServingError. When the calling task is cancelled the block is freed as soon as nothing can write to it.
        """
        return self._predict(selector, build, deadline_ns, outputs, body, 0)

    def predict_after(
        self,
        generation: int,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> Coroutine[Any, Any, Prediction]:
        """See FormDataplane."""
        return self._predict(selector, build, deadline_ns, outputs, body, generation)

    async def _predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str],
        body: Block | None,
        awaited: int,
    ) -> Prediction:
        """`awaited`: generation of the catalogue to wait for, of a request that was found stale once; else 0."""
        started = time.monotonic_ns()
        kept = body
        try:
            if awaited:
                await self._client.wait_for_catalogue(awaited, deadline_ns)
            else:
                self._admission.check(len(self._client.ledger))
            for _ in range(_MAX_CHOICES - bool(awaited)):
                served = self.choose(selector)
                check_outputs(served.signature, outputs)
                inputs = build(served)
                for tensor in inputs.values():
                    if tensor.dtype == STRING:
                        inputs = await self._images.decode(served.signature, inputs, deadline_ns)
                        break
                plan, block, in_place = self._room(served, inputs, body)
                if block is None:
                    block = await self._memory.allocate_large(plan.layout.size)
                place = self._fill(inputs, plan, block, in_place)
                submit = self._submit(served, block, place, deadline_ns)
                del inputs
                submitted = time.monotonic_ns()
                lent, kept = (block, None) if body is None else (_beside(block, body), None)
                try:
                    answer = await self._client.run(submit, lent)
                except StaleVersionError as stale:
                    kept = body
                    self._memory.free(block)
                    await self._client.wait_for_catalogue(stale.generation, deadline_ns)
                    continue
                kept = body
                return self._answer(served, block, place, answer, outputs, (started, submitted))
            raise UnavailableError(
                f"Model {selector.model} changes its versions faster than the request can follow"
            )
        finally:
            if kept is not None:
                self._memory.free(kept)

    def begin(
        self,
        form: Form,
        message: memoryview,
        owner: Owner,
        now: int,
        deadline_ns: int,
        body: Block | None = None,
    ) -> RecipeRequest | None:
        """See FormDataplane."""
        client = self._client
        self._admission.check(len(client.ledger.entries))
        if body is not None:
            form = form.in_block()
        recipe = form.recipe
        if form.catalogue != client.catalogues or (recipe is not None and recipe.plan.forgotten):
            recipe = self._note(form, message, body)
        if recipe is None or _logger.isEnabledFor(logging.DEBUG):
            return None
        place = self._plans.take(recipe.plan) if body is None else self._place(recipe, message, body)
        if place is None:
            return None
        buffer, writes = place.buffer, place.writes
        try:
            for index, source in enumerate(recipe.sources):
                buffer[writes[index]] = message[source]
        except BaseException:
            self._put_back(recipe, place)
            raise
        return self._submit_place(recipe, place, owner, now, deadline_ns, body)

    def begin_array(
        self, form: ArrayForm, array: np.ndarray, owner: Owner, now: int, deadline_ns: int
    ) -> RecipeRequest | None:
        """See RecipeDataplane."""
        client = self._client
        self._admission.check(len(client.ledger.entries))
        recipe = form.recipe
        if form.catalogue != client.catalogues or (recipe is not None and recipe.plan.forgotten):
            form.catalogue = client.catalogues
            recipe = form.recipe = self._make_array_recipe(form, array)
        if recipe is None or _logger.isEnabledFor(logging.DEBUG):
            return None
        place = self._plans.take(recipe.plan)
        if place is None:
            return None
        _, dtype, target = place.targets[0]
        try:
            copy_into(array, form.dtype, target, dtype)
        except BaseException:
            self._plans.put_back(recipe.plan, place)
            raise
        return self._submit_place(recipe, place, owner, now, deadline_ns)

    def _place(self, recipe: Recipe, message: memoryview, body: Block) -> Place | None:
        """Of a request whose inputs the worker reads in the message; None where it cannot."""
        start = body.memory.find(np.frombuffer(message, _BYTES)) if body.segment == ARENA else None
        if start is None:
            return None
        offsets: dict[str, int] = {}
        for one in recipe.in_place:
            offset = offsets[one.name] = start + one.start
            if offset % one.itemsize:
                return None
        block = self._memory.allocate(recipe.plan.size)
        return None if block is None else recipe.plan.at(block, offsets)

    def _submit_place(
        self,
        recipe: Recipe,
        place: Place,
        owner: Owner,
        now: int,
        deadline_ns: int,
        body: Block | None = None,
    ) -> RecipeRequest:
        """The inputs are in their place."""
        client, served = self._client, recipe.served
        submit = Submit(
            client.ledger.next_id(),
            served.id,
            served.generation,
            ARENA,
            place.inputs,
            place.outputs,
            deadline_ns,
        )
        request = RecipeRequest(submit, owner, recipe, place)
        if body is not None:
            request.block = _beside(place.block, body)
        client.begin(request, now)
        return request

    def finish(
        self, request: RecipeRequest, completed: Completed, wanted: frozenset[str], started: int
    ) -> Prediction:
        """See FormDataplane."""
        answer = Answer(completed.outputs, request.frames, completed.timing)
        times = started, request.sent_at
        place = request.place
        if request.block.beside is not None:
            self._memory.free(request.block.beside)
        return self._answer(request.recipe.served, place.block, place, answer, wanted, times)

    def put_back(self, request: RecipeRequest) -> None:
        """See FormDataplane."""
        body = self.take_back(request)
        if body is not None:
            self._memory.free(body)

    def take_back(self, request: RecipeRequest) -> Block | None:
        """See FormDataplane."""
        self._put_back(request.recipe, request.place)
        return request.block.beside

    def _put_back(self, recipe: Recipe, place: Place) -> None:
        # What is kept for the next request is a place for all inputs.
        if recipe.in_place:
            self._memory.free(place.block)
        else:
            self._plans.put_back(recipe.plan, place)

    def give_up(self, request: RecipeRequest) -> None:
        """See FormDataplane."""
        request.owner = None
        self._client.give_up(request)

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """Serve these models and no others; None: read the configuration file again. Raises ServingError."""
        self._admission.check_open()
        return await self._client.reconfigure(models, deadline_ns)

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._images.close()
        self._plans.clear()

    def _catalogue(self) -> CatalogueView:
        catalogue = self._client.catalogue
        if catalogue is None:
            raise UnavailableError("The server is starting and does not know its models yet")
        return catalogue

    def _note(self, form: Form, message: memoryview, body: Block | None) -> Recipe | None:
        """How requests of this form are carried out under the present catalogue."""
        if form.seen:
            form.catalogue = self._client.catalogues
            form.recipe = self._make_recipe(form, message, body)
        # The second one shows that there may be others.
        form.seen = True
        return form.recipe

    def _make_recipe(self, form: Form, message: memoryview, body: Block | None) -> Recipe | None:
        try:
            return recipe_of(self.choose(form.selector), self._plans, form, message, body)
        except ServingError:
            return None

    def _make_array_recipe(self, form: ArrayForm, array: np.ndarray) -> Recipe | None:
        try:
            return array_recipe_of(self.choose(form.selector), self._plans, form, array)
        except ServingError:
            return None

    def _room(
        self, served: Served, inputs: Mapping[str, InputTensor], body: Block | None
    ) -> tuple[Plan, Block | None, Mapping[str, int]]:
        """Where everything goes, and what is not copied because it lies in `body`. Raises InvalidArgumentError.

        No block: a segment of its own must be made for the request.
        """
        # A request names one segment for all its tensors.
        if body is not None and body.segment == ARENA:
            in_place = find_in_place(served.signature, inputs, body)
            plan = self._plans.find(served, inputs, in_place)
            block = self._memory.allocate(plan.layout.size)
            if block is not None:
                return plan, block, in_place
        plan = self._plans.find(served, inputs)
        return plan, self._memory.allocate(plan.layout.size), _NOWHERE

    def _fill(
        self, inputs: Mapping[str, InputTensor], plan: Plan, block: Block, in_place: Mapping[str, int]
    ) -> Place:
        """Write the inputs into the block; where everything is."""
        try:
            place = plan.at(block, in_place)
            for name, dtype, target in place.targets:
                tensor = inputs[name]
                if dtype == STRING:
                    encode_into(tensor.array, target.data)
                else:
                    copy_into(tensor.array, tensor.dtype, target, dtype)
        except BaseException:
            self._memory.free(block)
            raise
        return place if block.segment == ARENA else place.without_views()

    def _submit(self, served: Served, block: Block, place: Place, deadline_ns: int) -> Submit:
        id_ = self._client.ledger.next_id()
        return Submit(
            id_, served.id, served.generation, block.segment, place.inputs, place.outputs, deadline_ns
        )

    def _answer(
        self,
        served: Served,
        block: Block,
        place: Place,
        answer: Answer,
        wanted: frozenset[str],
        times: tuple[int, int],
    ) -> Prediction:
        """Views of the outputs. From here on the block is the prediction's."""
        try:
            frame_bytes = frame_bytes_of(answer)
            if frame_bytes:
                self._admission.take_frames(frame_bytes)
        except BaseException:
            self._memory.free(block)
            raise
        prediction = Prediction(self._memory, self._admission, served, block, times, frame_bytes)
        read_answer(prediction, block, place, answer, wanted)
        return prediction


def _beside(block: Block, body: Block) -> Block:
    """The block as it is lent to a request: the body is freed with it."""
    return Block(block.segment, block.offset, block.size, block.memory, body)
