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
    """A recorded graph runs as it is: what the compiler makes of it is tested apart, and takes seconds each time."""
    monkeypatch.setattr(private, "compiled_by_inductor", lambda module, inputs: module)
