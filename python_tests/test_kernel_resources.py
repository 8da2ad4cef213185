"""The committed table of what the compiler gives every CUDA kernel, and the occupancy that is computed from it."""

from __future__ import annotations

import json

import pytest

from bench import cuda_floor, kernel_resources
from bench.cases import Case
from bench.flops import Shape
from bench.occupancy import LIMITS, blocks_at_once, occupancy

TABLE = json.loads((kernel_resources.RESULTS / f"{kernel_resources.NAME}.json").read_text(encoding="utf-8"))
# Where the time goes: products, and what runs for every row, message or element of a step.
HOT = {
    *(
        "linear_kernel",
        "input_gradient_kernel",
        "weight_gradient_kernel",
        "sum_projections_kernel",
        "add_errors_kernel",
    ),
    *("fused_energy_kernel", "fused_gradient_kernel", "fused_heat_bath_kernel", "fused_heat_bath_gradient_kernel"),
    *("spread_to_projections_kernel", "spread_to_bases_kernel", "propose_sweep_kernel", "decide_sweep_kernel"),
}


def test_every_kernel_of_the_source_is_in_the_table_for_every_architecture():
    names = set(kernel_resources.kernels_in_source())
    assert len(names) > 40
    for architecture in kernel_resources.ARCHITECTURES:
        listed = {row["kernel"].partition("<")[0] for row in TABLE["rows"] if row["architecture"] == architecture}
        missing, gone = names - listed, listed - names
        assert not missing | gone, f"run {TABLE['command']}: missing {missing}, no longer there {gone}"


def test_no_hot_kernel_spills():
    """On Hopper, which the fused kernels are planned for, nor on its predecessor, but for a register of two of them."""
    found = {row["kernel"].partition("<")[0] for row in TABLE["rows"]}
    assert found >= HOT
    spilling = {
        (row["kernel"], row["architecture"], row["spilled_bytes"])
        for row in TABLE["rows"]
        if row["kernel"].partition("<")[0] in HOT and row["spilled_bytes"]
    }
    one_register = {(f"fused_heat_bath_gradient_kernel<{width}>", "80", 28) for width in (64, 256)}
    assert spilling == one_register


def test_occupancy_of_the_table_is_that_of_its_rows():
    for row in TABLE["rows"]:
        assert 0 < row["registers"] <= 255
        if row["threads"] is not None:
            limits = LIMITS[row["architecture"]]
            share = occupancy(limits, row["threads"], row["registers"], row["shared_bytes"])
            assert row["occupancy"] == pytest.approx(share, abs=1e-4)
            assert share > 0


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        ("80", 128, 32, 0, 16),  # 64 warps of 1,024 registers: all that there are
        ("80", 128, 33, 0, 12),  # 33 * 32 registers are dealt out as 1,280: 51 warps, 12 blocks of four
        ("80", 128, 255, 0, 2),  # 8,192 registers a warp: eight warps
        ("80", 64, 64, 17_000, 9),  # 18,048 bytes a block with the system's own, 164 KiB in all
        ("90", 64, 64, 17_000, 12),  # 228 KiB
        ("80", 1, 8, 0, 32),  # a warp of its own, and no more than 32 blocks
        ("90", 1024, 32, 0, 2),
        ("90", 1024, 65, 0, 0),  # does not fit
    ],
)
def test_blocks_at_once_by_hand(architecture, threads, registers, shared, expected):
    assert blocks_at_once(LIMITS[architecture], threads, registers, shared) == expected


@pytest.mark.parametrize(("threads", "registers"), [(0, 32), (32, 256), (32, -1)])
def test_what_cannot_be_is_refused(threads, registers):
    with pytest.raises(ValueError, match="threads, registers: expected"):
        occupancy(LIMITS["80"], threads, registers, 0)


REPORT = """ptxas info    : Compiling entry function '_ZN3nri1fIfEEvPT_' for 'sm_80'
ptxas info    : Function properties for _ZN3nri1fIfEEvPT_
    0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'g' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 352 bytes cmem[0]
"""


def test_ptxas_report_is_read():
    assert list(kernel_resources.parse(REPORT)) == [
        ("_ZN3nri1fIfEEvPT_", "80", {"registers": 40, "shared_bytes": 1024, "spilled_bytes": 20}),
        ("g", "80", {"registers": 8, "shared_bytes": 0, "spilled_bytes": 0}),
    ]
    with pytest.raises(ValueError, match="expected spills and registers of g"):
        list(kernel_resources.parse("Compiling entry function 'g' for 'sm_80'"))


def test_names_are_short():
    whole = "void nri::cuda::(anonymous namespace)::linear_kernel<float, (int)8>(nri::cuda::SlotView, float const*)"
    assert kernel_resources.short(whole) == "linear_kernel<float, 8>"
    assert kernel_resources.short("nri::cuda::(anonymous namespace)::scan_buckets(long, long*)") == "scan_buckets"
    fused = "void nri::cuda::fused::(anonymous namespace)::kernel<(nri::Precision)2, 64>(nri::cuda::fused::EnergyJob)"
    assert kernel_resources.short(fused) == "kernel<bf16, 64>"


def test_floors_by_hand():
    # Two entities, two edges; modules 4-3-5 and 7-2 with two features.
    shape = Shape((4, 3, 5), (7, 2), 2)
    amounts = [(kernel.operations, kernel.bytes) for kernel in cuda_floor.step(shape)]
    assert amounts == [
        (0, 4 * 2 * (4 + 4)),
        (2 * 2 * 4 * 3, 4 * 2 * (4 + 3)),
        (2 * 2 * 3 * 5, 4 * 2 * (3 + 5)),
        (0, 4 * (2 * 5 + 2 * 2 + 2 * 7)),  # messages and states in, both side by side out
        (2 * 2 * 7 * 2, 4 * 2 * (7 + 2)),
        (0, 4 * 2 * (2 + 2 + 2)),
        (0, 4 * 2 * (2 + 2) + 16),
    ]
    assert sum(operations for operations, _ in amounts) == shape.graph_step()
    bound = cuda_floor.Kernel("", 102e12, 1.0), cuda_floor.Kernel("", 1.0, 4300e9)
    assert [kernel.floor(3) for kernel in bound] == pytest.approx([3.0, 3.0])
    assert [kernel.expected(3) for kernel in bound] == pytest.approx([3.0 / 0.55, 3.0 / 0.8])


def test_launches_of_a_sweep():
    # Eleven a step; rows sorted twice, because the last of 48 transitions' roll-outs ends after eight steps.
    assert cuda_floor.launches(Case(64, 5, 1, 1)) == 10 * 11 + 2 * 14 + 8
    assert cuda_floor.launches(Case(64, 5, 1, 1, steps=41)) == 10 * 11 + 14 + 8
    assert cuda_floor.launches(Case(64, 5, 1, 1, steps=6)) == 5 * 11 + 14 + 8
