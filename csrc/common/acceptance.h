// The temperature that acceptance drives, in one place for every backend: raised while too few worsening moves are
// accepted, lowered while too many are. The running rate of accepted worsening moves is compared with a target that
// falls as exp(-1 - 5 epoch / 800); the temperature is multiplied or divided by 1.1.
#pragma once

#include "common/host_device.h"
#include "common/portable_math.h"

namespace nri {

// Places of the state, an array of doubles that lies where the chains' other arrays lie.
enum AcceptancePlace : int {
  kTemperature = 0,
  kRate = 1,            // running share of proposals that were accepted although they worsened the energy
  kEpochs = 2,          // epochs seen
  kEpochProposed = 3,   // of the epoch under way
  kEpochWorsening = 4,  // worsening moves accepted in it
  kAcceptancePlaces = 5
};

// Takes the counts of the epoch under way and begins another. The temperature is not raised past `ceiling`.
NRI_HOST_DEVICE inline void end_epoch(double* state, double ceiling) {
  constexpr double kAveraging = 0.01, kFactor = 1.1;
  const double epochs = state[kEpochs] + 1.0;
  // The first epochs average plainly, so that the zero that the rate starts from is forgotten.
  const double plain = 1.0 / epochs;
  const double share = plain > kAveraging ? plain : kAveraging;
  const double proposed = state[kEpochProposed] > 1.0 ? state[kEpochProposed] : 1.0;
  state[kRate] += share * (state[kEpochWorsening] / proposed - state[kRate]);
  if (state[kRate] >= portable_exp(-1.0 - 5.0 * epochs / 800.0)) {
    state[kTemperature] /= kFactor;
  } else if (state[kTemperature] * kFactor <= ceiling) {
    state[kTemperature] *= kFactor;
  }
  state[kEpochs] = epochs;
  state[kEpochProposed] = state[kEpochWorsening] = 0.0;
}

}  // namespace nri
