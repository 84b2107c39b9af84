"""The backend `hetsp` of torch.distributed: registers it, makes it, and says why it cannot be made."""

import functools
import logging
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument
from . import gpu_lanes
from .topology import Topology

if TYPE_CHECKING:
    from torch.distributed import Backend, ProcessGroup, Store

__all__ = [
    "NAME",
    "backend_of",
    "gpu_lanes_missing",
    "loopback",
    "missing",
    "native",
    "register",
    "require",
    "topologies",
    "topology_of_group",
    "without_gpu_lanes",
]

logger = logging.getLogger("hetsp.distributed")

NAME = "hetsp"
DEVICES = ["cpu", "cuda"]

topologies: dict[int, Topology] = {}  # of the groups made by this process, by their job
without_gpu_lanes: dict[int, str] = {}  # why they have no lanes for the memory of GPUs; "" if they have
loopback: dict[int, list[str]] = {}  # of the same: per node why its ranks share no memory, "" where they do


def register() -> bool:
    """Makes the name known to torch.distributed, if torch has that; nothing is loaded before a group is made."""
    import torch

    if not torch.distributed.is_available():
        return False
    plugins = torch.distributed.Backend._plugins
    if NAME.upper() not in plugins:
        torch.distributed.Backend.register_backend(NAME, create, extended_api=True, devices=DEVICES)
        # torch (2.13) looks for the first key among the parts of "cpu:hetsp,cuda:hetsp" to give such a group a default backend.
        entry = plugins.pop(NAME.upper())
        plugins |= {NAME: entry, NAME.upper(): entry}
    return True


def native() -> Any:
    """The extension hetsp_ext._c10d; HetspError with the reason where it cannot be had."""
    import torch

    built = built_for()
    running = torch.__version__
    if not built:
        raise HetspError(
            "backend hetsp: hetsp_ext was built without its extension for torch.distributed; this is torch "
            f"{running}: build with HETSP_C10D=ON beside it"
        )
    if built != running:
        raise HetspError(f"backend hetsp: its extension was built for torch {built}, this is torch {running}: build it again")
    try:
        import hetsp_ext._c10d as module
    except ImportError as error:
        raise HetspError(
            f"backend hetsp: its extension for torch {built} does not load under torch {running}: {error}"
        ) from error
    return module


def built_for() -> str:
    """The torch that the extension was built for; "" where there is none."""
    try:
        return Path(__file__).parent.with_name("_c10d.torch").read_text().strip()
    except OSError:
        return ""


def missing() -> str:
    """Why no group of this backend can be made here; "" if one can."""
    import torch

    if not torch.distributed.is_available():
        return f"torch {torch.__version__} was built without torch.distributed"
    if not torch.distributed.is_gloo_available():
        return f"torch {torch.__version__} was built without Gloo, which carries its lanes"
    try:
        native()
    except HetspError as error:
        return str(error).removeprefix("backend hetsp: ")
    return ""


def require() -> None:
    """Raises HetspError saying why, where no group of this backend can be made."""
    reason = missing()
    if reason:
        raise HetspError(f"backend hetsp: {reason}")


def create(given: Any, options: Any = None) -> "Backend":
    """What torch.distributed calls on every rank of a new group; `options`: its pg_options, a dict (see docs)."""
    import torch.distributed as dist

    from .group import form
    from .options import Options

    rank, size = given.group_rank, given.group_size
    ranks = list(given.global_ranks_in_group) or list(range(size))
    world = dist.get_world_size() if dist.is_initialized() else size
    timeout: timedelta = given.timeout
    wanted = functools.cache(lambda: Options.of(options))
    formed = form(
        given.store,
        rank,
        ranks,
        world,
        timeout,
        options,
        require,
        lambda: gpu_lanes.absent(wanted().gpu_lanes, native()),
        lambda *shape: native().shared_bytes(*shape),
    )
    sizes = wanted()
    on_gpu = formed.gpu_why == ""
    shared = formed.shared
    backend = native().create(
        rank=rank,
        size=size,
        timeout=timeout,
        job=formed.job,
        nodes=formed.topology.as_records(),
        local=formed.local,
        control=formed.control,
        rails=formed.rails,
        connect=formed.connect,
        shared=shared.hand_over() if shared else None,
        direct_bytes=sizes.direct_bytes,
        chunk_bytes=sizes.chunk_bytes,
        **(gpu_arguments() if on_gpu else {}),
    )
    if shared:
        shared.close()
    topologies[backend.job] = formed.topology
    without_gpu_lanes[backend.job] = settled(backend, given.store, timeout, formed.topology) if on_gpu else formed.gpu_why
    loopback[backend.job] = formed.loopback
    return backend


def gpu_arguments() -> dict[str, Any]:
    """What native().create() needs for lanes of the current GPU."""
    import os

    import torch

    return {
        "device": torch.cuda.current_device(),
        "nccl_asked": os.environ.get(gpu_lanes.LIBRARY, ""),
        "nccl_bundled": gpu_lanes.bundled(),
    }


def settled(backend: Any, store: "Store", timeout: timedelta, topology: Topology) -> str:
    """Waits for the lanes of all ranks' GPUs; all use them, or none does: then why."""
    from .agreement import agree

    rank, size = backend.rank(), backend.size()
    lanes = len(topology.nodes[topology.node_of(rank)].ranks) - 1 + len(topology.rails_of(rank))

    def here() -> str:
        return gpu_lanes.too_few_queues(lanes) or str(backend.lanes_settled())

    why: str = agree(store, "gpu", rank, size, timeout, here, gpu_lanes.chosen)
    if why:
        logger.warning("no lanes for the memory of GPUs, which goes through host memory: %s", why)
        backend.turn_lanes_off()
    else:
        backend.use_lanes(gpu_lanes.collectives(store, rank, size, timeout))
    return why


def gpu_lanes_missing() -> str:
    """Why no group made here could have lanes for the memory of GPUs if it asked for them; "" if it could."""
    reason = missing()
    return reason or gpu_lanes.absent(True, native())


def backend_of(group: "ProcessGroup | None" = None) -> Any:
    """The native object behind a group (None: the default one); InvalidArgument for a group of other backends."""
    import torch
    import torch.distributed as dist

    found = []
    for device in ("cpu", "cuda"):
        try:
            backend = (group or dist.group.WORLD)._get_backend(torch.device(device))  # type: ignore[union-attr]
        except (RuntimeError, AttributeError):  # none for that device, or no group at all
            continue
        if backend.name() == NAME:
            return backend
        found.append(f"{device}:{backend.name()}")
    raise InvalidArgument(f"the group has the backends {', '.join(found) or 'none'}; statistics are of backend {NAME}")


def topology_of_group(group: "ProcessGroup | None" = None) -> Topology:
    """The topology that a group of this backend was made with; of its own ranks."""
    return topologies[backend_of(group).job]
