// Attention as in attention.cu on the tensor cores of Hopper, after Shah and others, "FlashAttention-3", 2024: a warp copies tiles, and
// groups of four warps compute the scores of a tile while the weights of the tile before are multiplied with its values, and take turns
// in queueing products.

#include "hopper.cuh"

struct Rows {
  void* values;
  uint64_t batch;  // values between neighbours
  uint64_t head;
  uint64_t row;
};

// Tensors of two sections, [batch, heads, tokens, size].
struct Attention {
  TensorMap queries[2];
  TensorMap keys[2];
  TensorMap values[2];
  Rows results[2];
  uint32_t query_counts[2];
  uint32_t key_counts[2];
  uint32_t heads;
  uint32_t batches;
  uint32_t size;  // of a head, a multiple of 8
  float scale;    // times the logarithm of e to base 2
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The keys of a tile, the queries of a group of four warps, and the threads of such a group.
constexpr int KEYS = 128, QUERIES = 64, GROUP = 128;
// Bytes of a row of a tile in shared memory: 64 values of a head. Larger heads have several tiles side by side.
constexpr int ROW = 128;

// Where the parts of shared memory begin, in bytes.
template <int SIZE, int GROUPS, int STAGES>
struct Layout {
  static constexpr int PARTS = (SIZE + 63) / 64;
  static constexpr int QUERIES_BYTES = PARTS * QUERIES * ROW;  // of a group
  static constexpr int TILE_BYTES = PARTS * KEYS * ROW;
  static constexpr int KEYS_AT = GROUPS * QUERIES_BYTES;
  static constexpr int VALUES_AT = KEYS_AT + STAGES * TILE_BYTES;
  static constexpr int BARRIERS_AT = VALUES_AT + STAGES * TILE_BYTES;
};

// Where a block works: on some queries of one section of one head.
struct Place {
  uint32_t second;  // section
  uint32_t first_query;
  uint32_t head;
  uint32_t batch;

  __device__ Place(const Attention& attention, uint32_t index, uint32_t of_block) {
    uint32_t blocks_of_first = (attention.query_counts[0] + of_block - 1) / of_block;
    uint32_t blocks = blocks_of_first + (attention.query_counts[1] + of_block - 1) / of_block;
    uint32_t block = index % blocks;
    second = block >= blocks_of_first;
    first_query = (second ? block - blocks_of_first : block) * of_block;
    head = index / blocks % attention.heads;
    batch = index / blocks / attention.heads;
  }
};

// Number i of the tiles that a block reads or has read is at i % STAGES.
template <int STAGES>
struct Turn {
  uint32_t stage = 0, parity = 0;

  __device__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int STAGES>
struct Barriers {
  uint64_t queries_full, queries_empty;
  uint64_t keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
};

// One thread queues the copies of all tiles.
template <typename T, int SIZE, int GROUPS, int STAGES>
__device__ void copy_tiles(const Attention& attention, char* shared, Barriers<STAGES>& barriers, uint32_t count) {
  using At = Layout<SIZE, GROUPS, STAGES>;
  uint32_t tiles_of_first = (attention.key_counts[0] + KEYS - 1) / KEYS;
  uint32_t tiles = tiles_of_first + (attention.key_counts[1] + KEYS - 1) / KEYS;
  Turn<STAGES> turn;
  uint32_t query_parity = 0;
  for (uint32_t index = blockIdx.x; index < count; index += gridDim.x, query_parity ^= 1) {
    Place place(attention, index, GROUPS * QUERIES);
    wait(&barriers.queries_empty, query_parity ^ 1);
    arrive_before_copies(&barriers.queries_full, GROUPS * At::QUERIES_BYTES);
#pragma unroll
    for (int group = 0; group < GROUPS; group++)
#pragma unroll
      for (int part = 0; part < At::PARTS; part++)
        copy_tile(shared + (group * At::PARTS + part) * QUERIES * ROW, &attention.queries[place.second], part * 64,
                  place.first_query + group * QUERIES, place.head, place.batch, &barriers.queries_full);
    for (uint32_t tile = 0; tile < tiles; tile++, turn.next()) {
      bool second = tile >= tiles_of_first;
      uint32_t first = (second ? tile - tiles_of_first : tile) * KEYS;
      auto copy = [&](const TensorMap* map, int at, uint64_t* full, uint64_t* empty) {
        wait(empty, turn.parity ^ 1);
        arrive_before_copies(full, At::TILE_BYTES);
#pragma unroll
        for (int part = 0; part < At::PARTS; part++)
          copy_tile(shared + at + turn.stage * At::TILE_BYTES + part * KEYS * ROW, map, part * 64, first, place.head, place.batch, full);
      };
      copy(&attention.keys[second], At::KEYS_AT, &barriers.keys_full[turn.stage], &barriers.keys_empty[turn.stage]);
      copy(&attention.values[second], At::VALUES_AT, &barriers.values_full[turn.stage], &barriers.values_empty[turn.stage]);
    }
  }
}

// Groups take turns in queueing products, so that one computes exponentials while the tensor cores work for another. Group i waits for
// its turn at barrier 1 + i.
__device__ inline void wait_for_turn(uint32_t group) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(1 + group), "n"(2 * GROUP) : "memory");
}

