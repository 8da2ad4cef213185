// Faults on purpose: .ci/sanitize must see each of them caught before it believes a clean run.
#include <climits>

extern "C" int heap_overflow(int length) {
  volatile int* values = new int[length];
  const int beyond = values[length];
  delete[] values;
  return beyond;
}

extern "C" int signed_overflow(int value) { return INT_MAX + value; }
