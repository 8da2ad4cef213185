"""Initial states of unseen entities by the Gauss-Newton method, all guesses side by side."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nri_fast.unseen.scene import Guesses, Rolled, Scene

NUDGE = 2.0**-8  # of a start's number, for slopes: far above rounding in float32, small beside the range of -1 to 1
SMALLEST = 2.0**-46  # of a mean squared residual: states near 1 are rounded at 2^-23 in float32
FIRST_DAMPING = 1e-2  # of Levenberg and Marquardt, relative to the curvature


def fit(scene: Scene, guesses: Guesses, steps: int, clamped: bool, iterations: int) -> Guesses:
    """Moves every guess's start downhill.

    The objective of a start z with residuals r_1 .. r_n is, for Gaussian errors of unknown variance and a Gaussian
    expectation of z, the negative logarithm of its posterior::

        n / 2 log(mean r^2) + 1 / 2 sum ((z - middle) / spread)^2

    A step solves ``(J'J / s^2 + P + damping) dz = J'r / s^2 + P (z - middle)`` with ``s^2 = mean r^2``, slopes J of the
    residuals by differences and P the precision of the expectation (Levenberg 1944, Marquardt 1963). It is taken if the
    objective falls, and damped more otherwise; a NaN or infinite objective never wins.

    Parameters
    ----------
    scene, guesses
        What was seen, and the guesses.
    steps : int
        Steps to roll from frame 0.
    clamped : bool
        See :meth:`Scene.clamped`.
    iterations : int
        Steps of the method.

    Returns
    -------
    Guesses
        With their objectives at the end.
    """
    roll = scene.clamped if clamped else scene.open_loop
    start, rolled = guesses.start, roll(guesses, guesses.start, steps)
    objective = objectives(scene, guesses.owner, start, rolled)
    damping = torch.full_like(objective, FIRST_DAMPING)
    for _ in range(iterations):
        slopes, _ = differences(scene, guesses, start, rolled, steps, clamped)
        curvature, pull = _equations(scene, guesses.owner, start, rolled, slopes)
        damped = curvature + torch.diag_embed(damping[:, None] * curvature.diagonal(dim1=1, dim2=2))
        move = solve(damped, pull[..., None])[..., 0].nan_to_num(0.0, 0.0, 0.0)
        trial = (start.double() - move.view(start.shape)).to(start.dtype)
        trial_rolled = roll(guesses, trial, steps)
        trial_objective = objectives(scene, guesses.owner, trial, trial_rolled)
        better = trial_objective < objective
        start = torch.where(better[:, None, None], trial, start)
        rolled = Rolled(
            torch.where(better[:, None, None, None], trial_rolled.path, rolled.path),
            torch.where(better[:, None], trial_rolled.residual, rolled.residual),
            rolled.count,
        )
        objective = torch.where(better, trial_objective, objective)
        damping = torch.where(better, damping / 5, damping * 5)
    return replace(guesses, start=start, objective=objective)


def objectives(scene: Scene, owner: Tensor, start: Tensor, rolled: Rolled) -> Tensor:
    """[P] float64 objectives (see :func:`fit`); infinite where they are not finite."""
    mean = rolled.mean_square.clamp(min=SMALLEST)
    off = (start.double() - scene.middle[owner][:, None]) / scene.spread[owner][:, None]
    objective = 0.5 * rolled.count * mean.log() + 0.5 * (off**2).flatten(1).sum(1)
    return objective.nan_to_num(torch.inf, torch.inf, torch.inf)


def differences(
    scene: Scene, guesses: Guesses, start: Tensor, rolled: Rolled, steps: int, clamped: bool
) -> tuple[Tensor, Tensor]:
    """Slopes of the residuals, float64 [q, P, n], and of the paths, [q, P, m], in each of a start's q numbers."""
    numbers = start[0].numel()
    nudges = NUDGE * torch.eye(numbers, dtype=start.dtype, device=start.device)
    nudged = (start.flatten(1) + nudges[:, None]).view(-1, *start.shape[1:])
    places = torch.arange(len(start), device=start.device).repeat(numbers)
    moved = (scene.clamped if clamped else scene.open_loop)(guesses.take(places), nudged, steps)
    residual = moved.residual.view(numbers, len(start), -1).double() - rolled.residual.double()
    path = moved.path.view(numbers, len(start), -1).double() - rolled.path.flatten(1).double()
    return residual / NUDGE, path / NUDGE


def covariance(scene: Scene, owner: Tensor, slopes: Tensor, variance: Tensor) -> Tensor:
    """[P, q, q] of a start, given the slopes [q, P, n] of residuals with a variance [P]."""
    curvature = _curvature(slopes) / variance.clamp(min=SMALLEST)[:, None, None] + torch.diag_embed(
        _precision(scene, owner, len(slopes))
    )
    return solve(curvature, torch.eye(len(slopes), dtype=torch.float64, device=slopes.device).expand_as(curvature))


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """[P, q, q], [P, q, m] -> [P, q, m]: solves positive definite systems by elimination.

    Written out, so that no system's bits depend on its company: batched solvers choose their algorithm by the batch.
    """
    matrix, right = matrix.clone(), right.clone()
    size = matrix.shape[1]
    for k in range(size):
        factor = matrix[:, k + 1 :, k] / matrix[:, k, k, None]
        matrix[:, k + 1 :] -= factor[..., None] * matrix[:, k, None]
        right[:, k + 1 :] -= factor[..., None] * right[:, k, None]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            right[:, k] -= matrix[:, k, j, None] * right[:, j]
        right[:, k] /= matrix[:, k, k, None]
    return right


def _equations(scene: Scene, owner: Tensor, start: Tensor, rolled: Rolled, slopes: Tensor) -> tuple[Tensor, Tensor]:
    residual = rolled.residual.double()
    variance = rolled.mean_square.clamp(min=SMALLEST)
    precision = _precision(scene, owner, len(slopes))
    off = (start.double() - scene.middle[owner][:, None]).flatten(1)
    pull = torch.stack([(slope * residual).sum(1) for slope in slopes], 1) / variance[:, None] + precision * off
    return _curvature(slopes) / variance[:, None, None] + torch.diag_embed(precision), pull


def _curvature(slopes: Tensor) -> Tensor:
    """[q, P, n] -> [P, q, q]: products of the slopes, summed over n."""
    rows = [torch.stack([(a * b).sum(1) for b in slopes], 1) for a in slopes]
    return torch.stack(rows, 1)


def _precision(scene: Scene, owner: Tensor, numbers: int) -> Tensor:
    one = scene.spread[owner] ** -2
    return one.repeat(1, numbers // one.shape[1])
