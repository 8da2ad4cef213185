"""Training curves for TensorBoard, written while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from nri_fast.bouncegrad import BounceGrad

FOLDER = "tensorboard"


def summary_writer() -> type[SummaryWriter]:
    """What writes event files; an ImportError that says what to install where it is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise ImportError(f"TensorBoard is not installed: pip install 'nri_fast[tensorboard]' ({problem})") from problem
    return SummaryWriter


class TensorBoardLog:
    """Writes what a run's :class:`History` records, as it is recorded: pass it to training as ``on_step``.

    Parameters
    ----------
    folder : path
        Of the event files. If it holds some, they are continued: what they have from the step on at which training goes
        on is superseded.

    Raises
    ------
    ImportError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._make, self._folder = summary_writer(), folder
        self._writer: SummaryWriter | None = None
        self._written = 0

    def __call__(self, trainer: BounceGrad) -> None:
        """Writes what the history has that is not written yet."""
        curves = trainer.history.to_dict()
        steps = curves.pop("step")
        if self._writer is None:
            going_on = self._folder.exists() and any(self._folder.iterdir())
            first = trainer.step - 1  # the one behind us
            self._writer = self._make(str(self._folder), purge_step=first if going_on else None)
            self._written = sum(step < first for step in steps) if going_on else 0
        for place in range(self._written, len(steps)):
            for name, values in curves.items():
                if values:  # those of a proposal network are empty without one
                    self._writer.add_scalar(name, values[place], int(steps[place]))
        self._written = len(steps)

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def logged(
    on_step: Callable[[BounceGrad], None] | None, folder: Path | None, wanted: bool
) -> Iterator[Callable[[BounceGrad], None] | None]:
    """What to call after every step: `on_step`, and a log in the run's `folder`, if `wanted` now or when it began."""
    if folder is None or not (wanted or (folder / FOLDER).is_dir()):
        yield on_step
        return
    log = TensorBoardLog(folder / FOLDER)

    def both(trainer: BounceGrad) -> None:
        log(trainer)
        if on_step is not None:
            on_step(trainer)

    try:
        yield both
    finally:
        log.close()
