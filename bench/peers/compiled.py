"""The plain forms under ``torch.compile``."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.cases import RolloutProblem
from bench.peers.bucketed import Bucketed
from bench.peers.masked import Masked
from bench.peers.rollouts import TorchRollouts


class _Compiled(TorchRollouts):
    """A form's message-passing step as fused by the compiler, for any number of rows."""

    def __init__(self, problem: RolloutProblem) -> None:
        super().__init__(problem)
        self._compiled_step = torch.compile(super().step, dynamic=True)

    def step(self, states: Tensor, types: Tensor) -> Tensor:
        """One message-passing step."""
        return self._compiled_step(states, types)


class CompiledMasked(_Compiled, Masked):
    """Static indices: everything fuses."""


class CompiledBucketed(_Compiled, Bucketed):
    """How many edges a bucket holds is known too late: what lies between buckets fuses."""


def why_not() -> str | None:
    """Why nothing can be compiled here; None if it can."""
    try:
        torch.compile(lambda x: x * x + 1.0)(torch.ones(3))
    except Exception as error:  # whatever a missing compiler makes torch raise
        return f"torch.compile does not work here: {str(error).splitlines()[0][:120]}"
    return None
