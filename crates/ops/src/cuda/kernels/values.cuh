// Values of 16 and 32 bits, and vectors of them, which are loaded and stored at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

__device__ inline float widened(float x) { return x; }
__device__ inline float widened(__half x) { return __half2float(x); }
__device__ inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ inline T rounded(float x);
template <> __device__ inline float rounded<float>(float x) { return x; }
template <> __device__ inline __half rounded<__half>(float x) { return __float2half_rn(x); }
template <> __device__ inline __nv_bfloat16 rounded<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// N values that lie side by side.
template <typename T, int N>
struct alignas(N * sizeof(T)) Vector {
  T values[N];
};

// N values as 32-bit floats.
template <typename T, int N>
__device__ inline void load(float (&values)[N], const T* from) {
  Vector<T, N> vector = *reinterpret_cast<const Vector<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; i++) values[i] = widened(vector.values[i]);
}

template <typename T, int N>
__device__ inline void store(T* to, const float (&values)[N]) {
  Vector<T, N> vector;
#pragma unroll
  for (int i = 0; i < N; i++) vector.values[i] = rounded<T>(values[i]);
  *reinterpret_cast<Vector<T, N>*>(to) = vector;
}

// The sum of x over the LANES threads that lie side by side in a warp.
template <int LANES = 32>
__device__ inline float sum_over_lanes(float x) {
#pragma unroll
  for (int apart = LANES / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

// Kernels of every type: with as many values a thread as 16 bytes hold, and with one.
#define FOR_ALL_TYPES(DEFINE)        \
  DEFINE(f32, float, 4)              \
  DEFINE(f16, __half, 8)             \
  DEFINE(bf16, __nv_bfloat16, 8)
