// The one pool of worker threads. Work items are claimed one by one, so nothing an item computes may depend on which
// worker runs it or when: that is what makes results independent of the number of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace nri::cpu {

// Calls body(index, worker) for every index in [0, count), on at most `threads` threads, the caller's among them;
// worker is in [0, threads). Returns when all are done; the first exception thrown by a body is thrown again here.
// A call from inside a body, or while another caller holds the pool, runs on the calling thread alone.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t index, int worker)>& body);

}  // namespace nri::cpu