template <int GROUPS>
__device__ inline void give_turn(uint32_t group) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(1 + (group + 1 == GROUPS ? 0 : group + 1)), "n"(2 * GROUP) : "memory");
}

// Scores of a tile become weights, relative to the greatest score of a row so far; returns what earlier results are multiplied with.
template <int COUNT>
__device__ inline void softmax(float (&scores)[COUNT], float (&greatest)[2], float (&totals)[2], float (&factors)[2], float scale) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float largest = greatest[half];
#pragma unroll
    for (int i = 2 * half; i < COUNT; i += 4) largest = fmaxf(largest, fmaxf(scores[i], scores[i + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    float reference = largest * scale;
    factors[half] = power_of_2(greatest[half] * scale - reference);
    greatest[half] = largest;
    float total = 0.0f;
#pragma unroll
    for (int i = 2 * half; i < COUNT; i += 4) {
      scores[i] = power_of_2(scores[i] * scale - reference);
      scores[i + 1] = power_of_2(scores[i + 1] * scale - reference);
      total += scores[i] + scores[i + 1];
    }
    totals[half] = totals[half] * factors[half] + total;
  }
}

template <typename T, int SIZE, int GROUPS, int STAGES>
__device__ void attend(const Attention& attention, char* shared, Barriers<STAGES>& barriers, uint32_t count) {
  using At = Layout<SIZE, GROUPS, STAGES>;
  constexpr int STEPS = (SIZE + 15) / 16;
  uint32_t group = threadIdx.x / GROUP - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  uint32_t tiles_of_first = (attention.key_counts[0] + KEYS - 1) / KEYS;
  uint32_t tiles = tiles_of_first + (attention.key_counts[1] + KEYS - 1) / KEYS;
  uint64_t query_rows = operand(shared + group * At::QUERIES_BYTES);
  uint64_t key_rows = operand(shared + At::KEYS_AT);
  uint64_t value_rows = operand(shared + At::VALUES_AT, KEYS * ROW);
  auto release = [&](uint64_t* barrier) {
    __syncwarp();
    if (lane == 0) arrive(barrier);
  };
  if (group == GROUPS - 1) give_turn<GROUPS>(group);

  Turn<STAGES> keys_turn, values_turn;
  uint32_t query_parity = 0;
  for (uint32_t index = blockIdx.x; index < count; index += gridDim.x, query_parity ^= 1) {
    Place place(attention, index, GROUPS * QUERIES);
    float results[SIZE / 2];
    float scores[KEYS / 2];
    uint32_t weights[KEYS / 16][4];
    float greatest[2] = {-INFINITY, -INFINITY}, totals[2] = {0.0f, 0.0f}, factors[2];

    auto queue_scores = [&] {
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
        uint64_t left = advanced(query_rows, step / 4 * QUERIES * ROW + step % 4 * 32);
        uint64_t right = advanced(key_rows, keys_turn.stage * At::TILE_BYTES + step / 4 * KEYS * ROW + step % 4 * 32);
        Product<T, KEYS>::multiply(scores, left, right, step > 0);
      }
      end_group_of_products();
    };
    auto queue_results = [&](int adds) {
#pragma unroll
      for (int step = 0; step < KEYS / 16; step++) {
        uint64_t right = advanced(value_rows, values_turn.stage * At::TILE_BYTES + step * 16 * ROW);
        Product<T, SIZE>::multiply(results, weights[step], right, step > 0 ? 1 : adds);
      }
      end_group_of_products();
    };
    auto pack_weights = [&] {
#pragma unroll
      for (int step = 0; step < KEYS / 16; step++)
#pragma unroll
        for (int i = 0; i < 4; i++) weights[step][i] = packed<T>(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
    };
    // Keys of the tile that there are not weigh nothing.
    auto mask = [&](uint32_t tile) {
      uint32_t there = tile < tiles_of_first ? attention.key_counts[0] - tile * KEYS : attention.key_counts[1] - (tile - tiles_of_first) * KEYS;
      if (there < KEYS) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++)
          if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= there) scores[i] = -INFINITY;
      }
    };

    wait(&barriers.queries_full, query_parity);
    wait(&barriers.keys_full[keys_turn.stage], keys_turn.parity);
    wait_for_turn(group);
    pin(scores);
    begin_products();
    queue_scores();
    give_turn<GROUPS>(group);
    wait_for_products<0>();
    pin(scores);
    release(&barriers.keys_empty[keys_turn.stage]);
    keys_turn.next();
    if (tiles == 1) release(&barriers.queries_empty);
    mask(0);
    softmax(scores, greatest, totals, factors, attention.scale);
    pack_weights();

    for (uint32_t tile = 1; tile < tiles; tile++) {
      wait(&barriers.keys_full[keys_turn.stage], keys_turn.parity);
      wait_for_turn(group);
      pin(scores);
      pin(results);
      pin(weights);
      begin_products();
      queue_scores();
      wait(&barriers.values_full[values_turn.stage], values_turn.parity);
      queue_results(tile > 1);
      give_turn<GROUPS>(group);
      wait_for_products<1>();
      pin(scores);
      release(&barriers.keys_empty[keys_turn.stage]);
      keys_turn.next();
      if (tile + 1 == tiles) release(&barriers.queries_empty);
      mask(tile);
      softmax(scores, greatest, totals, factors, attention.scale);
      wait_for_products<0>();
      pin(results);
      pin(weights);
      release(&barriers.values_empty[values_turn.stage]);
      values_turn.next();
#pragma unroll
      for (int i = 0; i < SIZE / 2; i++) results[i] *= factors[i / 2 % 2];
      pack_weights();
    }
    wait(&barriers.values_full[values_turn.stage], values_turn.parity);
    pin(results);
    pin(weights);
    begin_products();
    queue_results(tiles > 1);
    wait_for_products<0>();
    pin(results);
    release(&barriers.values_empty[values_turn.stage]);
    values_turn.next();

    const Rows& rows = attention.results[place.second];
    T* to = static_cast<T*>(rows.values) + place.batch * rows.batch + place.head * rows.head;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = totals[half];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      float factor = 1.0f / total;
      uint32_t query = place.first_query + group * QUERIES + warp * 16 + lane / 4 + half * 8;
      if (query >= attention.query_counts[place.second]) continue;
