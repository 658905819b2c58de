// Layer norms, RMS norms and group norms.

constant bool subtracts_mean [[function_constant(0)]];
constant bool has_scale [[function_constant(1)]];
constant bool has_shift [[function_constant(2)]];

struct Rows {
  uint count;
  uint width;
  uint stride;         // values between the beginnings of rows of x
  uint rows_of_one;    // rows that share a scale and a shift
  uint scale_stride;   // values between the scales of one and of the next
  uint shift_stride;
  float scale_offset;  // added to every scale
  float epsilon;
};

// Norms rows, each by the threads of one simdgroup: y = normed * (scale_offset + scale) + shift.
template <typename T>
[[kernel]] void row_norm(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    device const T* scale [[buffer(2)]],
    device const T* shift [[buffer(3)]],
    constant Rows& rows [[buffer(4)]],
    uint group [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  uint row = group * simdgroups + simdgroup;
  if (row >= rows.count) return;
  device const T* from = x + ulong(row) * rows.stride;
  device T* to = y + ulong(row) * rows.width;
  float mean = 0.0f;
  if (subtracts_mean) {
    float total = 0.0f;
    for (uint i = lane; i < rows.width; i += 32) total += float(from[i]);
    mean = simd_sum(total) / float(rows.width);
  }
  float squares = 0.0f;
  for (uint i = lane; i < rows.width; i += 32) {
    float apart = float(from[i]) - mean;
    squares += apart * apart;
  }
  float factor = rsqrt(simd_sum(squares) / float(rows.width) + rows.epsilon);
  ulong one = row / rows.rows_of_one;
  for (uint i = lane; i < rows.width; i += 32) {
    float value = (float(from[i]) - mean) * factor;
    if (has_scale) value *= rows.scale_offset + float(scale[one * rows.scale_stride + i]);
    if (has_shift) value += float(shift[one * rows.shift_stride + i]);
    to[i] = T(value);
  }
}

template [[host_name("row_norm_f32")]] [[kernel]] decltype(row_norm<float>) row_norm<float>;
template [[host_name("row_norm_f16")]] [[kernel]] decltype(row_norm<half>) row_norm<half>;
template [[host_name("row_norm_bf16")]] [[kernel]] decltype(row_norm<bfloat>) row_norm<bfloat>;

struct Groups {
  uint channels;           // of an image
  uint channels_of_group;
  uint pixels;
  float epsilon;
};

constant constexpr uint GROUP_THREADS = 1024;

// The mean of a group and the sum of squared deviations from it, for its first thread, by the threads of one threadgroup. Every
// thread sums values less the first one of the group, so that a mean far from zero costs no digits.
template <typename T>
inline float2 moments(
    device const T* x,
    ulong size,
    uint thread_index,
    uint simdgroup,
    uint lane,
    threadgroup float* sums,
    threadgroup float* squares) {
  float origin = float(x[0]);
  float total = 0.0f, total_of_squares = 0.0f;
  // Sums of a few hundred values each, so that the rounding of a long sum stays that of a short one.
  float part = 0.0f, part_of_squares = 0.0f;
  uint taken = 0;
  for (ulong i = thread_index; i < size; i += GROUP_THREADS) {
    float apart = float(x[i]) - origin;
    part += apart;
    part_of_squares += apart * apart;
    if (++taken == 256) {
      total += part;
      total_of_squares += part_of_squares;
      part = part_of_squares = 0.0f;
      taken = 0;
    }
  }
  total = simd_sum(total + part);
  total_of_squares = simd_sum(total_of_squares + part_of_squares);
  if (lane == 0) {
    sums[simdgroup] = total;
    squares[simdgroup] = total_of_squares;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  total = simd_sum(sums[lane]);
  total_of_squares = simd_sum(squares[lane]);
  float apart = total / float(size);
  return float2(origin + apart, max(total_of_squares - apart * total, 0.0f));
}

template <typename T>
[[kernel]] void group_statistics(
    device const T* x [[buffer(0)]],
    device float* statistics [[buffer(1)]],
    constant Groups& groups [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float sums[32];
  threadgroup float squares[32];
  ulong size = ulong(groups.channels_of_group) * groups.pixels;
  float2 found = moments(x + group * size, size, thread_index, simdgroup, lane, sums, squares);
  if (thread_index == 0) {
    statistics[2 * group] = found.x;
    statistics[2 * group + 1] = rsqrt(found.y / float(size) + groups.epsilon);
  }
}

template [[host_name("group_statistics_f32")]] [[kernel]] decltype(group_statistics<float>) group_statistics<float>;
template [[host_name("group_statistics_f16")]] [[kernel]] decltype(group_statistics<half>) group_statistics<half>;
template [[host_name("group_statistics_bf16")]] [[kernel]] decltype(group_statistics<bfloat>) group_statistics<bfloat>;

constant bool has_earlier [[function_constant(5)]];

struct Channels {
  uint pixels;          // of these rows
  float earlier_count;  // of the rows before them
};

// For each channel its mean and the sum of squared deviations from it, merged with those of earlier rows (Chan, Golub and LeVeque,
// "Algorithms for Computing the Sample Variance", 1983).
template <typename T>
[[kernel]] void channel_moments(
    device const T* x [[buffer(0)]],
    device float* found [[buffer(1)]],
    device const float* earlier [[buffer(2)]],
    constant Channels& channels [[buffer(3)]],
    uint group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float sums[32];
  threadgroup float squares[32];
  ulong size = channels.pixels;
  float2 moments_of = moments(x + group * size, size, thread_index, simdgroup, lane, sums, squares);
  if (thread_index != 0) return;
  if (has_earlier) {
    float mean = earlier[2 * group], count = channels.earlier_count + float(size);
    float apart = moments_of.x - mean, share = float(size) / count;
    moments_of.x = mean + apart * share;
    moments_of.y += earlier[2 * group + 1] + apart * apart * channels.earlier_count * share;
  }
  found[2 * group] = moments_of.x;
  found[2 * group + 1] = moments_of.y;
}

template [[host_name("channel_moments_f32")]] [[kernel]] decltype(channel_moments<float>) channel_moments<float>;
template [[host_name("channel_moments_f16")]] [[kernel]] decltype(channel_moments<half>) channel_moments<half>;
template [[host_name("channel_moments_bf16")]] [[kernel]] decltype(channel_moments<bfloat>) channel_moments<bfloat>;

struct Grouping {
  uint groups;             // of all images
  uint channels_of_group;
  float count;             // values of a channel
  float epsilon;
};

// The statistics of groups from the moments of their channels, a thread a group.
[[kernel]] void grouped_statistics_f32(
    device const float* moments_of_channels [[buffer(0)]],
    device float* statistics [[buffer(1)]],
    constant Grouping& grouping [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint place [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
  uint index = group * threads + place;
  if (index >= grouping.groups) return;
  device const float* of = moments_of_channels + ulong(index) * grouping.channels_of_group * 2;
  float mean = 0.0f, variance = 0.0f;
  for (uint i = 0; i < grouping.channels_of_group; i++) mean += of[2 * i];
  mean /= float(grouping.channels_of_group);
  for (uint i = 0; i < grouping.channels_of_group; i++) {
    float apart = of[2 * i] - mean;
    variance += of[2 * i + 1] / grouping.count + apart * apart;
  }
  statistics[2 * index] = mean;
  statistics[2 * index + 1] = rsqrt(variance / float(grouping.channels_of_group) + grouping.epsilon);
}

constant bool then_silu [[function_constant(3)]];

// Norms images by the statistics of their groups: a thread a value, channel by channel.
template <typename T>
[[kernel]] void group_normalize(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    device const float* statistics [[buffer(2)]],
    device const T* weight [[buffer(3)]],
    device const T* bias [[buffer(4)]],
    constant Groups& groups [[buffer(5)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint2 place [[thread_position_in_threadgroup]],
    uint2 threads [[threads_per_threadgroup]]) {
  uint pixel = group.x * threads.x + place.x;
  uint plane = group.y;
  if (pixel >= groups.pixels) return;
  uint channel = plane % groups.channels;
  uint of = plane / groups.channels_of_group;
  float mean = statistics[2 * of], factor = statistics[2 * of + 1];
  ulong at = ulong(plane) * groups.pixels + pixel;
  float value = (float(x[at]) - mean) * factor * float(weight[channel]) + float(bias[channel]);
  if (then_silu) value *= sigmoid(value);
  y[at] = T(value);
}

template [[host_name("group_normalize_f32")]] [[kernel]] decltype(group_normalize<float>) group_normalize<float>;
template [[host_name("group_normalize_f16")]] [[kernel]] decltype(group_normalize<half>) group_normalize<half>;
template [[host_name("group_normalize_bf16")]] [[kernel]] decltype(group_normalize<bfloat>) group_normalize<bfloat>;

constant bool has_score_bias [[function_constant(4)]];

struct Scores {
  uint count;
  uint width;
  float scale;
};

// The softmax of rows in place, each by the threads of one simdgroup.
template <typename T>
[[kernel]] void softmax(
    device T* x [[buffer(0)]],
    device const float* bias [[buffer(1)]],
    constant Scores& scores [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  uint row = group * simdgroups + simdgroup;
  if (row >= scores.count) return;
  ulong begin = ulong(row) * scores.width;
  // The least float in place of -inf, so that a row that is all -inf has a maximum to subtract.
  float greatest = -3.402823466e38f;
  for (uint i = lane; i < scores.width; i += 32) {
    float value = scores.scale * float(x[begin + i]);
    if (has_score_bias) value += bias[begin + i];
    greatest = max(greatest, value);
  }
  greatest = simd_max(greatest);
  float total = 0.0f;
  for (uint i = lane; i < scores.width; i += 32) {
    float value = scores.scale * float(x[begin + i]);
    if (has_score_bias) value += bias[begin + i];
    total += exp(value - greatest);
  }
  float factor = 1.0f / max(simd_sum(total), 1.17549435e-38f);
  for (uint i = lane; i < scores.width; i += 32) {
    float value = scores.scale * float(x[begin + i]);
    if (has_score_bias) value += bias[begin + i];
    x[begin + i] = T(exp(value - greatest) * factor);
  }
}

template [[host_name("softmax_f32")]] [[kernel]] decltype(softmax<float>) softmax<float>;
template [[host_name("softmax_f16")]] [[kernel]] decltype(softmax<half>) softmax<half>;
template [[host_name("softmax_bf16")]] [[kernel]] decltype(softmax<bfloat>) softmax<bfloat>;

struct Masked {
  uint count;         // rows of scores: batch * heads * queries
  uint heads;
  uint queries;
  uint keys;
  uint size;          // values of a head
  uint bias_batch;    // values of the bias between neighbours
  uint bias_head;
  uint bias_query;
};

// Zeros in y, [batch, queries, heads, size], for the queries whose keys are all masked by -inf in the bias.
template <typename T>
[[kernel]] void zero_masked(
    device const T* bias [[buffer(0)]],
    device T* y [[buffer(1)]],
    constant Masked& masked [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint simdgroups [[simdgroups_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  uint row = group * simdgroups + simdgroup;
  if (row >= masked.count) return;
  uint query = row % masked.queries, head = row / masked.queries % masked.heads, image = row / masked.queries / masked.heads;
  device const T* of = bias + ulong(image) * masked.bias_batch + ulong(head) * masked.bias_head + ulong(query) * masked.bias_query;
  uint open = 0;
  for (uint i = lane; i < masked.keys; i += 32) open |= float(of[i]) > -3.402823466e38f ? 1 : 0;
  if (simd_max(open) != 0) return;
  device T* to = y + ((ulong(image) * masked.queries + query) * masked.heads + head) * masked.size;
  for (uint i = lane; i < masked.size; i += 32) to[i] = T(0.0f);
}

template [[host_name("zero_masked_f32")]] [[kernel]] decltype(zero_masked<float>) zero_masked<float>;
template [[host_name("zero_masked_f16")]] [[kernel]] decltype(zero_masked<half>) zero_masked<half>;
template [[host_name("zero_masked_bf16")]] [[kernel]] decltype(zero_masked<bfloat>) zero_masked<bfloat>;
