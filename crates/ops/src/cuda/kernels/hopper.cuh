// The instructions of Hopper's tensor cores and copy engine, of compute capability 9.0 alone (sm_90a): products of a group of four
// warps on operands in shared memory, copies of tiles of tensors, and barriers that count both. PTX ISA, "Asynchronous Warpgroup Level
// Matrix Multiply-Accumulate Instructions" and "Data Movement and Conversion Instructions: cp.async.bulk.tensor".
#pragma once

#include "tensor_cores.cuh"

// What the driver makes of a tensor's address, sizes and strides (CUtensorMap).
struct alignas(64) TensorMap {
  uint64_t words[16];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Barriers in shared memory. One completes a phase when its count of threads and all announced bytes have arrived.

__device__ inline void start_barrier(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(count));
}

// Makes barriers that have been started visible to the copy engine.
__device__ inline void end_of_start_of_barriers() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }

__device__ inline void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and announces bytes that are copied.
__device__ inline void arrive_before_copies(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

// Waits for the end of the phase of this parity. Phases have the parities 0, 1, 0 and so on.
__device__ inline void wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  do {
    asm volatile(
        "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}\n"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!done);
}

// Copies a tile of a tensor of four dimensions, with zeros for what is outside of it.
__device__ inline void copy_tile(void* to, const TensorMap* map, uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];\n" ::"r"(
          shared_address(to)),
      "l"(map), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(shared_address(barrier))
      : "memory");
}

// Describes an operand of 16-bit values in rows of 128 bytes, which are swizzled: the 16 bytes i of row r are at i ^ (r % 8). Blocks of
// 8 rows follow each other. Where rows are what is summed over, further columns are `apart` bytes on.
__device__ inline uint64_t operand(const void* tile, uint32_t apart = 16) {
  constexpr uint64_t SWIZZLE_128 = 1, BLOCK_OF_ROWS = 1024;
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(apart >> 4) << 16 | (BLOCK_OF_ROWS >> 4) << 32 | SWIZZLE_128 << 62;
}

// The operand that begins so many bytes further on.
__device__ inline uint64_t advanced(uint64_t operand, uint32_t bytes) { return operand + (bytes >> 4); }

// Products are queued in groups. Before the first one, registers that they use are to be written.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void end_group_of_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Waits until at most so many groups are on their way.
template <int GROUPS>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(GROUPS) : "memory");
}

// Keeps the compiler from moving accesses to registers over products.
template <int COUNT>
__device__ inline void pin(float (&values)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(values[i])::"memory");
}

template <int GROUPS, int COUNT>
__device__ inline void pin(uint32_t (&values)[GROUPS][COUNT]) {
#pragma unroll
  for (int group = 0; group < GROUPS; group++)
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+r"(values[group][i])::"memory");
}

#define OPERANDS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define OPERANDS_8(d, i) OPERANDS_4(d, i), OPERANDS_4(d, i + 4)
#define OPERANDS_20(d, i) OPERANDS_8(d, i), OPERANDS_8(d, i + 8), OPERANDS_4(d, i + 16)
#define OPERANDS_24(d, i) OPERANDS_8(d, i), OPERANDS_8(d, i + 8), OPERANDS_8(d, i + 16)
#define OPERANDS_32(d, i) OPERANDS_24(d, i), OPERANDS_8(d, i + 24)
#define OPERANDS_40(d, i) OPERANDS_32(d, i), OPERANDS_8(d, i + 32)
#define OPERANDS_64(d, i) OPERANDS_32(d, i), OPERANDS_32(d, i + 32)
#define NAMES_20 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19"
#define NAMES_32 NAMES_20 ",%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_40 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define NAMES_64                                                                                                                      \
  NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// sums = left * right, plus sums with `adds`: 64xN sums of 32 bits, of which each thread holds N / 2: of rows lane / 4 and lane / 4 + 8
// of the 16 rows of its warp, the columns lane % 4 * 2 and the next one of every 8.
template <typename T, int N>
struct Product;

// The right operand has a row for each of the N columns in `multiply` with two operands in memory, and a row for each of 16 values to
// sum over where the left one is in registers.
#define DEFINE_PRODUCT(T, TYPE, N, COUNT, R0, R1, R2, R3, R4, R5)                                                                    \
  template <>                                                                                                                        \
  struct Product<T, N> {                                                                                                             \
    static __device__ inline void multiply(float (&sums)[COUNT], uint64_t left, uint64_t right, int adds) {                          \
      asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #R2 ", 0;\n"                                                           \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES_##COUNT "}, %" #R0 ", %" #R1           \
                   ", adds, 1, 1, 0, 0;\n}\n"                                                                                        \
                   : OPERANDS_##COUNT(sums, 0)                                                                                       \
                   : "l"(left), "l"(right), "r"(adds));                                                                              \
    }                                                                                                                                \
    static __device__ inline void multiply(float (&sums)[COUNT], const uint32_t (&left)[4], uint64_t right, int adds) {              \
      asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #R5 ", 0;\n"                                                           \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES_##COUNT "}, {%" #R0 ",%" #R1 ",%" #R2  \
                   ",%" #R3 "}, %" #R4 ", adds, 1, 1, 1;\n}\n"                                                                       \
                   : OPERANDS_##COUNT(sums, 0)                                                                                       \
                   : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(adds));                                 \
    }                                                                                                                                \
  };
#define DEFINE_PRODUCTS(T, TYPE)                          \
  DEFINE_PRODUCT(T, TYPE, 40, 20, 20, 21, 22, 23, 24, 25) \
  DEFINE_PRODUCT(T, TYPE, 64, 32, 32, 33, 34, 35, 36, 37) \
  DEFINE_PRODUCT(T, TYPE, 80, 40, 40, 41, 42, 43, 44, 45) \
  DEFINE_PRODUCT(T, TYPE, 128, 64, 64, 65, 66, 67, 68, 69)
DEFINE_PRODUCTS(__half, "f16")
DEFINE_PRODUCTS(__nv_bfloat16, "bf16")

#endif
