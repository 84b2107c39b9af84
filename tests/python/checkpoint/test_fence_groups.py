"""The list of parameter groups that waits: for the time of a step, group by group."""

import copy
import pickle
import threading

import pytest
import torch

from hetsp_ext.checkpoint._fence import WaitingGroups
from tests.python.checkpoint.held import PATIENCE, module_of, parameters


def test_groups_are_released_one_by_one(settings):
    ps = parameters(6)
    groups = [{"params": ps[:2]}, {"params": ps[2:4], "lr": 1e-2}, {"params": ps[4:]}]
    optimizer = torch.optim.AdamW(groups)
    optimizer.step()
    setting = settings(module_of(*ps), optimizer)
    before = [p.detach().clone() for p in ps]
    thread = setting.in_thread(optimizer.step)
    for number in range(3):
        for waited in range(number):  # those released have been updated while the others are still being copied
            deadline = threading.Event()
            for _ in range(3000):
                if not torch.equal(ps[2 * waited], before[2 * waited]):
                    break
                deadline.wait(0.01)
            assert not torch.equal(ps[2 * waited], before[2 * waited])
        assert all(torch.equal(ps[i], before[i]) for i in range(2 * number, 6))
        setting.capture.release(number)
    setting.capture.release()
    thread.join(PATIENCE)
    assert not any(torch.equal(p, b) for p, b in zip(ps, before, strict=True))
    assert setting.capture.asked[:3] == [0, 1, 2]
    assert setting.window.mutated == []


@pytest.mark.parametrize("foreach", [False, True])
def test_training_with_waiting_groups_is_bit_identical(settings, foreach):
    def make():
        ps = parameters(6)
        return ps, torch.optim.AdamW([{"params": ps[:2]}, {"params": ps[2:4], "lr": 1e-2}, {"params": ps[4:]}], foreach=foreach)

    (pa, oa), (pb, ob) = make(), make()
    for k in range(4):
        setting = settings(module_of(*pb), ob)
        setting.capture.release()
        for a, b in zip(pa, pb, strict=True):
            a.grad = torch.randn(64, generator=torch.Generator().manual_seed(k))
            b.grad = a.grad.clone()
        oa.step()
        ob.step()
        oa.zero_grad()
        ob.zero_grad()
        setting.end()
    assert all(torch.equal(a, b) for a, b in zip(pa, pb, strict=True))
    assert oa.state_dict()["param_groups"] == ob.state_dict()["param_groups"]


def test_the_waiting_list_is_there_for_the_step_alone(settings):
    """And what is copied or pickled inside of it holds plain lists."""
    ps = parameters(2)
    optimizer = torch.optim.AdamW([{"params": [p]} for p in ps])
    setting = settings(module_of(*ps), optimizer)
    setting.capture.release()
    inside = []
    optimizer.register_step_pre_hook(lambda o, *_: inside.extend([o.param_groups, copy.deepcopy(o), pickle.dumps(o)]))
    optimizer.step()
    assert isinstance(inside[0], WaitingGroups)
    assert type(optimizer.param_groups) is list
    for other in (inside[1], pickle.loads(inside[2])):
        assert type(other.param_groups) is list
        assert len(other.param_groups) == 2


def test_a_step_that_raises_leaves_no_list_behind_for_the_next(settings):
    ps = parameters(2)
    optimizer = torch.optim.SGD([{"params": [p]} for p in ps], lr=0.1)
    setting = settings(module_of(*ps), optimizer)
    setting.capture.release()

    def closure():
        raise RuntimeError("the closure failed")

    with pytest.raises(RuntimeError, match="closure failed"):
        optimizer.step(closure)
    setting.fence.close_window()
    optimizer.step()
    assert type(optimizer.param_groups) is list


def test_a_new_parameter_group_makes_the_step_wait_for_all(settings):
    ps = parameters(3)
    optimizer = torch.optim.SGD([{"params": [p]} for p in ps[:2]], lr=0.1)
    setting = settings(module_of(*ps), optimizer)
    optimizer.add_param_group({"params": [ps[2]]})
    before = ps[0].detach().clone()
    thread = setting.in_thread(optimizer.step)
    assert setting.capture.someone_waits.wait(PATIENCE)
    setting.capture.release(0)
    thread.join(0.2)
    assert torch.equal(ps[0], before)
    setting.capture.release()
    thread.join(PATIENCE)
    assert setting.window.mutated == []


def test_state_that_the_optimizer_keeps_elsewhere_is_waited_for_first(settings):
    class Odd(torch.optim.SGD):
        """Keeps a tensor outside of `state`, and hands it out with its state_dict."""

        def __init__(self, found):
            super().__init__(found, lr=0.1)
            self.extra = torch.zeros(64)

        def state_dict(self):
            return {**super().state_dict(), "extra": self.extra}

        @torch.no_grad()
        def step(self, closure=None):
            self.extra.add_(1)
            return super().step(closure)

    (p,) = parameters(1)
    optimizer = Odd([p])
    setting = settings(module_of(p), optimizer)
    assert setting.table.gates["optimizer"].first
    thread = setting.in_thread(optimizer.step)
    assert setting.capture.someone_waits.wait(PATIENCE)
    thread.join(0.2)
    assert not optimizer.extra.any()
    setting.capture.release()
    thread.join(PATIENCE)
    assert setting.window.mutated == []
