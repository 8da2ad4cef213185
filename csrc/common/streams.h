// The one list of random streams. A draw is named by (seed; stream, system, step, draw) and by nothing else, so it is
// the same on every device and whatever batch the system sits in. Never renumber: saved runs resume by these numbers.
#pragma once

#include <cstdint>

namespace nri {

enum class Stream : uint32_t {
  propose = 1,             // which edge or entity a Metropolis proposal changes, and to what
  accept = 2,              // the uniform of the accept decision
  heat_bath = 3,           // the uniform of a receiver's block draw
  propose_from_table = 4,  // proposals drawn from a table of probabilities
  blur = 5,                // which edges a structure encoder must not see
  simulate_train = 8,      // one stream a split: equal seeds never repeat a system across splits
  simulate_valid = 9,
  simulate_test = 10,
};

}  // namespace nri
