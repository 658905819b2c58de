// Layer norms, RMS norms, group norms, and the softmax.

#include "functions.cuh"
#include "values.cuh"

struct Rows {
  const void* x;
  void* y;
  const void* scale;
  const void* shift;
  uint32_t count;
  uint32_t width;
  uint32_t stride;        // values between the beginnings of rows of x
  uint32_t rows_of_one;   // rows that share a scale and a shift
  uint32_t scale_stride;  // values between the scales of one and of the next
  uint32_t shift_stride;
  float scale_offset;     // added to every scale
  float epsilon;
  uint32_t subtracts_mean;
};

// y = normed * (scale_offset + scale) + shift, of rows that LANES threads each keep in registers, N values at a time.
template <typename T, int N, int LANES, int PARTS>
__device__ void row_norm(const Rows& rows) {
  uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
  bool inside = row < rows.count;
  // Threads past the last row take part in the sums of their warp.
  const T* from = static_cast<const T*>(rows.x) + uint64_t(inside ? row : 0) * rows.stride;
  float values[PARTS][N];
  float total = 0.0f;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    uint32_t column = (part * LANES + lane) * N;
    if (column < rows.width) {
      load(values[part], from + column);
    } else {
#pragma unroll
      for (int i = 0; i < N; i++) values[part][i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < N; i++) total += values[part][i];
  }
  float mean = rows.subtracts_mean ? sum_over_lanes<LANES>(total) / float(rows.width) : 0.0f;
  float squares = 0.0f;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    if ((part * LANES + lane) * N < rows.width) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        values[part][i] -= mean;
        squares += values[part][i] * values[part][i];
      }
    }
  }
  float factor = rsqrtf(sum_over_lanes<LANES>(squares) / float(rows.width) + rows.epsilon);
  if (!inside) return;
  T* to = static_cast<T*>(rows.y) + uint64_t(row) * rows.width;
  uint64_t one = row / rows.rows_of_one;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    uint32_t column = (part * LANES + lane) * N;
    if (column < rows.width) {
      float other[N];
#pragma unroll
      for (int i = 0; i < N; i++) values[part][i] *= factor;
      if (rows.scale) {
        load(other, static_cast<const T*>(rows.scale) + one * rows.scale_stride + column);
#pragma unroll
        for (int i = 0; i < N; i++) values[part][i] *= rows.scale_offset + other[i];
      }
      if (rows.shift) {
        load(other, static_cast<const T*>(rows.shift) + one * rows.shift_stride + column);
#pragma unroll
        for (int i = 0; i < N; i++) values[part][i] += other[i];
      }
      store(to + column, values[part]);
    }
  }
}

// The same of rows of any width, which a warp reads three times.
template <typename T>
__device__ void long_row_norm(const Rows& rows) {
  uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= rows.count) return;
  const T* from = static_cast<const T*>(rows.x) + uint64_t(row) * rows.stride;
  T* to = static_cast<T*>(rows.y) + uint64_t(row) * rows.width;
  float mean = 0.0f;
  if (rows.subtracts_mean) {
    float total = 0.0f;
    for (uint32_t i = lane; i < rows.width; i += 32) total += widened(from[i]);
    mean = sum_over_lanes(total) / float(rows.width);
  }
  float squares = 0.0f;
  for (uint32_t i = lane; i < rows.width; i += 32) {
    float apart = widened(from[i]) - mean;
    squares += apart * apart;
  }
  float factor = rsqrtf(sum_over_lanes(squares) / float(rows.width) + rows.epsilon);
  uint64_t one = row / rows.rows_of_one;
  const T* scale = static_cast<const T*>(rows.scale) + one * rows.scale_stride;
  const T* shift = static_cast<const T*>(rows.shift) + one * rows.shift_stride;
  for (uint32_t i = lane; i < rows.width; i += 32) {
    float value = (widened(from[i]) - mean) * factor;
    if (rows.scale) value *= rows.scale_offset + widened(scale[i]);
    if (rows.shift) value += widened(shift[i]);
    to[i] = rounded<T>(value);
  }
}

struct Sums {
  const void* x;        // [batch, pixels, channels]
  float* sums;          // [batch, slabs, channels, 2]
  uint32_t pixels;
  uint32_t channels;
  uint32_t slab;        // pixels of a slab
  uint32_t slabs;
};

