// Copies of views, images of twice the height and width, weights of convolutions in another order, and values in another type.

#include "values.cuh"

constexpr int RANK = 6;

struct View {
  const void* from;
  void* to;
  uint64_t count;           // of the parts that are copied at a time
  uint32_t sizes[RANK];     // from the last dimension on
  uint64_t strides[RANK];   // of what is read, in bytes
  uint64_t places[RANK];    // of what is written
};

// A thread copies one part.
template <typename Part>
__device__ void copy(const View& view) {
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= view.count) return;
  uint64_t from = 0, to = 0;
#pragma unroll
  for (int i = 0; i < RANK; i++) {
    uint64_t next = index / view.sizes[i], place = index - next * view.sizes[i];
    from += place * view.strides[i];
    to += place * view.places[i];
    index = next;
  }
  *reinterpret_cast<Part*>(static_cast<char*>(view.to) + to) =
      *reinterpret_cast<const Part*>(static_cast<const char*>(view.from) + from);
}

extern "C" __global__ void copy_1(const __grid_constant__ View view) { copy<uint8_t>(view); }
extern "C" __global__ void copy_2(const __grid_constant__ View view) { copy<uint16_t>(view); }
extern "C" __global__ void copy_4(const __grid_constant__ View view) { copy<uint32_t>(view); }
extern "C" __global__ void copy_8(const __grid_constant__ View view) { copy<uint2>(view); }
extern "C" __global__ void copy_16(const __grid_constant__ View view) { copy<uint4>(view); }

struct Planes {
  const void* x;   // [rows, width, channels], channels in parts
  void* y;         // [2 rows, 2 width, channels]
  uint64_t count;  // of parts of y
  uint32_t width;  // of the smaller images
  uint32_t parts;  // of the channels of a pixel
};

// Doubles images, every pixel to four.
template <typename Part>
__device__ void upsample_nearest(const Planes& planes) {
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= planes.count) return;
  uint64_t pixel = index / planes.parts, part = index - pixel * planes.parts;
  uint64_t row = pixel / (2 * planes.width), column = pixel - row * 2 * planes.width;
  uint64_t from = (row / 2 * planes.width + column / 2) * planes.parts + part;
  static_cast<Part*>(planes.y)[index] = static_cast<const Part*>(planes.x)[from];
}

extern "C" __global__ void upsample_nearest_2(const Planes planes) { upsample_nearest<uint16_t>(planes); }
extern "C" __global__ void upsample_nearest_4(const Planes planes) { upsample_nearest<uint32_t>(planes); }
extern "C" __global__ void upsample_nearest_16(const Planes planes) { upsample_nearest<uint4>(planes); }

struct Filters {
  void* weights;      // [out channels, channels, taps], in place to [out channels, taps, channels]
  uint32_t channels;
  uint32_t taps;
};

// Brings the channels of a convolution's weights side by side: a block an output channel, which passes through shared memory.
template <typename Part>
__device__ void filters_channels_last(const Filters& filters) {
  extern __shared__ __align__(16) char bytes[];
  Part* shared = reinterpret_cast<Part*>(bytes);
  uint32_t count = filters.channels * filters.taps;
  Part* own = static_cast<Part*>(filters.weights) + uint64_t(blockIdx.x) * count;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) shared[i] = own[i];
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    uint32_t tap = i / filters.channels, channel = i - tap * filters.channels;
    own[i] = shared[channel * filters.taps + tap];
  }
}

extern "C" __global__ void filters_channels_last_2(const Filters filters) { filters_channels_last<uint16_t>(filters); }
extern "C" __global__ void filters_channels_last_4(const Filters filters) { filters_channels_last<uint32_t>(filters); }

struct Conversion {
  const void* x;
  void* y;
  uint64_t count;
};

// Values in another type.
template <typename From, typename To>
__device__ void convert(const Conversion& conversion) {
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < conversion.count)
    static_cast<To*>(conversion.y)[index] = rounded<To>(widened(static_cast<const From*>(conversion.x)[index]));
}

#define DEFINE(FROM, FROM_NAME, TO, TO_NAME)                                                \
  extern "C" __global__ void convert_##FROM_NAME##_##TO_NAME(const Conversion conversion) { \
    convert<FROM, TO>(conversion);                                                          \
  }
DEFINE(float, f32, __half, f16)
DEFINE(float, f32, __nv_bfloat16, bf16)
DEFINE(__half, f16, float, f32)
DEFINE(__half, f16, __nv_bfloat16, bf16)
DEFINE(__nv_bfloat16, bf16, float, f32)
DEFINE(__nv_bfloat16, bf16, __half, f16)
