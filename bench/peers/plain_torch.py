"""Plain PyTorch: dense batched operations, one network per type, autograd for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary


class HeatBath(nn.Module):
    """Scores of all assignments of complete graphs of one size, messages shared, from a library's own modules."""

    def __init__(self, library: ModuleLibrary, entities: int, scale_squared: float) -> None:
        super().__init__()
        self.library, self.scale_squared = library, scale_squared
        graph = MegaGraph.complete(1, entities)
        self.sender, self.receiver = graph.sender, graph.receiver
        degree, types = entities - 1, library.edge_types
        rows = torch.cartesian_prod(*[torch.arange(types)] * degree).reshape(-1, degree)
        self.choice = nn.functional.one_hot(rows, types).to(library.change_scale.dtype).flatten(1)  # [A, degree * K]

    def forward(self, states: Tensor) -> Tensor:
        """[B, L + 1, N, D] -> [B, N, A] mean robust error of the L transitions."""
        library, before = self.library, states[:, :-1]
        pair = torch.cat([before[..., self.sender, :], before[..., self.receiver, :]], -1)
        messages = torch.stack([library.edge_module(k)(pair) for k in range(library.edge_types)], -2)
        entities, degree = before.shape[-2], before.shape[-2] - 1
        messages = messages.unflatten(-3, (entities, degree)).flatten(-3, -2)  # [B, L, N, degree * K, H]
        own, module, change = library.node_module(0).children()
        first, *others = module.children()
        assert isinstance(first, nn.Linear)
        width = library.message
        z = torch.einsum("as,blnsh->blnah", self.choice, messages @ first.weight[:, :width].T)
        state = own(torch.cat([torch.zeros_like(messages[..., 0, :]), before], -1))[..., width:]
        z = z + (state @ first.weight[:, width:].T + first.bias)[..., None, :]
        for layer in others:
            z = layer(z)
        error = ((before[..., None, :] + change(z) - states[:, 1:, :, None]) / library.change_scale) ** 2
        return torch.log(self.scale_squared + error.mean(-1)).mean(1)
