"""LazyCheckpointer on one rank: what is saved is the state at save(), bit for bit, and comes back into live objects."""

import random
import struct

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from hetsp_ext.checkpoint._dtypes import DTYPES
from hetsp_ext.checkpoint.store import list_checkpoints, read_values
from hetsp_ext.errors import InvalidArgument
from tests.python.checkpoint.test_tree import STATES
from tests.python.checkpoint.test_tree import same as same_values
from tests.python.checkpoint.training import Holder, Training, checkpointer, same


@pytest.mark.parametrize("io", ["auto", "direct", "buffered"])
@pytest.mark.parametrize("saved_at", [0, 1, 4])
def test_the_state_at_save_comes_back_though_training_went_on(tmp_path, saved_at, io):
    training = Training(width=3000)
    with checkpointer(tmp_path / "a" / "b", io=io, **training.objects) as lazy:
        for _ in range(saved_at):
            training.step()
        state = training.state()
        assert lazy.save(saved_at)
        for _ in range(3):  # at once, while the capture runs
            training.step()
        lazy.wait()
        assert not same(training.state(), state)
        assert lazy.restore() == saved_at
        assert same(training.state(), state)
    other = Training(width=3000, seed=9)
    with checkpointer(tmp_path / "a" / "b", **other.objects) as lazy:
        assert lazy.restore() == saved_at
    assert same(other.state(), state)


def test_a_resumed_run_is_bit_identical(tmp_path):
    """Dropout, batch statistics, the scaler's growth, the schedule and the data: losses agree to the last bit."""
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        for step in range(5):
            training.step()
            lazy.save(step)
        drawn = [random.random(), numpy.random.rand(), torch.rand(1).item()]
        losses = [training.step() for _ in range(5)]
    other = Training(seed=3)
    with checkpointer(tmp_path, **other.objects) as lazy:
        assert lazy.restore() == 4
        assert [random.random(), numpy.random.rand(), torch.rand(1).item()] == drawn
        assert [other.step() for _ in range(5)] == losses


def test_plain_values_of_a_checkpoint_are_read_without_its_tensors(tmp_path):
    training, run = Training(), Holder(plan="auto", position=(3, 5))
    with checkpointer(tmp_path, run=run, **training.objects) as lazy:
        lazy.save(1)
    (info,) = list_checkpoints(tmp_path)
    assert read_values(info.path, "run") == {"plan": "auto", "position": (3, 5)}
    for name, rank, part in [("run", 1, "saved by 1"), ("walk", 0, "no object 'walk'"), ("model", 0, "of plain values")]:
        with pytest.raises(InvalidArgument, match=part):
            read_values(info.path, name, rank)


@pytest.mark.parametrize("every", [None, 2])
def test_a_save_each_step_and_restore_of_a_chosen_one(tmp_path, every):
    training = Training()
    states = {}
    with checkpointer(tmp_path, keep=3, every=every, **training.objects) as lazy:
        for step in range(7):
            training.step()
            states[step] = training.state()
            if lazy.save(step):
                assert every is None or step % every == 0
            lazy.wait()
        held = [6, 5, 4] if every is None else [6, 4, 2]
        for step in held:
            assert lazy.restore(step) == step
            assert same(training.state(), states[step])
        with pytest.raises(InvalidArgument, match="no readable checkpoint of step 0"):
            lazy.restore(0)
        assert lazy.stats.started == (7 if every is None else 4)
    assert len(list(tmp_path.glob("step-*"))) == 3
    assert list(tmp_path.glob(".part-*")) == list(tmp_path.glob(".trash-*")) == []


def test_an_empty_directory_restores_nothing(tmp_path):
    training = Training()
    state = training.state()
    with checkpointer(tmp_path / "new", **training.objects) as lazy:
        assert lazy.restore() is None
    assert same(training.state(), state)


@pytest.mark.parametrize("seed", range(4))
def test_every_dtype_and_layout_is_bit_exact(tmp_path, seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)

    def tensor(dtype, shape):
        raw = torch.randint(0, 2 if dtype is torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
        return raw.view(dtype).view(shape)

    def some(size):
        return {name: tensor(dtype, [draw.choice([0, 1, 3, 5]) for _ in range(3)] + [size]) for name, dtype in DTYPES.items()}

    holder = Holder(small=some(1), large=some(70_000), rows=torch.randn(300, 4096)[:, :2500], t=torch.randn(700, 900).t())
    model = torch.nn.Module()
    for name, value in some(5000).items():
        model.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    model.register_parameter("strided", torch.nn.Parameter(torch.randn(64, 4096)[:, 5:2053]))
    want = {key: value.clone() for key, value in model.state_dict().items()}
    held = {
        key: ({k: v.clone() for k, v in value.items()} if isinstance(value, dict) else value.clone())
        for key, value in holder.state.items()
    }
    with checkpointer(tmp_path, model, holder) as lazy:
        lazy.save(3)
        lazy.wait()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.view(torch.uint8).fill_(0) if parameter.is_contiguous() and parameter.dim() else parameter.zero_()
        other = Holder()
    with checkpointer(tmp_path, model, holder=other) as lazy:
        assert lazy.restore() == 3
    assert same(dict(model.state_dict()), want)
    assert same(other.state, held)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATES)