// For each slab of pixels and each channel, the sum of its values less the channel's first one, and the sum of their squares. So a
// mean far from zero costs no digits. The threads of a block are [pixels, channels]; each takes N channels.
template <typename T, int N>
__device__ void channel_sums(const Sums& sums) {
  __shared__ float shared[2 * N * 256];
  uint32_t channel = (blockIdx.y * blockDim.x + threadIdx.x) * N, batch = blockIdx.z;
  const T* image = static_cast<const T*>(sums.x) + uint64_t(batch) * sums.pixels * sums.channels;
  float total[N], squares[N];
#pragma unroll
  for (int i = 0; i < N; i++) total[i] = squares[i] = 0.0f;
  if (channel < sums.channels) {
    float origin[N];
    load(origin, image + channel);
    uint32_t end = min((blockIdx.x + 1) * sums.slab, sums.pixels);
    for (uint32_t pixel = blockIdx.x * sums.slab + threadIdx.y; pixel < end; pixel += blockDim.y) {
      float values[N];
      load(values, image + uint64_t(pixel) * sums.channels + channel);
#pragma unroll
      for (int i = 0; i < N; i++) {
        float apart = values[i] - origin[i];
        total[i] += apart;
        squares[i] += apart * apart;
      }
    }
  }
  uint32_t thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < N; i++) {
    shared[(2 * i) * 256 + thread] = total[i];
    shared[(2 * i + 1) * 256 + thread] = squares[i];
  }
  __syncthreads();
  if (threadIdx.y == 0 && channel < sums.channels) {
    float* to = sums.sums + ((uint64_t(batch) * sums.slabs + blockIdx.x) * sums.channels + channel) * 2;
#pragma unroll
    for (int i = 0; i < 2 * N; i++) {
      float sum = 0.0f;
      for (uint32_t y = 0; y < blockDim.y; y++) sum += shared[i * 256 + y * blockDim.x + threadIdx.x];
      to[i] = sum;
    }
  }
}

struct Moments {
  const void* x;         // [batch, pixels, channels], for the first value of each channel
  const float* sums;     // [batch, slabs, channels, 2]
  float* found;          // [batch, channels, 2], or [batch, groups, 2]
  const float* earlier;  // [batch, channels, 2]
  float earlier_count;
  float epsilon;
  uint32_t batch;
  uint32_t pixels;
  uint32_t channels;
  uint32_t slabs;
  uint32_t channels_of_group;
};

// For each channel its mean and the sum of squared deviations from it, merged with those of earlier rows (Chan, Golub and LeVeque,
// "Algorithms for Computing the Sample Variance", 1983): a warp a channel.
template <typename T>
__device__ void channel_moments(const Moments& moments) {
  uint32_t index = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (index >= moments.batch * moments.channels) return;
  uint32_t batch = index / moments.channels, channel = index - batch * moments.channels;
  const float* sums = moments.sums + (uint64_t(batch) * moments.slabs * moments.channels + channel) * 2;
  float total = 0.0f, squares = 0.0f;
  for (uint32_t slab = lane; slab < moments.slabs; slab += 32) {
    total += sums[uint64_t(slab) * moments.channels * 2];
    squares += sums[uint64_t(slab) * moments.channels * 2 + 1];
  }
  total = sum_over_lanes(total);
  squares = sum_over_lanes(squares);
  if (lane > 0) return;
  float origin = widened(static_cast<const T*>(moments.x)[uint64_t(batch) * moments.pixels * moments.channels + channel]);
  float apart = total / float(moments.pixels);
  float mean = origin + apart, deviations = fmaxf(squares - apart * total, 0.0f);
  if (moments.earlier) {
    float before = moments.earlier[2 * index], count = moments.earlier_count + float(moments.pixels);
    float difference = mean - before, share = float(moments.pixels) / count;
    mean = before + difference * share;
    deviations += moments.earlier[2 * index + 1] + difference * difference * moments.earlier_count * share;
  }
  moments.found[2 * index] = mean;
  moments.found[2 * index + 1] = deviations;
}

// The sum of x over the 256 threads of a block.
__device__ inline float sum_over_block(float x, float (&shared)[8]) {
  x = sum_over_lanes(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < 8; warp++) sum += shared[warp];
  return sum;
}

