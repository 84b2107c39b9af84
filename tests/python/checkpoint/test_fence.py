"""The fences of the window: which writers wait, for what, and what the guard sees."""

import copy
import logging
import multiprocessing

import pytest
import torch

from tests.python.checkpoint.held import PATIENCE, Setting, module_of, parameters

OPTIMIZERS = {
    "adamw fused": lambda p: torch.optim.AdamW(p, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "adam plain": lambda p: torch.optim.Adam(p, foreach=False),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adagrad fused": lambda p: torch.optim.Adagrad(p, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_waits_for_its_parameters_and_moments(settings, name):
    (p,) = parameters(1)
    optimizer = OPTIMIZERS[name]([p])
    optimizer.step()
    setting = settings(module_of(p), optimizer)
    before = p.detach().clone()
    thread = setting.in_thread(optimizer.step)
    assert setting.capture.someone_waits.wait(PATIENCE)
    assert torch.equal(p, before)
    setting.capture.release()
    thread.join(PATIENCE)
    assert not torch.equal(p, before)
    assert not setting.window.open
    assert setting.window.mutated == []
    assert setting.stats.stall > 0


def test_an_optimizer_that_is_not_saved_waits_for_everything(settings):
    ps = parameters(2)
    saved = torch.optim.SGD([ps[0]], lr=0.1)
    other = torch.optim.SGD([ps[1]], lr=0.1)
    setting = settings(module_of(*ps), saved)
    thread = setting.in_thread(other.step)
    assert setting.capture.someone_waits.wait(PATIENCE)
    setting.capture.release()
    thread.join(PATIENCE)
    assert not setting.window.open


def test_a_moving_average_after_the_step_is_safe(settings):
    """update_parameters has no hook: the step's post-hook waits for what no optimizer owns."""
    (p,) = parameters(1)
    model = module_of(p)
    average = torch.optim.swa_utils.AveragedModel(model, avg_fn=lambda a, b, n: 0.5 * a + 0.5 * b)
    average.update_parameters(model)
    optimizer = torch.optim.SGD([p], lr=0.1)
    setting = settings(model=model, average=average, optimizer=optimizer)
    setting.capture.release(0)  # the optimizer's own group; the average's is still being copied
    held = average.module.p0.detach().clone()

    def train():
        optimizer.step()
        average.update_parameters(model)

    thread = setting.in_thread(train)
    assert setting.capture.someone_waits.wait(PATIENCE)
    thread.join(0.2)
    assert torch.equal(average.module.p0, held)
    setting.capture.release()
    thread.join(PATIENCE)
    assert not torch.equal(average.module.p0, held)
    assert setting.window.mutated == []


def test_a_scaler_that_skips_a_step_leaves_the_window_open(settings):
    p = torch.nn.Parameter(torch.ones(8))
    optimizer = torch.optim.SGD([p], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    setting = settings(module_of(p), optimizer, scaler)
    scaler.scale((p * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert setting.window.open
    assert setting.capture.asked == []
    optimizer.zero_grad()
    scaler.scale((p * 2).sum()).backward()
    setting.capture.release()
    scaler.step(optimizer)
    assert not setting.window.open


def test_gradient_accumulation_leaves_the_window_open(settings):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    setting = settings(model, optimizer)
    for _ in range(3):
        model(torch.randn(2, 4)).sum().backward()
        assert setting.window.open
    setting.capture.release()
    optimizer.step()
    assert not setting.window.open
    assert setting.window.mutated == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # of torch's own, when dynamo is imported
@pytest.mark.parametrize("groups", [1, 2])
def test_a_compiled_step_waits_each_time(settings, groups):
    ps = parameters(2)
    parts = [{"params": ps}] if groups == 1 else [{"params": [p]} for p in ps]
    optimizer = torch.optim.AdamW(parts)
    optimizer.step()
    setting = settings(module_of(*ps), optimizer)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for _ in range(3):
        before = [p.detach().clone() for p in ps]
        thread = setting.in_thread(step)
        assert setting.capture.someone_waits.wait(PATIENCE)
        assert torch.equal(ps[1], before[1])
        setting.capture.release()
        thread.join(PATIENCE)
        assert not torch.equal(ps[1], before[1])
        assert setting.window.mutated == []
        setting.arm()


def test_optimizers_inside_backward_wait_for_their_own_tensors(settings):
    model = torch.nn.Sequential(*[torch.nn.Linear(4, 4, bias=False) for _ in range(3)])
    optimizers = {f"o{i}": torch.optim.SGD([p], lr=0.1) for i, p in enumerate(model.parameters())}
    for parameter, optimizer in zip(model.parameters(), optimizers.values(), strict=True):
        parameter.register_post_accumulate_grad_hook(lambda p, o=optimizer: o.step())
    setting = settings(model=model, **optimizers)
    groups = [next(iter(setting.table.gates[name].groups[0])) for name in optimizers]
    before = [p.detach().clone() for p in model.parameters()]
    thread = setting.in_thread(lambda: model(torch.randn(2, 4)).sum().backward())
    for number in (2, 1, 0):  # backward meets the last layer first
        assert setting.capture.someone_waits.wait(PATIENCE)
        setting.capture.someone_waits.clear()
        after = list(model.parameters())
        assert all(torch.equal(after[i], before[i]) for i in range(number + 1))
        setting.capture.release(groups[number])
    thread.join(PATIENCE)
    assert setting.capture.asked == groups[::-1]
    assert not setting.window.open
    assert setting.window.mutated == []


@pytest.mark.parametrize(
    ("writer", "seen"),
    [
        (lambda t: t.add_(1), True),
        (lambda t: t[:8].add_(1), True),
        (lambda t: torch._foreach_add_([t], 1), True),
        (lambda t: t.detach().add_(1), True),
        (lambda t: t.data.add_(1), False),
        (lambda t: t.detach().numpy().__setitem__(0, 5.0), False),
    ],
    ids=["add_", "view", "foreach", "detach", "data", "numpy"],
)
@pytest.mark.parametrize("debug", [False, True])
def test_the_guard_sees_writers(settings, caplog, writer, seen, debug):
    """Versions miss .data and numpy: sampled bytes are the engine's part, and debug mode hashes all."""
    model = torch.nn.Linear(8, 8)
    setting = settings(model, debug=debug)
    with torch.no_grad():
        writer(model.weight)
    setting.capture.release()
    with caplog.at_level(logging.WARNING, "hetsp_ext.checkpoint"):
        setting.fence.close_window()
    assert setting.window.mutated == (["model.weight"] if seen or debug else [])
    if setting.window.mutated:
        assert "step 7 fails: 'model.weight' changed in place" in caplog.text


def test_load_state_dict_of_an_optimizer_waits(settings):
    ps = parameters(2)
    optimizer = torch.optim.AdamW([{"params": [p]} for p in ps])
    optimizer.step()
    setting = settings(module_of(*ps), optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    thread = setting.in_thread(lambda: optimizer.load_state_dict(state))
    assert setting.capture.someone_waits.wait(PATIENCE)
    setting.capture.release()
    thread.join(PATIENCE)
    assert not setting.window.open


def test_lbfgs_waits_for_all_of_its_history(settings):
    p = torch.nn.Parameter(torch.ones(64))
    optimizer = torch.optim.LBFGS([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    setting = settings(module_of(p), optimizer)
    before = p.detach().clone()
    thread = setting.in_thread(lambda: optimizer.step(closure))
    assert setting.capture.someone_waits.wait(PATIENCE)
    assert torch.equal(p, before)
    setting.capture.release()
    thread.join(PATIENCE)
    assert setting.window.mutated == []


def _step_in_child(optimizer, connection):
    optimizer.step()
    connection.send("stepped")


def test_a_forked_child_does_not_wait(settings):
    (p,) = parameters(1)
    optimizer = torch.optim.SGD([p], lr=0.1)
    setting = settings(module_of(p), optimizer)
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_step_in_child, args=(optimizer, writer), daemon=True)
    child.start()
    assert reader.poll(PATIENCE), "the child hangs in a window of its parent"
    assert reader.recv() == "stepped"
    child.join(PATIENCE)
    assert setting.window.open


def test_closing_gives_everything_back():
    ps = parameters(2)
    optimizer = torch.optim.SGD([{"params": [p]} for p in ps], lr=0.1)
    setting = Setting(module_of(*ps), optimizer)
    setting.end()
    assert len(setting.capture.asked) == 2
    optimizer.step()
    assert len(setting.capture.asked) == 2
