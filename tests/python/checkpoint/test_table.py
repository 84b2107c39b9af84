"""The span table: the spans are the file, byte for byte, and whatever moves is noticed."""

import ctypes
import gc
import random
import weakref

import numpy
import pytest
import torch

from hetsp_ext.checkpoint._dtypes import DTYPES
from hetsp_ext.checkpoint._items import LAZY, STAGED, VOLATILE
from hetsp_ext.checkpoint._shard import parse_header
from hetsp_ext.checkpoint._state import RNG, Walker, named, put_rng, take_rng, walk_all
from hetsp_ext.checkpoint._table import Place, Table
from hetsp_ext.checkpoint._tree import path_text
from hetsp_ext.errors import InvalidArgument
from tests.python.checkpoint.training import Holder

UID = "run-00000001"


def table_of(*stateful, **named_stateful):
    objects = named(stateful, named_stateful)
    _, leaves = walk_all(objects)
    table = Table(objects, leaves, Place(), len(UID))
    table.copy_now(leaves)
    return table


def file_of(table):
    data = b"".join(ctypes.string_at(a, n) for a, n in zip(table.addresses, table.sizes, strict=True))
    return table.header.render(UID) + data


def stored(table):
    """name -> tensor, read back out of the spans."""
    content = file_of(table)
    assert len(content) == table.header.file_bytes
    header = parse_header("f", content, len(content))
    found = {}
    for key, entry in header.tensors.items():
        bits = torch.frombuffer(bytearray(content[entry.begin : entry.end] or b"\0"), dtype=torch.uint8)
        bits = bits[: entry.end - entry.begin]
        found[key] = bits.view(DTYPES[entry.dtype]).view(entry.shape) if bits.numel() else torch.empty(entry.shape)
    return found


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def training(groups=2, optimizer=torch.optim.AdamW, **options):
    model = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(groups)])
    made = optimizer([{"params": layer.parameters()} for layer in model], lr=1e-3, **options)
    model(torch.randn(3, 8)).sum().backward()
    made.step()
    return model, made


def test_the_order_is_parameter_and_moments_of_one_group_after_the_other():
    model, optimizer = training()
    table = table_of(model, optimizer)
    names = [item.name for item in table.written if item.kind == LAZY]
    assert names[:6] == [
        "model.0.weight",
        "optimizer.state.0.exp_avg",
        "optimizer.state.0.exp_avg_sq",
        "model.0.bias",
        "optimizer.state.1.exp_avg",
        "optimizer.state.1.exp_avg_sq",
    ]
    assert [table.groups[i] for i in range(12)] == [0] * 6 + [1] * 6
    assert table.gates["optimizer"].groups == [{0}, {1}]
    assert {item.name for item in table.items if item.kind == VOLATILE} >= {"optimizer.state.0.step", "rng.torch"}


@pytest.mark.parametrize("seed", range(12))
def test_the_spans_are_the_state_bit_for_bit(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    state = {}
    for index in range(30):
        dtype = DTYPES[draw.choice(sorted(DTYPES))]
        shape = [draw.choice([0, 1, 2, 7, 65]) for _ in range(draw.randint(0, 3))]
        tensor = torch.randint(0, 2 if dtype is torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
        tensor = tensor.view(dtype).view(shape)
        if len(shape) > 1 and draw.random() < 0.4:
            tensor = tensor.transpose(0, 1)
        state[f"t{index}"] = tensor
    state["rows"] = torch.randn(40, 4096)[:, 8:2060]
    state["large"] = torch.randn(3, 200_000)[:, ::2]
    table = table_of(holder=Holder(**state))
    kinds = {item.name: item.kind for item in table.items}
    assert (kinds["holder.rows"], kinds["holder.large"]) == (VOLATILE, STAGED)
    found = stored(table)
    for name, tensor in state.items():
        got = found[f"holder.{name}"]
        assert got.shape == tensor.shape
        assert torch.equal(bits(got), bits(tensor)) or not tensor.numel()


def test_long_rows_of_a_strided_parameter_are_read_in_place():
    whole = torch.randn(64, 4096)
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(whole[:, 100:2148])
    table = table_of(model)
    (item,) = [item for item in table.items if item.name == "model.w"]
    assert item.kind == LAZY
    assert table.groups.count(item.group) == 64
    assert torch.equal(stored(table)["model.w"], model.w)


def test_tied_tensors_are_stored_once():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    table = table_of(model)
    assert table.names[:2] == ["model.0.weight", "model.0.weight"]
    assert [item.name for item in table.items if item.kind == LAZY] == ["model.0.weight"]


def test_buffers_and_small_things_are_copied_at_once_and_stay_as_they_were():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    position = Holder(at=torch.arange(5), epoch=3)
    table = table_of(model, loader=position)
    kinds = {item.name: item.kind for item in table.items}
    assert kinds["model.0.running_mean"] == kinds["loader.at"] == kinds["model.0.num_batches_tracked"] == VOLATILE
    assert kinds["model.0.weight"] == LAZY
    before = model[0].running_mean.clone()
    model(torch.randn(8, 4))
    position.state["at"].add_(1)
    found = stored(table)
    assert torch.equal(found["model.0.running_mean"], before)
    assert torch.equal(found["loader.at"], torch.arange(5))


def test_the_same_state_matches_after_a_step():
    model, optimizer = training()
    objects = named((model, optimizer), {})
    _, leaves = walk_all(objects)
    table = Table(objects, leaves, Place(), len(UID))
    optimizer.step()
    assert table.matches(walk_all(objects)[1])


def moved(model, optimizer):
    model[0].weight.data = model[0].weight.data.clone()


def reshaped(model, optimizer):
    model[0].weight.data = model[0].weight.data.view(4, 16)


def transposed(model, optimizer):
    model[0].weight.data = model[0].weight.data.t()


def replaced(model, optimizer):
    model[0].weight = torch.nn.Parameter(model[0].weight.data)


def grown(model, optimizer):
    model.append(torch.nn.Linear(8, 8))


def regrouped(model, optimizer):
    first, second = optimizer.param_groups
    second["params"].append(first["params"].pop())


def loaded(model, optimizer):
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {}})


