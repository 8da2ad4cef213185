"""A step of the proposal network's training, as the preset `fmml` takes it: our dense layers against torch's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

import nri_fast as nf
from bench.cases import Case, Effort
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work
from nri_fast import ops
from nri_fast.proposals.imitation import Imitation
from nri_fast.proposals.layers import Linear
from nri_fast.proposals.network import ProposalNetwork
from nri_fast.system_set import Batch

ENTITIES, STEPS = 5, 49


def rows(effort: Effort) -> Iterator[Row]:
    """A row a number of threads; torch keeps to one, as in training."""
    settings = nf.PRESETS["fmml"]
    systems, hidden = (6, 16) if effort.name == "tiny" else (settings.batch, settings.network_hidden)
    for threads in effort.threads:
        use_threads(threads)
        case = Case(hidden, ENTITIES, systems, threads, STEPS)
        batch = nf.SystemSet.complete(case.states(STEPS)).batch(torch.arange(systems))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ProposalNetwork("mlp", 4, 2, 1, STEPS, hidden, settings.network_dropout)
        ours, theirs = (ImitationStep(each, batch) for each in (network, with_torch_layers(network)))
        check_close("logits", theirs.logits(), ours.logits())
        competitors: dict[str, Work] = {OURS: ours.run, "torch's layers": theirs.run}
        operations = 3 * ours.forward_operations()
        work = "imitation step"
        yield Contest("network", work, case, case, operations, systems * (STEPS - 1), competitors).measure(effort)


def with_torch_layers(network: ProposalNetwork) -> ProposalNetwork:
    """A copy whose dense layers are torch's."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, Linear):
            module.__class__ = nn.Linear  # type: ignore[assignment]
    return copied


class ImitationStep:
    """One step of imitating random structures, again and again."""

    def __init__(self, network: ProposalNetwork, batch: Batch) -> None:
        self.network, self.batch = network, batch
        self.imitation = Imitation(network, 1e-3, "sgd")
        generator = torch.Generator().manual_seed(2)
        self.edge_types = torch.randint(2, (batch.graph.edges,), dtype=torch.uint8, generator=generator)
        self.node_types = torch.zeros(batch.graph.nodes, dtype=torch.uint8)

    def run(self) -> None:
        """Forwards, backwards, and the optimiser."""
        with ops.one_torch_thread():
            self.imitation.step(self.batch, STEPS, self.edge_types, self.node_types, 1)

    def logits(self) -> torch.Tensor:
        """[E, K] of the network as it is."""
        states = self.network.eval().states
        assert states is not None
        with torch.no_grad():
            edge, _ = states(self.batch.states, self.batch.graph, STEPS)
        return edge

    def forward_operations(self) -> int:
        """Of the dense layers, which are nearly all there is."""
        counted: list[int] = []

        def count(module: Linear, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
            counted.append(2 * inputs[0].numel() * module.out_features)

        hooks = [m.register_forward_hook(count) for m in self.network.modules() if isinstance(m, Linear)]
        self.logits()
        for hook in hooks:
            hook.remove()
        return sum(counted)
