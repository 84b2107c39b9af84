"""The parts of the main job that need no ranks; tests/multirank/test_main_job.py runs the whole."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

from hetsp_ext import cli
from hetsp_ext.errors import InvalidArgument
from hetsp_ext.timeline import Event, write_chrome_trace, write_svg
from hetsp_ext.train import launcher
from hetsp_ext.train.job import next_free
from hetsp_ext.train.launcher import Failure, describe, first_failure
from hetsp_ext.train.model import build_model, model_config
from hetsp_ext.train.report import summary_table
from hetsp_ext.train.step import busy_fractions
from hetsp_ext.train.verify import relative_difference


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "magic"], "choose from auto, static, data-parallel"),
        (["--dtype", "float8"], "choose from float32, float64, bfloat16"),
        (["--model", "huge"], "--model is 'huge'; allowed are tiny, small, or a file"),
        (["--model", "absent.json"], "absent.json' cannot be read"),
        (["--data", "/no/such/folder"], "data folder '/no/such/folder' is not a folder"),
        (["--backend", "mpi"], "--backend: invalid choice: 'mpi'"),
        (["--steps", "0"], "--steps is 0; at least 1"),
        (["--ranks", "-2"], "--ranks is -2; at least 1"),
        (["--memory-tokens", "0"], "--memory-tokens is 0; at least 1"),
        (["--batch-tokens", "100", "--max-length", "200"], "batch_tokens is 100, less than max_length 200"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--timeout", "nan"], "--timeout is nan; at most 100000000"),
        (["--timeout", "inf"], "--timeout is inf; at most 100000000"),
        (["--seed", "99999999999999999999"], "--seed is 99999999999999999999; at most 9223372036854775807"),
        (["--batch-tokens", "99999999999999999999"], "--batch-tokens is 99999999999999999999; at most 1099511627776"),
        (["--resume"], "--resume needs --checkpoint-dir"),
        (["--every", "5"], "--every needs --checkpoint-dir"),
        (["--checkpoint-dir", "kept", "--every", "0"], "--every is 0; at least 1"),
    ],
)
def test_a_wrong_request_is_one_line_before_any_rank_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*_: object) -> int:
        raise AssertionError("ranks were started")

    monkeypatch.setattr("hetsp_ext.train.launcher.launch", launch)
    monkeypatch.delenv("RANK", raising=False)
    try:
        status = cli.main(["train", *arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err.replace("'auto', 'static', 'data-parallel'", "auto, static, data-parallel").replace(
        "'float32', 'float64', 'bfloat16'", "float32, float64, bfloat16"
    )
    assert not captured.out


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--data", str(tmp_path)]) == 2
    assert "holds no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "describes 'mamba'"),
        ({"vocab_size": 200}, "vocab_size 200; the 256 byte tokens"),
        ({"attention_dropout": 0.1}, "attention_dropout 0.1"),
        ({"hidden_size": 10, "num_attention_heads": 3}, "no valid Llama config"),
        ([1], "describes 'list'"),
        ({"a": 1}, "has no hidden_size; it needs hidden_size, intermediate_size"),
    ],
)
def test_a_model_file_is_checked(values: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InvalidArgument, match=message):
        model_config(str(path), 128)


def test_a_model_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1, "intermediate_size": 8}))
    assert build_model(model_config(str(path), 128), torch.float32, 0).lm_head.weight.shape == (32000, 24)


def test_weights_depend_on_the_seed_alone() -> None:
    config = model_config("tiny", 128)
    torch.manual_seed(99)
    one = build_model(config, torch.float64, 5)
    other = build_model(config, torch.float32, 5, attention="sdpa")
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b.double()), name
    assert not torch.equal(one.lm_head.weight, build_model(config, torch.float64, 6).lm_head.weight)


def test_models_of_one_config_keep_their_attention() -> None:
    config = model_config("tiny", 128)
    ours, reference = (build_model(config, torch.float32, 0, attention=attention) for attention in ("hetsp", "sdpa"))
    assert ours.config._attn_implementation == "hetsp"
    assert ours.model.layers[0].self_attn.config._attn_implementation == "hetsp"
    assert reference.model.layers[0].self_attn.config._attn_implementation == "sdpa"


def test_float64_is_float64_throughout() -> None:
    # Llama's own norm would round to float32; the saved names must not change for it.
    narrow, wide = (
        build_model(model_config("tiny", 128), dtype, 0, attention="sdpa") for dtype in (torch.float32, torch.float64)
    )
    assert list(narrow.state_dict()) == list(wide.state_dict())
    norm = wide.model.norm
    x = torch.randn(3, 64, dtype=torch.float64)
    expected = x / (x.square().mean(-1, keepdim=True) + wide.config.rms_norm_eps).sqrt()
    torch.testing.assert_close(norm(x), expected, rtol=1e-14, atol=0)


def test_the_cause_of_a_failure_is_found() -> None:
    killed, lost, told = Failure(3, -signal.SIGKILL, 10), Failure(0, 1, 9), Failure(1, 2, 11)
    stopped = Failure(2, -signal.SIGTERM, 8)
    assert first_failure([lost, killed, stopped]) == killed
    assert first_failure([lost, told]) == told
    assert first_failure([stopped, lost]) == lost
    assert describe(killed) == "rank 3 died: killed by SIGKILL"
    assert describe(lost) == "rank 0 stopped with exit status 1"
    assert describe(Failure(0, -200, 0)) == "rank 0 died: killed by signal 200"


def test_ranks_keep_their_memory_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def elastic_launch(*_: object) -> Callable[..., None]:
        return lambda *_: seen.update(os.environ)

    monkeypatch.setattr(launcher, "elastic_launch", elastic_launch)
    for name in (*launcher.ALLOCATOR, "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that the test's end restores it
        monkeypatch.delenv(name)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "123")
    assert launcher.launch(["train"], 2) == 0
    assert seen["MALLOC_MMAP_THRESHOLD_"] == str(32 * 1024 * 1024)
    assert seen["MALLOC_TRIM_THRESHOLD_"] == "123"


def test_busy_fractions_are_of_the_slowest_rank() -> None:
    assert busy_fractions([2.0, 4.0, 1.0], [0.5, 0.0, 1.0]) == [0.375, 1.0, 0.0]
    assert busy_fractions([0.0], [0.0]) == [1.0]


def test_relative_difference_never_hides_a_difference() -> None:
    one = torch.ones(4)
    assert relative_difference(one, one) == 0
    assert relative_difference(one * 1.5, one) == 0.5
    assert relative_difference(one * 0, one * 0) == 0
    assert relative_difference(one, one * 0) == math.inf
    assert relative_difference(one * math.nan, one) == math.inf
    assert relative_difference(one, one * math.nan) == math.inf


def test_the_table_has_a_row_per_plan() -> None:
    row = {
        "summary": "static",
        "median_seconds": 1.5,
        "tokens_per_second": 12345.6,
        "busy_least": 0.5,
        "busy_most": 1.0,
        "predicted_seconds": 1.25,
        "measured_seconds": 1.0,
        "loss": 5.5,
    }
    lines = summary_table([row | {"summary": "data-parallel"}, row]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[3].split() == ["static", "1.50", "s", "12,346", "50%", "to", "100%", "1.25", "s", "1.00", "s", "5.50000"]


EVENTS = [
    [Event("plan", "step", 0.0, 0.1), Event("forward 0", "step", 0.1, 0.6), Event("forward attend", "attend", 0.2, 0.5)],
    [Event("plan", "step", 0.0, 0.1), Event("forward 0", "step", 0.1, 0.4), Event("forward wait", "wait", 0.3, 0.4)],
]


def test_the_timeline_is_a_chrome_trace(tmp_path: Path) -> None:
    write_chrome_trace(tmp_path / "timeline.json", EVENTS)
    records = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    complete = [record for record in records if record["ph"] == "X"]
    assert len(complete) == 6
    assert {record["tid"] for record in complete} == {0, 1}
    attend = next(record for record in complete if record["cat"] == "attend")
    assert attend["ts"] == pytest.approx(2e5)
    assert attend["dur"] == pytest.approx(3e5)


def test_the_timeline_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    write_svg(tmp_path / "timeline.svg", EVENTS, "step 1")
    text = (tmp_path / "timeline.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for word in ("rank 0", "rank 1", "attend", "wait", "forward", "step 1"):
        assert f"<!-- {word} -->" in text, word


def test_folders_are_numbered(tmp_path: Path) -> None:
    assert next_free(tmp_path / "runs") == tmp_path / "runs" / "train-1"
    for number in (1, 3):
        (tmp_path / "runs" / f"train-{number}").mkdir(parents=True)
    assert next_free(tmp_path / "runs") == tmp_path / "runs" / "train-2"
