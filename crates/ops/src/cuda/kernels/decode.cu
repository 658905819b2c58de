// Decodes the rows of a quantised weight, for a product that takes its values.
#include "../../gpu/quantization.h"
#include "values.cuh"

struct Rows {
  const uint8_t* rows;
  void* values;
  uint64_t row_bytes;
  uint32_t columns;
  uint32_t count;
  uint32_t form;
};

// A thread decodes eight values of a row.
template <typename T>
__device__ void decode_rows(const Rows& rows) {
  uint32_t parts = (rows.columns + 7) / 8;
  uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= uint64_t(parts) * rows.count) return;
  uint32_t row = index / parts, column = (index - uint64_t(row) * parts) * 8, left = rows.columns - column;
  float values[8];
  decode(rows.form, rows.rows + row * rows.row_bytes, column, left, values);
  T* to = static_cast<T*>(rows.values) + uint64_t(row) * rows.columns + column;
  if (rows.columns % 8 == 0) {
    store(to, values);
  } else {
    for (uint32_t k = 0; k < 8 && k < left; k++) to[k] = rounded<T>(values[k]);
  }
}

#define DEFINE(NAME, T, N) \
  extern "C" __global__ void decode_rows_##NAME(const Rows rows) { decode_rows<T>(rows); }
FOR_ALL_TYPES(DEFINE)
