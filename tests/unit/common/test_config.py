"""common.config: what the command writes down is what the processes read."""

import json
from pathlib import Path

import msgspec
import pytest

from common import config
from common.config import BatchingParameters, DeviceConfig, ModelConfig, ServerConfig, VersionPolicy

FULL = ServerConfig(
    models=(
        ModelConfig(
            "resnet",
            "/models/resnet",
            batch_size=8,
            shape={"data": (1, 3, 224, 224)},
            max_shapes=3,
            nireq=4,
            target_device="MULTI:CPU,GPU",
            plugin_config={"NUM_STREAMS": "2"},
            version_policy=VersionPolicy("all"),
            labels={"stable": 3},
            workers=2,
            batching_parameters=BatchingParameters(16, 500, (8, 16)),
        ),
        ModelConfig("ünïcode", "/models/ü", version_policy=VersionPolicy("specific", 1, (1, (1 << 63) - 1))),
        ModelConfig("plain", "/models/plain"),
    ),
    run_dir="",
    grpc_port=9001,
    rest_port=8001,
    bind_address="127.0.0.1",
    grpc_transport=next(name for name in config.TRANSPORTS if name != config.DEFAULT_TRANSPORT),
    grpc_socket="/run/grpc.sock",
    rest_socket="/run/rest.sock",
    grpc_tls_certificate="/etc/server.crt",
    grpc_tls_key="/etc/server.key",
    grpc_tls_client_ca="/etc/clients.pem",
    grpc_workers=2,
    rest_workers=3,
    workers=4,
    arena_bytes=5,
    large_bytes=6,
    message_bytes=7,
    max_queue=8,
    request_timeout_s=9.5,
    inference_timeout_s=10.5,
    load_timeout_s=11.5,
    poll_wait_s=-1.0,
    cpu_extension="/lib/custom.so",
    config_path="/etc/models.json",
    devices={"MYRIAD": DeviceConfig(python="/opt/old/bin/python"), "HDDL": DeviceConfig(emulate_on="CPU")},
    model_cache_dir="/var/cache/models",
    model_cache_bytes=7,
    cache_dir="/var/cache/compiled",
    rest_cors_origins=("https://example.org",),
    log_level="DEBUG",
    log_path="/var/log/server.log",
    console="/dev/stdout",
)


def saved(tmp_path: Path, source: ServerConfig = FULL) -> ServerConfig:
    placed = msgspec.structs.replace(source, run_dir=str(tmp_path))
    assert config.save(placed) == tmp_path / config.CONFIG_FILE
    return placed


def test_every_field_survives(tmp_path: Path) -> None:
    placed = saved(tmp_path)
    plain = ServerConfig((), "")
    for field in config.ServerConfig.__struct_fields__:
        assert getattr(placed, field) != getattr(plain, field), f"{field} proves nothing"
    assert config.load(tmp_path) == placed


def test_the_defaults_survive(tmp_path: Path) -> None:
    placed = saved(tmp_path, ServerConfig((ModelConfig("m", "/m"),), ""))
    assert config.load(tmp_path) == placed
    assert placed.models[0].version_policy == VersionPolicy("latest", 1, ())


def change(tmp_path: Path, **values: object) -> None:
    path = tmp_path / config.CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, grpc_prot=1)
    with pytest.raises(msgspec.ValidationError, match="grpc_prot"):
        config.load(tmp_path)


def test_an_unknown_key_of_a_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, models=[{"name": "m", "base_path": "/m", "base_paht": "/n"}])
    with pytest.raises(msgspec.ValidationError, match="base_paht"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "values", [{"grpc_port": "9000"}, {"models": [{"name": "m"}]}, {"workers": 1.5}, {"log_level": None}]
)
def test_a_wrong_type_is_refused(tmp_path: Path, values: dict[str, object]) -> None:
    saved(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(msgspec.ValidationError):
        config.load(tmp_path)


def test_a_run_directory_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        config.load(tmp_path)


@pytest.mark.parametrize(("rest_port", "frontends"), [(0, 2), (8000, 5)])
def test_frontends_count_rest_only_with_a_port(rest_port: int, frontends: int) -> None:
    assert msgspec.structs.replace(FULL, rest_port=rest_port).frontends == frontends


VARIABLES = {
    "LOG_LEVEL": "log_level",
    "LOG_PATH": "log_path",
    "FILE_SYSTEM_POLL_WAIT_SECONDS": "poll_wait_seconds",
    "CPU_EXTENSION": "cpu_extension",
    "IE_SERVING_RUN_DIR": "run_dir",
}


def test_the_environment_is_read_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert config.read_environment() == config.Environment("", "", "", "", "")
    for name in VARIABLES:
        monkeypatch.setenv(name, f"value of {name}")
    environment = config.read_environment()
    assert {getattr(environment, field) for field in VARIABLES.values()} == {
        f"value of {name}" for name in VARIABLES
    }
    for name, field in VARIABLES.items():
        assert getattr(environment, field) == f"value of {name}"


def test_the_files_of_a_run_directory_differ(tmp_path: Path) -> None:
    paths = [config.peers_socket(tmp_path), config.supervisor_socket(tmp_path), config.exit_file(tmp_path)]
    assert len({*paths, tmp_path / config.CONFIG_FILE}) == 4
    assert all(path.parent == tmp_path for path in paths)


@pytest.mark.parametrize(
    ("parameters", "sizes"),
    [
        (BatchingParameters(), (1, 2, 4, 8, 16, 32)),
        (BatchingParameters(1), (1,)),
        (BatchingParameters(2), (1, 2)),
        (BatchingParameters(6), (1, 2, 4, 6)),
        (BatchingParameters(8, allowed_batch_sizes=(3, 8)), (3, 8)),
    ],
)
def test_batches_are_padded_to_powers_of_two_unless_sizes_are_given(
    parameters: BatchingParameters, sizes: tuple[int, ...]
) -> None:
    assert parameters.sizes == sizes
