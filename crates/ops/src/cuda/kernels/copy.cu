// Copies of views, and images of twice the height and width.

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
