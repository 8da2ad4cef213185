"""Who changes the modules' weights: Adam, by clipped gradients, and not at all where something is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast.checkpoint import named, part
from nri_fast.graph import to_device
from nri_fast.modules import ModuleLibrary
from nri_fast.parameter_vector import ParameterVector

MOST_SKIPPED = 20  # gradient steps in a row that may be skipped because they are not finite


class DivergedError(RuntimeError):
    """Training met energies or gradients that are not finite, too many times in a row."""


class Skips:
    """How many gradient steps were not taken, counted where they were not.

    Parameters
    ----------
    device : torch.device
        Where training runs.
    total, in_a_row, longest : int
        All of them, those up to the last step, and the most in a row.
    """

    def __init__(self, device: torch.device, total: int = 0, in_a_row: int = 0, longest: int = 0) -> None:
        self._counts = to_device(torch.tensor([total, in_a_row, longest]), device)

    def count(self, skipped: Tensor) -> None:
        """Takes a step: whether it was skipped, [] bool."""
        total, in_a_row, longest = self._counts.unbind()
        in_a_row = (in_a_row + 1) * skipped
        self._counts = torch.stack([total + skipped, in_a_row, torch.maximum(longest, in_a_row)])

    @property
    def total(self) -> int:
        """See the class."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """See the class."""
        return int(self._counts[2])

    def to_list(self) -> list[int]:
        """The constructor's numbers."""
        return [int(count) for count in self._counts.tolist()]


class Learner:
    """Takes a training run's gradient steps: in one library's weights, until it turns to another's.

    Parameters
    ----------
    library : ModuleLibrary
        Trained in place, on the device where it stays.
    clip : float
        Largest norm of a gradient.
    """

    def __init__(self, library: ModuleLibrary, clip: float) -> None:
        self._device, self._clip = library.change_scale.device, clip
        self._skips = Skips(self._device)
        self.turn_to(library)

    def turn_to(self, library: ModuleLibrary) -> None:
        """Learns another library from now on, with an optimiser that has seen nothing yet."""
        self._weights = ParameterVector(library)
        self._optimiser = torch.optim.Adam([self._weights.weights], fused=True)

    def parameters(self) -> Tensor:
        """[P] what the kernels read."""
        return self._weights.kernel()

    def step(self, loss: Tensor, gradient: Tensor, rate: float, number: int) -> None:
        """Takes a gradient step unless loss or gradient are not finite, which only the device needs to know.

        Parameters
        ----------
        loss, gradient : Tensor
            [] and [P], in what the kernels read; the gradient is overwritten.
        rate : float
            Learning rate.
        number : int
            Of the step. How many were skipped is looked at every time; on a GPU, which a look waits for, at intervals.

        Raises
        ------
        DivergedError
            As :meth:`check`.
        """
        finite = torch.isfinite(gradient).all() & torch.isfinite(loss)
        self._weights.take_gradient(gradient)
        torch.nn.utils.clip_grad_norm_([self._weights.weights], self._clip, foreach=True)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        # Fused optimisers leave everything as it is where this is one: what torch's gradient scaler uses.
        self._optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimiser.step()
        self._skips.count(~finite)
        if number % (MOST_SKIPPED if self._device.type == "cuda" else 1) == 0:
            self.check(number)

    def check(self, number: int) -> None:
        """Looks at how many steps were skipped, up to the one of this number.

        Raises
        ------
        DivergedError
            Too many in a row.
        """
        longest = self._skips.longest
        if longest > MOST_SKIPPED:
            raise DivergedError(
                f"training diverged: the last {longest} gradients, up to step {number}, were not finite. Lower the "
                "learning rate, shorten the roll-out, or look at the data's scale"
            )

    @property
    def skipped(self) -> int:
        """Steps that were not taken."""
        return self._skips.total

    def state(self) -> tuple[dict[str, Tensor], list[int]]:
        """What a checkpoint holds beside the library: the optimiser's tensors, and the counts of skipped steps."""
        slots = self._optimiser.state_dict()["state"]
        tensors = {f"{i}.{name}": torch.as_tensor(value) for i, slot in slots.items() for name, value in slot.items()}
        return named("optimiser", tensors), self._skips.to_list()

    def restore(self, tensors: dict[str, Tensor], skipped: list[int]) -> None:
        """The inverse of :meth:`state`, among all of a checkpoint's tensors; the library has been restored before."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser", tensors).items():
            i, slot = name.split(".")
            state.setdefault(int(i), {})[slot] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        self._skips = Skips(self._device, *skipped)
