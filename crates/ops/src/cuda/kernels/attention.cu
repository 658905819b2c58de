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

#ifdef HAS_TENSOR_CORES

constexpr float LOG2_E = 1.4426950408889634f;
// Values between the rows of a tile: 8 more than are used, so that the rows of a matrix are in different banks.
constexpr int PAD = 8;
// The keys of a tile.
constexpr int KEYS = 64;

// What a thread copies of every tile of ROWS rows of SIZE values: parts of 16 bytes.
template <typename T, int SIZE, int ROWS, int THREADS>
struct TileCopy {
  static constexpr int PARTS = SIZE / 8;
  static constexpr int COUNT = (ROWS * PARTS + THREADS - 1) / THREADS;

  // Copies `count` rows that begin at `from`, with zeros behind them.
  static __device__ inline void copy(T* tile, const T* from, uint64_t stride, uint32_t count, uint32_t size) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      uint32_t index = threadIdx.x + i * THREADS;
      uint32_t row = index / PARTS, column = (index % PARTS) * 8;
      if (ROWS * PARTS % THREADS != 0 && row >= ROWS) break;
      bool inside = row < count && (column < size);
      copy_async(tile + row * (SIZE + PAD) + column, inside ? from + row * uint32_t(stride) + column : from, inside);
    }
  }
};

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
  uint32_t queries = second ? attention.query_counts[1] : attention.query_counts[0];
  // In the softmax queries count from the first section on.
  uint32_t bias_row = first_query + (second ? attention.query_counts[0] : 0);

  // The queries pass through the place of keys and values.
  uint32_t query_parts[TILES][SIZE / 16][4];
  {
    static_assert(QUERIES <= 4 * KEYS, "the queries fit in the place of keys and values");
    const T* from = static_cast<const T*>(second ? attention.queries[1].values : attention.queries[0].values);
    uint64_t stride = second ? attention.queries[1].row : attention.queries[0].row;
    from += batch * (second ? attention.queries[1].batch : attention.queries[0].batch);
    from += head * (second ? attention.queries[1].head : attention.queries[0].head) + first_query * stride;
    TileCopy<T, SIZE, QUERIES, THREADS>::copy(keys_tile, from, stride, queries - first_query, attention.size);
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

  // Tiles of the keys of the first section, then of those of the second one.
  uint32_t tiles_of_first = (attention.key_counts[0] + KEYS - 1) / KEYS;
  uint32_t tiles = tiles_of_first + (attention.key_counts[1] + KEYS - 1) / KEYS;
  const T* first_keys = static_cast<const T*>(attention.keys[0].values) + batch * attention.keys[0].batch + head * attention.keys[0].head;
  const T* first_values =
      static_cast<const T*>(attention.values[0].values) + batch * attention.values[0].batch + head * attention.values[0].head;
  const T* second_keys = static_cast<const T*>(attention.keys[1].values) + batch * attention.keys[1].batch + head * attention.keys[1].head;
  const T* second_values =
      static_cast<const T*>(attention.values[1].values) + batch * attention.values[1].batch + head * attention.values[1].head;
  auto load_keys = [&](uint32_t tile, int stage) {
    bool in_second = tile >= tiles_of_first;
    uint32_t first = (in_second ? tile - tiles_of_first : tile) * KEYS;
    uint32_t count = (in_second ? attention.key_counts[1] : attention.key_counts[0]) - first;
    uint64_t key_stride = in_second ? attention.keys[1].row : attention.keys[0].row;
    uint64_t value_stride = in_second ? attention.values[1].row : attention.values[0].row;
    const T* from_keys = (in_second ? second_keys : first_keys) + first * key_stride;
    const T* from_values = (in_second ? second_values : first_values) + first * value_stride;
    TileCopy<T, SIZE, KEYS, THREADS>::copy(keys_tile + stage * KEYS * PITCH, from_keys, key_stride, count, attention.size);
    TileCopy<T, SIZE, KEYS, THREADS>::copy(
        values_tile + stage * KEYS * PITCH, from_values, value_stride, count, attention.size);
    end_group_of_copies();
  };

  if (tiles > 0) load_keys(0, 0);
  for (uint32_t tile_of_keys = 0; tile_of_keys < tiles; tile_of_keys++) {
    int stage = tile_of_keys % 2;
    if (tile_of_keys + 1 < tiles) {
      load_keys(tile_of_keys + 1, stage ^ 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    bool in_second = tile_of_keys >= tiles_of_first;
    uint32_t first = (in_second ? tile_of_keys - tiles_of_first : tile_of_keys) * KEYS;
    // The keys of the tile that there are.
    uint32_t count = (in_second ? attention.key_counts[1] : attention.key_counts[0]) - first;
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
            uint32_t key = column * 8 + lane % 4 * 2 + i % 2;
            float bias = 0.0f;
            if (first_query + row < queries && key < count)
              bias = attention.bias[batch * attention.bias_batch + head * attention.bias_head +
                                    (bias_row + row) * attention.bias_row + (first + key) * attention.bias_column];
            scores[tile][column][i] = scores[tile][column][i] * attention.scale + bias * LOG2_E;
          }
    }
    if (count < KEYS) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int column = 0; column < KEYS / 8; column++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (column * 8 + lane % 4 * 2 + i % 2 >= count) scores[tile][column][i] = -INFINITY;
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

  T* to = static_cast<T*>(const_cast<void*>(second ? attention.results[1].values : attention.results[0].values));
  to += batch * (second ? attention.results[1].batch : attention.results[0].batch);
  to += head * (second ? attention.results[1].head : attention.results[0].head);
  uint64_t result_stride = second ? attention.results[1].row : attention.results[0].row;
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
          *reinterpret_cast<uint32_t*>(to + query * result_stride + part * 8 + lane % 4 * 2) = pair;
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

#define DEFINE(NAME, T, SIZE, WARPS, TILES, BLOCKS, SUFFIX, HAS_BIAS)                               \
  extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS) attention_##SIZE##SUFFIX##_##NAME(       \
      const __grid_constant__ Attention parameters) {                                               \
    attention<T, SIZE, WARPS, TILES, HAS_BIAS>(parameters);                                         \
  }
// The least blocks of a multiprocessor are those that measurements on an H200 favour.
#define DEFINE_SIZES(NAME, T)                     \
  DEFINE(NAME, T, 32, 4, 2, 1, , false)           \
  DEFINE(NAME, T, 48, 4, 2, 1, , false)           \
  DEFINE(NAME, T, 64, 4, 2, 1, , false)           \
  DEFINE(NAME, T, 64, 4, 1, 1, _biased, true)     \
  DEFINE(NAME, T, 80, 4, 1, 1, , false)           \
  DEFINE(NAME, T, 96, 4, 1, 1, , false)           \
  DEFINE(NAME, T, 128, 4, 1, 3, , false)          \
  DEFINE(NAME, T, 160, 4, 1, 1, , false)
DEFINE_SIZES(f16, __half)
DEFINE_SIZES(bf16, __nv_bfloat16)
