"""What a process imports it pays for at its start, and keeps: each leaves alone what only others need."""

import subprocess
import sys

import pytest

STORES = frozenset({"boto3", "botocore", "google.cloud", "azure"})
HEAVY = STORES | {"numpy", "grpc", "falcon", "asyncio", "openvino", "PIL", "tensorflow", "google.protobuf"}


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("ie_serving.server", HEAVY | {"zmq"}),
        ("broker.app", HEAVY),
        ("broker.storekeeper", HEAVY),
        ("workers.service", STORES | {"grpc", "falcon", "asyncio", "openvino", "PIL"}),
        ("workers.openvino_engine", STORES | {"grpc", "falcon", "asyncio", "PIL", "openvino.tools.ovc"}),
        ("frontends.grpc.service", STORES | {"falcon", "gunicorn", "openvino", "PIL"}),
        ("frontends.rest.service", STORES | {"grpc", "openvino", "PIL"}),
    ],
)
def test_a_process_starts_without_what_it_does_not_need(module: str, spared: frozenset[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert spared & set(run.stdout.split()) == set()
