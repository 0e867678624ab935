"""Where data live, and how batches reach the device: one ahead, in order, with no copy of the set."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae.data import loading, placement
from pyrovae.data.placement import placed, sent

HERE, THERE = torch.empty(0), torch.empty(0, device="meta")


@pytest.mark.parametrize("x", [torch.ones(5, 2), [1, 2], None])
def test_what_is_right_already_is_itself(x):
    assert placed(x, HERE) is x
    assert placed(x, None) is x


def test_a_set_takes_the_dtype_of_the_parameters():
    assert placed(torch.ones(5, 2), HERE.double()).dtype == torch.float64


@pytest.mark.parametrize(("free", "fits"), [(80.0, True), (79.0, False)])
def test_a_set_moves_where_half_of_the_memory_holds_it(monkeypatch, free, fits):
    monkeypatch.setattr(placement, "_free", lambda device: free)
    x = torch.ones(5, 2, dtype=torch.uint8)  # 40 bytes as float32
    got = placed(x, THERE)
    assert (got.device.type, got.dtype) == (("meta", torch.float32) if fits else ("cpu", torch.uint8))
    assert fits or got is x


def test_batches_take_the_dtype_of_the_parameters_and_the_rest_passes():
    batches = [torch.ones(2, dtype=torch.uint8), "a", torch.ones(1)]
    got = list(sent(batches, HERE))
    assert got[0].dtype == torch.float32
    assert got[1:] == batches[1:]
    assert list(sent(batches, None)) == batches


def events(source, use=lambda batch: None):
    """What happens to batches on their way, in order."""
    log = []

    def step(what, batch):
        log.append((what, batch))
        return batch

    passes = placement._one_ahead(source, lambda x: step("send", x), lambda x: step("receive", x))
    for batch in passes:
        step("use", batch)
        use(batch)
    return log


def test_one_batch_and_no_more_is_ahead():
    log = events(range(4))
    assert [batch for what, batch in log if what == "use"] == [0, 1, 2, 3]
    for k in range(4):
        before = log[: log.index(("use", k))]
        assert sum(what == "send" for what, _ in before) == min(k + 2, 4)
        assert log[log.index(("use", k)) - 1] == ("receive", k)


@pytest.mark.parametrize("num", [0, 1])
def test_none_and_one_batch(num):
    assert [batch for what, batch in events(range(num)) if what == "use"] == list(range(num))


def test_an_error_of_the_source_comes_after_the_batches_before_it():
    def source():
        yield from (0, 1)
        raise ValueError("the file ends here")

    used = []
    with pytest.raises(ValueError, match="the file ends here"):
        events(source(), used.append)
    assert used == [0, 1]


class Made(TorchDispatchMode):
    """The largest memory that is made."""

    def __init__(self, whole):
        super().__init__()
        self.whole, self.most = whole.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() != self.whole:
                self.most = max(self.most, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_makes_nothing_larger_than_a_batch_or_the_order(shuffle):
    x = torch.arange(600.0).reshape(100, 6)
    with Made(x) as made:
        batches = list(sent(pv.data.batches(x, 40, shuffle=shuffle), HERE))
    assert [len(batch) for batch in batches] == [40, 40, 20]
    assert torch.equal(torch.cat(batches).sort(0).values, x)
    assert made.most == (max(40 * 6 * 4, 100 * 8) if shuffle else 0)


def test_fit_cuts_its_batches_from_the_tensor_that_it_was_given(monkeypatch):
    seen = []

    def batches(x, *args, **kwargs):
        seen.append(x.data_ptr())
        return pv.data.batches(x, *args, **kwargs)

    monkeypatch.setattr(loading, "batches", batches)
    x, val = torch.bernoulli(torch.full((40, 6), 0.5)), torch.zeros(8, 6)
    pv.fit(pv.build_vae((6,), 2, hidden=(3,)), x, epochs=3, val=val, progress=False)
    assert seen == [x.data_ptr(), val.data_ptr()] * 3
