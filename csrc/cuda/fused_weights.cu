#include "cuda/fused_weights.h"
#include "cuda/fused_words.h"

namespace nri::cuda::fused {
namespace {

template <Precision kPrecision>
__device__ float weight_at(const FusedLayer& layer, const float* parameters, int output, int column) {
  const Column source = column_of(layer, column);
  if (source.part == Part::nothing || output >= layer.out) return 0.0f;
  const float weight = parameters[layer.weight + static_cast<int64_t>(output) * layer.in + source.input];
  if (source.part == Part::whole) return weight;
  const float high = high_part<kPrecision>(weight);
  return source.part == Part::high_by_low ? weight - high : high;
}

template <Precision kPrecision>
__global__ void pack_kernel(int64_t words, const __grid_constant__ FusedLibrary library, const float* parameters,
                            uint32_t* packed) {
  const int64_t index = global_index();
  if (index >= words) return;
  const FusedModule& module = index < library.node.first_word ? library.edge : library.node;
  const int64_t of_kind = index - module.first_word;
  const int64_t in_module = of_kind % module.words;
  int l = module.layers - 1;
  while (module.layer[l].first > in_module) --l;
  const FusedLayer& layer = module.layer[l];
  const int64_t in_layer = in_module - layer.first;
  const int in_chunk = static_cast<int>(in_layer % layer.chunk_words());
  const int output = in_chunk / kChunkWords;
  const int word = static_cast<int>(in_layer / layer.chunk_words()) * kChunkWords + in_chunk % kChunkWords;
  const float* mine = parameters + module.parameter_of(static_cast<int>(of_kind / module.words));
  constexpr int kColumns = columns_of_word(kPrecision);
  packed[index] = word_of<kPrecision>(weight_at<kPrecision>(layer, mine, output, word * kColumns),
                                      weight_at<kPrecision>(layer, mine, output, word * kColumns + kColumns - 1));
}

}  // namespace

Buffer<uint32_t> packed_weights(const FusedLibrary& library, const float* parameters, const Execution& execution) {
  Buffer<uint32_t> packed(library.all_words, execution);
  const auto kernel = library.precision == Precision::fp32   ? pack_kernel<Precision::fp32>
                      : library.precision == Precision::tf32 ? pack_kernel<Precision::tf32>
                                                             : pack_kernel<Precision::bf16>;
  launch_elements("pack_weights", kernel, library.all_words, execution, library, parameters, packed.data());
  return packed;
}

}  // namespace nri::cuda::fused
