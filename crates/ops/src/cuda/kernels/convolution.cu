// Convolutions of images whose channels lie side by side, as matrix products without stored windows (implicit GEMM; Chetlur et al.,
// "cuDNN: Efficient Primitives for Deep Learning", 2014): pixels by output channels, summed over the taps of the kernel and the
// channels of the input.

#include "tensor_cores.cuh"

struct Convolution {
  const void* x;        // [batch, height, width, channels]
  const void* weight;   // [out channels, kernel height, kernel width, channels]
  void* y;              // [batch, out height, out width, out channels]
  float* parts;         // [splits, pixels, out channels], where the sum is split
  const void* bias;     // [out channels]
  const void* shifts;   // [batch, out channels]
  const void* onto;     // as y
  uint32_t pixels;      // of the results of all images
  uint32_t channels;    // a multiple of what 16 bytes hold
  uint32_t height;
  uint32_t width;
  uint32_t out_channels;
  uint32_t out_height;
  uint32_t out_width;
  uint32_t stride;
  int32_t above;
  int32_t left;
  uint32_t kernel_height;
  uint32_t kernel_width;
  uint32_t upsamples;   // whether each pixel of x stands for four
  uint32_t splits;      // of the sum
};

// Where a pixel of the result begins to read.
struct Window {
  uint32_t image;
  int32_t row;
  int32_t column;
  bool inside;
};

__device__ inline Window window_of(const Convolution& convolution, uint32_t pixel) {
  uint32_t area = convolution.out_height * convolution.out_width;
  uint32_t image = pixel / area, place = pixel - image * area;
  uint32_t row = place / convolution.out_width, column = place - row * convolution.out_width;
  return {image, int32_t(row * convolution.stride) - convolution.above, int32_t(column * convolution.stride) - convolution.left,
          pixel < convolution.pixels};
}

// The offset of the pixel under a tap, or none where it is outside of the image.
__device__ inline bool pixel_under(
    const Convolution& convolution, const Window& window, uint32_t tap_row, uint32_t tap_column, uint64_t& offset) {
  int32_t row = window.row + int32_t(tap_row), column = window.column + int32_t(tap_column);
  int32_t scale = convolution.upsamples ? 1 : 0;
  bool inside = window.inside && row >= 0 && column >= 0 && (row >> scale) < int32_t(convolution.height) &&
                (column >> scale) < int32_t(convolution.width);
  offset = ((uint64_t(window.image) * convolution.height + (row >> scale)) * convolution.width + (column >> scale)) *
           convolution.channels;
  return inside;
}

// What is added to a value of the result.
template <typename T>
__device__ inline float addends(const Convolution& convolution, uint32_t pixel, uint32_t channel) {
  float value = 0.0f;
  if (convolution.bias) value += widened(static_cast<const T*>(convolution.bias)[channel]);
  if (convolution.shifts) {
    uint32_t image = pixel / (convolution.out_height * convolution.out_width);
    value += widened(static_cast<const T*>(convolution.shifts)[uint64_t(image) * convolution.out_channels + channel]);
  }
  if (convolution.onto)
    value += widened(static_cast<const T*>(convolution.onto)[uint64_t(pixel) * convolution.out_channels + channel]);
  return value;
}

#ifdef HAS_TENSOR_CORES

constexpr int DEPTH = 64;      // channels that are multiplied at a time
constexpr int PITCH = DEPTH + 8;
constexpr int STAGES = 3;
constexpr int PARTS = DEPTH / 8;  // of 16 bytes, of a row

