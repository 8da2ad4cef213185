#include "cpu/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace nri::cpu {
namespace {

using Body = std::function<void(int64_t, int)>;

struct Job {
  const Body* body;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::mutex failure_lock;
  std::exception_ptr failure;

  void work(int worker) {
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        (*body)(index, worker);
      } catch (...) {
        const std::lock_guard<std::mutex> guard(failure_lock);
        if (!failure) failure = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }
};

// Never destroyed once it has threads: at process exit they may outlive static destructors.
class Pool {
 public:
  void run(int threads, Job& job) {
    while (static_cast<int>(threads_.size()) < threads - 1) {
      threads_.emplace_back([this, worker = static_cast<int>(threads_.size()) + 1] { serve(worker); });
    }
    {
      const std::lock_guard<std::mutex> guard(lock_);
      job_ = &job;
      helpers_ = threads - 1;
      running_ = helpers_;
      generation_ += 1;
    }
    wake_.notify_all();
    job.work(0);
    std::unique_lock<std::mutex> guard(lock_);
    done_.wait(guard, [this] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve(int worker) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> guard(lock_);
    for (;;) {
      wake_.wait(guard, [&] { return generation_ != seen && worker <= helpers_; });
      seen = generation_;
      Job* job = job_;
      guard.unlock();
      job->work(worker);
      guard.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex lock_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  int helpers_ = 0, running_ = 0;
  uint64_t generation_ = 0;
};

// A forked child inherits the memory of the pool but none of its threads, and perhaps its lock held: it gets a pool of
// its own, and the parent's is left alone.
struct Owner {
  pid_t process = 0;
  Pool* pool = nullptr;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

Owner* owner() {
  static std::atomic<Owner*> current{nullptr};
  Owner* found = current.load();
  const pid_t process = getpid();
  while (!found || found->process != process) {
    auto fresh = std::make_unique<Owner>();
    fresh->process = process;
    fresh->pool = new Pool;
    if (current.compare_exchange_strong(found, fresh.get())) return fresh.release();
    delete fresh->pool;
  }
  return found;
}

}  // namespace

void parallel_for(int threads, int64_t count, const Body& body) {
  if (count <= 0) return;
  Job job;
  job.body = &body;
  job.count = count;
  threads = static_cast<int>(std::min<int64_t>(std::max(threads, 1), count));
  Owner* mine = threads > 1 ? owner() : nullptr;
  if (mine && !mine->busy.test_and_set(std::memory_order_acquire)) {
    try {
      mine->pool->run(threads, job);
    } catch (...) {  // a thread could not be started
      mine->busy.clear(std::memory_order_release);
      throw;
    }
    mine->busy.clear(std::memory_order_release);
  } else {
    job.work(0);
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace nri::cpu
