// Metal's types, words and functions as this crate's kernels use them, for C++17 on a CPU. In place of Metal's header of this name.

#define _XOPEN_SOURCE 700  // macOS has whole ucontext_t with it alone.
#define _DARWIN_C_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
static_assert(sizeof(ulong) == 8, "Metal's ulong has 64 bits");

// Address spaces: a CPU has one. Arrays of a threadgroup and function constants have been rewritten (translation.rs).
#define device
#define thread
#define threadgroup
#define constant const

template <typename To, typename From>
inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <typename To, typename From>
inline To as_type(From from) {
  return same_bits<To>(from);
}

// A float of 16 bits as IEEE 754 has it. Floats become one by rounding to the nearest, ties to even.
struct half {
  ushort bits;

  half() = default;
  half(float x) {
    uint all = same_bits<uint>(x), magnitude = all & 0x7FFFFFFF, sign = all >> 16 & 0x8000;
    if (magnitude > 0x7F800000) magnitude = 0x7E00;        // NaN
    else if (magnitude >= 0x477FF000) magnitude = 0x7C00;  // from 65520 on: infinity
    else if (magnitude < 0x38800000)                       // below 2^-14: multiples of 2^-24, as floats from 0.5 to 1 are
      magnitude = same_bits<uint>(same_bits<float>(magnitude) + 0.5f) - 0x3F000000;
    else magnitude = (magnitude + 0xFFF + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    bits = ushort(sign | magnitude);
  }
  operator float() const {
    uint magnitude = bits & 0x7FFF, sign = uint(bits & 0x8000) << 16;
    if (magnitude >= 0x7C00) magnitude = magnitude << 13 | 0x7F800000;
    else if (magnitude < 0x400) magnitude = same_bits<uint>(float(magnitude) * 0x1p-24f);
    else magnitude = (magnitude << 13) + 0x38000000;
    return same_bits<float>(sign | magnitude);
  }
};

// The upper 16 bits of a float. Floats become one by rounding to the nearest, ties to even.
struct bfloat {
  ushort bits;

  bfloat() = default;
  bfloat(float x) {
    uint all = same_bits<uint>(x);
    if ((all & 0x7FFFFFFF) > 0x7F800000) all |= 0x400000;  // NaN
    else all += 0x7FFF + (all >> 16 & 1);
    bits = ushort(all >> 16);
  }
  operator float() const { return same_bits<float>(uint(bits) << 16); }
};

struct float2 {
  float x, y;
  float2(float x, float y) : x(x), y(y) {}
};
struct uint2 {
  uint x, y;
};
struct uint3 {
  uint x, y, z;
};

namespace metal {

inline float exp(float x) { return __builtin_expf(x); }
inline float fabs(float x) { return __builtin_fabsf(x); }
inline float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline uint max(uint a, uint b) { return a < b ? b : a; }

}  // namespace metal