// A block computes PIXELS pixels of CHANNELS output channels. Its warps are [WARPS_DOWN, WARPS_ACROSS].
template <typename T, int PIXELS, int CHANNELS, int WARPS_DOWN, int WARPS_ACROSS>
__device__ void convolve(const Convolution& convolution) {
  constexpr int THREADS = WARPS_DOWN * WARPS_ACROSS * 32;
  constexpr int ROWS = PIXELS / WARPS_DOWN / 16;          // tiles of 16 pixels of a warp
  constexpr int COLUMNS = CHANNELS / WARPS_ACROSS / 16;   // pairs of tiles of 8 channels
  constexpr int STAGE = (PIXELS + CHANNELS) * PITCH;
  constexpr int ROWS_OF_THREAD = PIXELS / (THREADS / PARTS);
  extern __shared__ __align__(16) char shared_bytes[];
  T* shared = reinterpret_cast<T*>(shared_bytes);
  uint32_t thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  uint32_t first_pixel = blockIdx.x * PIXELS, first_channel = blockIdx.y * CHANNELS;
  uint32_t part = (thread % PARTS) * 8;

  Window windows[ROWS_OF_THREAD];
#pragma unroll
  for (int i = 0; i < ROWS_OF_THREAD; i++) windows[i] = window_of(convolution, first_pixel + thread / PARTS + i * (THREADS / PARTS));

  uint32_t steps_of_tap = (convolution.channels + DEPTH - 1) / DEPTH;
  uint32_t taps = convolution.kernel_height * convolution.kernel_width;
  uint32_t steps = steps_of_tap * taps;
  uint32_t begin = uint64_t(steps) * blockIdx.z / convolution.splits;
  uint32_t end = uint64_t(steps) * (blockIdx.z + 1) / convolution.splits;

  // Where the next copies are.
  uint32_t tap = begin / steps_of_tap, channel = (begin - tap * steps_of_tap) * DEPTH;
  uint32_t tap_row = tap / convolution.kernel_width, tap_column = tap - tap_row * convolution.kernel_width;
  const T* sources[ROWS_OF_THREAD];
  bool insides[ROWS_OF_THREAD];
  auto find_sources = [&] {
#pragma unroll
    for (int i = 0; i < ROWS_OF_THREAD; i++) {
      uint64_t offset;
      insides[i] = pixel_under(convolution, windows[i], tap_row, tap_column, offset);
      sources[i] = static_cast<const T*>(convolution.x) + (insides[i] ? offset : 0);
    }
  };
  find_sources();
  const T* weight = static_cast<const T*>(convolution.weight);
  auto copy_step = [&](int stage) {
    T* of_pixels = shared + stage * STAGE;
    T* of_channels = of_pixels + PIXELS * PITCH;
    bool is_channel = channel + part < convolution.channels;
#pragma unroll
    for (int i = 0; i < ROWS_OF_THREAD; i++) {
      bool inside = insides[i] && is_channel;
      copy_async(of_pixels + (thread / PARTS + i * (THREADS / PARTS)) * PITCH + part, sources[i] + (inside ? channel + part : 0), inside);
    }
#pragma unroll
    for (int i = 0; i < (CHANNELS + THREADS / PARTS - 1) / (THREADS / PARTS); i++) {
      uint32_t row = thread / PARTS + i * (THREADS / PARTS);
      if (CHANNELS % (THREADS / PARTS) != 0 && row >= CHANNELS) break;
      uint32_t out = first_channel + row;
      bool inside = out < convolution.out_channels && is_channel;
      uint64_t offset = (uint64_t(out) * taps + tap) * convolution.channels + channel + part;
      copy_async(of_channels + row * PITCH + part, weight + (inside ? offset : 0), inside);
    }
    channel += DEPTH;
    if (channel >= convolution.channels) {
      channel = 0;
      tap++;
      if (++tap_column == convolution.kernel_width) {
        tap_column = 0;
        tap_row++;
      }
      find_sources();
    }
  };

  float sums[ROWS][2 * COLUMNS][4];
#pragma unroll
  for (int row = 0; row < ROWS; row++)
#pragma unroll
    for (int column = 0; column < 2 * COLUMNS; column++)
#pragma unroll
      for (int i = 0; i < 4; i++) sums[row][column][i] = 0.0f;

  uint32_t warp_row = (warp / WARPS_ACROSS) * ROWS * 16, warp_column = (warp % WARPS_ACROSS) * COLUMNS * 16;
  uint32_t next = begin;
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; stage++) {
    if (next < end) {
      copy_step(stage);
      next++;
    }
    end_group_of_copies();
  }
  int stage = 0;
  for (uint32_t step = begin; step < end; step++) {
    wait_for_copies<STAGES - 2>();
    __syncthreads();
    // Into the stage that all threads have left.
    if (next < end) {
      copy_step((stage + STAGES - 1) % STAGES);
      next++;
    }
    end_group_of_copies();
    const T* of_pixels = shared + stage * STAGE;
    const T* of_channels = of_pixels + PIXELS * PITCH;
#pragma unroll
    for (int depth = 0; depth < DEPTH; depth += 16) {
      uint32_t left[ROWS][4];
#pragma unroll
      for (int row = 0; row < ROWS; row++)
        load_matrices(left[row], of_pixels + (warp_row + row * 16 + lane % 16) * PITCH + depth + lane / 16 * 8);
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        uint32_t right[4];
        load_matrices(
            right, of_channels + (warp_column + column * 16 + lane % 8 + lane / 16 * 8) * PITCH + depth + lane / 8 % 2 * 8);
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          multiply<T>(sums[row][2 * column], left[row], right[0], right[1]);
          multiply<T>(sums[row][2 * column + 1], left[row], right[2], right[3]);
        }
      }
    }
    stage = (stage + 1) % STAGES;
  }

