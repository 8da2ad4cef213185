// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a bijection of a
// 128-bit counter under a 64-bit key. Integer arithmetic only, hence bit-equal everywhere.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/streams.h"

namespace nri {

struct Philox4 {
  uint32_t x, y, z, w;
};

NRI_HOST_DEVICE inline Philox4 philox4x32_10(Philox4 counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * counter.x;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * counter.z;
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter.y ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter.w ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// The counter's words: draw, step, system (low 32 bits), stream (8 bits) with system (high 24 bits).
NRI_HOST_DEVICE inline Philox4 draw(uint64_t seed, Stream stream, int64_t system, int64_t step, uint32_t index) {
  const uint64_t id = static_cast<uint64_t>(system);
  return philox4x32_10({index, static_cast<uint32_t>(step), static_cast<uint32_t>(id),
                        (static_cast<uint32_t>(stream) << 24) | static_cast<uint32_t>((id >> 32) & 0xFFFFFFu)},
                       seed);
}

// Uniform in [0, 1) with 53 random bits.
NRI_HOST_DEVICE inline double uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = ((static_cast<uint64_t>(high) << 32) | low) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

// Uniform in {0, .., count - 1} from 64 random bits; the bias is below count / 2^64.
NRI_HOST_DEVICE inline int64_t uniform_index(uint32_t high, uint32_t low, int64_t count) {
  // The high word of a 64 x 64-bit product, from 32-bit halves: count stays below 2^32 here.
  const uint64_t n = static_cast<uint64_t>(count);
  const uint64_t carry = (static_cast<uint64_t>(low) * n) >> 32;
  return static_cast<int64_t>((static_cast<uint64_t>(high) * n + carry) >> 32);
}

}  // namespace nri
