// Decodes the rows of a quantised weight, for a product that takes its values. It follows gpu/quantization.h.

struct Rows {
  uint row_bytes;
  uint columns;
  uint count;
  uint form;
};

// A thread decodes eight values of a row.
template <typename T>
[[kernel]] void decode_rows(
    device const uint8_t* rows [[buffer(0)]],
    device T* values [[buffer(1)]],
    constant Rows& sizes [[buffer(2)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = (group.x * threads.x + place.x) * 8, row = group.y * threads.y + place.y;
  if (column >= sizes.columns || row >= sizes.count) return;
  uint left = sizes.columns - column;
  float decoded[8];
  decode(sizes.form, rows + ulong(row) * sizes.row_bytes, column, left, decoded);
  device T* to = values + ulong(row) * sizes.columns + column;
  for (uint k = 0; k < 8 && k < left; k++) to[k] = T(decoded[k]);
}

template [[host_name("decode_rows_f32")]] [[kernel]] decltype(decode_rows<float>) decode_rows<float>;
template [[host_name("decode_rows_f16")]] [[kernel]] decltype(decode_rows<half>) decode_rows<half>;
template [[host_name("decode_rows_bf16")]] [[kernel]] decltype(decode_rows<bfloat>) decode_rows<bfloat>;