#pragma unroll
  for (int row = 0; row < ROWS; row++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      uint32_t pixel = first_pixel + warp_row + row * 16 + lane / 4 + half * 8;
      if (pixel >= convolution.pixels) continue;
#pragma unroll
      for (int column = 0; column < 2 * COLUMNS; column++) {
        uint32_t out = first_channel + warp_column + column * 8 + lane % 4 * 2;
        const float* pair = sums[row][column] + 2 * half;
        uint64_t at = uint64_t(pixel) * convolution.out_channels + out;
        if (convolution.splits > 1) {
          float* to = convolution.parts + uint64_t(blockIdx.z) * convolution.pixels * convolution.out_channels + at;
          if (out < convolution.out_channels) to[0] = pair[0];
          if (out + 1 < convolution.out_channels) to[1] = pair[1];
        } else if (out + 1 < convolution.out_channels && convolution.out_channels % 2 == 0) {
          uint32_t values = packed<T>(
              pair[0] + addends<T>(convolution, pixel, out), pair[1] + addends<T>(convolution, pixel, out + 1));
          *reinterpret_cast<uint32_t*>(static_cast<T*>(convolution.y) + at) = values;
        } else {
          for (int i = 0; i < 2; i++)
            if (out + i < convolution.out_channels)
              static_cast<T*>(convolution.y)[at + i] = rounded<T>(pair[i] + addends<T>(convolution, pixel, out + i));
        }
      }
    }
}
#else
// Older GPUs take another way.
template <typename T, int PIXELS, int CHANNELS, int WARPS_DOWN, int WARPS_ACROSS>
__device__ void convolve(const Convolution&) {}
#endif

// The sum of the parts of a result, and what is added to it.
template <typename T>
__device__ void sum_parts(const Convolution& convolution) {
  uint64_t count = uint64_t(convolution.pixels) * convolution.out_channels;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= count) return;
  float value = 0.0f;
  for (uint32_t split = 0; split < convolution.splits; split++) value += convolution.parts[split * count + index];
  uint32_t pixel = index / convolution.out_channels, channel = index - uint64_t(pixel) * convolution.out_channels;
  static_cast<T*>(convolution.y)[index] = rounded<T>(value + addends<T>(convolution, pixel, channel));
}

