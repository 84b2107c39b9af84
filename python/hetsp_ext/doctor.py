"""What this machine offers to hetsp_ext, and why a thing is absent."""

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from . import __version__
from . import kernels as families
from ._native import core
from .capability import VARIABLE, cpu_capabilities, cpu_capability
from .device_trial import Trial, attempt
from .distributed.backend import gpu_lanes_missing, missing
from .distributed.interfaces import interfaces

__all__ = ["Finding", "examine"]

# io_uring_setup(2) in the kernel's generic table, which every 64-bit port uses for calls as young as this one.
SYS_IO_URING_SETUP = 425


@dataclass(frozen=True)
class Finding:
    """One thing looked for: what was found, or the reason for its absence."""

    name: str
    present: bool
    detail: str
    broken: bool = False  # it is there and does not work


def examine() -> list[Finding]:
    """Looks at everything afresh; takes about a second, with a GPU some more, leaves nothing behind, raises nothing."""
    probes: list[Callable[[], list[Finding]]] = [
        system, processor, memory, torch_build, cuda, collectives, python_packages, io_uring,
        checkpoint_io, compilers,
    ]  # fmt: skip
    return [finding for probe in probes for finding in probe()]


def as_records(findings: list[Finding]) -> list[dict[str, object]]:
    return [asdict(finding) for finding in findings]


