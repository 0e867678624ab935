"""What the state of a run holds, so that a forged checkpoint is refused before anything of it is used."""

from __future__ import annotations

from typing import Any

from pyrovae.schema import Kind, anything, check, mapping, optional, real, record, tensor, text, whole

__all__ = ["check_state"]

COLUMNS = ("epoch", "train_loss", "val_loss", "seconds")  # of the history of a run


def _pairs(first: Kind, second: Kind, expected: str) -> Kind:
    def kind(value: Any) -> str | None:
        if not isinstance(value, list):
            return expected
        pairs = all(isinstance(each, list) and len(each) == 2 for each in value)
        return None if pairs and all(first(a) is None and second(b) is None for a, b in value) else expected

    return kind


def _columns(value: Any) -> str | None:
    if not isinstance(value, dict) or tuple(value) != COLUMNS:
        return f"a dictionary of {', '.join(COLUMNS)}"
    lists = all(isinstance(each, list) and len(each) == len(value["epoch"]) for each in value.values())
    return None if lists and all(real(x) is None for each in value.values() for x in each) else "columns of numbers"


_count = whole(0, 2**63 - 1)
_kept = _pairs(text, mapping(anything), "pairs of the class of a callback and its state")
_drawn = mapping(anything)  # a random state, which is tried when it is loaded
STATE: dict[str, Kind] = {
    "weights": mapping(tensor),
    "trainer": mapping(anything),  # it checks its state itself
    "random": _drawn,
    "epoch_start": _drawn,
    "callbacks": _kept,
    "loggers": _kept,
    "history": _columns,
    "step": _count,
    "step_in_epoch": _count,
    "rows_in_epoch": _count,
    "loss_in_epoch": real,
    "seconds": real,
    "stop_reason": optional(text),
    "rate": real,
}


def check_state(state: Any) -> None:
    """Check that a value is the state of a run.

    Raises: ValueError of one line.
    """
    check("state", state, record(STATE))
