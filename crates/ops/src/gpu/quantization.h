// Decodes rows of quantised weights as crates/ops/src/quantization does on a CPU: for CUDA C++ and the Metal Shading
// Language. On an NVIDIA GPU the values have the same bits, since each product and each sum is rounded by itself. Apple's
// compiler may fuse them.
//
// A thread decodes eight values, whose index in their block is a multiple of 8: `start`, to which `k` is added.

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <stdint.h>
#define FUNCTION __device__ inline
#define BYTES const uint8_t*
#define VALUES float*
#define HALF(bits) __half2float(__ushort_as_half(uint16_t(bits)))
#define FLOAT(bits) __uint_as_float(bits)
#define BITS(x) __float_as_uint(x)
#define TIMES(a, b) __fmul_rn(a, b)
#define PLUS(a, b) __fadd_rn(a, b)
#define MINUS(a, b) __fsub_rn(a, b)
#else
#define FUNCTION inline
#define BYTES device const uint8_t*
#define VALUES thread float*
#define HALF(bits) float(as_type<half>(ushort(bits)))
#define FLOAT(bits) as_type<float>(uint(bits))
#define BITS(x) as_type<uint>(float(x))
#define TIMES(a, b) ((a) * (b))
#define PLUS(a, b) ((a) + (b))
#define MINUS(a, b) ((a) - (b))
#endif

// The forms, in the order of Quantization::ALL.
enum Form : uint32_t {
  Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, IQ4NL, IQ4XS,
  E4M3, E5M2, SCALED_E4M3, SCALED_E5M2, SCALED_INT8, FOUR_BITS, MXFP8, NVFP4,
};

FUNCTION float half_at(BYTES bytes, uint32_t at) {
  return HALF(bytes[at] | uint32_t(bytes[at + 1]) << 8);
}

FUNCTION uint32_t word_at(BYTES bytes, uint32_t at) {
  return bytes[at] | uint32_t(bytes[at + 1]) << 8 | uint32_t(bytes[at + 2]) << 16 | uint32_t(bytes[at + 3]) << 24;
}

FUNCTION float float_at(BYTES bytes, uint32_t at) { return FLOAT(word_at(bytes, at)); }

FUNCTION float signed_byte(uint32_t byte) { return float(int32_t(byte ^ 128) - 128); }

// Value `at` of 32: the first half lies in the low bits of 16 bytes.
FUNCTION uint32_t nibble(BYTES bytes, uint32_t start, uint32_t k) {
  return bytes[start % 16 + k] >> (start / 16 * 4) & 15;
}

// The same with a fifth bit, in a word before the 16 bytes.
FUNCTION uint32_t five_bits(BYTES bytes, uint32_t start, uint32_t k) {
  return nibble(bytes + 4, start, k) | (bytes[start / 8] >> k & 1) << 4;
}

// K formats: where the bytes with two bits of each value of a part of 16 begin, and where the bits lie in them.
FUNCTION uint32_t two_bits_start(uint32_t part) { return 32 * (part / 8) + 16 * (part % 2); }
FUNCTION uint32_t two_bits_shift(uint32_t part) { return 2 * (part / 2 % 4); }

// K formats: the scale and the minimum of a part of 32 among 8 of each, of 6 bits, in 12 bytes.
FUNCTION uint32_t six_bit_scale(BYTES bytes, uint32_t part) {
  return part < 4 ? bytes[part] & 63 : (bytes[part + 4] & 15) | bytes[part - 4] >> 6 << 4;
}
FUNCTION uint32_t six_bit_minimum(BYTES bytes, uint32_t part) {
  return part < 4 ? bytes[part + 4] & 63 : bytes[part + 4] >> 4 | bytes[part] >> 6 << 4;
}

FUNCTION float q2_k(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 16, scales = block[part];
  float scale = TIMES(half_at(block, 80), float(scales & 15)), minimum = TIMES(half_at(block, 82), float(scales >> 4));
  uint32_t bits = block[16 + two_bits_start(part) + start % 16 + k] >> two_bits_shift(part) & 3;
  return MINUS(TIMES(scale, float(bits)), minimum);
}

