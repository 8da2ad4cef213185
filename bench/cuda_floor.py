"""What the portable CUDA kernels must take at least, before they are measured: ``python -m bench.cuda_floor``.

Each kernel of a message-passing step reads its inputs from device memory and writes its results there once; products
run on tensor cores. Its floor is the longer of its operations at the rate of those and of its bytes at a copy's. Beside
it what is expected: products at :data:`PRODUCT_SHARE` of that rate, bytes at :data:`COPY_SHARE` of the copy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bench.cases import Case
from bench.flops import Shape

TFLOPS = 102.0  # fp32 by three TF32 products each: mma.sync reaches about 62% of an H200's 495 TFLOP/s
GB_PER_S = 4300.0  # a copy in an H200's memory, read and written
# Sixteen warps a multiprocessor (bench.kernel_resources), a barrier every 16 terms, factors split beside the products;
# and 21 operations a byte from the second-level cache (64 rows by 128 columns), whose 5.5 TB/s bound them by 117.
PRODUCT_SHARE = 0.55
COPY_SHARE = 0.8
LAUNCH_US, GRAPH_LAUNCH_US = 4.0, 1.3  # one by one, and inside a CUDA graph
SYSTEMS = 1000


@dataclass(frozen=True)
class Kernel:
    """One launch of a step, for one system.

    Attributes
    ----------
    name : str
        As it is launched, with the layer's sizes.
    operations : float
        Floating-point operations of products.
    bytes : float
        Read and written.
    """

    name: str
    operations: float
    bytes: float

    def floor(self, systems: int) -> float:
        """Seconds, at least."""
        return systems * max(self.operations / (TFLOPS * 1e12), self.bytes / (GB_PER_S * 1e9))

    def expected(self, systems: int) -> float:
        """Seconds, before a measurement."""
        rates = PRODUCT_SHARE * TFLOPS * 1e12, COPY_SHARE * GB_PER_S * 1e9
        return systems * max(self.operations / rates[0], self.bytes / rates[1])


def step(shape: Shape) -> Iterator[Kernel]:
    """The launches of a message-passing step and of its errors, in fp32."""
    edges, nodes, width = shape.edges, shape.entities, shape.features
    pair, message = shape.edge_sizes[0], shape.edge_sizes[-1]
    yield Kernel("edge_inputs", 0.0, 4.0 * 2 * edges * pair)
    for a, b in pairwise(shape.edge_sizes):
        yield Kernel(f"typed_linear {a} x {b}, edges", 2.0 * edges * a * b, 4.0 * edges * (a + b))
    yield Kernel("node_inputs", 0.0, 4.0 * (edges * message + nodes * width + nodes * (message + width)))
    for a, b in pairwise(shape.node_sizes):
        yield Kernel(f"typed_linear {a} x {b}, entities", 2.0 * nodes * a * b, 4.0 * nodes * (a + b))
    yield Kernel("advance_states", 0.0, 4.0 * 3 * nodes * width)
    yield Kernel("add_errors", 0.0, 4.0 * 2 * nodes * width + 16.0)


def launches(case: Case) -> int:
    """Of an annealing sweep whose energies fit into memory at once.

    Every step of a roll-out: those of :func:`step`. The rows are sorted when the call begins and when the last, shorter
    roll-outs end: two launches for their keys, and six for each of edges and entities. Besides: systems, starts, means
    and zeroed sums; a copy of the types, a proposal, a decision and the end of the sweep.
    """
    sorted_twice = case.transitions > case.rollout and case.transitions % case.rollout != 0
    steps = min(case.rollout, case.transitions) * len(list(step(case.shape)))
    return steps + (2 if sorted_twice else 1) * (2 + 2 * 6) + 4 + 4


def main() -> None:
    """Prints tables as Markdown has them."""
    for width in (64, 128, 256):
        case = Case(width, 5, 1, 1)
        kernels = list(step(case.shape))
        print(f"| width {width}: us for {SYSTEMS:,} systems | MFLOP | MB | floor | expected |")
        print("| --- | --- | --- | --- | --- |")
        for kernel in kernels:
            amounts = f"{SYSTEMS * kernel.operations / 1e6:,.0f} | {SYSTEMS * kernel.bytes / 1e6:.2f}"
            times = f"{1e6 * kernel.floor(SYSTEMS):.1f} | {1e6 * kernel.expected(SYSTEMS):.1f}"
            print(f"| {kernel.name} | {amounts} | {times} |")
        floor = sum(kernel.floor(SYSTEMS) for kernel in kernels)
        expected = sum(kernel.expected(SYSTEMS) for kernel in kernels)
        useful = SYSTEMS * case.shape.graph_step() / 1e12
        print(f"| a step | {useful * 1e6:,.0f} | | {1e6 * floor:.1f} | {1e6 * expected:.1f} |")
        print(f"\nwidth {width}: at most {useful / floor:.0f} TFLOP/s, expected {useful / expected:.0f}\n")
    count = launches(Case(64, 5, 1, 1))
    print(f"an annealing sweep: {count} launches, {count * LAUNCH_US / 1e3:.2f} ms one by one, ", end="")
    print(f"{count * GRAPH_LAUNCH_US / 1e3:.2f} ms in a graph")


if __name__ == "__main__":
    main()
