"""Learned proposals: networks that predict structures, how they are trained, and chains that draw from them."""

from nri_fast.proposals.imitation import Imitation
from nri_fast.proposals.network import ProposalNetwork, Table, predict
from nri_fast.proposals.proposers import (
    InTurn,
    Proposer,
    RandomProposer,
    StructureProposer,
    TableProposer,
)

__all__ = [
    "Imitation",
    "InTurn",
    "ProposalNetwork",
    "Proposer",
    "RandomProposer",
    "StructureProposer",
    "Table",
    "TableProposer",
    "predict",
]
