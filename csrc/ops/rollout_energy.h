// Roll-out energy: how badly the modules, wired by a structure, predict a system's recorded trajectory.
//
// One step of message passing, for every system at once:
//   m_e = f_{edge_type[e]}([x_sender, x_receiver])     a_v = sum of m_e over v's incoming edges, in CSR order
//   x_v <- x_v + step_scale * g_{node_type[v]}([a_v, x_v])
// The state restarts from the recorded one at steps 0, R, 2R, ..., rolls R steps each time (fewer at the end), and
// every predicted state is compared with the recorded one, if both are there (`present`, common/views.h). energy = mean
// over the (step, entity) compared of the error of common/views.h. With the squared error and unit weights that is the
// mean squared error over every entry compared. With `observed`, only the observed entities count: the mean is over
// (step, observed entity), and of the others' recorded states none but those that roll-outs start from is read. A
// system without anything to compare has energy 0.
//
// Determinism: an energy depends on its own system and structure only, to the bit: not on batch, order or threads. It
// is that of the system without the entities that are absent throughout, cut off where nothing is present any more.
// Aliasing: outputs must not overlap inputs. Empty input (no structures, no systems) returns at once.
#pragma once

#include "common/host_device.h"
#include "common/views.h"

namespace nri {

template <typename T>
struct RolloutProblem {
  LibraryView<T> library;
  GraphView graph;
  TrajectoryView<T> trajectories;  // steps >= 2
  ErrorView<T> error;
  int64_t rollout;            // R >= 1
  const uint8_t* node_types;  // [V], or null: all zero
  const uint8_t* observed;    // [V] non-zero: the entity's predictions are compared; or null: every entity's are
};

// Of nodes first .. end - 1, those whose predictions are compared.
NRI_HOST_DEVICE inline int64_t count_observed(const uint8_t* observed, int64_t first, int64_t end) {
  if (observed == nullptr) return end - first;
  int64_t count = 0;
  for (int64_t v = first; v < end; ++v) count += observed[v] != 0;
  return count;
}

// Predictions of a system, nodes first .. end - 1, that are compared in roll-outs of R steps.
template <typename T>
NRI_HOST_DEVICE inline int64_t count_compared(const TrajectoryView<T>& trajectories, const uint8_t* observed,
                                              int64_t rollout, int64_t first, int64_t end) {
  if (trajectories.present == nullptr) return (trajectories.steps - 1) * count_observed(observed, first, end);
  const int64_t entities = end - first;
  const uint8_t* present = trajectories.present + trajectories.steps * first;
  int64_t count = 0;
  for (int64_t step = 1; step < trajectories.steps; ++step) {
    const int64_t start = (step - 1) / rollout * rollout;
    for (int64_t v = 0; v < entities; ++v) {
      if (observed != nullptr && observed[first + v] == 0) continue;
      count += present[start * entities + v] != 0 && present[step * entities + v] != 0;
    }
  }
  return count;
}

// The forward roll-out without a comparison: from `initial`, `horizon` steps. Who is absent takes no part
// (common/views.h): its initial state is not read, and its predictions are NaN.
template <typename T>
struct ForecastProblem {
  LibraryView<T> library;
  GraphView graph;
  const T* initial;           // [V, D]
  int64_t horizon;            // H >= 1
  const uint8_t* edge_types;  // [E]
  const uint8_t* node_types;  // [V], or null
  const uint8_t* present;     // [V] zero: absent; or null: all are there
  const T* step_scale;        // [B], or null: all 1
};

// edge_types: [structures, E], several structures of the same systems scored in one call.
// energy:     [structures, B]
#define NRI_DECLARE_ROLLOUT_ENERGY(T)                                                                             \
  void rollout_energy(const RolloutProblem<T>& problem, int64_t structures, const uint8_t* edge_types, T* energy, \
                      const Execution& execution);                                                                \
  /* states: system b's block starts at H * node_offset[b] * D and is [H, N_b, D] */                              \
  void forecast(const ForecastProblem<T>& problem, T* states, const Execution& execution);

namespace cpu {
NRI_DECLARE_ROLLOUT_ENERGY(float)
NRI_DECLARE_ROLLOUT_ENERGY(double)
}  // namespace cpu
namespace cuda {
NRI_DECLARE_ROLLOUT_ENERGY(float)
NRI_DECLARE_ROLLOUT_ENERGY(double)
}  // namespace cuda
#undef NRI_DECLARE_ROLLOUT_ENERGY

}  // namespace nri
