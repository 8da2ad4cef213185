// Runs the same launches again and again without a word from the host in between: once as they are, and then as one
// CUDA graph. What differs from time to time lies in device memory.
#pragma once

#include <functional>

#include "cuda/reused_memory.h"

namespace nri::cuda {

// Fewer repetitions are not worth a graph, which takes about as long to build as a few of them to launch.
constexpr int64_t kWorthCapturing = 4;

// A stream of its own, in the caller's order: it begins after what the caller's stream holds, and what the caller's
// stream gets later waits for it. The default stream cannot be captured.
class SideStream {
 public:
  explicit SideStream(const Execution& execution);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  const Execution& execution() const { return own_; }

 private:
  Execution callers_;
  Execution own_;
};

// What a body launches on a stream, as a graph; none where it could not be captured.
class CapturedGraph {
 public:
  CapturedGraph(const Execution& execution, const std::function<void()>& body);
  ~CapturedGraph();
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  bool exists() const { return graph_ != nullptr; }
  void launch() const;

 private:
  Execution execution_;
  void* graph_ = nullptr;  // a cudaGraphExec_t
};

// Calls body(execution) so many times, or launches again what it launched. It may allocate Buffers.
void repeat(int64_t times, const Execution& execution, const std::function<void(const Execution&)>& body);

}  // namespace nri::cuda
