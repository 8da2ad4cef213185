"""Which axis of an array is which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nri_fast.readers.recording import DataError


def axes_of(
    where: object,
    shape: Sequence[int],
    orders: Iterable[str],
    named: str | None = None,
    entities: int | None = None,
    dimensions: range | None = None,
) -> list[str]:
    """Names of an array's axes, as one of some orders says.

    Parameters
    ----------
    where : object
        File or key, for errors.
    shape : sequence of int
    orders : iterable of str
        Such as ``systems-steps-dimensions-entities``.
    named : str, optional
        The order that the user names; otherwise the only one that fits is recognised.
    entities : int, optional
        Number of entities, if it is known (from labels).
    dimensions : range, optional
        What a ``dimensions`` axis may measure.

    Returns
    -------
    list of str, one an axis

    Raises
    ------
    DataError
        None of the orders fits, or several do.
    """
    candidates = list(orders) if named is None else [named]
    fitting = []
    for order in candidates:
        axes = order.split("-")
        sizes = dict(zip(axes, shape, strict=False))
        if len(axes) != len(shape) or (entities is not None and sizes.get("entities") != entities):
            continue
        if dimensions is not None and sizes.get("dimensions", dimensions.start) not in dimensions:
            continue
        fitting.append(order)
    if len(fitting) == 1:
        return fitting[0].split("-")
    known = "" if entities is None else f" with {entities} entities, as the labels have"
    if not fitting:
        raise DataError(f"{where}: expected [{'] or ['.join(candidates)}]{known}, got shape {list(shape)}")
    raise DataError(
        f"{where}: shape {list(shape)} may be [{'] or ['.join(fitting)}]; name the order of the axes (--axes)"
    )