FUNCTION float q3_k(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 16;
  uint32_t low_scale = block[96 + part % 8] >> (4 * (part / 8)) & 15;
  uint32_t high_scale = block[104 + part % 4] >> (2 * (part / 4)) & 3;
  float scale = TIMES(half_at(block, 108), float(int32_t(low_scale | high_scale << 4) - 32));
  uint32_t low = block[32 + two_bits_start(part) + start % 16 + k] >> two_bits_shift(part) & 3;
  uint32_t is_positive = block[16 * (part % 2) + start % 16 + k] >> (part / 2) & 1;
  return TIMES(scale, float(int32_t(low) - int32_t(is_positive ? 0 : 4)));
}

FUNCTION float q4_k(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 32;
  float scale = TIMES(half_at(block, 0), float(six_bit_scale(block + 4, part)));
  float minimum = TIMES(half_at(block, 2), float(six_bit_minimum(block + 4, part)));
  uint32_t bits = block[16 + 32 * (part / 2) + start % 32 + k] >> (4 * (part % 2)) & 15;
  return MINUS(TIMES(scale, float(bits)), minimum);
}

FUNCTION float q5_k(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 32;
  float scale = TIMES(half_at(block, 0), float(six_bit_scale(block + 4, part)));
  float minimum = TIMES(half_at(block, 2), float(six_bit_minimum(block + 4, part)));
  uint32_t low = block[48 + 32 * (part / 2) + start % 32 + k] >> (4 * (part % 2)) & 15;
  uint32_t fifth = block[16 + start % 32 + k] >> part & 1;
  return MINUS(TIMES(scale, float(low | fifth << 4)), minimum);
}

FUNCTION float q6_k(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 16;
  float scale = TIMES(half_at(block, 208), signed_byte(block[192 + part]));
  uint32_t low = block[64 * (part / 8) + 16 * (part % 4) + start % 16 + k] >> (4 * (part / 4 % 2)) & 15;
  uint32_t high = block[128 + two_bits_start(part) + start % 16 + k] >> two_bits_shift(part) & 3;
  return TIMES(scale, float(int32_t(low | high << 4) - 32));
}

// The integers of IQ4_NL and IQ4_XS, 128 too large, eight in a number.
FUNCTION float level(uint32_t index) {
  uint64_t levels = index < 8 ? 0x766a5d4f3f2d1801 : 0xf1d9c5b5a6998d81;
  return float(int32_t(levels >> (index % 8 * 8) & 255) - 128);
}

FUNCTION float iq4_xs(BYTES block, uint32_t start, uint32_t k) {
  uint32_t part = start / 32;
  uint32_t low = block[4 + part / 2] >> (4 * (part % 2)) & 15;
  uint32_t high = (block[2] | uint32_t(block[3]) << 8) >> (2 * part) & 3;
  float scale = TIMES(half_at(block, 0), float(int32_t(low | high << 4) - 32));
  return TIMES(scale, level(nibble(block + 8 + 16 * part, start % 32, k)));
}

// A float of 8 bits with `fraction` bits of fraction and exponents that are `bias` too large. Magnitudes from `special`
// on are infinite or not numbers.
FUNCTION float small_float(uint32_t byte, uint32_t fraction, uint32_t bias, uint32_t special) {
  uint32_t magnitude = byte & 127;
  uint32_t normal = (magnitude << (23 - fraction)) + ((127 - bias) << 23);
  float smallest = FLOAT((128 - bias - fraction) << 23);
  uint32_t bits = magnitude < 1u << fraction ? BITS(TIMES(float(magnitude), smallest)) : normal;
  if (magnitude >= special) {
    uint32_t payload = bits & 0x7fffff;
    bits = 0x7f800000 | payload | (payload == 0 ? 0 : 0x400000);
  }
  return FLOAT(bits | byte >> 7 << 31);
}

FUNCTION float e4m3(uint32_t byte) { return small_float(byte, 3, 7, 127); }
FUNCTION float e5m2(uint32_t byte) { return small_float(byte, 2, 15, 124); }

// E2M1: a sign, two bits of exponent and one of fraction, from twice its magnitude.
FUNCTION float e2m1(uint32_t code) {
  float magnitude = float(0xc8643210u >> (code % 8 * 4) & 15) * 0.5f;
  return FLOAT(BITS(magnitude) | code >> 3 << 31);
}

