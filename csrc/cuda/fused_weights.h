// The packed weights of a library, on the device for the time of a call.
#pragma once

#include "cuda/fused_layers.h"
#include "cuda/workspace.h"

namespace nri::cuda::fused {

Buffer<uint32_t> packed_weights(const FusedLibrary& library, const float* parameters, const Execution& execution);

}  // namespace nri::cuda::fused
