// exp, log, sine and cosine from IEEE +, -, *, / and fma alone. Library versions differ in the last bit between
// machines and devices; a decision or a simulation that must be the same everywhere uses these. Accurate to about
// 2 ulp over the ranges given (tested against NumPy). Files that include this are compiled without contraction of
// a * b + c (-ffp-contract=off, -fmad=false), so that every fma is one that is written here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace nri {

NRI_HOST_DEVICE inline double double_from_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

NRI_HOST_DEVICE inline uint64_t bits_from_double(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// e^x. Zero below -708, infinity above 709; NaN stays NaN.
NRI_HOST_DEVICE inline double portable_exp(double x) {
  if (x != x) return x;
  if (x < -708.0) return 0.0;
  if (x > 709.0) return double_from_bits(0x7FF0000000000000u);
  const double n = floor(fma(x, 1.4426950408889634, 0.5));
  double r = fma(n, -6.93147180369123816490e-01, x);  // ln 2 in two parts: r is exact to the last bits
  r = fma(n, -1.90821492927058770002e-10, r);
  double p = 1.6059043836821613e-10;  // 1 / 13!, and so on down to 1 / 0!
  p = fma(p, r, 2.08767569878681e-09);
  p = fma(p, r, 2.505210838544172e-08);
  p = fma(p, r, 2.755731922398589e-07);
  p = fma(p, r, 2.7557319223985893e-06);
  p = fma(p, r, 2.48015873015873e-05);
  p = fma(p, r, 1.984126984126984e-04);
  p = fma(p, r, 1.388888888888889e-03);
  p = fma(p, r, 8.333333333333333e-03);
  p = fma(p, r, 4.1666666666666664e-02);
  p = fma(p, r, 1.6666666666666666e-01);
  p = fma(p, r, 0.5);
  p = fma(p, r, 1.0);
  p = fma(p, r, 1.0);
  return p * double_from_bits(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

// ln x for normal x > 0.
NRI_HOST_DEVICE inline double portable_log(double x) {
  uint64_t bits = bits_from_double(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = double_from_bits((bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u);
  if (m > 1.4142135623730951) {
    m = m * 0.5;
    exponent += 1;
  }
  const double s = (m - 1.0) / (m + 1.0);  // ln m = 2 atanh(s), |s| < 0.172
  const double z = s * s;
  double p = 1.0 / 21.0;
  p = fma(p, z, 1.0 / 19.0);
  p = fma(p, z, 1.0 / 17.0);
  p = fma(p, z, 1.0 / 15.0);
  p = fma(p, z, 1.0 / 13.0);
  p = fma(p, z, 1.0 / 11.0);
  p = fma(p, z, 1.0 / 9.0);
  p = fma(p, z, 1.0 / 7.0);
  p = fma(p, z, 1.0 / 5.0);
  p = fma(p, z, 1.0 / 3.0);
  const double log_m = fma(2.0 * s * z, p, 2.0 * s);
  const double n = static_cast<double>(exponent);
  return fma(n, 6.93147180369123816490e-01, fma(n, 1.90821492927058770002e-10, log_m));
}

// sin(x) and cos(x) for |x| up to about 1e5.
NRI_HOST_DEVICE inline void portable_sincos(double x, double* sine, double* cosine) {
  const double n = floor(fma(x, 0.6366197723675814, 0.5));  // quarter turns
  double r = fma(n, -1.5707963267341256, x);                // pi / 2 in three parts
  r = fma(n, -6.077100506303966e-11, r);
  r = fma(n, -2.0222662487959506e-21, r);
  const double z = r * r;
  double s = 2.8114572543455206e-15;  // 1 / 17!, alternating down to -1 / 3!
  s = fma(s, z, -7.647163731819816e-13);
  s = fma(s, z, 1.6059043836821613e-10);
  s = fma(s, z, -2.505210838544172e-08);
  s = fma(s, z, 2.7557319223985893e-06);
  s = fma(s, z, -1.984126984126984e-04);
  s = fma(s, z, 8.333333333333333e-03);
  s = fma(s, z, -1.6666666666666666e-01);
  s = fma(s * z, r, r);
  double c = -1.5619206968586225e-16;  // -1 / 18!, alternating down to -1 / 2!
  c = fma(c, z, 4.779477332387385e-14);
  c = fma(c, z, -1.1470745597729725e-11);
  c = fma(c, z, 2.08767569878681e-09);
  c = fma(c, z, -2.755731922398589e-07);
  c = fma(c, z, 2.48015873015873e-05);
  c = fma(c, z, -1.388888888888889e-03);
  c = fma(c, z, 4.1666666666666664e-02);
  c = fma(c, z, -0.5);
  c = fma(c, z, 1.0);
  const int64_t quarter = static_cast<int64_t>(n) & 3;
  const double a = (quarter & 1) ? c : s;
  const double b = (quarter & 1) ? s : c;
  *sine = (quarter & 2) ? -a : a;
  *cosine = (quarter == 1 || quarter == 2) ? -b : b;
}

}  // namespace nri
