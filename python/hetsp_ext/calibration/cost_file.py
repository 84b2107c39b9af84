"""The file of a measured cost model: JSON, read strictly, because a wrong coefficient gives plausible plans."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .measured import PARTS, MeasuredCost, Setting

__all__ = ["FORMAT", "VERSION", "cost_of_record", "cost_record", "read_cost_model", "write_cost_model"]

FORMAT = "hetsp cost model"
VERSION = 1
MODEL_FIELDS = ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocabulary")


def cost_record(cost: MeasuredCost) -> dict[str, Any]:
    """A cost model as plain JSON: what the file holds."""
    setting = cost.setting
    return {
        "format": FORMAT,
        "version": VERSION,
        "setting": {
            "device": setting.device,
            "ranks": setting.ranks,
            "threads": setting.threads,
            "dtype": setting.dtype,
            "model": dict(setting.model),
        },
        "parts": {part: dict(seconds) for part, seconds in cost.parts.items()},
        **cost.record,
    }


def write_cost_model(path: "str | os.PathLike[str]", cost: MeasuredCost) -> None:
    """Raises InvalidArgument where the place cannot be written."""
    try:
        Path(path).write_text(json.dumps(cost_record(cost), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"cost model: {path} cannot be written: {error.strerror}") from None


def read_cost_model(path: "str | os.PathLike[str]") -> MeasuredCost:
    """What `write_cost_model` wrote. Raises InvalidArgument naming the file and the field that is wrong."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cost model: {path} cannot be read as JSON: {error}") from None
    try:
        return cost_of_record(data)
    except InvalidArgument as error:
        raise InvalidArgument(f"cost model: {path}: {error}") from None


def cost_of_record(data: Any) -> MeasuredCost:
    """The cost model of a `cost_record`. Raises InvalidArgument naming the field that is wrong."""
    data = dict(_object(data, "the file"))
    found = data.pop("format", None)
    if found != FORMAT:
        raise InvalidArgument(f"format is {found!r}, must be {FORMAT!r}: is it a file of `hetsp calibrate`?")
    version = data.pop("version", None)
    if version != VERSION:
        raise InvalidArgument(f"version is {version!r}, this library reads {VERSION}: calibrate again")
    setting = _object(_field(data, "setting"), "setting")
    model = _object(_field(setting, "setting.model"), "setting.model")
    parts = _object(_field(data, "parts"), "parts")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InvalidArgument(f"parts.{unknown[0]} is unknown; allowed: {', '.join(PARTS)}")
    return MeasuredCost(
        parts={part: _seconds(_object(_field(parts, f"parts.{part}"), f"parts.{part}"), part) for part in PARTS},
        setting=Setting(
            device=_text(setting, "setting.device"),
            ranks=_count(setting, "setting.ranks"),
            threads=_count(setting, "setting.threads"),
            dtype=_text(setting, "setting.dtype"),
            model={name: _count(model, f"setting.model.{name}") for name in MODEL_FIELDS},
        ),
        record={name: value for name, value in data.items() if name not in ("setting", "parts")},
    )


def _seconds(part: Mapping[str, Any], name: str) -> dict[str, float]:
    unknown = sorted(set(part) - set(PARTS[name]))
    if unknown:
        raise InvalidArgument(f"parts.{name}.{unknown[0]} is unknown; allowed: {', '.join(PARTS[name])}")
    return {count: _number(part, f"parts.{name}.{count}") for count in PARTS[name]}


def _field(data: Mapping[str, Any], path: str) -> Any:
    name = path.rpartition(".")[2]
    if name not in data:
        raise InvalidArgument(f"{path} is missing")
    return data[name]


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{path} is {_short(value)}, must be an object")
    return value


def _number(data: Mapping[str, Any], path: str) -> float:
    value = _field(data, path)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InvalidArgument(f"{path} is {_short(value)}, must be finite seconds, at least 0")
    return float(value)


def _count(data: Mapping[str, Any], path: str) -> int:
    value = _field(data, path)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(f"{path} is {_short(value)}, must be an integer of at least 1")
    return value


def _text(data: Mapping[str, Any], path: str) -> str:
    value = _field(data, path)
    if not isinstance(value, str):
        raise InvalidArgument(f"{path} is {_short(value)}, must be a text")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
