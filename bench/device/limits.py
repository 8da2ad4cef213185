"""What torch reaches on a device, which our own rates are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bench.cases import Effort
from bench.device.tf32 import in_tf32
from bench.device.timer import in_turns
from bench.timer import Work

Limits = Mapping[str, float]


def limits(device: torch.device, effort: Effort) -> dict[str, float]:
    """What torch reaches: products in TFLOP/s, and a copy in GB/s, read and written counted."""
    small = effort.name == "tiny"
    size, count = (32, 1 << 10) if small else (8192, 1 << 29)
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    works: dict[str, tuple[Work, float]] = {}
    out = torch.empty_like(a)
    works["product_fp32_tflops"] = (lambda: torch.mm(a, b, out=out), 2e-12 * size**3)
    if device.type == "cuda":
        works["product_tf32_tflops"] = (in_tf32(lambda: torch.mm(a, b, out=out)), 2e-12 * size**3)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    half_out = torch.empty_like(half_a)
    works["product_bf16_tflops"] = (lambda: torch.mm(half_a, half_b, out=half_out), 2e-12 * size**3)
    source = torch.zeros(count, device=device)
    target = torch.empty_like(source)
    works["copy_gb_per_s"] = (lambda: target.copy_(source), 8e-9 * count)
    times = in_turns(device, {name: work for name, (work, _) in works.items()}, effort.seconds / 2, effort.least)
    return {name: float(f"{amount / times[name].median:.4g}") for name, (_, amount) in works.items()}