FUNCTION float mxfp8(BYTES block, uint32_t start, uint32_t k) {
  return TIMES(e4m3(block[1 + start + k]), FLOAT(uint32_t(block[0]) << 23));
}

FUNCTION float nvfp4(float scale_of_row, BYTES block, uint32_t start, uint32_t k) {
  float scale = TIMES(e4m3(block[0]), scale_of_row);
  return TIMES(e2m1(block[1 + (start + k) / 2] >> (4 * (k % 2)) & 15), scale);
}

// One of the row's 16 levels times the scale of the block.
FUNCTION float four_bits(BYTES levels, BYTES block, uint32_t start, uint32_t k) {
  uint32_t code = block[4 + (start + k) / 2] >> (4 * (1 - k % 2)) & 15;
  return TIMES(float_at(levels, 4 * code), float_at(block, 0));
}

// Decodes the values of a row from `column` on, a multiple of 8, of which the row has `left` more. Where it has fewer
// than eight, what follows is undefined.
FUNCTION void decode(uint32_t form, BYTES row, uint32_t column, uint32_t left, VALUES values) {
#define BLOCK(COUNT, SIZE) (row + column / COUNT * SIZE), column % COUNT
#define EIGHT(VALUE) \
  for (uint32_t k = 0; k < 8; k++) values[k] = VALUE; \
  break;
  switch (form) {
    case Q4_0: {
      BYTES block = row + column / 32 * 18;
      EIGHT(TIMES(half_at(block, 0), float(int32_t(nibble(block + 2, column % 32, k)) - 8)))
    }
    case Q4_1: {
      BYTES block = row + column / 32 * 20;
      EIGHT(PLUS(TIMES(half_at(block, 0), float(nibble(block + 4, column % 32, k))), half_at(block, 2)))
    }
    case Q5_0: {
      BYTES block = row + column / 32 * 22;
      EIGHT(TIMES(half_at(block, 0), float(int32_t(five_bits(block + 2, column % 32, k)) - 16)))
    }
    case Q5_1: {
      BYTES block = row + column / 32 * 24;
      EIGHT(PLUS(TIMES(half_at(block, 0), float(five_bits(block + 4, column % 32, k))), half_at(block, 2)))
    }
    case Q8_0: {
      BYTES block = row + column / 32 * 34;
      EIGHT(TIMES(signed_byte(block[2 + column % 32 + k]), half_at(block, 0)))
    }
    case IQ4NL: {
      BYTES block = row + column / 32 * 18;
      EIGHT(TIMES(half_at(block, 0), level(nibble(block + 2, column % 32, k))))
    }
    case Q2K: EIGHT(q2_k(BLOCK(256, 84), k))
    case Q3K: EIGHT(q3_k(BLOCK(256, 110), k))
    case Q4K: EIGHT(q4_k(BLOCK(256, 144), k))
    case Q5K: EIGHT(q5_k(BLOCK(256, 176), k))
    case Q6K: EIGHT(q6_k(BLOCK(256, 210), k))
    case IQ4XS: EIGHT(iq4_xs(BLOCK(256, 136), k))
#define BYTE(HEADER) row[HEADER + column + (k < left ? k : left - 1)]
    case E4M3: EIGHT(e4m3(BYTE(0)))
    case E5M2: EIGHT(e5m2(BYTE(0)))
    case SCALED_E4M3: EIGHT(TIMES(e4m3(BYTE(4)), float_at(row, 0)))
    case SCALED_E5M2: EIGHT(TIMES(e5m2(BYTE(4)), float_at(row, 0)))
    case SCALED_INT8: EIGHT(TIMES(TIMES(signed_byte(BYTE(8)), float_at(row, 0)), float_at(row, 4)))
#undef BYTE
    case FOUR_BITS: EIGHT(four_bits(row, row + 64 + column / 64 * 36, column % 64, k))
    case MXFP8: EIGHT(mxfp8(BLOCK(32, 33), k))
    case NVFP4: EIGHT(nvfp4(float_at(row, 0), row + 4 + column / 16 * 9, column % 16, k))
  }
#undef EIGHT
#undef BLOCK
}
