"""What a group of backend `hetsp` is asked to do: the environment, and the dict that new_group and init_process_group take."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .topology import read_topology

__all__ = ["GPU_LANES", "SHARED_MEMORY", "VARIABLE", "Options"]

VARIABLE = "HETSP_TOPOLOGY"
GPU_LANES = "HETSP_GPU_LANES"
SHARED_MEMORY = "HETSP_SHARED_MEMORY"  # 0: ranks of a node send over loopback
KEYS = ("topology", "chunk_bytes", "direct_bytes", "gpu_lanes", "shared_memory")
LARGEST = 1 << 30  # of a chunk: its length travels in 32 bits, and a NIC carries several at a time


@dataclass(frozen=True)
class Options:
    """`pg_options` of a group, checked. Sizes of 0 are the engine's own choice."""

    topology: Any = None  # as JSON holds it, of the default group's ranks; not yet checked. None: discovered
    source: str = ""  # who gave the topology, for errors
    chunk_bytes: int = 0  # of a piece of a message
    direct_bytes: int = 0  # smaller messages use the sender's own NIC alone
    gpu_lanes: bool = False  # tensors of GPUs travel by NCCL, where every rank can
    shared_memory: bool = True  # between ranks of a node; False on one of them: none of them

    @classmethod
    def of(cls, given: object) -> "Options":
        """From pg_options; HETSP_TOPOLOGY counts where that has no topology. Raises InvalidArgument naming what is wrong."""
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise InvalidArgument(
                f"pg_options of backend hetsp are {given!r}; a dict with the keys {', '.join(KEYS)} is needed"
            )
        unknown = [key for key in given if key not in KEYS]
        if unknown:
            raise InvalidArgument(f"pg_options of backend hetsp have the key {unknown[0]!r}; allowed are {', '.join(KEYS)}")
        sizes = {name: given.get(name, 0) for name in ("chunk_bytes", "direct_bytes")}
        for name, value in sizes.items():
            least = 0 if name == "direct_bytes" or value == 0 else 4096
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
                raise InvalidArgument(f"{name} is {value!r}; a whole number from {least} to {LARGEST} is needed")
        asked = os.environ.get(GPU_LANES, "0")
        if asked not in ("0", "1"):
            raise InvalidArgument(f"{GPU_LANES} is {asked!r}; allowed are 0 and 1")
        lanes = given.get("gpu_lanes", asked == "1")
        if not isinstance(lanes, bool):
            raise InvalidArgument(f"gpu_lanes is {lanes!r}; True or False is needed")
        kept = os.environ.get(SHARED_MEMORY, "1")
        if kept not in ("0", "1"):
            raise InvalidArgument(f"{SHARED_MEMORY} is {kept!r}; allowed are 0 and 1")
        shared = given.get("shared_memory", kept == "1")
        if not isinstance(shared, bool):
            raise InvalidArgument(f"shared_memory is {shared!r}; True or False is needed")
        topology, source = given.get("topology"), "the option topology"
        if isinstance(topology, (str, os.PathLike)):
            topology = read_topology(Path(topology), source)
        elif topology is None and os.environ.get(VARIABLE):
            topology, source = read_topology(Path(os.environ[VARIABLE]), VARIABLE), VARIABLE
        source = source if topology is not None else ""
        return cls(topology, source, gpu_lanes=lanes, shared_memory=shared, **sizes)
