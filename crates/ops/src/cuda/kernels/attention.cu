// Scaled dot-product attention in one pass, with the running maximum and sum of Milakov and Gimelshein, "Online normalizer calculation
// for softmax", 2018, on tiles as in Dao, "FlashAttention-2", 2023. Scores are never stored.
//
// Queries, keys, values and results come in two sections, of which the second one may be empty: the two streams of a joint attention,
// each where it lies.

#include "tensor_cores.cuh"

struct Section {
  const void* values;
  uint64_t batch;  // values between neighbours
  uint64_t head;
  uint64_t row;
};

struct Attention {
  Section queries[2];
  Section keys[2];
  Section values[2];
  Section results[2];
  const float* bias;
  uint64_t bias_batch;
  uint64_t bias_head;
  uint64_t bias_row;
  uint64_t bias_column;
  uint32_t query_counts[2];
  uint32_t key_counts[2];
  uint32_t size;   // of a head, a multiple of 8
  float scale;     // times the logarithm of e to base 2
};

constexpr float LOG2_E = 1.4426950408889634f;
// Values between the rows of a tile: 8 more than are used, so that the rows of a matrix are in different banks.
constexpr int PAD = 8;
// The keys of a tile.
constexpr int KEYS = 64;

#ifdef HAS_TENSOR_CORES

// Copies rows of a section pair to a tile of ROWS rows of SIZE values, with zeros behind what there is.
template <typename T, int SIZE, int ROWS, int THREADS>
__device__ inline void load_tile(
    T* tile, const Section (&sections)[2], uint32_t first, uint32_t end, uint32_t in_first_section, uint32_t size,
    uint32_t batch, uint32_t head) {
  constexpr int PARTS = SIZE / 8;
#pragma unroll
  for (int index = threadIdx.x; index < ROWS * PARTS; index += THREADS) {
    uint32_t row = index / PARTS, column = (index % PARTS) * 8;
    uint32_t token = first + row;
    bool inside = token < end && column < size;
    const Section& section = sections[token >= in_first_section];
    uint32_t own = token >= in_first_section ? token - in_first_section : token;
    const T* from = static_cast<const T*>(section.values);
    if (inside) from += batch * section.batch + head * section.head + own * section.row + column;
    copy_async(tile + row * (SIZE + PAD) + column, from, inside);
  }
}

// A block of WARPS warps takes WARPS * TILES * 16 queries of one section.
template <typename T, int SIZE, int WARPS, int TILES, bool HAS_BIAS>
__device__ void attention(const Attention& attention) {
  constexpr int THREADS = WARPS * 32, QUERIES = WARPS * TILES * 16, PITCH = SIZE + PAD;
  extern __shared__ __align__(16) char shared[];
  T* keys_tile = reinterpret_cast<T*>(shared);           // two of them
  T* values_tile = keys_tile + 2 * KEYS * PITCH;         // two of them
  uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t head = blockIdx.y, batch = blockIdx.z;

  uint32_t blocks_of_first = (attention.query_counts[0] + QUERIES - 1) / QUERIES;
  bool second = blockIdx.x >= blocks_of_first;
  uint32_t first_query = (second ? blockIdx.x - blocks_of_first : blockIdx.x) * QUERIES;
  uint32_t queries = attention.query_counts[second];
  uint32_t keys = attention.key_counts[0] + attention.key_counts[1];
  // In the softmax queries count from the first section on.
  uint32_t bias_row = first_query + (second ? attention.query_counts[0] : 0);

  // The queries pass through the place of the first keys, a part after the other where they are more.
  uint32_t query_parts[TILES][SIZE / 16][4];
  {
    constexpr int AT_A_TIME = 4 * KEYS < QUERIES ? 4 * KEYS : QUERIES;
    static_assert(AT_A_TIME == QUERIES, "the queries fit in the place of keys and values");
    Section of[2] = {attention.queries[second], attention.queries[second]};
    load_tile<T, SIZE, QUERIES, THREADS>(keys_tile, of, first_query, queries, queries, attention.size, batch, head);
    end_group_of_copies();
    wait_for_copies<0>();
    __syncthreads();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
      for (int part = 0; part < SIZE / 16; part++) {
        const T* row = keys_tile + ((warp * TILES + tile) * 16 + lane % 16) * PITCH + part * 16 + lane / 16 * 8;
        load_matrices(query_parts[tile][part], row);
      }
    }
    __syncthreads();
  }

  float results[TILES][SIZE / 8][4];
  float greatest[TILES][2], totals[TILES][2];
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      greatest[tile][i] = -INFINITY;
      totals[tile][i] = 0.0f;
    }
#pragma unroll
    for (int part = 0; part < SIZE / 8; part++)