@pytest.mark.parametrize("change", [moved, reshaped, transposed, replaced, grown, regrouped, loaded])
def test_a_change_is_noticed(change):
    model, optimizer = training()
    objects = named((model, optimizer), {})
    table = Table(objects, walk_all(objects)[1], Place(), len(UID))
    change(model, optimizer)
    assert not table.matches(walk_all(objects)[1])


def sparse():
    return torch.eye(3).to_sparse()


def quantized():
    return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (lambda: torch.empty(3, device="meta"), "on meta"),
        (sparse, "torch.sparse_coo"),
        (quantized, "torch.qint8"),
        (lambda: torch.zeros(3, dtype=torch.complex128), "torch.complex128"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
def test_a_tensor_without_bytes_of_its_own_is_refused_by_name(tensor, what):
    with pytest.raises(InvalidArgument, match=what) as error:
        table_of(holder=Holder(inner={"t": tensor()}))
    assert "'holder.inner.t'" in str(error.value)


def test_a_wrapper_subclass_is_refused_by_name():
    from torch.testing._internal.two_tensor import TwoTensor

    with pytest.raises(InvalidArgument, match=r"'holder\.t' is a TwoTensor"):
        table_of(holder=Holder(t=TwoTensor(torch.zeros(3), torch.zeros(3))))


def test_objects_are_named_by_what_they_are():
    model, optimizer = training()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scaler = torch.amp.GradScaler("cpu")
    found = named((model, optimizer, torch.nn.Linear(1, 1), schedule, scaler, Holder()), {"loader": Holder()})
    assert list(found) == ["model", "optimizer", "model1", "scheduler", "scaler", "holder", "loader"]


@pytest.mark.parametrize(
    ("positional", "keywords", "what"),
    [
        ((), {}, "no object"),
        ((3,), {}, "'int', of type int, has no state_dict and no load_state_dict"),
        ((), {"rng": Holder()}, "named 'rng'"),
        ((), {"a.b": Holder()}, "named 'a.b'"),
    ],
)
def test_what_cannot_be_saved_is_refused(positional, keywords, what):
    with pytest.raises(InvalidArgument, match=what):
        named(positional, keywords)


def test_one_object_is_given_once():
    holder = Holder()
    with pytest.raises(InvalidArgument, match="same object as holder"):
        named((holder,), {"again": holder})


@pytest.mark.parametrize("seed", range(6))
def test_a_walk_that_remembers_finds_what_a_new_one_finds(seed):
    """Whatever has happened between two walks: steps, loads, new moments, swapped and renamed tensors."""
    draw = random.Random(seed)
    model, optimizer = training(groups=3)
    objects = named((model, optimizer, Holder(a={"t": torch.zeros(3)})), {})
    walker = Walker(objects)
    parameters = list(model.parameters())

    def moments():
        return optimizer.state.get(draw.choice(parameters), {})

    def swap(found):
        if {"exp_avg", "exp_avg_sq"} <= found.keys():
            found["exp_avg"], found["exp_avg_sq"] = found["exp_avg_sq"], found["exp_avg"]

    def rename(found):
        if "exp_avg" in found:
            found["other"] = found.pop("exp_avg")

    changes = [
        lambda: optimizer.load_state_dict(optimizer.state_dict()),
        lambda: optimizer.state.pop(draw.choice(parameters), None),
        lambda: swap(moments()),
        lambda: rename(moments()),
        lambda: moments().update(number=3.5),
        lambda: setattr(model[0], "weight", torch.nn.Parameter(torch.zeros(8, 8))),
        lambda: model[1].register_buffer(f"b{draw.randrange(9)}", torch.zeros(2)),
        lambda: None,
    ]
    for _ in range(30):
        draw.choice(changes)()
        trees, leaves = walker()
        fresh_trees, fresh = walk_all(objects)
        assert trees == fresh_trees
        assert [leaf.path for leaf in leaves] == [leaf.path for leaf in fresh]
        assert all(a.tensor is b.tensor for a, b in zip(leaves, fresh, strict=True) if not path_text(a.path).startswith("rng."))


def test_a_walk_keeps_nothing_alive_that_has_vanished():
    model, optimizer = training()
    walker = Walker(named((model, optimizer), {}))
    walker()
    gone = weakref.ref(optimizer.state[model[0].weight]["exp_avg"])
    optimizer.state.clear()
    walker()
    gc.collect()
    assert gone() is None


def test_generators_come_back():
    def draw():
        return torch.rand(3).tolist(), random.random(), random.gauss(0, 1), numpy.random.rand(2).tolist()

    random.gauss(0, 1)  # leaves a second value waiting
    state = take_rng()
    first = draw()
    assert draw() != first
    put_rng(state)
    assert draw() == first
    assert RNG == "rng"
