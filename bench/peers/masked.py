"""Plain PyTorch as NRI's authors have it: every type's module on every edge, and a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.peers.rollouts import TorchRollouts


class Masked(TorchRollouts):
    """No indices but fixed ones, and K times the arithmetic."""

    def summed_messages(self, states: Tensor, types: Tensor) -> Tensor:
        """[rows, N, D], [rows, edges] -> [rows, N, message]."""
        pair = torch.cat([states[:, self.sender], states[:, self.receiver]], -1)
        messages = torch.zeros((), device=states.device)
        for k, module in enumerate(self.library.edge):
            messages = messages + module(pair) * (types == k)[..., None]
        return messages.unflatten(1, (-1, self.degree)).sum(2)
