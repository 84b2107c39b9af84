"""The file of a measured cost model: what is written is read, and what is wrong is named."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hetsp_ext.calibration import PARTS, MeasuredCost, Setting, read_cost_model, write_cost_model
from hetsp_ext.errors import InvalidArgument

MODEL = {"layers": 2, "hidden": 64, "intermediate": 192, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocabulary": 259}
SETTING = Setting(device="cpu", ranks=2, threads=1, dtype="float32", model=MODEL)
COST = MeasuredCost(
    {part: {count: 0.1 / (position + 3) for position, count in enumerate(counts)} for part, counts in PARTS.items()},
    SETTING,
    {"date": "2026-01-02T03:04:05Z", "points": [{"part": "linear", "measured": 0.1}]},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_cost_model(tmp_path / "cost.json", COST)
    assert read_cost_model(tmp_path / "cost.json") == COST


def written(folder: Path, change: Callable[[Any], Any]) -> Path:
    path = folder / "cost.json"
    write_cost_model(path, COST)
    data = json.loads(path.read_text())
    changed = change(data)
    path.write_text(json.dumps(data if changed is None else changed))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [1], r"the file is \[1\], must be an object"),
        (lambda data: data.pop("format"), "format is None"),
        (lambda data: data.update(version=2), "version is 2, this library reads 1"),
        (lambda data: data.pop("setting"), "setting is missing"),
        (lambda data: data["setting"].update(ranks=0), "setting.ranks is 0"),
        (lambda data: data["setting"].update(ranks=True), "setting.ranks is True"),
        (lambda data: data["setting"].update(dtype=3), "setting.dtype is 3"),
        (lambda data: data["setting"]["model"].pop("heads"), "setting.model.heads is missing"),
        (lambda data: data["setting"]["model"].update(hidden="64"), "setting.model.hidden is '64'"),
        (lambda data: data["parts"].pop("linear"), "parts.linear is missing"),
        (lambda data: data["parts"].update(weather={}), "parts.weather is unknown; allowed: attention"),
        (lambda data: data["parts"].update(step=7), "parts.step is 7, must be an object"),
        (lambda data: data["parts"]["attention"].pop("pairs"), "parts.attention.pairs is missing"),
        (lambda data: data["parts"]["attention"].update(pairs=-1e-9), "parts.attention.pairs is -1e-09"),
        (lambda data: data["parts"]["attention"].update(pairs=float("nan")), "parts.attention.pairs is nan"),
        (lambda data: data["parts"]["exchange"].update(hops=None), "parts.exchange.hops is None"),
        (lambda data: data["parts"]["exchange"].update(bytes=1), "parts.exchange.bytes is unknown; allowed: hops"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    def changing(data: Any) -> Any:
        result = change(data)
        return result if isinstance(result, list) else None

    path = written(tmp_path, changing)
    with pytest.raises(InvalidArgument, match=message) as caught:
        read_cost_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\xff"])
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidArgument, match="cannot be read as JSON"):
        read_cost_model(path)


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_cost_model(tmp_path / "absent.json")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        write_cost_model(tmp_path / "absent" / "cost.json", COST)


def test_another_job_is_told_apart() -> None:
    assert SETTING.differences(copy.deepcopy(SETTING)) == []
    other = Setting(device="cuda", ranks=4, threads=2, dtype="float32", model={**MODEL, "heads": 8})
    assert SETTING.differences(other) == ["device is cpu, not cuda", "the model's heads is 4, not 8"]