#pragma unroll
      for (int i = 0; i < 4; i++) results[tile][part][i] = 0.0f;
  }

  auto load_keys = [&](uint32_t first, int stage) {
    uint32_t in_first = attention.key_counts[0];
    load_tile<T, SIZE, KEYS, THREADS>(
        keys_tile + stage * KEYS * PITCH, attention.keys, first, keys, in_first, attention.size, batch, head);
    load_tile<T, SIZE, KEYS, THREADS>(
        values_tile + stage * KEYS * PITCH, attention.values, first, keys, in_first, attention.size, batch, head);
    end_group_of_copies();
  };

  load_keys(0, 0);
  int stage = 0;
  for (uint32_t first = 0; first < keys; first += KEYS, stage ^= 1) {
    if (first + KEYS < keys) {
      load_keys(first + KEYS, stage ^ 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const T* key_rows = keys_tile + stage * KEYS * PITCH;
    const T* value_rows = values_tile + stage * KEYS * PITCH;

    float scores[TILES][KEYS / 8][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
      for (int column = 0; column < KEYS / 8; column++)
#pragma unroll
        for (int i = 0; i < 4; i++) scores[tile][column][i] = 0.0f;
#pragma unroll
    for (int part = 0; part < SIZE / 16; part++) {
#pragma unroll
      for (int column = 0; column < KEYS / 16; column++) {
        uint32_t right[4];
        load_matrices(right, key_rows + (column * 16 + lane % 8 + lane / 16 * 8) * PITCH + part * 16 + lane / 8 % 2 * 8);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
          multiply<T>(scores[tile][2 * column], query_parts[tile][part], right[0], right[1]);
          multiply<T>(scores[tile][2 * column + 1], query_parts[tile][part], right[2], right[3]);
        }
      }
    }

    if (HAS_BIAS) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int column = 0; column < KEYS / 8; column++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            uint32_t row = (warp * TILES + tile) * 16 + lane / 4 + i / 2 * 8;
            uint32_t key = first + column * 8 + lane % 4 * 2 + i % 2;
            float bias = 0.0f;
            if (first_query + row < queries && key < keys)
              bias = attention.bias[batch * attention.bias_batch + head * attention.bias_head +
                                    (bias_row + row) * attention.bias_row + key * attention.bias_column];
            scores[tile][column][i] = scores[tile][column][i] * attention.scale + bias * LOG2_E;
          }
    }
    if (first + KEYS > keys) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int column = 0; column < KEYS / 8; column++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (first + column * 8 + lane % 4 * 2 + i % 2 >= keys) scores[tile][column][i] = -INFINITY;
    }

    // The scale is applied together with the subtraction, unless a bias has come between.
    const float scale = HAS_BIAS ? 1.0f : attention.scale;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float largest = greatest[tile][half];
#pragma unroll
        for (int column = 0; column < KEYS / 8; column++)
          largest = fmaxf(largest, fmaxf(scores[tile][column][2 * half], scores[tile][column][2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        // A row that is all minus infinity so far has no maximum.
        float reference = largest == -INFINITY ? 0.0f : largest * scale;
        float factor = power_of_2(greatest[tile][half] * scale - reference);
        greatest[tile][half] = largest;
        float total = 0.0f;
#pragma unroll
        for (int column = 0; column < KEYS / 8; column++)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            scores[tile][column][i] = power_of_2(scores[tile][column][i] * scale - reference);
            total += scores[tile][column][i];
          }
        totals[tile][half] = totals[tile][half] * factor + total;
#pragma unroll
        for (int part = 0; part < SIZE / 8; part++) {
          results[tile][part][2 * half] *= factor;
          results[tile][part][2 * half + 1] *= factor;
        }
      }
    }

#pragma unroll
    for (int row = 0; row < KEYS / 16; row++) {
      uint32_t weights[TILES][4];
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float* pair = scores[tile][2 * row + i / 2] + i % 2 * 2;
          weights[tile][i] = packed<T>(pair[0], pair[1]);
        }
      }
#pragma unroll
      for (int part = 0; part < SIZE / 16; part++) {
        uint32_t right[4];
        load_matrices_transposed(
            right, value_rows + (row * 16 + lane % 8 + lane / 8 % 2 * 8) * PITCH + part * 16 + lane / 16 * 8);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
          multiply<T>(results[tile][2 * part], weights[tile], right[0], right[1]);
          multiply<T>(results[tile][2 * part + 1], weights[tile], right[2], right[3]);
        }
      }
    }
    __syncthreads();
  }

  const Section& section = attention.results[second];
  T* to = static_cast<T*>(const_cast<void*>(section.values)) + batch * section.batch + head * section.head;
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = totals[tile][half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      float factor = total > 0.0f ? 1.0f / total : 0.0f;
      uint32_t query = first_query + (warp * TILES + tile) * 16 + lane / 4 + half * 8;
      if (query >= queries) continue;
#pragma unroll
      for (int part = 0; part < SIZE / 8; part++) {
        if (part * 8 < attention.size) {
          uint32_t pair = packed<T>(results[tile][part][2 * half] * factor, results[tile][part][2 * half + 1] * factor);
          *reinterpret_cast<uint32_t*>(to + query * section.row + part * 8 + lane % 4 * 2) = pair;
        }
      }
    }
  }
}
#else
// Older GPUs take another way.
template <typename T, int SIZE, int WARPS, int TILES, bool HAS_BIAS>
__device__ void attention(const Attention&) {}
#endif

#define DEFINE(NAME, T, SIZE, WARPS, TILES, SUFFIX, HAS_BIAS)                                       \
  extern "C" __global__ void __launch_bounds__(WARPS * 32) attention_##SIZE##SUFFIX##_##NAME(       \
      const __grid_constant__ Attention parameters) {                                               \
    attention<T, SIZE, WARPS, TILES, HAS_BIAS>(parameters);                                         \
  }
#define DEFINE_SIZES(NAME, T)                  \
  DEFINE(NAME, T, 32, 4, 2, , false)           \
  DEFINE(NAME, T, 48, 4, 2, , false)           \
  DEFINE(NAME, T, 64, 4, 2, , false)           \
  DEFINE(NAME, T, 64, 4, 1, _biased, true)     \
  DEFINE(NAME, T, 80, 4, 1, , false)           \
  DEFINE(NAME, T, 96, 4, 1, , false)           \
  DEFINE(NAME, T, 128, 4, 1, , false)          \
  DEFINE(NAME, T, 160, 4, 1, , false)
DEFINE_SIZES(f16, __half)
DEFINE_SIZES(bf16, __nv_bfloat16)
