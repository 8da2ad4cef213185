"""Plain PyTorch: the heat bath as dense batched operations, one network per type, autograd for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary

CHUNK_ROWS = 65_536  # assignment rows of a chunk where no gradient is wanted


class DenseHeatBath(nn.Module):
    """Scores of all assignments of complete graphs of one size, messages shared, from a library's own modules.

    Parameters
    ----------
    library : ModuleLibrary
        One node type.
    entities : int
        Of each system.
    scale_squared : float
        Of the robust error, in units of the library's ``change_scale``.
    """

    chunk_rows = CHUNK_ROWS

    def __init__(self, library: ModuleLibrary, entities: int, scale_squared: float) -> None:
        super().__init__()
        self.library, self.scale_squared = library, scale_squared
        device = library.change_scale.device
        graph = MegaGraph.complete(1, entities).to(device)
        self.sender, self.receiver = graph.sender, graph.receiver
        degree, types = entities - 1, library.edge_types
        rows = torch.cartesian_prod(*[torch.arange(types, device=device)] * degree).reshape(-1, degree)
        self.assignments = rows
        self.choice = nn.functional.one_hot(rows, types).to(library.change_scale.dtype).flatten(1)  # [A, degree * K]

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """States and their successors, [B, L, N, D] -> [B, N, A] mean robust error of the L transitions."""
        library = self.library
        pair = torch.cat([before[..., self.sender, :], before[..., self.receiver, :]], -1)
        messages = torch.stack([library.edge_module(k)(pair) for k in range(library.edge_types)], -2)
        entities, degree = before.shape[-2], before.shape[-2] - 1
        messages = messages.unflatten(-3, (entities, degree)).flatten(-3, -2)  # [B, L, N, degree * K, H]
        own, module, change = library.node_module(0).children()
        first, *others = module.children()
        assert isinstance(first, nn.Linear)
        width = library.message
        z = self.choice @ (messages @ first.weight[:, :width].T)
        state = own(torch.cat([torch.zeros_like(messages[..., 0, :]), before], -1))[..., width:]
        z = z + (state @ first.weight[:, width:].T + first.bias)[..., None, :]
        for layer in others:
            z = layer(z)
        error = ((before[..., None, :] + change(z) - after[:, :, :, None]) / library.change_scale) ** 2
        return torch.log(self.scale_squared + error.mean(-1)).mean(1)

    def scores(self, states: Tensor) -> Tensor:
        """[B, T, N, D] -> [B, N, A] without a gradient, in chunks that stay near the processor."""
        systems = max(1, self.chunk_rows // ((states.shape[1] - 1) * states.shape[2] * len(self.choice)))
        with torch.inference_mode():
            return torch.cat([self(chunk[:, :-1], chunk[:, 1:]) for chunk in states.split(systems)])

    def step(self, states: Tensor, factor: float) -> None:
        """A training step's scores, weights and gradient; the graph of the scores is the gradient's too."""
        self.library.zero_grad()
        scores = self(states[:, :-1], states[:, 1:])
        with torch.no_grad():
            temperature = factor * scores.std(-1).mean()
            weights = torch.softmax(-scores / temperature, -1)
        (weights * scores).sum(-1).mean().backward()
