"""Entities that were never observed, found from how the observed ones move (docs/unseen.md)."""

from nri_fast.unseen.find import Unseen, find_unseen
from nri_fast.unseen.score import Hidden, hide, score_unseen
from nri_fast.unseen.table import unseen_table

__all__ = ["Hidden", "Unseen", "find_unseen", "hide", "score_unseen", "unseen_table"]