def test_any_nested_state_comes_back(tmp_path, state):
    holder = Holder(s=state)
    with checkpointer(tmp_path, holder, keep=1) as lazy:
        lazy.save(0)
        lazy.wait()
        holder.state = {"s": None}
        assert lazy.restore() == 0
    assert same_values(holder.state["s"], state)


def test_optimizer_state_that_does_not_exist_yet_is_restored(tmp_path):
    training = Training()
    training.step()
    state = training.state()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(1)
    fresh = Training(seed=4)
    assert fresh.optimizer.state_dict()["state"] == {}
    with checkpointer(tmp_path, **fresh.objects) as lazy:
        lazy.restore()
        assert same(fresh.state(), state)
        fresh.step()  # and goes on
        lazy.save(2)


def test_optimizer_state_that_did_not_exist_yet_is_gone_after_restore(tmp_path):
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(0)
        training.step()
        lazy.restore()
    assert training.optimizer.state_dict()["state"] == {}


def test_moments_of_more_bits_than_their_parameter_keep_them(tmp_path):
    """Optimizer.load_state_dict alone would round them to bfloat16."""

    def make():
        p = torch.nn.Parameter(torch.ones(300, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
        optimizer.state[p]["momentum_buffer"] = torch.randn(300)
        return torch.nn.ParameterList([p]), optimizer

    model, optimizer = make()
    want = optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    with checkpointer(tmp_path, model, optimizer) as lazy:
        lazy.save(0)
    model, optimizer = make()
    with checkpointer(tmp_path, model, optimizer) as lazy:
        lazy.restore()
    assert same(optimizer.state_dict()["state"][0]["momentum_buffer"], want)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Embedding(50, 40), torch.nn.Linear(40, 50, bias=False))
        model[1].weight = model[0].weight
        return model

    model = make(0)
    want = model[0].weight.detach().clone()
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(0)
    other = make(1)
    with checkpointer(tmp_path, other) as lazy:
        lazy.restore()
    assert other[1].weight is other[0].weight
    assert torch.equal(other[0].weight, want)
    untied = torch.nn.Sequential(torch.nn.Embedding(50, 40), torch.nn.Linear(40, 50, bias=False))
    with checkpointer(tmp_path, untied) as lazy:
        lazy.restore()
    assert torch.equal(untied[0].weight, want)
    assert torch.equal(untied[1].weight, want)
    assert untied[1].weight is not untied[0].weight


def test_values_of_every_kind_survive(tmp_path):
    state = {
        "a": [1, (2.5, None)],
        3: {"x": True},
        (1, "y"): b"\x00\xff",
        "nan": float("nan"),
        "big": 1 << 200,
        "t": torch.arange(3),
    }
    holder = Holder(**{"all": state})
    with checkpointer(tmp_path, holder) as lazy:
        lazy.save(0)
        holder.state = {}
        assert lazy.restore() == 0
    got = holder.state["all"]
    assert list(map(type, got)) == list(map(type, state))
    assert struct.pack("d", got.pop("nan")) == struct.pack("d", state.pop("nan"))
    assert same(got, state)


def test_extra_state_and_versions_of_modules_go_along(tmp_path):
    class Extra(torch.nn.Linear):
        _version = 7
        seen = None

        def get_extra_state(self):
            return {"scale": self.in_features / 3}

        def set_extra_state(self, state):
            self.seen = state

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
            self.loaded_version = local_metadata.get("version")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    model = torch.nn.Sequential(Extra(3, 3))
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(0)
        lazy.restore()
    assert model[0].seen == {"scale": 1.0}
    assert model[0].loaded_version == 7


def test_a_checkpoint_of_other_objects_is_refused_and_nothing_changes(tmp_path):
    with checkpointer(tmp_path, torch.nn.Linear(3, 4), holder=Holder(a=1)) as lazy:
        lazy.save(0)
    cases = [
        ({"model": torch.nn.Linear(3, 5)}, r"model\.weight is stored as F32 \[4, 3\], the live one is F32 \[5, 3\]"),
        ({"model": torch.nn.Linear(3, 4).double()}, "the live one is F64"),
        ({"model": torch.nn.Linear(3, 4, bias=False)}, r"has a surplus 'model\.bias'"),
        ({"other": torch.nn.Linear(3, 4)}, "holds no 'other'; it holds model, holder"),
        ({"holder": torch.nn.Linear(3, 4)}, "'holder' is of kind object, the live one is of kind model"),
    ]
    for objects, what in cases:
        (thing,) = objects.values()
        want = {key: value.clone() for key, value in thing.state_dict().items()}
        with checkpointer(tmp_path, **objects) as lazy, pytest.raises(InvalidArgument, match=what):
            lazy.restore()
        assert same(dict(thing.state_dict()), want)


def test_what_is_not_asked_for_is_left(tmp_path):
    with checkpointer(tmp_path, torch.nn.Linear(3, 4), holder=Holder(a=1)) as lazy:
        lazy.save(0)
    holder = Holder()
    with checkpointer(tmp_path, holder=holder) as lazy:
        assert lazy.restore() == 0
    assert holder.state == {"a": 1}
