"""Where a command writes a run or a comparison: a folder that it holds, begins, resumes or replaces."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyrovae.folders import exchange, locked, made, remove_partial

__all__ = ["EVENTS", "Place", "is_finished", "new_place"]

EVENTS = "tensorboard"  # the folder of TensorBoard's files within that of a run
CHECKPOINT, CONFIG, HISTORY = "checkpoint.safetensors", "config.json", "history.csv"
# all that the commands write into the folder of a run, and of a comparison
RUN = (
    CONFIG, HISTORY, CHECKPOINT, "model.safetensors", "metrics.json", "codes.npy", "imputed.npy", "samples.npy",
    "report.html", "compressed.pvbb", "decompressed.npy", f"{EVENTS}/events.out.tfevents.*",
    *(
        f"figures/{name}.png"
        for name in (
            "loss", "reconstructions", "prior_samples", "codes", "decoder_atoms", "traversals", "kl_spectrum",
            "spike_occupancy", "latent_density", "sbc_ranks", "importance_curve",
        )
    ),
)  # fmt: skip
COMPARISON = (
    CONFIG, "table.csv", "table.json", "optimizers.csv", "optimizers.json", "searches.json", "compare.png", "curves.png"
)  # fmt: skip
MARK = ".replaces"  # in a folder that has taken, or is about to take, the place of another one


class Place:
    """``folder`` is written in; :meth:`settle` brings it to where it was asked for."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out

    def settle(self) -> None:
        """Exchange the new folder and the one that it replaces, and remove what the program wrote of the old one."""
        if self.folder == self.out:
            return
        (self.folder / MARK).touch()
        old = self.folder
        if not exchange(self.folder, self.out):
            old = _beside(self.out, "old")
            os.rename(self.out, old)
            os.rename(self.folder, self.out)
        self.folder = self.out
        _finish(self.out, old)


@contextmanager
def new_place(out: Path, overwrite: bool, resume: bool, what: str, read: Callable[[Path], Any]) -> Iterator[Place]:
    """A folder that this process holds while it writes in it.

    A folder that is to be overwritten stays as it is while the new one grows beside it, under a hidden name, until
    :meth:`Place.settle`. A folder in which nothing was begun is gone after an error.

    Args:
        out: The folder that was asked for.
        overwrite: Whether to replace what ``read`` says is one of these.
        resume: Whether to go on with what is there, first of all with a replacement that was cut short.
        what: The word for the content.
        read: Reads the content, or raises OSError or ValueError.

    Raises: FileExistsError for a folder that is neither; BlockingIOError where another process writes in it.
    """
    _recover(out)
    new = _beside(out, "new")
    replaces = out.exists() and (overwrite or (resume and new.exists()))
    if out.exists() and not overwrite and not resume:
        raise FileExistsError(f"--out {str(out)!r} exists: choose another folder, or --overwrite, or --resume")
    if out.exists() and not (resume and _is_empty(out)):
        try:
            read(out)
        except (OSError, ValueError) as error:
            why = "a {} to --resume" if resume else "a {}, so --overwrite leaves it alone"
            raise FileExistsError(f"--out {str(out)!r} is not {why.format(what)}: {error}") from error
    folder = new if replaces else out
    with ExitStack() as stack:
        if replaces:
            stack.enter_context(locked(out))
        if overwrite and new.exists():  # a replacement that was cut short, and is not to be resumed
            with locked(new):
                _remove(new)
        fresh = [] if folder.exists() else _made(folder)
        stack.enter_context(locked(folder))
        was_empty = _is_empty(folder)
        remove_partial(folder, _names(folder))
        place = Place(folder, out)
        try:
            yield place
        except BaseException as error:
            if was_empty and not _is_begun(folder, error) and place.folder == folder:
                _remove(folder, keep=not fresh)
                for each in fresh[1:]:
                    if each.is_dir() and not any(each.iterdir()):
                        each.rmdir()
                error.said = "nothing was written"  # type: ignore[attr-defined]  # for the command line
            else:
                error.said = f"the {what} in {str(out)!r} goes on with --resume"  # type: ignore[attr-defined]  # as above
            raise


def is_finished(folder: Path) -> bool:
    """Whether ``config.json`` says so, or is of a version that wrote only finished runs."""
    config = _config(folder)
    training = config.get("training", {"finished": "model" in config})
    return isinstance(training, dict) and training.get("finished") is True


def _is_empty(folder: Path) -> bool:
    """Whether a folder has nothing, or only the first file of a process that was killed while it wrote that file."""
    if not folder.is_dir():
        return False
    return all(each.match(f".{CONFIG}.????????.partial") for each in folder.iterdir())


def _is_begun(folder: Path, error: BaseException) -> bool:
    """Whether something is there to go on with: an epoch, or a run within a comparison, or steps before a signal."""
    if any((each / CONFIG).exists() for each in folder.iterdir() if each.is_dir()):
        return True
    if isinstance(error, Exception):
        history = folder / HISTORY
        return history.exists() and len(history.read_bytes().splitlines()) > 1
    return (folder / CHECKPOINT).exists()


def _made(folder: Path) -> list[Path]:
    try:
        return made(folder)
    except OSError as error:
        raise type(error)(f"--out {error}") from error


def _beside(out: Path, kind: str) -> Path:
    target = out.resolve()
    return target.with_name(f".{target.name}.{kind}")


def _recover(out: Path) -> None:
    """Finish what a kill interrupted: a replacement that has its place, or has not got it."""
    new, old = _beside(out, "new"), _beside(out, "old")
    if not out.exists() and old.exists():
        os.rename(old, out)
    if (out / MARK).exists():
        with locked(out):
            for left in (new, old):
                if left.exists():
                    _finish(out, left)
            (out / MARK).unlink(missing_ok=True)


def _finish(out: Path, old: Path) -> None:
    """Remove what was replaced; files that the program did not write go along to the new folder."""
    _remove(old)
    if old.exists():
        for path in list(old.iterdir()):
            if not (out / path.name).exists():
                os.rename(path, out / path.name)
        if not any(old.iterdir()):
            old.rmdir()
    (out / MARK).unlink(missing_ok=True)


def _remove(folder: Path, keep: bool = False) -> None:
    """Remove the files that the program writes, of a run or of a comparison; and the folder, if it is then empty."""
    names = _names(folder)
    remove_partial(folder, names)
    if names is COMPARISON:
        for each in list(folder.iterdir()):
            if each.is_dir() and not each.is_symlink() and "model" in _config(each):
                _remove(each)
    for path in [path for name in (*names, MARK) for path in folder.glob(name)]:
        if path.is_symlink() or path.is_file():
            path.unlink()
    for each in (folder / "figures", folder / EVENTS, *([] if keep else [folder])):
        if each.is_dir() and not each.is_symlink() and not any(each.iterdir()):
            each.rmdir()


def _names(folder: Path) -> tuple[str, ...]:
    return COMPARISON if "compare" in _config(folder) else RUN


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