#pragma unroll
      for (int part = 0; part < SIZE / 8; part++) {
        if (part * 8 < attention.size) {
          uint32_t pair = packed<T>(results[4 * part + 2 * half] * factor, results[4 * part + 2 * half + 1] * factor);
          *reinterpret_cast<uint32_t*>(to + query * rows.row + part * 8 + lane % 4 * 2) = pair;
        }
      }
    }
  }
  if (group == 0) wait_for_turn(group);
}

// A group of warps copies; GROUPS others take 64 queries each. A block takes as many places as there are, in steps of all blocks.
template <typename T, int SIZE, int GROUPS, int STAGES>
__device__ void attention(const Attention& attention) {
  extern __shared__ char unaligned[];
  using At = Layout<SIZE, GROUPS, STAGES>;
  // Swizzles count from multiples of 1024 bytes.
  char* shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  Barriers<STAGES>& barriers = *reinterpret_cast<Barriers<STAGES>*>(shared + At::BARRIERS_AT);
  if (threadIdx.x == 0) {
    start_barrier(&barriers.queries_full, 1);
    start_barrier(&barriers.queries_empty, 4 * GROUPS);
    for (int stage = 0; stage < STAGES; stage++) {
      start_barrier(&barriers.keys_full[stage], 1);
      start_barrier(&barriers.values_full[stage], 1);
      start_barrier(&barriers.keys_empty[stage], 4 * GROUPS);
      start_barrier(&barriers.values_empty[stage], 4 * GROUPS);
    }
    end_of_start_of_barriers();
  }
  __syncthreads();
  uint32_t blocks = (attention.query_counts[0] + GROUPS * QUERIES - 1) / (GROUPS * QUERIES) +
                    (attention.query_counts[1] + GROUPS * QUERIES - 1) / (GROUPS * QUERIES);
  uint32_t count = blocks * attention.heads * attention.batches;
  if (threadIdx.x < GROUP) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(GROUPS == 3 ? 32 : 24));
    if (threadIdx.x == 0) copy_tiles<T, SIZE, GROUPS>(attention, shared, barriers, count);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(GROUPS == 3 ? 160 : 240));
    attend<T, SIZE, GROUPS>(attention, shared, barriers, count);
  }
}
#else
template <typename T, int SIZE, int GROUPS, int STAGES>
__device__ void attention(const Attention&) {}
#endif

#define DEFINE(NAME, T, SIZE, GROUPS, STAGES)                                                            \
  extern "C" __global__ void __launch_bounds__((GROUPS + 1) * 128, 1) attention_hopper_##SIZE##_##NAME( \
      const __grid_constant__ Attention parameters) {                                                    \
    attention<T, SIZE, GROUPS, STAGES>(parameters);                                                      \
  }
// Three groups where their registers suffice: measurements on an H200 favour them.
#define DEFINE_SIZES(NAME, T) \
  DEFINE(NAME, T, 40, 3, 4)   \
  DEFINE(NAME, T, 64, 3, 4)   \
  DEFINE(NAME, T, 80, 2, 2)   \
  DEFINE(NAME, T, 128, 2, 2)
DEFINE_SIZES(f16, __half)
DEFINE_SIZES(bf16, __nv_bfloat16)
