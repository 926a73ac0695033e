"""Makes recipes, once for each form and catalogue: what is chosen and checked here no request after it pays for.

None: requests of that form go the general way.
"""

from collections.abc import Mapping

import numpy as np

from frontends.checks import check_outputs
from frontends.forms import ArrayForm, Form
from frontends.interface import InputTensor, Served
from frontends.memory import Block
from frontends.plans import Plans, find_in_place
from frontends.recipes import InPlace, Recipe, expected_results

_NOWHERE: Mapping[str, int] = {}


def recipe_of(
    served: Served, plans: Plans, form: Form, message: memoryview, body: Block | None
) -> Recipe | None:
    """For messages that equal this one but for the elements, and lie in a block of shared memory if this one does.

    Raises InvalidArgumentError where the version does not take such requests.
    """
    check_outputs(served.signature, form.output_filter)
    inputs = form.read_inputs(message)
    where = _NOWHERE if body is None else find_in_place(served.signature, inputs, body)
    plan = plans.find(served, inputs, where)
    given = {one.name: one for one in form.inputs}
    sources: list[slice] = []
    in_place: list[InPlace] = []
    for spec in served.signature.inputs:
        found = given[spec.name]
        if found.dtype != spec.dtype or spec.dtype == "bool":
            # To be converted; of bool, any byte but 0 is true.
            return None
        if spec.name in where:
            in_place.append(InPlace(spec.name, found.start, found.storage.itemsize))
        else:
            sources.append(slice(found.start, found.stop))
    if body is not None and not in_place:
        # It happens to lie where nothing can be read in place. That of others is no reason to copy them.
        return None
    expected = expected_results(served.signature, plan.layout, form.output_filter)
    return Recipe(served, plan, tuple(sources), expected, tuple(in_place))


def array_recipe_of(served: Served, plans: Plans, form: ArrayForm, array: np.ndarray) -> Recipe | None:
    """For arrays of one input. Raises InvalidArgumentError as above."""
    specs = served.signature.inputs
    if len(specs) != 1 or specs[0].dtype not in form.targets:
        return None
    plan = plans.find(served, {specs[0].name: InputTensor(form.dtype, array)})
    return Recipe(served, plan, (), expected_results(served.signature, plan.layout, frozenset()))
