// The instructions of tensor cores, from compute capability 8.0 on: products of tiles, and copies to shared memory that threads do
// not wait for.
#pragma once

#include "values.cuh"

#if __CUDA_ARCH__ >= 800
#define HAS_TENSOR_CORES 1
#endif

#ifdef HAS_TENSOR_CORES

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes, or writes as many zeros.
__device__ inline void copy_async(void* to, const void* from, bool inside) {
  int size = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(size));
}

__device__ inline void end_group_of_copies() { asm volatile("cp.async.commit_group;\n" ::); }

// Waits until at most so many groups of copies are on their way.
template <int GROUPS>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(GROUPS));
}

// Four matrices of 8x8 values of 16 bits. Every thread names a row.
__device__ inline void load_matrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row)));
}

__device__ inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row)));
}

// sums += left * right: 16x16 and 16x8 values of 16 bits, sums in 32 bits.
template <typename T>
__device__ inline void multiply(float (&sums)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1);

template <>
__device__ inline void multiply<__half>(float (&sums)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}

template <>
__device__ inline void multiply<__nv_bfloat16>(
    float (&sums)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}

// Two values of 16 bits in one register, the first one in its lower half.
template <typename T>
__device__ inline uint32_t packed(float first, float second);

template <>
__device__ inline uint32_t packed<__half>(float first, float second) {
  __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<uint32_t*>(&pair);
}

template <>
__device__ inline uint32_t packed<__nv_bfloat16>(float first, float second) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<uint32_t*>(&pair);
}

// 2 to the power of x. Zero for minus infinity.
__device__ inline float power_of_2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

#endif
