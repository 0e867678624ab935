import pytest
import torch

from pyrovae import private

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--all-modes", action="store_true", help="each scenario runs eager, insisted and automatic")
    parser.addoption(
        "--compiler", action="store_true", help="the scenarios run as the compiler makes them, not recorded"
    )


@pytest.fixture
def recorded(monkeypatch):
    """A recorded graph runs as it is: what the compiler makes of it is tested apart, and takes seconds each time.

    Like compiled code it takes only tensors of the layouts that it was made for, which compiled code does not check.
    """

    def as_it_is(module, inputs):
        expected = list(map(layout, inputs))

        def run(*tensors):
            assert list(map(layout, tensors)) == expected, "code is called with tensors of another layout"
            return module(*tensors)

        return run

    monkeypatch.setattr(private, "compiled_by_inductor", as_it_is)


def layout(x):
    return x.shape, x.stride(), x.dtype, x.device
