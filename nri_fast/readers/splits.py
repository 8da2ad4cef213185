"""Splits by recording: windows of one recording never lie in two splits."""

from __future__ import annotations

import numpy as np


def split_recordings(recordings: int, valid: float, test: float, seed: int, rest: str = "train") -> list[str]:
    """Draw the recordings of the validation and test splits.

    Parameters
    ----------
    recordings : int
    valid, test : float
        Shares of the recordings, 0 to 1; a share above zero gets at least one recording.
    seed : int
        The same seed draws the same recordings.
    rest : str
        Name of the split that gets all others.

    Returns
    -------
    list of str, [recordings]
        ``valid``, ``test`` or `rest`.

    Raises
    ------
    ValueError
        Shares out of range, or too few recordings to leave one for `rest`.
    """
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: expected a share from 0 to below 1, got {share}")
    counts = {
        name: max(1, round(share * recordings)) if share else 0 for name, share in (("valid", valid), ("test", test))
    }
    taken = sum(counts.values())
    if taken and taken >= recordings:
        raise ValueError(
            f"valid, test: expected recordings left to learn from, got {recordings} in all and {taken} drawn for "
            "validation and test; splits go by recording"
        )
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(recordings)
    names = [rest] * recordings
    for place in order[: counts["valid"]]:
        names[place] = "valid"
    for place in order[counts["valid"] : taken]:
        names[place] = "test"
    return names
