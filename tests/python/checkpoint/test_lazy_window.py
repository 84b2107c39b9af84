"""What programs do between a save and the next step: each leaves checkpoints of the state at save()."""

import pytest
import torch

from hetsp_ext.errors import InvalidArgument
from tests.python.checkpoint.training import Training, checkpointer, same


def test_the_average_is_in_the_same_transaction(tmp_path):
    """A moving average beside the weights (Megatron-Bridge wrote it apart, and resumed with one of another step)."""
    training = Training()
    average = torch.optim.swa_utils.AveragedModel(training.model, avg_fn=lambda a, b, n: 0.9 * a + 0.1 * b)
    states = []
    with checkpointer(tmp_path, average=average, **training.objects) as lazy:
        for step in range(4):
            training.step()
            average.update_parameters(training.model)
            states.append((training.state(), {k: v.clone() for k, v in average.state_dict().items()}))
            lazy.save(step)
        lazy.wait()
        lazy.restore()
        assert same(training.state(), states[-1][0])
        assert same(dict(average.state_dict()), states[-1][1])
        assert not lazy.stats.failed


def test_gradient_accumulation_saves_the_state_after_the_step(tmp_path):
    training = Training()
    with checkpointer(tmp_path, **training.objects) as lazy:
        training.step()
        state = training.state()
        weights = {key: value for key, value in state["model"].items() if "running" not in key and "num_batches" not in key}
        lazy.save(1)
        for _ in range(3):
            training.model(training.loader.batch()).square().mean().backward()
        training.optimizer.step()
        lazy.wait()
        lazy.restore()
    assert same({key: training.model.state_dict()[key] for key in weights}, weights)
    assert training.loader.position == state["loader"]["position"]
    assert same(training.state(), state)


def test_a_step_without_hooks_calls_fence(tmp_path):
    """The replay of a CUDA graph runs no Python, so no hook; an update by hand is the same."""
    training = Training(width=4000)
    with checkpointer(tmp_path, **training.objects) as lazy:
        for step in range(3):
            training.step()
            state = training.state()
            lazy.save(step)
            lazy.fence()
            for parameter in training.model.parameters():
                parameter.detach().numpy()[:] += 1
        lazy.wait()
        assert not lazy.stats.failed
        lazy.restore()
        assert same(training.state(), state)


def test_a_buffer_that_a_step_pre_hook_changes(tmp_path):
    """As torchtitan's expert bias is: its hook may run before ours."""
    model = torch.nn.Linear(600, 900)
    model.register_buffer("bias_of_experts", torch.zeros(40))
    optimizer = torch.optim.AdamW(model.parameters())

    def rebalance(*_):
        model.bias_of_experts.add_(1)

    optimizer.register_step_pre_hook(rebalance)
    with checkpointer(tmp_path, model, optimizer) as lazy:
        for step in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            lazy.save(step)
        optimizer.step()
        lazy.wait()
        assert not lazy.stats.failed
        lazy.restore()
    assert torch.equal(model.bias_of_experts, torch.full((40,), 3.0))
    assert optimizer.state[model.weight]["step"].item() == 3.0


def test_storage_that_moves_is_saved_as_it_was_and_then_as_it_is(tmp_path):
    """Offload and refit replace `.data`; a span table that went on reading the old memory would save stale bytes for ever."""
    model = torch.nn.Linear(300, 300)
    first = model.weight.detach().clone()
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(0)
        model.weight.data = torch.full((300, 300), 2.0)
        lazy.save(1)
        model.weight.data = torch.full((300, 300), 3.0)
        lazy.wait()
        lazy.restore(0)
        assert torch.equal(model.weight, first)
        lazy.restore(1)
        assert torch.equal(model.weight, torch.full((300, 300), 2.0))
        assert not lazy.stats.failed


def test_load_state_dict_between_saves(tmp_path):
    training = Training(width=2000)
    training.step()
    state = training.state()
    with checkpointer(tmp_path, **training.objects) as lazy:
        lazy.save(1)
        training.step()
        training.step()
        training.optimizer.load_state_dict(state["optimizer"])
        lazy.fence()
        training.model.load_state_dict(state["model"])
        lazy.save(2)
        want = training.state()
        training.step()
        lazy.wait()
        lazy.restore(2)
        assert same(training.state(), want)
        lazy.restore(1)
        assert same(training.state(), state)
        assert not lazy.stats.failed


def test_a_new_optimizer_between_saves(tmp_path):
    """One that is not saved steps on parameters that are: its steps wait, too."""
    training = Training(width=4000)
    with checkpointer(tmp_path, **training.objects) as lazy:
        training.step()
        state = training.state()
        lazy.save(1)
        torch.optim.SGD(training.model.parameters(), lr=1.0).step()
        lazy.wait()
        lazy.restore()
        assert same(training.state(), state)


def test_two_checkpointers_of_the_same_objects(tmp_path):
    """Say, frequent ones to one directory and rare ones to another: both wait, per group and for all."""
    training = Training(width=4000)
    with (
        checkpointer(tmp_path / "often", **training.objects) as often,
        checkpointer(tmp_path / "rarely", every=2, **training.objects) as rarely,
    ):
        states = []
        for step in range(5):
            training.step()
            states.append(training.state())
            often.save(step)
            rarely.save(step)
            training.optimizer.step()
            assert type(training.optimizer.param_groups) is list
        for lazy in (often, rarely):
            lazy.wait()
            assert not lazy.stats.failed
            assert lazy.restore() == 4
            assert same(training.state(), states[4])


def test_a_module_that_grows_between_saves(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(5, 5))
    with checkpointer(tmp_path, model) as lazy:
        lazy.save(0)
        model.append(torch.nn.Linear(5, 5))
        lazy.save(1)
        want = {key: value.clone() for key, value in model.state_dict().items()}
        lazy.wait()
        with torch.no_grad():
            model[1].weight.zero_()
        lazy.restore(1)
        assert same(dict(model.state_dict()), want)
        with pytest.raises(InvalidArgument, match=r"lacks 'model\.1\.bias', one of 2"):
            lazy.restore(0)