// In 32 bits, on any GPU: a block computes 64 pixels of 64 output channels, a thread 4x4 of them.
__device__ void convolve_plain(const Convolution& convolution) {
  constexpr int TILE = 64, DEPTH_OF_32_BITS = 16;
  __shared__ float of_pixels[DEPTH_OF_32_BITS][TILE + 4], of_channels[DEPTH_OF_32_BITS][TILE + 4];
  uint32_t thread = threadIdx.x, row = thread / 4, part = (thread % 4) * 4;
  uint32_t first_pixel = blockIdx.x * TILE, first_channel = blockIdx.y * TILE;
  Window window = window_of(convolution, first_pixel + row);
  uint32_t out = first_channel + row;
  uint32_t taps = convolution.kernel_height * convolution.kernel_width;
  const float* weight = static_cast<const float*>(convolution.weight) + uint64_t(out) * taps * convolution.channels;
  float sums[4][4] = {};
  uint32_t x = thread % 16 * 4, y = thread / 16 * 4;
  for (uint32_t tap = 0; tap < taps; tap++) {
    uint64_t offset;
    bool inside = pixel_under(convolution, window, tap / convolution.kernel_width, tap % convolution.kernel_width, offset);
    for (uint32_t channel = 0; channel < convolution.channels; channel += DEPTH_OF_32_BITS) {
      float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f), pixel = none, other = none;
      if (channel + part < convolution.channels) {
        if (inside) pixel = *reinterpret_cast<const float4*>(static_cast<const float*>(convolution.x) + offset + channel + part);
        if (out < convolution.out_channels)
          other = *reinterpret_cast<const float4*>(weight + uint64_t(tap) * convolution.channels + channel + part);
      }
      __syncthreads();
      of_pixels[part][row] = pixel.x, of_pixels[part + 1][row] = pixel.y;
      of_pixels[part + 2][row] = pixel.z, of_pixels[part + 3][row] = pixel.w;
      of_channels[part][row] = other.x, of_channels[part + 1][row] = other.y;
      of_channels[part + 2][row] = other.z, of_channels[part + 3][row] = other.w;
      __syncthreads();
#pragma unroll
      for (int depth = 0; depth < DEPTH_OF_32_BITS; depth++) {
        float4 left = *reinterpret_cast<const float4*>(&of_pixels[depth][y]);
        float4 right = *reinterpret_cast<const float4*>(&of_channels[depth][x]);
        float lefts[4] = {left.x, left.y, left.z, left.w}, rights[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) sums[i][j] += lefts[i] * rights[j];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      uint32_t pixel = first_pixel + y + i, channel = first_channel + x + j;
      if (pixel < convolution.pixels && channel < convolution.out_channels)
        static_cast<float*>(convolution.y)[uint64_t(pixel) * convolution.out_channels + channel] =
            sums[i][j] + addends<float>(convolution, pixel, channel);
    }
}

#define DEFINE_TILE(NAME, T, PIXELS, CHANNELS, DOWN, ACROSS)                               \
  extern "C" __global__ void __launch_bounds__(DOWN * ACROSS * 32)                         \
      convolution_##CHANNELS##_##NAME(const __grid_constant__ Convolution convolution) {   \
    convolve<T, PIXELS, CHANNELS, DOWN, ACROSS>(convolution);                              \
  }
#define DEFINE(NAME, T)                                                                    \
  DEFINE_TILE(NAME, T, 128, 128, 2, 4)                                                     \
  DEFINE_TILE(NAME, T, 128, 64, 4, 1)                                                      \
  DEFINE_TILE(NAME, T, 128, 16, 4, 1)                                                      \
  extern "C" __global__ void sum_parts_##NAME(const __grid_constant__ Convolution convolution) { sum_parts<T>(convolution); }
DEFINE(f16, __half)
DEFINE(bf16, __nv_bfloat16)

extern "C" __global__ void __launch_bounds__(256) convolution_f32(
    const __grid_constant__ Convolution convolution) {
  convolve_plain(convolution);
}
