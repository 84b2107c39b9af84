"""A few words that say which machine gave a figure: without them a time means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory, accelerator, load and software versions, ready for JSON.

    `load` is the one-minute load average when the run started: above the number of cores, read the ratios only.
    """
    machine: dict[str, object] = {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "accelerator": _accelerator(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    for package in ("torch", "hetsp_ext"):
        try:
            machine[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            machine[package] = "not installed"  # an in-place build on PYTHONPATH has no metadata
    return machine


def _first(path: str, key: str) -> str | None:
    if not Path(path).is_file():
        return None
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _memory_gib() -> float | None:
    text = _first("/proc/meminfo", "MemTotal")
    return round(int(text.split()[0]) / 2**20, 1) if text else None


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return "none"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
