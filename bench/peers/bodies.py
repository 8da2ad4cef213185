"""NRI's bodies in a box, all systems in one array: how its simulator is usually made fast in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TIME_STEP, STEPS_PER_FRAME = 0.001, 100
HALF_WIDTH, LARGEST_FORCE = 5.0, 100.0
STIFFNESS = 0.1

Array = npt.NDArray[Any]


class Bodies:
    """Systems that go on from a recorded frame.

    Parameters
    ----------
    kind : {"springs", "charged"}
    edges : array
        [S, N, N] types: 1 for a spring, or for charges that repel each other.
    first : array
        [S, N, 4] x, y, vx, vy of the first frame.
    """

    def __init__(self, kind: str, edges: Array, first: Array) -> None:
        self.charged, self.first = kind == "charged", first
        strength = 2.0 * edges - 1.0 if self.charged else -STIFFNESS * edges
        strength[:, np.eye(edges.shape[1], dtype=bool)] = 0.0
        self.strength = strength

    def frames(self, count: int) -> Array:
        """[S, count, N, 4], the first frame included."""
        position, velocity = self.first[..., :2].copy(), self.first[..., 2:].copy()
        frames = [self.first]
        for _ in range(count - 1):
            for _ in range(STEPS_PER_FRAME):
                velocity += TIME_STEP * self._force(position)
                position += TIME_STEP * velocity
                _reflect(position, velocity)
            frames.append(np.concatenate([position, velocity], -1))
        return np.stack(frames, 1)

    def _force(self, position: Array) -> Array:
        if not self.charged:  # linear in the positions: one product a system
            pull = self.strength @ position - self.strength.sum(-1, keepdims=True) * position
            return np.clip(-pull, -LARGEST_FORCE, LARGEST_FORCE)
        apart = position[:, :, None] - position[:, None]
        squared = np.einsum("sijd,sijd->sij", apart, apart)
        squared += np.eye(position.shape[1])  # itself, where the strength is zero
        size = self.strength / (squared * np.sqrt(squared))
        return np.clip(np.einsum("sij,sijd->sid", size, apart), -LARGEST_FORCE, LARGEST_FORCE)


def _reflect(position: Array, velocity: Array) -> None:
    outside = np.abs(position) > HALF_WIDTH
    if outside.any():
        side = np.sign(position[outside])
        position[outside] = side * 2 * HALF_WIDTH - position[outside]
        velocity[outside] = -side * np.abs(velocity[outside])
