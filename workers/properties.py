"""Properties of OpenVINO: which ones a worker sets, and what became of the names of 2020. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from workers.devices import bare, split

_RENAMED = {
    "CPU_THREADS_NUM": "INFERENCE_NUM_THREADS",
    "CPU_BIND_THREAD": "ENABLE_CPU_PINNING",
    "CPU_THROUGHPUT_STREAMS": "NUM_STREAMS",
    "GPU_THROUGHPUT_STREAMS": "NUM_STREAMS",
    "ENFORCE_BF16": "INFERENCE_PRECISION_HINT",
}
_VALUES = {
    "CPU_BIND_THREAD": {"YES": "YES", "NO": "NO", "NUMA": "YES", "HYBRID_AWARE": "YES"},
    "CPU_THROUGHPUT_STREAMS": {"CPU_THROUGHPUT_AUTO": "AUTO", "CPU_THROUGHPUT_NUMA": "NUMA"},
    "GPU_THROUGHPUT_STREAMS": {"GPU_THROUGHPUT_AUTO": "AUTO"},
    "ENFORCE_BF16": {"YES": "bf16", "NO": "f32"},
}


class Plan(NamedTuple):
    """A replica's share of the machine: it is number `replica`, from 0, of `replicas` on its device."""

    replica: int
    replicas: int

    def cores(self, available: list[int]) -> list[int]:
        """Its part of the available cores: contiguous, parts differing by one core at most.

        With fewer cores than replicas, one core each, in turns.
        """
        count = len(available)
        if count < self.replicas:
            return [available[self.replica % count]]
        return available[count * self.replica // self.replicas : count * (self.replica + 1) // self.replicas]


def uses_cpu(device: str) -> bool:
    """Whether inference on this device takes the host's cores, by OpenVINO's device string."""
    kind, members = split(device.upper())
    names = [bare(member).partition(".")[0] for member in members]
    return "CPU" in names or (kind == "AUTO" and all(name.startswith("-") for name in names))


def translate(
    plugin_config: Mapping[str, str], kept: Collection[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Properties by today's names, and for each one that was renamed a phrase for the log.

    The names of 2020 stand in OpenVINO's own migration guide; a name of today in the same configuration wins. Those
    in `kept` stay as they are, for an OpenVINO that does not know their successors.
    """
    translated: dict[str, str] = {}
    notes: list[str] = []
    for name, value in plugin_config.items():
        if name not in _RENAMED or name in kept:
            continue
        now, text = _RENAMED[name], str(value)
        translated[now] = _VALUES.get(name, {}).get(text.upper(), text)
        notes.append(f"{name}={text} is {now}={translated[now]} now")
    for name, value in plugin_config.items():
        if name not in _RENAMED or name in kept:
            translated[name] = str(value)
    return translated, notes


def host_defaults(threads: int, pinning_off: Mapping[str, str]) -> dict[str, str]:
    """What the CPU plugin is told unless the configuration says otherwise.

    OpenVINO's pinning is off, by the property that its release has for it. Several workers get their cores from us,
    and it numbers the cores that it sees from the first one, so that each worker would pin its threads to the same
    core. A single worker is treated alike: it shares its cores with the frontends.
    """
    return {"INFERENCE_NUM_THREADS": str(threads), **pinning_off}


THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT"}
"""By which OpenVINO itself decides how many streams of how many threads a CPU's cores are best divided into."""

ONE_STREAM = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
"""The opposite: all threads for one request."""


def quick_defaults(
    device: str, shared_executor: Mapping[str, str], chosen: Mapping[str, str]
) -> dict[str, str]:
    """For a quick model of which one request is inferred at a time; nothing where the configuration says otherwise.

    `shared_executor`: the property by which compiled models run on one executor, if there is one. It is the plugin's
    own, of all threads: a configuration that names a number of them gets its own.
    """
    if device.upper() != "CPU" or {"NUM_STREAMS", "PERFORMANCE_HINT"} & set(chosen):
        return {}
    taken = "INFERENCE_NUM_THREADS" in chosen or shared_executor.keys() & set(chosen)
    return {**ONE_STREAM, **({} if taken else shared_executor)}


def is_free(device: str, threads: int, chosen: Mapping[str, str]) -> bool:
    """Whether the worker may decide how many requests it infers at once, where the configuration does not say."""
    return device.upper() == "CPU" and threads > 1 and not {"NUM_STREAMS", "PERFORMANCE_HINT"} & set(chosen)


def stream_defaults(device: str, nireq: int, threads: int, chosen: dict[str, str]) -> dict[str, str]:
    """As many streams as runs can overlap, on the devices that have streams; a chosen hint decides by itself."""
    if "NUM_STREAMS" in chosen or "PERFORMANCE_HINT" in chosen:
        return {}
    kind = device.upper().partition(".")[0]
    if kind == "CPU":
        wanted = chosen.get("INFERENCE_NUM_THREADS", "")
        return {"NUM_STREAMS": str(max(1, min(nireq, int(wanted) if wanted.isdigit() else threads)))}
    return {"NUM_STREAMS": str(max(1, nireq))} if kind == "GPU" else {}
