"""Who takes part in a row: peers in chunks that suit a GPU, and our own kernels run otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.cases import RolloutProblem
from bench.device.contest import BF16_TOLERANCE, TF32_TOLERANCE, Round
from bench.device.tf32 import in_tf32
from bench.peers import geometric
from bench.peers.bucketed import Bucketed
from bench.peers.compiled import CompiledMasked
from bench.peers.masked import Masked
from bench.peers.rollouts import TorchRollouts
from bench.rows import OURS
from bench.timer import Work
from nri_fast import ops

# Rows of an edge module at a time: what keeps a GPU busy, within tens of gigabytes.
CHUNK_EDGES, CHUNK_EDGES_WITH_GRADIENT = 1 << 20, 1 << 18


def sized(peer: TorchRollouts) -> TorchRollouts:
    """The peer with chunks for a GPU."""
    peer.chunk_edges = CHUNK_EDGES
    peer.chunk_edges_with_gradient = CHUNK_EDGES_WITH_GRADIENT
    return peer


def rollout_peers(problem: RolloutProblem, with_compiled: bool) -> dict[str, Callable[[], TorchRollouts]]:
    """Peers of roll-out energies by name."""
    if with_compiled:
        return {"compiled masked": lambda: sized(CompiledMasked(problem))}
    return {"bucketed": lambda: sized(Bucketed(problem)), "masked": lambda: sized(Masked(problem))}


def enter_precisions(contest: Round, ours: Callable[[], Tensor]) -> None:
    """Our own energies or scores from products of rounded numbers."""

    def entered(precision: str) -> tuple[Work, Callable[[], Tensor]]:
        def rounded() -> Tensor:
            with ops.scoring_precision(precision):
                return ours()

        return rounded, rounded

    contest.peer(f"{OURS}, TF32", lambda: entered("tf32"), TF32_TOLERANCE)
    contest.peer(f"{OURS}, bf16", lambda: entered("bf16"), BF16_TOLERANCE)


def enter_layer_by_layer(contest: Round, work: Work, answer: Callable[[], Tensor]) -> None:
    """Our own kernels, but not the fused ones, which only GPUs have."""

    def unfused(call: Callable[[], Any]) -> Callable[[], Any]:
        def called() -> Any:
            with ops.layer_by_layer():
                return call()

        return called

    if contest.device.type == "cuda":
        contest.peer(f"{OURS}, layer by layer", lambda: (unfused(work), unfused(answer)))


def enter_energies(contest: Round, name: str, make: Callable[[], TorchRollouts]) -> None:
    """In float32, and in TF32 where there is such a thing."""

    def entered(rounded: bool) -> tuple[Work, Callable[[], Tensor]]:
        peer = make()
        energies = in_tf32(peer.energies) if rounded else peer.energies
        return energies, energies

    contest.peer(name, lambda: entered(False))
    if contest.device.type == "cuda":
        contest.peer(f"{name}, TF32", lambda: entered(True), TF32_TOLERANCE)


def enter_geometric(contest: Round, problem: RolloutProblem) -> None:
    """PyTorch Geometric, where it is installed."""
    reason = geometric.why_not()
    if reason is not None:
        contest.left_out["HeteroLinear"] = reason
        return

    def make() -> tuple[Work, Callable[[], Tensor]]:
        peer = sized(geometric.Geometric(problem, "HeteroLinear"))
        return peer.energies, peer.energies

    contest.peer("HeteroLinear", make)
