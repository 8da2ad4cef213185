#include "cuda/repeated.h"

namespace nri::cuda {

#if defined(NRI_CUDA_EMULATED)

SideStream::SideStream(const Execution& execution) : callers_(execution), own_(execution) {}
SideStream::~SideStream() = default;

// The host has no graphs: the body is kept, and a launch runs it. What it asks for is checked as on a device.
CapturedGraph::CapturedGraph(const Execution& execution, const std::function<void()>& body)
    : execution_(execution), graph_(new std::function<void()>(body)) {}
CapturedGraph::~CapturedGraph() { delete static_cast<std::function<void()>*>(graph_); }
void CapturedGraph::launch() const { (*static_cast<std::function<void()>*>(graph_))(); }

#else

namespace {

// Makes `later` wait for what `earlier` holds by now.
cudaError_t order(cudaStream_t earlier, cudaStream_t later) {
  cudaEvent_t event = nullptr;
  cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (status != cudaSuccess) return status;
  status = cudaEventRecord(event, earlier);
  if (status == cudaSuccess) status = cudaStreamWaitEvent(later, event, 0);
  cudaEventDestroy(event);  // the wait stays
  return status;
}

}  // namespace

SideStream::SideStream(const Execution& execution) : callers_(execution), own_(execution) {
  const DeviceGuard guard(execution.ordinal);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  own_.stream = stream;
  const cudaError_t status = order(stream_of(callers_), stream);
  if (status != cudaSuccess) cudaStreamDestroy(stream);
  check(status, "cudaStreamWaitEvent");
}

SideStream::~SideStream() {
  int previous = 0;  // no guard: a destructor must not throw
  cudaGetDevice(&previous);
  cudaSetDevice(own_.ordinal);
  if (order(stream_of(own_), stream_of(callers_)) != cudaSuccess) {
    cudaGetLastError();
    cudaStreamSynchronize(stream_of(own_));  // no event: wait, rather than let the caller run ahead
  }
  cudaStreamDestroy(stream_of(own_));
  cudaSetDevice(previous);
}

CapturedGraph::CapturedGraph(const Execution& execution, const std::function<void()>& body) : execution_(execution) {
  const DeviceGuard guard(execution.ordinal);
  // Relaxed: what other threads do to the device meanwhile is their own affair.
  bool complete = cudaStreamBeginCapture(stream_of(execution), cudaStreamCaptureModeRelaxed) == cudaSuccess;
  if (complete) {
    try {
      body();
    } catch (const std::exception&) {
      complete = false;  // run as it is, the body tells what is wrong with it
    }
    cudaGraph_t graph = nullptr;
    complete = cudaStreamEndCapture(stream_of(execution), &graph) == cudaSuccess && complete;
    cudaGraphExec_t executable = nullptr;
    if (complete && cudaGraphInstantiateWithFlags(&executable, graph, 0) == cudaSuccess) graph_ = executable;
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  cudaGetLastError();  // forget it: without a graph the launches are made one by one
}

// A graph that still runs is freed when it is done.
CapturedGraph::~CapturedGraph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph_));
}

void CapturedGraph::launch() const {
  const DeviceGuard guard(execution_.ordinal);
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_), stream_of(execution_)), "cudaGraphLaunch");
}

#endif

void repeat(int64_t times, const Execution& execution, const std::function<void(const Execution&)>& body) {
  if (times <= 0) return;
  if (times < kWorthCapturing) {
    const ReusedMemory memory(execution);
    for (int64_t i = 0; i < times; ++i) body(execution);
    return;
  }
  const SideStream side(execution);
  ReusedMemory memory(side.execution());
  int64_t done = 0;
  do {  // finds the chunks that fit, allocates, and loads the kernels
    memory.shrank = false;
    body(side.execution());
    ++done;
  } while (memory.shrank && done < times);
  if (done == times) return;
  memory.close();
  const CapturedGraph graph(side.execution(), [&] { body(side.execution()); });
  if (!graph.exists()) memory.open();
  for (; done < times; ++done) {
    if (graph.exists()) {
      graph.launch();
    } else {
      body(side.execution());
    }
  }
}

}  // namespace nri::cuda
