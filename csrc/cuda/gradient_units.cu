#include "cuda/gradient_units.h"

namespace nri::cuda {
namespace {

template <typename T>
__global__ void add_groups(int64_t parameters, int64_t groups, const T* sums, double* total) {
  const int64_t index = global_index();
  if (index >= parameters) return;
  double sum = total[index];
  for (int64_t g = 0; g < groups; ++g) sum += static_cast<double>(sums[g * parameters + index]);
  total[index] = sum;
}

template <typename T>
__global__ void write_total(int64_t parameters, const double* total, T* gradient) {
  const int64_t index = global_index();
  if (index < parameters) gradient[index] = static_cast<T>(total[index]);
}

}  // namespace

template <typename T>
void GradientSum<T>::add(const Buffer<T>& group_sums) const {
  if (parameters() == 0) return;
  launch_elements("add_groups", add_groups<T>, parameters(), execution_, group_sums.count() / parameters(),
                  group_sums.data(), total_.data());
}

template <typename T>
void GradientSum<T>::write(T* parameter_gradient) const {
  launch_elements("write_total", write_total<T>, parameters(), execution_, total_.data(), parameter_gradient);
}

template class GradientSum<float>;
template class GradientSum<double>;

}  // namespace nri::cuda
