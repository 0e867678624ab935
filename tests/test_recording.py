"""A recording draws nothing, moves nothing, and refuses what is not up to tensors."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyrovae import private
from pyrovae.compilation import Unrecordable, record
from pyrovae.compilation.program import Program

X = torch.linspace(-1, 2, 12).reshape(4, 3)


def test_random_states_stay():
    def draws(x):
        random.random()
        np.random.rand()  # noqa: NPY002
        return (pyro.sample("z", dist.Normal(x, 1.0)) + torch.randn(4, 3) + torch.rand_like(x),)

    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    graph = record(draws, [X])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    torch.manual_seed(0)
    (got,) = graph.module(X)
    torch.manual_seed(0)
    assert torch.equal(got, draws(X)[0])


def test_buffers_stay_and_their_positions_are_written():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    graph = record(lambda x: (network(x),), [X])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    written = {id(graph.outside[i - 1]) for i in graph.written}
    assert written == set(map(id, network.buffers()))
    with torch.no_grad():
        graph.module(X, *graph.outside)
    assert network[1].num_batches_tracked == 1
    assert not torch.equal(network[1].running_mean, before["1.running_mean"])


@pytest.mark.parametrize("change", [lambda m: m.mul_(0.9), lambda m: m[:1].add_(1.0), lambda m: m.__setitem__(0, 5.0)])
def test_a_tensor_from_outside_that_is_changed_in_place_stays(change):
    m = torch.ones(3)

    def moves(x):
        change(m)
        return (x + m,)

    graph = record(moves, [X])
    assert m.tolist() == [1.0] * 3
    assert graph.written == (1,)
    assert graph.outside[0] is m
    (got,) = graph.module(X, m)
    assert not torch.equal(m, torch.ones(3))
    assert torch.equal(got, X + m)


def test_an_argument_that_is_changed_in_place_stays():
    x = X.clone()
    graph = record(lambda x: (x.mul_(2.0).sum(),), [x])
    assert torch.equal(x, X)
    assert graph.written == (0,)


def test_a_function_that_changes_nothing_writes_nothing():
    m = torch.ones(3)
    assert record(lambda x: (x.clone().mul_(2.0) + m,), [X]).written == ()


def test_a_tensor_from_outside_is_read_at_each_call_and_a_constant_stays():
    scale = torch.tensor(2.0)
    graph = record(lambda x: (x * scale + torch.tensor(1.0),), [X])
    scale.fill_(3.0)
    assert torch.allclose(graph.module(X, *graph.outside)[0], 3 * X + 1)
    assert [x is scale for x in graph.outside] == [True]


def test_a_number_out_of_a_tensor_stays_a_tensor():
    graph = record(lambda x: (x * x.max().item(),), [X])
    assert torch.equal(graph.module(-X)[0], -X * (-X).max())


def test_numbers_of_a_list_out_of_a_tensor_stay_tensors():
    graph = record(lambda x: (x + x.tolist()[0][0],), [X])
    assert torch.equal(graph.module(-X)[0], -X - X[0, 0])


READS = {
    "branch": lambda x: (x if x.sum() > 0 else -x,),
    "int": lambda x: (x + int(x.sum()),),
    "float": lambda x: (x + float(x.sum()),),
    "numpy": lambda x: (x + float(x.numpy().std()),),
    "array": lambda x: (x + np.asarray(x).sum(),),
    "bool": lambda x: (x * bool(x.any()),),
    "count": lambda x: (x * (x > 0).sum().item(),),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reads_of_values_are_refused_with_the_line(read):
    with pytest.raises(Unrecordable, match=r"Python reads the value of a tensor, in test_recording.py line \d+: \""):
        record(read, [X])


def test_a_shape_that_depends_on_values_is_refused_with_the_line():
    with pytest.raises(Unrecordable, match=r"value of a tensor, in test_recording.py line \d+: record\(lambda x"):
        record(lambda x: (x + len(x[x > 0.5]),), [X])


def test_an_error_of_the_function_is_refused_with_its_text_and_line():
    def wrong(x):
        raise KeyError("missing")

    with pytest.raises(Unrecordable, match=r"KeyError: 'missing', in test_recording.py line \d+: raise KeyError"):
        record(wrong, [X])


def test_an_error_without_a_text_is_refused_with_its_name_and_line():
    def wrong(x):
        raise NotImplementedError

    with pytest.raises(Unrecordable, match=r"NotImplementedError: , in test_recording.py line \d+: raise NotImpl"):
        record(wrong, [X])


def test_graphs_of_equal_functions_are_the_same_and_others_are_not():
    def graph(factor, constant=1.0):
        return record(lambda x: (x * factor + torch.tensor(constant),), [X])

    assert graph(2.0).same_as(graph(2.0))
    assert not graph(2.0).same_as(graph(3.0))
    assert not graph(2.0).same_as(graph(2.0, constant=4.0))


@pytest.mark.parametrize("other", [X.int(), X[:2].long(), X.double()])
def test_graphs_of_one_function_and_inputs_of_two_layouts_are_not_the_same(other):
    graphs = [record(lambda x: (x.float().sum(),), [x]) for x in (X.long(), other)]
    assert not graphs[0].same_as(graphs[1])


def test_graphs_of_inputs_of_other_strides_are_the_same():
    graphs = [record(lambda x: (x.sum(),), [x]) for x in (X, X.t().contiguous().t())]
    assert graphs[0].same_as(graphs[1])


def moved(pair: tuple[Tensor, Tensor], factor: float) -> tuple[Tensor, Tensor]:
    return factor * (pair[0] + 1) * pair[1], pair[1] * pair[0].sigmoid()


def often(*tensors: Tensor, factor: float = 0.5, number: int = 6) -> tuple[Tensor, ...]:
    """Moves each tensor, of whatever width, many times."""
    ends = []
    for x in tensors:
        pair = x, x.cos()
        with torch.no_grad():
            for _ in range(number):
                pair = private.repeated(moved, pair, factor)
        ends.append(pair[0] + pair[1])
    return tuple(ends)


def test_a_function_that_is_called_often_gives_its_numbers_and_is_one_function_of_the_compiled_code():
    """Six calls each for two widths; without ``repeated`` the graph has no functions inside."""
    x, y = torch.randn(5, 3), torch.randn(5, 4)
    graph = record(often, [x, y])
    for got, expected in zip(Program(graph, [x, y])([x, y], graph.outside), often(x, y), strict=True):
        torch.testing.assert_close(got, expected)
    calls = [node for node in graph.module.graph.nodes if "invoke_subgraph" in str(node.target)]
    assert len(calls) == 12
    assert len({node.args[1] for node in calls}) == 2


def test_graphs_with_other_functions_inside_are_not_the_same():
    def graph(factor):
        return record(lambda x: often(x, factor=factor), [X])

    assert graph(0.5).same_as(graph(0.5))
    assert not graph(0.5).same_as(graph(0.25))


def test_a_function_that_is_called_often_has_gradients():
    """It is then recorded as it stands."""
    x = X.double().requires_grad_()

    def gradient(x):
        return torch.autograd.grad(private.repeated(moved, (x, x.cos()), 0.5)[0].sum(), x)

    torch.testing.assert_close(record(gradient, [x]).module(x), gradient(x))
