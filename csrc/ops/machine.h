// What was built and what the machine offers: the facts behind `nri-fast doctor`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nri {

namespace cpu {
std::vector<std::string> built_variants();  // best first, for instance {"avx512", "avx2", "generic"}
std::string chosen_variant();               // the one this processor (or NRI_FAST_CPU_VARIANT) selects
bool bf16_available();                      // Precision::bf16 was built and runs on this processor
int hardware_threads();                     // processors this process may run on
// Runs `blocks` blocks of multiply-adds between registers (float, the chosen variant's vectors) on `threads` threads
// and returns how many floating-point operations that were, a multiply-add being two. The caller holds the clock.
int64_t fma_operations(int threads, int64_t blocks);
}  // namespace cpu

namespace cuda {
enum class Build { none, device, emulated };
Build build();
std::vector<std::string> architectures();  // of the compiled kernels, for instance {"80-real", "120-virtual"}
int device_count();                        // 0 without a driver or a device; never throws
std::string device_problem();              // why device_count() is 0, or empty
// From now on workspace arrays of more than so many bytes are refused, as if memory had run out; for tests.
void refuse_allocations(uint64_t largest);
}  // namespace cuda

}  // namespace nri
