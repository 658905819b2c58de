// Convolutions as products of the weight with the windows of the input, which are gathered tile by tile (implicit GEMM).

#include <metal_simdgroup_matrix>

constant bool has_bias [[function_constant(0)]];
constant bool has_shifts [[function_constant(1)]];
constant bool has_residual [[function_constant(2)]];
// Whether the convolution is that of the input with every pixel as four.
constant bool upsamples [[function_constant(3)]];
constant ushort kernel_height [[function_constant(4)]];
constant ushort kernel_width [[function_constant(5)]];

struct Convolution {
  uint in_channels;
  uint height;
  uint width;
  uint out_channels;
  uint out_height;
  uint out_width;
  uint stride;
  int above;   // rows of zeros above the input, or less than 0: rows that are left out
  uint left;
  uint depth;  // values of a window
};

// The type that tiles are held in: products of bf16 are not in every GPU.
template <typename T> struct Tile { typedef float type; };
template <> struct Tile<half> { typedef half type; };

constant constexpr uint CHANNELS = 64;  // of the result, a tile's rows
constant constexpr uint PIXELS = 64;
constant constexpr uint DEPTH = 16;
constant constexpr uint THREADS = 128;  // four simdgroups, each of 32 channels and 32 pixels
constant constexpr uint WEIGHT_STRIDE = DEPTH + 4;
constant constexpr uint WINDOW_STRIDE = PIXELS + 4;
constant constexpr uint SUM_STRIDE = PIXELS;

template <typename T>
[[kernel]] void convolution(
    device const T* x [[buffer(0)]],
    device const T* weight [[buffer(1)]],
    device T* y [[buffer(2)]],
    device const T* bias [[buffer(3)]],
    device const T* shifts [[buffer(4)]],
    device const T* residual [[buffer(5)]],
    constant Convolution& of [[buffer(6)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  typedef typename Tile<T>::type S;
  threadgroup S weights[CHANNELS * WEIGHT_STRIDE];
  threadgroup S windows[DEPTH * WINDOW_STRIDE];
  threadgroup float sums[CHANNELS * SUM_STRIDE];

  uint pixels = of.out_height * of.out_width;
  uint first_pixel = group.x * PIXELS, first_channel = group.y * CHANNELS, image = group.z;
  device const T* image_of_x = x + ulong(image) * of.in_channels * of.height * of.width;

  simdgroup_matrix<float, 8, 8> total[4][4];
  for (uint i = 0; i < 4; i++)
    for (uint j = 0; j < 4; j++) total[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  uint own_channel = simdgroup / 2 * 32, own_pixel = simdgroup % 2 * 32;

  // What this thread gathers: eight values of a window row of one channel, and eight rows of one pixel.
  uint weight_row = thread_index / 2, weight_column = thread_index % 2 * 8;
  bool has_channel = first_channel + weight_row < of.out_channels;
  device const T* weight_of_channel = weight + ulong(first_channel + weight_row) * of.depth;
  uint pixel = thread_index % PIXELS, first_row = thread_index / PIXELS * 8;
  bool has_pixel = first_pixel + pixel < pixels;
  int top = int((first_pixel + pixel) / of.out_width * of.stride) - of.above;
  int left = int((first_pixel + pixel) % of.out_width * of.stride) - int(of.left);
  uint area = uint(kernel_height) * kernel_width;

  for (uint depth = 0; depth < of.depth; depth += DEPTH) {
    for (uint i = 0; i < 8; i++) {
      uint at = depth + weight_column + i;
      bool is_there = has_channel && at < of.depth;
      weights[weight_row * WEIGHT_STRIDE + weight_column + i] = is_there ? S(weight_of_channel[at]) : S(0.0f);
    }
    for (uint i = 0; i < 8; i++) {
      uint at = depth + first_row + i;
      uint channel = at / area, of_kernel = at % area;
      int row = top + int(of_kernel / kernel_width), column = left + int(of_kernel % kernel_width);
      bool is_there = has_pixel && at < of.depth && row >= 0 && column >= 0;
      if (upsamples) {
        row /= 2;
        column /= 2;
      }
      is_there = is_there && row < int(of.height) && column < int(of.width);
      S value = S(0.0f);
      if (is_there) value = S(image_of_x[(ulong(channel) * of.height + row) * of.width + column]);
      windows[(first_row + i) * WINDOW_STRIDE + pixel] = value;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < DEPTH; k += 8) {
      simdgroup_matrix<S, 8, 8> left_part[4], right_part[4];
      for (uint i = 0; i < 4; i++) {
        simdgroup_load(left_part[i], weights + (own_channel + 8 * i) * WEIGHT_STRIDE + k, WEIGHT_STRIDE);
        simdgroup_load(right_part[i], windows + k * WINDOW_STRIDE + own_pixel + 8 * i, WINDOW_STRIDE);
      }
      for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++)
          simdgroup_multiply_accumulate(total[i][j], left_part[i], right_part[j], total[i][j]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  for (uint i = 0; i < 4; i++)
    for (uint j = 0; j < 4; j++)
      simdgroup_store(total[i][j], sums + (own_channel + 8 * i) * SUM_STRIDE + own_pixel + 8 * j, SUM_STRIDE);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = thread_index; i < CHANNELS * PIXELS; i += THREADS) {
    uint channel = first_channel + i / PIXELS, at_pixel = first_pixel + i % PIXELS;
    if (channel >= of.out_channels || at_pixel >= pixels) continue;
    float value = sums[i / PIXELS * SUM_STRIDE + i % PIXELS];
    if (has_bias) value += float(bias[channel]);
    if (has_shifts) value += float(shifts[ulong(image) * of.out_channels + channel]);
    ulong at = (ulong(image) * of.out_channels + channel) * pixels + at_pixel;
    if (has_residual) value += float(residual[at]);
    y[at] = T(value);
  }
}

template [[host_name("convolution_f32")]] [[kernel]] decltype(convolution<float>) convolution<float>;
template [[host_name("convolution_f16")]] [[kernel]] decltype(convolution<half>) convolution<half>;
template [[host_name("convolution_bf16")]] [[kernel]] decltype(convolution<bfloat>) convolution<bfloat>;
