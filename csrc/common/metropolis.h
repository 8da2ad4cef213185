// The Metropolis rule, in one place for every backend.
#pragma once

#include <cmath>

#include "common/host_device.h"
#include "common/portable_math.h"

namespace nri {

enum class Decision : int { rejected = 0, accepted = 1, accepted_worsening = 2, not_finite = 3 };

// Accept with probability exp((current - proposed) / temperature + log_ratio), if that is below 1: u, uniform in [0,
// 1), falls under it. log_ratio is that of proposing the way back to proposing the way there (Metropolis-Hastings), 0
// where both are as likely, or where the plain rule is wanted. A proposed energy that is NaN or infinite is always
// rejected, and told apart; a finite one always replaces one that is not. Temperature 0 accepts every improvement and
// no worsening.
NRI_HOST_DEVICE inline Decision decide(double current, double proposed, double temperature, double u,
                                       double log_ratio = 0.0) {
  constexpr double kLargest = 1.7976931348623157e308;
  if (!(fabs(proposed) <= kLargest)) return Decision::not_finite;
  if (!(fabs(current) <= kLargest)) return Decision::accepted;
  const bool worse = proposed > current;
  double exponent = log_ratio;
  if (proposed != current) {
    if (!(temperature > 0)) return worse ? Decision::rejected : Decision::accepted;
    exponent += (current - proposed) / temperature;
  }
  // Not finite where a vanishing temperature meets a way that leads back never: NaN fails both comparisons.
  if (!(exponent >= 0.0) && !(u < portable_exp(exponent))) return Decision::rejected;
  return worse ? Decision::accepted_worsening : Decision::accepted;
}

NRI_HOST_DEVICE inline bool is_accepted(Decision decision) {
  return decision == Decision::accepted || decision == Decision::accepted_worsening;
}

}  // namespace nri
