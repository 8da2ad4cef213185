// Heat bath at R = 1. One-step energies split into a term per receiver, and a term depends only on the types of that
// receiver's incoming edges. All messages (every edge under every type) are computed once per transition, projected by
// the message part of the node module's first layer once, and added up for each assignment.
//
// A receiver v of in-degree d has `rows(v)` scores, at row_offset[v]:
//   blocks:       K^f rows, one per assignment of its f free incoming edges, those with stride[e] > 0: row a gives
//                 edge e the type (a / stride[e]) mod K. The strides of v's free edges fall in CSR order, K^(f - 1) to
//                 1: the last varies fastest. An edge with stride 0 is held: in every row its message is the mean of
//                 its messages under all types, weighted by held_weight.
//   conditionals: d * K rows; row i * K + k gives the i-th incoming edge the type k and every other edge its type in
//                 edge_types.
// A receiver without free incoming edges has one row (blocks); one without incoming edges has none (conditionals).
// score = mean over those of the system's chosen transitions in which v's prediction is compared (common/views.h) of
// its error; 0 where there is none. The one-step energy of a structure is the mean over receivers of their scores, each
// weighing as many as it has compared transitions.
//
// Determinism: a receiver's scores depend on its own system only, to the bit: they are those of the system without the
// entities that are absent throughout, whose edges' types make no difference.
// Aliasing: none allowed. Empty input returns at once.
#pragma once

#include "common/views.h"

namespace nri {

enum class HeatBathRows : int32_t { blocks = 0, conditionals = 1 };

template <typename T>
struct HeatBathProblem {
  LibraryView<T> library;
  GraphView graph;
  TrajectoryView<T> trajectories;
  ErrorView<T> error;
  HeatBathRows rows;
  int64_t transitions;        // L >= 1 transitions per system
  const int64_t* start;       // [B, L] step that each transition starts from, 0 .. steps - 2
  const uint8_t* node_types;  // [V], or null: all zero
  const uint8_t* edge_types;  // [E], read for conditionals only
  const int64_t* row_offset;  // [V + 1]
  const int64_t* stride;      // [E], read for blocks only
  const float* held_weight;   // [E, K], read for held edges only; a type of weight zero costs nothing
  // The first row of each system once more in host memory, so that a backend can plan without a synchronisation.
  const int64_t* host_row_offset;  // host [B + 1] row_offset[node_offset[b]]
  // What scoring leaves for the gradient of the same problem, which then need not run messages and rows again: the same
  // bits in less time. [heat_bath_kept(problem, execution)], or null. Written by scores, read by the gradient.
  T* kept;
};

// scores: [row_offset[V]]
//
// heat_bath_gradient: gradient of sum over rows of cotangent * score in the parameters; rows whose cotangent is exactly
// zero cost nothing. Its order of summation is fixed by the batch alone.
// cotangent: [row_offset[V]]    parameter_gradient: [P], overwritten
#define NRI_DECLARE_HEAT_BATH(T)                                                                        \
  void heat_bath_scores(const HeatBathProblem<T>& problem, T* scores, const Execution& execution);      \
  void heat_bath_gradient(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient, \
                          const Execution& execution);

// heat_bath_kept: values that `kept` has to hold; 0: leave it null. A batch's size decides: what is kept stays near the
// processor (CPU only).

namespace cpu {
NRI_DECLARE_HEAT_BATH(float)
NRI_DECLARE_HEAT_BATH(double)
int64_t heat_bath_kept(const HeatBathProblem<float>& problem, const Execution& execution);
int64_t heat_bath_kept(const HeatBathProblem<double>& problem, const Execution& execution);
}  // namespace cpu
namespace cuda {
NRI_DECLARE_HEAT_BATH(float)
NRI_DECLARE_HEAT_BATH(double)
}  // namespace cuda
#undef NRI_DECLARE_HEAT_BATH

}  // namespace nri
