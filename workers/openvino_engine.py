"""The real engine: OpenVINO on one device. Reads what stands in a version's directory, and compiles it.

directory ─▶ find_model ─▶ read ─▶ names (mapping_config.json) ─▶ shapes (batch_size, shape) ─▶ compile ─▶ Model
                                                                                 └─ auto ─▶ VariableModel
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import workers.openvino_api as ov
from common.config import ModelConfig
from workers.compile_cache import CompileCache
from workers.devices import AbsentError, Target, choose
from workers.engine import LoadError
from workers.heads import heads_of, with_layouts
from workers.model_files import ModelFile, find_model, read_aliases, read_labels
from workers.openvino_compiler import Compiler, OpenVinoVariants, has_strings
from workers.openvino_model import OpenVinoModel
from workers.openvino_strings import StringCodec
from workers.ports import Shape
from workers.properties import host_defaults, stream_defaults, translate, uses_cpu
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
        for note in self._notes:
            _log.warning("%s", note)

    def load(self, path: Path, config: ModelConfig) -> OpenVinoModel | OpenVinoVariants:
        """Read, check and compile the model in a version's directory. Raises LoadError."""
        try:
            return self._load(path, config)
        except LoadError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError, but also what its bindings happen to raise
            raise LoadError(reason_of(error)) from error

    def _load(self, path: Path, config: ModelConfig) -> OpenVinoModel | OpenVinoVariants:
        target = self._target()
        file = find_model(path)
        aliases = read_aliases(path)
        model = self._read(file)
        refuse_unusable(model)
        inputs, outputs = ports_of(model, aliases)
        inputs = with_layouts(inputs, config.layout)
        heads, remarks = heads_of(outputs, config, read_labels(path, config.classification.labels))
        wanted = plan(inputs, config.batch_size, config.shape)
        reshaping = _reshape_once(model, wanted.fixed, inputs)
        notes = (*self._notes, *target.notes, *remarks, *wanted.notes, *reshaping)
        for note in notes[len(self._notes) :]:
            _log.warning("model %s: %s", config.name, note)
        properties = self._properties(config, target.device)
        strings = self._string_codec() if has_strings((*inputs, *outputs)) else None
        ports = (inputs, outputs)
        compiler = Compiler(self._core, target.device, properties, config.nireq, ports, heads, strings)
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

    def _properties(self, config: ModelConfig, device: str) -> dict[str, str]:
        chosen, notes = translate(config.plugin_config, ov.old_names(self._core))
        if notes:
            _log.info("plugin_config has names of 2020: %s", "; ".join(notes))
        streams = stream_defaults(device, config.nireq, self._threads, chosen)
        host = self._host if device.upper() == "CPU" else {}
        return {**host, **streams, **chosen}


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
