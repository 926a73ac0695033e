"""The real engine: OpenVINO on one device. Reads what stands in a version's directory, and compiles it.

directory ─▶ find_model ─▶ read ─▶ names (mapping_config.json) ─▶ shapes (batch_size, shape) ─▶ compile ─▶ Model
                                                       │                         └─ auto ─▶ VariableModel
                                                       └─ batching_parameters ─▶ compile for each size ─▶ BatchableModel
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import workers.openvino_api as ov
from common.config import BatchingParameters, ModelConfig
from workers.batch_shapes import UnbatchableError, check_inputs
from workers.compile_cache import CompileCache
from workers.devices import AbsentError, Target, choose
from workers.engine import LoadError
from workers.heads import heads_of, with_layouts
from workers.model_files import ModelFile, find_model, read_aliases, read_labels
from workers.openvino_batches import OpenVinoBatches, compile_batches
from workers.openvino_compiler import Compiler, OpenVinoVariants, has_strings
from workers.openvino_model import OpenVinoModel
from workers.openvino_strings import StringCodec
from workers.ports import Shape
from workers.properties import (
    THROUGHPUT,
    host_defaults,
    is_free,
    quick_defaults,
    stream_defaults,
    translate,
    uses_cpu,
)
from workers.reasons import reason_of
from workers.shapes import describe, plan
from workers.signatures import Ports, ports_of, refuse_unusable, reshape

_log = logging.getLogger("workers")


class OpenVinoEngine:
    """OpenVINO on `device`, using `threads` threads of the host when it infers there.

    `emulate_on`: the device that stands in for it, for development. `cache_dir`: where compiled models are kept.
    """

    def __init__(
        self,
        device: str,
        threads: int,
        cpu_extension: str = "",
        emulate_on: str = "",
        cache_dir: Path | None = None,
    ) -> None:
        self._core = ov.Core()
        self._device = emulate_on or device
        self._notes = (f"{device} is emulated on {emulate_on}",) if emulate_on else ()
        self._threads = threads
        self._strings: StringCodec | None = None
        self._cache = CompileCache(cache_dir, self._device, ov.release()) if cache_dir is not None else None
        ov.read_whole_files(self._core)
        if cpu_extension:
            self._core.add_extension(cpu_extension)
        self._host = host_defaults(threads, ov.pinning_off(self._core)) if uses_cpu(self._device) else {}
        if self._host and self._device.upper() != "CPU":
            self._core.set_property("CPU", self._host)
        self._shared_executor = ov.shared_executor(self._core)
        for note in self._notes:
            _log.warning("%s", note)

    def load(self, path: Path, config: ModelConfig) -> OpenVinoModel | OpenVinoVariants | OpenVinoBatches:
        """Read, check and compile the model in a version's directory. Raises LoadError."""
        try:
            return self._load(path, config)
        except LoadError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError, but also what its bindings happen to raise
            raise LoadError(reason_of(error)) from error

    def _load(self, path: Path, config: ModelConfig) -> OpenVinoModel | OpenVinoVariants | OpenVinoBatches:
        target = self._target()
        remarks: tuple[str, ...] = ()
        if config.batching_parameters is not None:
            try:
                return self._load_batches(path, config, target, config.batching_parameters)
            except UnbatchableError as error:
                remarks = (f"batching_parameters have no effect: {error}",)
        model, compiler, notes = self._prepare(path, config, target)
        inputs = compiler.ports[0]
        wanted = plan(inputs, config.batch_size, config.shape)
        reshaping = _reshape_once(model, wanted.fixed, inputs)
        notes = (*self._notes, *notes, *remarks, *wanted.notes, *reshaping)
        self._log_notes(config, notes)
        first = compiler.compile(model, self._cache, notes)
        if wanted.per_request is None:
            return first
        return OpenVinoVariants(model, compiler, wanted.per_request, first)

    def _string_codec(self) -> StringCodec:
        """Made when the first model needs it. Raises LoadError."""
        if self._strings is None:
            try:
                self._strings = StringCodec(self._core)
            except ImportError:
                raise LoadError(
                    f"the model takes or gives strings, for which OpenVINO {ov.release()} has no operations"
                ) from None
        return self._strings

    def _load_batches(
        self, path: Path, config: ModelConfig, target: Target, batching: BatchingParameters
    ) -> OpenVinoBatches:
        """Raises UnbatchableError, and LoadError for what no model may have."""
        model, compiler, notes = self._prepare(path, config, target)
        inputs = compiler.ports[0]
        remarks = check_inputs(inputs, config)
        wanted = plan(inputs, None, config.shape)
        notes = (*self._notes, *notes, *remarks)
        batches = compile_batches(model, compiler, wanted.fixed, batching, self._cache, notes)
        self._log_notes(config, notes)
        return batches

    def _prepare(
        self, path: Path, config: ModelConfig, target: Target
    ) -> tuple[ov.Model, Compiler, tuple[str, ...]]:
        """The model as it was read, what compiles it, and notes. Raises LoadError."""
        model = self._read(find_model(path))
        refuse_unusable(model)
        inputs, outputs = ports_of(model, read_aliases(path))
        inputs = with_layouts(inputs, config.layout)
        heads, remarks = heads_of(outputs, config, read_labels(path, config.classification.labels))
        properties, nireq, quick = self._properties(config, target.device)
        strings = self._string_codec() if has_strings((*inputs, *outputs)) else None
        ports = (inputs, outputs)
        compiler = Compiler(self._core, target.device, properties, nireq, ports, heads, strings, quick)
        return model, compiler, (*target.notes, *remarks)

    def _log_notes(self, config: ModelConfig, notes: tuple[str, ...]) -> None:
        for note in notes[len(self._notes) :]:
            _log.warning("model %s: %s", config.name, note)

    def _target(self) -> Target:
        """Looked at for each load: devices come and go. Raises LoadError."""
        available = list(self._core.available_devices)
        try:
            return choose(self._device, available)
        except AbsentError as error:
            known = ", ".join(available) or "none"
            reasons = "".join(f" ({reason})" for reason in self._why_absent(error.devices))
            raise LoadError(f"{error}: OpenVINO {ov.release()} here knows {known}{reasons}") from error

    def _why_absent(self, devices: tuple[str, ...]) -> list[str]:
        """What OpenVINO says of devices that it knows by name and cannot reach: a driver is missing, most often."""
        reasons = []
        for device in devices:
            try:
                self._core.get_property(device, "FULL_DEVICE_NAME")
            except Exception as error:  # noqa: BLE001 - it is asked for this alone
                reason = reason_of(error)
                if "is not registered" not in reason:
                    reasons.append(reason)
        return reasons

    def _read(self, file: ModelFile) -> ov.Model:
        try:
            return self._core.read_model(file.path)
        except Exception as error:
            raise LoadError(f"{file.name} cannot be read: {reason_of(error)}") from error

    def _properties(
        self, config: ModelConfig, device: str
    ) -> tuple[dict[str, str], int | None, dict[str, str]]:
        """Of OpenVINO; how many requests are inferred at once, None where that is seen once it is compiled; and the
        properties in addition of a model that turns out to be quick.
        """
        chosen, notes = translate(config.plugin_config, ov.old_names(self._core))
        if notes:
            _log.info("plugin_config has names of 2020: %s", "; ".join(notes))
        host = self._host if device.upper() == "CPU" else {}
        is_one_model = config.batching_parameters is None and "auto" not in (config.batch_size, config.shape)
        is_left_to_us = config.nireq is None and is_one_model
        quick = quick_defaults(device, self._shared_executor, chosen) if is_left_to_us else {}
        if is_left_to_us and is_free(device, self._threads, chosen):
            return {**host, **THROUGHPUT, **chosen}, None, quick
        nireq = config.nireq or 1
        streams = stream_defaults(device, nireq, self._threads, chosen)
        return {**host, **streams, **chosen}, nireq, quick


def _reshape_once(model: ov.Model, shapes: Mapping[int, Shape], ports: Ports) -> tuple[str, ...]:
    """Reshape the model; where it cannot be, it keeps its own shape, and a note says why."""
    if not shapes:
        return ()
    try:
        reshape(model, shapes)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model is as it was
        wanted = describe(ports, shapes)
        return (f"the model keeps its own shape, for it cannot be reshaped to {wanted}: {reason_of(error)}",)
    return ()
