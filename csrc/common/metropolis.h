// The Metropolis rule, in one place for every backend.
#pragma once

#include <cmath>

#include "common/host_device.h"
#include "common/portable_math.h"

namespace nri {

enum class Decision : int { rejected = 0, accepted = 1, accepted_worsening = 2, not_finite = 3 };

// Accept when no worse, otherwise with probability exp((current - proposed) / temperature): u, uniform in [0, 1), falls
// under it. A proposed energy that is NaN or infinite is always rejected, and told apart; a finite one always replaces
// one that is not. Temperature 0 accepts no worsening.
NRI_HOST_DEVICE inline Decision decide(double current, double proposed, double temperature, double u) {
  if (!(fabs(proposed) <= 1.7976931348623157e308)) return Decision::not_finite;
  if (!(proposed > current)) return Decision::accepted;  // also when current is NaN
  if (!(temperature > 0)) return Decision::rejected;
  return u < portable_exp((current - proposed) / temperature) ? Decision::accepted_worsening : Decision::rejected;
}

}  // namespace nri