// The mean of each group and the reciprocal of its standard deviation: a block of 256 threads a group.
template <typename T>
__device__ void group_statistics(const Moments& moments) {
  __shared__ float shared[8];
  uint32_t index = blockIdx.x, thread = threadIdx.x;
  uint32_t groups = moments.channels / moments.channels_of_group;
  uint32_t batch = index / groups, first = (index - batch * groups) * moments.channels_of_group;
  const T* origins = static_cast<const T*>(moments.x) + uint64_t(batch) * moments.pixels * moments.channels;
  const float* sums = moments.sums + (uint64_t(batch) * moments.slabs * moments.channels + first) * 2;
  // Threads take channel after channel, slab after slab. All values are taken less the first one of the group.
  float origin = widened(origins[first]);
  uint32_t parts = moments.channels_of_group * moments.slabs;
  float mean = 0.0f;
  for (uint32_t part = thread; part < parts; part += 256) {
    uint32_t slab = part / moments.channels_of_group, channel = part - slab * moments.channels_of_group;
    float own = widened(origins[first + channel]) - origin;
    mean += sums[(uint64_t(slab) * moments.channels + channel) * 2];
    if (slab == 0) mean += own * float(moments.pixels);
  }
  float count = float(moments.pixels) * float(moments.channels_of_group);
  mean = sum_over_block(mean, shared) / count;
  // The squared deviations from that mean, of each channel from its own sums.
  float deviations = 0.0f;
  for (uint32_t part = thread; part < parts; part += 256) {
    uint32_t slab = part / moments.channels_of_group, channel = part - slab * moments.channels_of_group;
    float apart = widened(origins[first + channel]) - origin - mean;
    const float* of = sums + (uint64_t(slab) * moments.channels + channel) * 2;
    deviations += of[1] + 2.0f * apart * of[0];
    if (slab == 0) deviations += apart * apart * float(moments.pixels);
  }
  deviations = fmaxf(sum_over_block(deviations, shared), 0.0f);
  if (thread == 0) {
    moments.found[2 * index] = origin + mean;
    moments.found[2 * index + 1] = rsqrtf(deviations / count + moments.epsilon);
  }
}

struct Grouping {
  const float* moments;  // [batch, channels, 2]
  float* statistics;     // [batch, groups, 2]
  uint32_t groups;       // of all images
  uint32_t channels_of_group;
  float count;           // values of a channel
  float epsilon;
};

// The statistics of groups from the moments of their channels: a thread a group.
extern "C" __global__ void grouped_statistics(const Grouping grouping) {
  uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= grouping.groups) return;
  const float* of = grouping.moments + uint64_t(index) * grouping.channels_of_group * 2;
  float mean = 0.0f, variance = 0.0f;
  for (uint32_t i = 0; i < grouping.channels_of_group; i++) mean += of[2 * i];
  mean /= float(grouping.channels_of_group);
  for (uint32_t i = 0; i < grouping.channels_of_group; i++) {
    float apart = of[2 * i] - mean;
    variance += of[2 * i + 1] / grouping.count + apart * apart;
  }
  grouping.statistics[2 * index] = mean;
  grouping.statistics[2 * index + 1] = rsqrtf(variance / float(grouping.channels_of_group) + grouping.epsilon);
}

struct Groups {
  const void* x;            // [batch, pixels, channels]
  void* y;
  const float* statistics;  // [batch, groups, 2]
  const void* weight;
  const void* bias;
  uint64_t parts;           // N channels each, of all images
  uint64_t parts_of_image;
  uint32_t channels;
  uint32_t channels_of_group;
  uint32_t then_silu;
};

// Norms images by the statistics of their groups: a thread N channels of a pixel.
template <typename T, int N>
__device__ void group_normalize(const Groups& groups) {
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= groups.parts) return;
  uint32_t channel = uint32_t(index % (groups.channels / N)) * N, batch = uint32_t(index / groups.parts_of_image);
  uint32_t group = channel / groups.channels_of_group, place = channel - group * groups.channels_of_group;
  const float* statistics = groups.statistics + 2 * (uint64_t(batch) * (groups.channels / groups.channels_of_group) + group);
  float values[N], weight[N], bias[N];
  load(values, static_cast<const T*>(groups.x) + index * N);
  load(weight, static_cast<const T*>(groups.weight) + channel);
  load(bias, static_cast<const T*>(groups.bias) + channel);
