// The edges of a range by sender: a state's cotangent gathers from its outgoing edges in this order.
#pragma once

#include "cuda/system_range.h"

namespace nri::cuda {

struct Outgoing {
  const int64_t* offset;  // [nodes + 1]
  const int64_t* edge;    // [edges] numbered from the range's first, ascending
};

class OutgoingHolder {
 public:
  OutgoingHolder(const SystemRange& range, const Execution& execution);
  Outgoing view() const { return {offset_.data(), edge_.data()}; }

 private:
  Buffer<int64_t> offset_;
  Buffer<int64_t> edge_;
};

}  // namespace nri::cuda
