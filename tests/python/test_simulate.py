"""`simulate()` and `hetsp simulate`; the arithmetic of messages is tested in C++."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import hetsp_ext as hetsp
from hetsp_ext.cli import main
from hetsp_ext.errors import InvalidArgument, PlanInfeasible
from hetsp_ext.planner import strategy_names
from hetsp_ext.simulator import figures, lanes

SETTING = hetsp.preset("zeppelin-a-3b")
LENGTHS = [60000, 9000, 9000, 4000, 1000, 1000, 500, 100]


def made(strategy: str = "auto", lengths: list[int] = LENGTHS) -> hetsp.Plan:
    return hetsp.plan(
        SETTING.sequences(lengths), SETTING.cluster(16, 65536), SETTING.cost_model, strategy, synchronisation="layer"
    )


def test_every_second_of_every_rank_is_accounted_for() -> None:
    timeline = hetsp.simulate(made(), SETTING.cost_model, ranks_per_node=8)
    for rank in range(16):
        spans = sorted((begin, end) for r, *_, begin, end in timeline.spans if r == rank)
        assert sum(end - begin for begin, end in spans) == pytest.approx(timeline.busy[rank])
        assert all(first[1] <= then[0] for first, then in itertools.pairwise(spans))
        total = timeline.busy[rank] + timeline.communication[rank] + timeline.wait[rank]
        assert total == pytest.approx(timeline.makespan)
    shares = figures(timeline)
    assert shares["busy"] + shares["communication"] + shares["wait"] == pytest.approx(1.0)
    assert timeline.network_bytes > 0


@pytest.mark.parametrize("strategy", strategy_names())
@pytest.mark.parametrize("name", ["zeppelin-a-3b", "flexsp-7b"])
def test_what_the_planner_assumes_gives_its_prediction(name: str, strategy: str) -> None:
    """Whatever strategy made the groups, and wherever they lie: two computations of one number, written apart."""
    setting = hetsp.preset(name)
    longest = 6000 if strategy == "data-parallel" else 24000  # whole sequences must fit on a rank
    lengths = np.random.default_rng(1).lognormal(np.log(2500), 1.4, 60).astype(int).clip(1, longest).tolist()
    plan = hetsp.plan(
        setting.sequences(lengths),
        setting.cluster(64, 65536),
        setting.cost_model,
        strategy,
        executable=("whole", "ulysses", "ring", "gather"),
        exclusive=True,
        degrees="pow2",
        synchronisation="layer",
        work_limit=1000,
    )
    assumed = hetsp.simulate(plan, setting.cost_model, ranks_per_node=8, overlap=False, contention=False, packed=False)
    assert assumed.makespan == pytest.approx(plan.makespan, rel=1e-9)


@pytest.mark.parametrize("name", ["zeppelin-a-3b", "bytescale-7b", "llama-7b", "flexsp-7b"])
def test_auto_is_never_slower_in_simulation_than_a_named_strategy(name: str) -> None:
    setting = hetsp.preset(name)
    lengths = np.random.default_rng(2).lognormal(np.log(3000), 1.5, 80).astype(int).clip(1, 60000).tolist()

    def seconds(strategy: str, simulated: bool = False) -> float:
        plan = hetsp.plan(
            setting.sequences(lengths),
            setting.cluster(32, 65536),
            setting.cost_model,
            strategy,
            executable=setting.executable,
            exclusive=True,
            degrees="pow2",
            synchronisation=setting.synchronisation,
            work_limit=100_000,
            simulated=simulated,
            overlap=setting.overlaps,
        )
        return float(hetsp.simulate(plan, setting.cost_model, ranks_per_node=8, overlap=setting.overlaps).makespan)

    ours = seconds("auto", simulated=True)
    assert ours <= seconds("auto") * (1 + 1e-9)
    for strategy in strategy_names():
        try:
            assert ours <= seconds(strategy) * (1 + 1e-9), strategy
        except PlanInfeasible:
            assert strategy == "data-parallel"


def test_only_disjoint_groups_can_be_chosen_by_simulation() -> None:
    with pytest.raises(InvalidArgument, match="replay is for disjoint groups"):
        hetsp.plan([100, 200], hetsp.Cluster(2, 400), simulated=True)
    with pytest.raises(InvalidArgument, match="simulated is 1"):
        hetsp.plan([100, 200], hetsp.Cluster(2, 400), simulated=1, exclusive=True)  # type: ignore[arg-type]


def test_of_kinds_that_cost_the_same_the_first_is_taken() -> None:
    setting = hetsp.preset("bytescale-7b")
    for kinds, chosen in (
        (setting.executable, "ring"),
        (("whole", "ulysses", "ring"), "ulysses"),
        (["gather", "whole", "ring"], "gather"),
        ({"whole", "ulysses", "ring"}, "ring"),  # a set's by the alphabet
    ):
        plan = hetsp.plan(
            setting.sequences([60000]), setting.cluster(16, 65536), setting.cost_model, executable=kinds, exclusive=True
        )
        assert {group.kind for micro_batch in plan.micro_batches for group in micro_batch.groups} == {chosen}


def test_overlap_and_contention_act() -> None:
    plan = made("static")
    seconds = {
        (overlap, routing): hetsp.simulate(
            plan, SETTING.cost_model, ranks_per_node=8, overlap=overlap, routing=routing
        ).makespan
        for overlap in (True, False)
        for routing in ("own-nic", "all-nics")
    }
    assert seconds[True, "own-nic"] < seconds[False, "own-nic"]
    assert seconds[True, "all-nics"] < seconds[True, "own-nic"]


def test_lanes_name_what_a_rank_does() -> None:
    plan = made()
    timeline = hetsp.simulate(plan, SETTING.cost_model, ranks_per_node=8)
    kinds = {kind for lane in lanes(timeline, plan) for _, kind, _, _ in lane}
    assert kinds == {"linear", "attention", "communication", "fixed"}  # idle ranks collect parameters
    assert max(end for lane in lanes(timeline, plan) for *_, end in lane) == pytest.approx(timeline.makespan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plan": 7}, "plan is 7"),
        ({"cost_model": None}, "cost_model is None"),
        ({"routing": "best"}, "routing 'best' is unknown; allowed: own-nic, all-nics, all-nics-in-turn"),
        ({"ranks_per_node": "8"}, "ranks_per_node is '8'"),
        ({"ranks_per_node": -1}, "ranks_per_node is -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        hetsp.simulate(**{"plan": made(), "cost_model": SETTING.cost_model, **arguments})


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, picture = tmp_path / "out.json", tmp_path / "out.svg"
    base = ["simulate", "--preset", "flexsp-7b", "--gpus", "16", "--lengths", "50000,8000,3000,100", "--strategy", "static"]
    assert main([*base, "--draw", str(trace)]) == 0
    text = capsys.readouterr().out
    for part in ("4 sequences, 61100 tokens on 16 ranks", "predicted", "simulated", "busy", "wait"):
        assert part in text
    assert {event["ph"] for event in json.loads(trace.read_text())["traceEvents"]} == {"M", "X"}
    assert main([*base, "--json", "--draw", str(picture)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["makespan"] == pytest.approx(record["predicted"], rel=1e-9), "a table, one group: nothing to wait for"
    assert len(record["busy_seconds"]) == 16
    assert picture.read_text().startswith("<?xml")


def test_the_command_replays_plans_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plans.jsonl"
    plans = [made("static"), made("data-parallel", LENGTHS[1:])]
    path.write_text("".join(json.dumps(plan.to_dict()) + "\n" for plan in plans))
    assert main(["simulate", "--preset", "zeppelin-a-3b", "--plans", str(path), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["digest"] for record in records] == [plan.digest for plan in plans]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "4", "--lengths", "5"], "--preset is missing; allowed: flexsp-7b"),
        (["--preset", "none", "--gpus", "4", "--lengths", "5"], "unknown; allowed: flexsp-7b"),
        (["--preset", "llama-7b", "--lengths", "5"], "--lengths needs --gpus"),
        (["--preset", "llama-7b", "--gpus", "4"], "one of --lengths and --plans"),
        (["--preset", "llama-7b", "--gpus", "4", "--lengths", "5", "--strategy", "best"], "unknown; allowed: auto"),
        (["--preset", "llama-7b", "--gpus", "4", "--lengths", "5", "--draw", "a.png"], "must end in .svg or .json"),
        (["--preset", "llama-7b", "--plans", "nowhere.jsonl"], "cannot be read"),
        (["--preset", "llama-7b", "--gpus", "4", "--lengths", "5", "--data", "d"], "--data d is for --reproduce"),
        (["--preset", "llama-7b", "--gpus", "4", "--lengths", "5", "--batches", "2"], "--batches 2 is for --reproduce"),
    ],
)
def test_bad_requests_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *arguments]) == 2
    assert message in capsys.readouterr().err
