// Operations of single values: biases, activations, gates and residuals.

constant bool has_bias [[function_constant(0)]];
constant bool has_residual [[function_constant(1)]];
constant bool has_gate [[function_constant(2)]];
// 0 none, 1 GELU, 2 GELU by tanh, 3 quick GELU, 4 silu
constant ushort activation [[function_constant(3)]];

struct Values {
  uint rows;
  uint columns;
  uint rows_of_gate;     // rows that share a gate
  uint gate_stride;      // values between one gate and the next
  uint residual_stride;  // values between the beginnings of rows
};

inline float activated(float x) {
  switch (activation) {
    case 1: return gelu(x);
    case 2: return gelu_tanh(x);
    case 3: return x * sigmoid(1.702f * x);
    case 4: return x * sigmoid(x);
    default: return x;
  }
}

// y = residual + gate * activation(x + bias). x and y may be the same.
template <typename T>
[[kernel]] void epilogue(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    device const T* bias [[buffer(2)]],
    device const T* residual [[buffer(3)]],
    device const T* gate [[buffer(4)]],
    constant Values& values [[buffer(5)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = group.x * threads.x + place.x, row = group.y * threads.y + place.y;
  if (column >= values.columns || row >= values.rows) return;
  ulong at = ulong(row) * values.columns + column;
  float value = float(x[at]);
  if (has_bias) value += float(bias[column]);
  value = activated(value);
  if (has_gate) value *= float(gate[ulong(row / values.rows_of_gate) * values.gate_stride + column]);
  if (has_residual) value += float(residual[ulong(row) * values.residual_stride + column]);
  y[at] = T(value);
}

template [[host_name("epilogue_f32")]] [[kernel]] decltype(epilogue<float>) epilogue<float>;
template [[host_name("epilogue_f16")]] [[kernel]] decltype(epilogue<half>) epilogue<half>;
template [[host_name("epilogue_bf16")]] [[kernel]] decltype(epilogue<bfloat>) epilogue<bfloat>;

struct Halves {
  uint rows;
  uint columns;
  uint first_stride;
  uint second_stride;
};

// y = (first + bias) * gelu(second + bias after it)
template <typename T>
[[kernel]] void geglu(
    device const T* first [[buffer(0)]],
    device const T* second [[buffer(1)]],
    device T* y [[buffer(2)]],
    device const T* bias [[buffer(3)]],
    constant Halves& halves [[buffer(4)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = group.x * threads.x + place.x, row = group.y * threads.y + place.y;
  if (column >= halves.columns || row >= halves.rows) return;
  float value = float(first[ulong(row) * halves.first_stride + column]);
  float gate = float(second[ulong(row) * halves.second_stride + column]);
  if (has_bias) {
    value += float(bias[column]);
    gate += float(bias[halves.columns + column]);
  }
  y[ulong(row) * halves.columns + column] = T(value * gelu(gate));
}

template [[host_name("geglu_f32")]] [[kernel]] decltype(geglu<float>) geglu<float>;
template [[host_name("geglu_f16")]] [[kernel]] decltype(geglu<half>) geglu<half>;
template [[host_name("geglu_bf16")]] [[kernel]] decltype(geglu<bfloat>) geglu<bfloat>;

// y = gelu_tanh(first) * second
template <typename T>
[[kernel]] void gated_gelu_tanh(
    device const T* first [[buffer(0)]],
    device const T* second [[buffer(1)]],
    device T* y [[buffer(2)]],
    constant Halves& halves [[buffer(4)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = group.x * threads.x + place.x, row = group.y * threads.y + place.y;
  if (column >= halves.columns || row >= halves.rows) return;
  float gate = float(first[ulong(row) * halves.first_stride + column]);
  float value = float(second[ulong(row) * halves.second_stride + column]);
  y[ulong(row) * halves.columns + column] = T(gelu_tanh(gate) * value);
}

template [[host_name("gated_gelu_tanh_f32")]] [[kernel]] decltype(gated_gelu_tanh<float>) gated_gelu_tanh<float>;
template [[host_name("gated_gelu_tanh_f16")]] [[kernel]] decltype(gated_gelu_tanh<half>) gated_gelu_tanh<half>;
template [[host_name("gated_gelu_tanh_bf16")]] [[kernel]] decltype(gated_gelu_tanh<bfloat>) gated_gelu_tanh<bfloat>;

// y = x + positions, which the images of a batch share
template <typename T>
[[kernel]] void add_positions(
    device const T* x [[buffer(0)]],
    device const float* positions [[buffer(1)]],
    device T* y [[buffer(2)]],
    constant Values& values [[buffer(3)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = group.x * threads.x + place.x, row = group.y * threads.y + place.y;
  if (column >= values.columns || row >= values.rows) return;
  ulong at = ulong(row) * values.columns + column;
  ulong position = ulong(row % values.rows_of_gate) * values.residual_stride + column;
  y[at] = T(float(x[at]) + positions[position]);
}

template [[host_name("add_positions_f32")]] [[kernel]] decltype(add_positions<float>) add_positions<float>;
template [[host_name("add_positions_f16")]] [[kernel]] decltype(add_positions<half>) add_positions<half>;
template [[host_name("add_positions_bf16")]] [[kernel]] decltype(add_positions<bfloat>) add_positions<bfloat>;
