"""How many of a kernel's warps fit on a multiprocessor, computed from NVIDIA's documented limits.

Source: CUDA C++ Programming Guide, "Features and Technical Specifications", tables of compute capabilities 8.0 and 9.0:
2,048 threads, 64 warps, 32 blocks and 65,536 registers a multiprocessor, registers dealt out to warps in units of 256;
164 and 228 KiB of shared memory, of which every block takes 1 KiB for the system, in units of 128 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of a multiprocessor."""

    shared_bytes: int
    warps: int = 64
    blocks: int = 32
    registers: int = 65_536
    register_unit: int = 256
    shared_unit: int = 128
    shared_of_system: int = 1024
    most_registers: int = 255  # of a thread


LIMITS = {"80": Limits(164 << 10), "90": Limits(228 << 10)}


def blocks_at_once(limits: Limits, threads: int, registers: int, shared_bytes: int) -> int:
    """Blocks that a multiprocessor holds together.

    Parameters
    ----------
    limits : Limits
    threads : int
        Of a block, at least 1.
    registers : int
        Of a thread.
    shared_bytes : int
        Of a block.
    """
    if threads < 1 or not 0 <= registers <= limits.most_registers:
        raise ValueError(f"threads, registers: expected at least 1 and 0 to 255, got {threads} and {registers}")
    warps = -(-threads // 32)
    of_warp = -(-max(registers, 1) * 32 // limits.register_unit) * limits.register_unit
    shared = -(-(shared_bytes + limits.shared_of_system) // limits.shared_unit) * limits.shared_unit
    by_registers = limits.registers // of_warp // warps
    return min(limits.blocks, limits.warps // warps, by_registers, limits.shared_bytes // shared)


def occupancy(limits: Limits, threads: int, registers: int, shared_bytes: int) -> float:
    """Warps that a multiprocessor holds, as a share of the most that it could."""
    return blocks_at_once(limits, threads, registers, shared_bytes) * -(-threads // 32) / limits.warps
