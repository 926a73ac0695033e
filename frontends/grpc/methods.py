"""The table of everything that can be called: full method path → handler. Whichever transport is used serves this."""

from frontends.forms import FormDataplane
from frontends.grpc import health, tensorflow_serving
from frontends.grpc.calls import Table
from frontends.grpc.health import Health
from frontends.grpc.reflection import Reflection
from frontends.grpc.tensorflow_serving import TensorFlowServing
from frontends.interface import DataplaneInterface

API_SERVICES = (tensorflow_serving.PREDICTION_SERVICE, tensorflow_serving.MODEL_SERVICE)
"""The services whose health can be asked for by name."""


def make_health(dataplane: DataplaneInterface) -> Health:
    """The health of the API's services. Its owner ends it at shutdown."""
    return Health(dataplane, API_SERVICES)


def method_table(dataplane: FormDataplane, health_service: Health, request_timeout_s: float) -> Table:
    """Every method of every service, by its path."""
    return {
        **TensorFlowServing(dataplane, request_timeout_s).methods(),
        **health_service.methods(),
        **Reflection((*API_SERVICES, health.SERVICE)).methods(),
    }
