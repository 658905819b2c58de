// Operations of single values: biases, activations, gates and residuals.

#include "functions.cuh"
#include "values.cuh"

struct Values {
  const void* x;
  void* y;
  const void* bias;
  const void* residual;
  const void* gate;
  uint32_t rows;
  uint32_t columns;
  uint32_t rows_of_gate;     // rows that share a gate
  uint32_t gate_stride;      // values between one gate and the next
  uint32_t residual_stride;  // values between the beginnings of rows
  uint32_t activation;
};

// y = residual + gate * activation(x + bias). x and y may be the same.
template <typename T, int N>
__device__ void epilogue(const Values& values) {
  uint32_t parts = values.columns / N;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(parts) * values.rows) return;
  uint32_t row = index / parts, column = (index - uint64_t(row) * parts) * N;
  float value[N], other[N];
  load(value, static_cast<const T*>(values.x) + index * N);
  if (values.bias) {
    load(other, static_cast<const T*>(values.bias) + column);
#pragma unroll
    for (int i = 0; i < N; i++) value[i] += other[i];
  }
  if (values.activation) {
#pragma unroll
    for (int i = 0; i < N; i++) value[i] = activated(value[i], values.activation);
  }
  if (values.gate) {
    load(other, static_cast<const T*>(values.gate) + uint64_t(row / values.rows_of_gate) * values.gate_stride + column);
#pragma unroll
    for (int i = 0; i < N; i++) value[i] *= other[i];
  }
  if (values.residual) {
    load(other, static_cast<const T*>(values.residual) + uint64_t(row) * values.residual_stride + column);
#pragma unroll
    for (int i = 0; i < N; i++) value[i] += other[i];
  }
  store(static_cast<T*>(values.y) + index * N, value);
}

struct Halves {
  const void* first;
  const void* second;
  void* y;
  const void* bias;
  uint32_t rows;
  uint32_t columns;
  uint32_t first_stride;
  uint32_t second_stride;
};

// y = (first + bias) * gelu(second + bias after it)
template <typename T, int N>
__device__ void geglu(const Halves& halves) {
  uint32_t parts = halves.columns / N;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(parts) * halves.rows) return;
  uint32_t row = index / parts, column = (index - uint64_t(row) * parts) * N;
  float value[N], gate[N], other[N];
  load(value, static_cast<const T*>(halves.first) + uint64_t(row) * halves.first_stride + column);
  load(gate, static_cast<const T*>(halves.second) + uint64_t(row) * halves.second_stride + column);
  if (halves.bias) {
    load(other, static_cast<const T*>(halves.bias) + column);
#pragma unroll
    for (int i = 0; i < N; i++) value[i] += other[i];
    load(other, static_cast<const T*>(halves.bias) + halves.columns + column);
#pragma unroll
    for (int i = 0; i < N; i++) gate[i] += other[i];
  }
#pragma unroll
  for (int i = 0; i < N; i++) value[i] *= gelu(gate[i]);
  store(static_cast<T*>(halves.y) + index * N, value);
}

// y = gelu_tanh(first) * second
template <typename T, int N>
__device__ void gated_gelu_tanh(const Halves& halves) {
  uint32_t parts = halves.columns / N;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(parts) * halves.rows) return;
  uint32_t row = index / parts, column = (index - uint64_t(row) * parts) * N;
  float gate[N], value[N];
  load(gate, static_cast<const T*>(halves.first) + uint64_t(row) * halves.first_stride + column);
  load(value, static_cast<const T*>(halves.second) + uint64_t(row) * halves.second_stride + column);
#pragma unroll
  for (int i = 0; i < N; i++) value[i] *= gelu_tanh(gate[i]);
  store(static_cast<T*>(halves.y) + index * N, value);
}

// y = x + positions, 32-bit floats that the images of a batch share
template <typename T, int N>
__device__ void add_positions(const Values& values) {
  uint32_t parts = values.columns / N;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(parts) * values.rows) return;
  uint32_t row = index / parts, column = (index - uint64_t(row) * parts) * N;
  float value[N];
  load(value, static_cast<const T*>(values.x) + index * N);
  const float* positions =
      static_cast<const float*>(values.residual) + uint64_t(row % values.rows_of_gate) * values.residual_stride + column;
#pragma unroll
  for (int i = 0; i < N; i++) value[i] += positions[i];
  store(static_cast<T*>(values.y) + index * N, value);
}

#define DEFINE(NAME, T, N)                                                                                      \
  extern "C" __global__ void epilogue_##NAME(const Values values) { epilogue<T, N>(values); }                   \
  extern "C" __global__ void epilogue_##NAME##_single(const Values values) { epilogue<T, 1>(values); }          \
  extern "C" __global__ void geglu_##NAME(const Halves halves) { geglu<T, N>(halves); }                         \
  extern "C" __global__ void geglu_##NAME##_single(const Halves halves) { geglu<T, 1>(halves); }                \
  extern "C" __global__ void gated_gelu_tanh_##NAME(const Halves halves) { gated_gelu_tanh<T, N>(halves); }     \
  extern "C" __global__ void gated_gelu_tanh_##NAME##_single(const Halves halves) {                             \
    gated_gelu_tanh<T, 1>(halves);                                                                              \
  }                                                                                                             \
  extern "C" __global__ void add_positions_##NAME(const Values values) { add_positions<T, N>(values); }         \
  extern "C" __global__ void add_positions_##NAME##_single(const Values values) { add_positions<T, 1>(values); }
FOR_ALL_TYPES(DEFINE)