def system() -> list[Finding]:
    return [
        Finding("hetsp_ext", True, __version__),
        Finding("system", True, f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
    ]


def cores() -> int:
    """Cores that this process may use, which a container or taskset makes fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> list[Finding]:
    info = read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)
    flags = set((re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE) or [""])[0].split())
    wanted = ["sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve"]
    found = [flag for flag in wanted if flag in flags]
    return [
        Finding("processor", True, f"{model[1] if model else platform.processor() or platform.machine()}"),
        Finding("cores", True, f"{cores()} usable of {os.cpu_count()}"),
        Finding("vector ISA", bool(found), " ".join(found) or f"none of {' '.join(wanted)} in /proc/cpuinfo"),
        capability(),
        amx(),
    ]


def capability() -> Finding:
    """The instruction set that the kernels run with; absent means that a better one is there and was set aside."""
    active, best, here = cpu_capability(), cpu_capabilities()[-1], cpu_capabilities()
    if active == best:
        return Finding("CPU capability", True, f"{active}, of {', '.join(here)}")
    return Finding("CPU capability", False, f"{active}, forced by {VARIABLE} or set_cpu_capability(); this machine has {best}")


def amx() -> Finding:
    """Whether bfloat16 may be multiplied in tiles, and if not, whether the CPU or the kernel is why."""
    missing = core.missing_cpu_capability("amx")
    return Finding("AMX", not missing, missing or "bfloat16 in tiles: the CPU has it, and the kernel gives the registers")


def memory() -> list[Finding]:
    info = read("/proc/meminfo")
    sizes = {name: int(kib) / 2**20 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", info, re.MULTILINE)}
    if "MemTotal" not in sizes:
        return [Finding("memory", False, "/proc/meminfo does not say")]
    return [Finding("memory", True, f"{sizes['MemTotal']:.1f} GiB, {sizes.get('MemAvailable', 0.0):.1f} GiB available")]


def torch_build() -> list[Finding]:
    threads = f"{torch.get_num_threads()} threads, {torch.get_num_interop_threads()} between operators"
    return [Finding("torch", True, f"{torch.__version__}, {threads}, CPU capability {torch.backends.cpu.get_cpu_capability()}")]


def cuda() -> list[Finding]:
    if torch.cuda.is_available():
        return tried(attempt())
    compiled, torch_has_cuda, _ = torch.ops.hetsp.cuda_info()
    build = f"torch has CUDA {torch.version.cuda}, but the driver shows no device"
    return [
        cuda_kernels(compiled),
        Finding("CUDA devices", False, build if torch_has_cuda else f"torch {torch.__version__} is a build without CUDA"),
    ]


def cuda_kernels(compiled: bool) -> Finding:
    if not compiled:
        return Finding(
            "CUDA kernels",
            False,
            "hetsp_ext was built where no nvcc was found, or with HETSP_CUDA=OFF; install CUDA and build again",
        )
    if families.cuda_kernels() != families.BEST:
        bound = f"no better than {families.cuda_kernels()}, by {families.VARIABLE} or set_cuda_kernels()"
        return Finding("CUDA kernels", False, bound)
    return Finding("CUDA kernels", True, "compiled")


def tried(trial: Trial) -> list[Finding]:
    """What a call in a process of its own came to."""
    found = [] if trial.compiled is None else [cuda_kernels(trial.compiled)]
    if trial.devices:
        detail = f"{len(trial.devices)}: {', '.join(sorted(set(trial.devices)))}; the core counts {trial.counted}"
        found.append(Finding("CUDA devices", True, detail))
    right = f"forward and backward by {', '.join(trial.families)} agree with the CPU"
    if not trial.death:
        return [*found, Finding("CUDA call", True, right)]
    again = "again, with the Python stack: python -X faulthandler -m hetsp_ext.device_trial"
    before = f"; {right}" if trial.families else ""
    return [*found, Finding("CUDA call", False, f"{trial.death}{before}; {again}", broken=True)]


def collectives() -> list[Finding]:
    distributed = torch.distributed
    if not distributed.is_available():
        return [
            Finding(name, False, "torch was built without torch.distributed")
            for name in ("Gloo", "NCCL", "backend hetsp", "lanes of GPUs")
        ]
    nccl = distributed.is_nccl_available()
    version = ".".join(map(str, torch.cuda.nccl.version())) if nccl and torch.cuda.is_available() else ""
    absent = f"torch {torch.__version__} was built without it"
    return [
        Finding("Gloo", distributed.is_gloo_available(), "available" if distributed.is_gloo_available() else absent),
        Finding("NCCL", nccl, (version or "built in, unused without a device") if nccl else absent),
        routed(),
        gpu_lanes(),
    ]


def gpu_lanes() -> Finding:
    """Whether groups of backend hetsp could send the memory of GPUs by NCCL."""
    reason = gpu_lanes_missing()
    return Finding("lanes of GPUs", not reason, reason or "backend hetsp can send their memory by NCCL: option gpu_lanes")


def routed() -> Finding:
    """The backend of torch.distributed that uses every NIC."""
    reason = missing()
    try:
        nics = ", ".join(each.name for each in interfaces() if each.up and not each.loopback)
    except OSError as error:
        nics = f"none that can be listed ({error})"
    return Finding(
        "backend hetsp", not reason, reason or f"for this torch; network interfaces up: {nics or 'none but loopback'}"
    )


def python_packages() -> list[Finding]:
    reasons = {
        "transformers": "`hetsp train` builds its model with it",
        "safetensors": "`hetsp train` saves its model with it",
        "matplotlib": "draws timelines as SVG",
        "tqdm": "progress bars",
    }
    findings = []
    for name, use in reasons.items():
        if importlib.util.find_spec(name) is None:
            findings.append(Finding(name, False, f"not installed ({use}): pip install 'hetsp_ext[train]'"))
        else:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
    return findings


def io_uring() -> list[Finding]:
    if platform.system() != "Linux":
        return [Finding("io_uring", False, f"a Linux interface; this is {platform.system()}")]
    # Zero entries are invalid, so a kernel that has the call answers EINVAL and creates nothing.
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    libc.syscall(SYS_IO_URING_SETUP, 0, parameters)
    reason = os.strerror(ctypes.get_errno())
    present = reason == os.strerror(22)
    kernel = Finding(
        "io_uring", present, f"kernel {platform.release()}" if present else f"the kernel or its sandbox answers: {reason}"
    )
    library = ctypes.util.find_library("uring")
    return [kernel, Finding("liburing", library is not None, library or "no liburing.so on the loader's path")]


def checkpoint_io() -> list[Finding]:
    """How checkpoints are written and hashed, as tried on a file in the current folder, which is removed again."""
    place = os.getcwd()
    ways = {
        "io_uring": "io_uring with O_DIRECT: past the page cache",
        "direct": "pwrite with O_DIRECT: past the page cache",
        "buffered": "through the page cache, which is slower and takes memory",
    }
    try:
        found = core.CheckpointEngine.probe(place)
    except OSError as error:
        return [Finding("checkpoint I/O", False, f"nothing can be written in {place}: {error.strerror}")]
    reasons = "".join(f"; {reason}" for reason in found["reasons"])
    checksum = found["checksum"]
    why = "" if checksum == "xxh3-128" else ": hetsp_ext was built where xxhash.h was not found"
    return [
        Finding("checkpoint I/O", found["io"] != "buffered", f"{ways[found['io']]}, in {place}{reasons}"),
        Finding("checkpoint checksum", checksum == "xxh3-128", f"{checksum}{why}"),
    ]


def compilers() -> list[Finding]:
    found = []
    for name, arguments in [("g++", ["--version"]), ("cmake", ["--version"]), ("nvcc", ["--version"])]:
        path = shutil.which(name)
        if path is None and name == "nvcc" and Path("/usr/local/cuda/bin/nvcc").exists():
            path = "/usr/local/cuda/bin/nvcc"
        if path is None:
            found.append(Finding(name, False, "not on PATH; only needed to build"))
            continue
        try:
            output = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            found.append(Finding(name, False, f"{path} does not run: {error}"))
            continue
        version = re.search(r"\d+\.\d+(\.\d+)?", output.replace(name, ""))
        found.append(Finding(name, True, f"{version[0] if version else 'version unknown'} ({path})"))
    return found


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