#pragma unroll
  for (int i = 0; i < N; i++) {
    float value = (values[i] - statistics[0]) * statistics[1] * weight[i] + bias[i];
    values[i] = groups.then_silu ? value * sigmoid(value) : value;
    if (++place == groups.channels_of_group && i + 1 < N) {
      place = 0;
      statistics += 2;
    }
  }
  store(static_cast<T*>(groups.y) + index * N, values);
}

struct Scores {
  const float* scores; // [rows, width]
  void* weights;       // as many; of 32 bits they may be the scores
  const float* bias;   // [rows, width] or none
  uint32_t rows;
  uint32_t width;
  float scale;
};

// weights = the softmax of scale * scores + bias, by a block of 256 threads a row. A row of nothing but minus infinity becomes zeros.
template <typename T>
__device__ void softmax(const Scores& scores) {
  __shared__ float shared[8];
  const float* row = scores.scores + uint64_t(blockIdx.x) * scores.width;
  T* weights = static_cast<T*>(scores.weights) + uint64_t(blockIdx.x) * scores.width;
  const float* bias = scores.bias ? scores.bias + uint64_t(blockIdx.x) * scores.width : nullptr;
  uint32_t thread = threadIdx.x, warp = thread / 32;
  float greatest = -INFINITY, total = 0.0f;
  for (uint32_t i = thread; i < scores.width; i += 256) {
    float score = row[i] * scores.scale + (bias ? bias[i] : 0.0f);
    float larger = fmaxf(greatest, score);
    if (larger == -INFINITY) continue;
    total = total * __expf(greatest - larger) + __expf(score - larger);
    greatest = larger;
  }
  float largest = greatest;
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, apart));
  if (thread % 32 == 0) shared[warp] = largest;
  __syncthreads();
  largest = shared[0];
#pragma unroll
  for (int i = 1; i < 8; i++) largest = fmaxf(largest, shared[i]);
  if (largest == -INFINITY) {
    for (uint32_t i = thread; i < scores.width; i += 256) weights[i] = rounded<T>(0.0f);
    return;
  }
  total = sum_over_lanes(greatest == -INFINITY ? 0.0f : total * __expf(greatest - largest));
  __syncthreads();
  if (thread % 32 == 0) shared[warp] = total;
  __syncthreads();
  total = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) total += shared[i];
  float factor = 1.0f / total;
  for (uint32_t i = thread; i < scores.width; i += 256) {
    float score = row[i] * scores.scale + (bias ? bias[i] : 0.0f);
    weights[i] = rounded<T>(__expf(score - largest) * factor);
  }
}

#define DEFINE(NAME, T, N)                                                                                             \
  extern "C" __global__ void row_norm_8_##NAME(const Rows rows) { row_norm<T, N, 8, 1>(rows); }                        \
  extern "C" __global__ void row_norm_16_##NAME(const Rows rows) { row_norm<T, N, 16, 1>(rows); }                      \
  extern "C" __global__ void row_norm_32_##NAME(const Rows rows) { row_norm<T, N, 32, 1>(rows); }                      \
  extern "C" __global__ void row_norm_128_##NAME(const Rows rows) { row_norm<T, N, 32, 4>(rows); }                     \
  extern "C" __global__ void row_norm_320_##NAME(const Rows rows) { row_norm<T, N, 32, 10>(rows); }                    \
  extern "C" __global__ void row_norm_512_##NAME(const Rows rows) { row_norm<T, N, 32, 16>(rows); }                     \
  extern "C" __global__ void row_norm_##NAME(const Rows rows) { long_row_norm<T>(rows); }                              \
  extern "C" __global__ void channel_sums_##NAME(const Sums sums) { channel_sums<T, N>(sums); }                        \
  extern "C" __global__ void channel_sums_##NAME##_single(const Sums sums) { channel_sums<T, 1>(sums); }               \
  extern "C" __global__ void channel_moments_##NAME(const Moments moments) { channel_moments<T>(moments); }            \
  extern "C" __global__ void group_statistics_##NAME(const Moments moments) { group_statistics<T>(moments); }          \
  extern "C" __global__ void group_normalize_##NAME(const Groups groups) { group_normalize<T, N>(groups); }            \
  extern "C" __global__ void group_normalize_##NAME##_single(const Groups groups) { group_normalize<T, 1>(groups); }   \
  extern "C" __global__ void softmax_##NAME(const Scores scores) { softmax<T>(scores); }
FOR_ALL_TYPES(DEFINE)
