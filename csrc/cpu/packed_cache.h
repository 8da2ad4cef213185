// Packed libraries, kept from call to call: a search calls the same operation again and again with the same weights.
// Which weights they are is told by comparing them, so that nothing stale is ever used, whoever changed them and how.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/views.h"

namespace nri::cpu::NRI_CPU_VARIANT {

template <typename Packed, typename T>
class PackedCache {
 public:
  static std::shared_ptr<const Packed> get(const LibraryView<T>& library) {
    static PackedCache cache;
    // A lock that another thread holds (or held when this process was forked) is not waited for.
    const std::unique_lock<std::mutex> guard(cache.lock_, std::try_to_lock);
    if (!guard) return std::make_shared<const Packed>(library);
    return cache.find_or_pack(library);
  }

 private:
  struct Entry {
    std::vector<int64_t> shape;
    std::vector<T> parameters;
    std::shared_ptr<const Packed> packed;
  };

  std::shared_ptr<const Packed> find_or_pack(const LibraryView<T>& library) {
    const std::vector<int64_t> shape = shape_of(library);
    const size_t count = static_cast<size_t>(library.parameter_count());
    for (size_t i = 0; i < entries_.size(); ++i) {
      const Entry& entry = entries_[i];
      if (entry.shape == shape && !std::memcmp(entry.parameters.data(), library.parameters, count * sizeof(T))) {
        std::rotate(entries_.begin(), entries_.begin() + i, entries_.begin() + i + 1);
        return entries_.front().packed;
      }
    }
    if (entries_.size() == kEntries) entries_.pop_back();
    std::vector<T> parameters(library.parameters, library.parameters + count);
    entries_.insert(entries_.begin(), {shape, std::move(parameters), std::make_shared<const Packed>(library)});
    return entries_.front().packed;
  }

  static std::vector<int64_t> shape_of(const LibraryView<T>& library) {
    std::vector<int64_t> shape{library.features, library.edge_types, library.node_types, library.silent};
    shape.insert(shape.end(), library.edge_sizes, library.edge_sizes + library.edge_layers + 1);
    shape.push_back(-1);
    shape.insert(shape.end(), library.node_sizes, library.node_sizes + library.node_layers + 1);
    return shape;
  }

  static constexpr size_t kEntries = 2;  // for instance the modules that judge and those that forecast
  std::mutex lock_;
  std::vector<Entry> entries_;  // the one used last in front
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
