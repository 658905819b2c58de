// Values that change their places.

constant constexpr uint RANK = 6;

struct View {
  uint count;
  uint sizes[RANK];   // the last dimension first
  uint from[RANK];    // values between neighbours of each dimension
  uint to[RANK];
  uint copied;        // values of the last dimension that are there; the others become zeros
};

// Copies a view of up to 6 dimensions to another.
template <typename T>
[[kernel]] void copy(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    constant View& view [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint place [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
  uint index = group * threads + place;
  if (index >= view.count) return;
  ulong from = 0, to = 0;
  bool is_there = index % view.sizes[0] < view.copied;
  for (uint i = 0; i < RANK; i++) {
    uint at = index % view.sizes[i];
    index /= view.sizes[i];
    from += ulong(at) * view.from[i];
    to += ulong(at) * view.to[i];
  }
  y[to] = is_there ? x[from] : T(0.0f);
}

template [[host_name("copy_f32")]] [[kernel]] decltype(copy<float>) copy<float>;
template [[host_name("copy_f16")]] [[kernel]] decltype(copy<half>) copy<half>;
template [[host_name("copy_bf16")]] [[kernel]] decltype(copy<bfloat>) copy<bfloat>;

struct Planes {
  uint height;  // of the smaller images
  uint width;
};

// Doubles images, every pixel to four.
template <typename T>
[[kernel]] void upsample_nearest(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    constant Planes& planes [[buffer(2)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint column = group.x * threads.x + place.x;
  ulong row = ulong(group.y) * threads.y + place.y;  // of all larger images together
  if (column >= 2 * planes.width) return;
  y[row * 2 * planes.width + column] = x[row / 2 * planes.width + column / 2];
}

template [[host_name("upsample_nearest_f32")]] [[kernel]] decltype(upsample_nearest<float>) upsample_nearest<float>;
template [[host_name("upsample_nearest_f16")]] [[kernel]] decltype(upsample_nearest<half>) upsample_nearest<half>;
template [[host_name("upsample_nearest_bf16")]] [[kernel]] decltype(upsample_nearest<bfloat>) upsample_nearest<bfloat>;
