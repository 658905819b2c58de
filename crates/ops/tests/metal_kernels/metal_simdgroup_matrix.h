// Metal's matrices of a simdgroup as this crate's kernels use them, in place of Metal's header of this name.

namespace metal {

// A matrix that the threads of a simdgroup hold together. Here its first thread holds it and computes alone.
template <typename T, int COLUMNS, int ROWS>
struct simdgroup_matrix {
  T values[ROWS][COLUMNS];
};

template <typename T, int COLUMNS, int ROWS>
inline simdgroup_matrix<T, COLUMNS, ROWS> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, COLUMNS, ROWS> matrix;
  for (int row = 0; row < ROWS; row++)
    for (int column = 0; column < COLUMNS; column++) matrix.values[row][column] = value;
  return matrix;
}

template <typename T, int COLUMNS, int ROWS>
inline void simdgroup_load(simdgroup_matrix<T, COLUMNS, ROWS>& matrix, const T* from, ulong stride) {
  if (!host::is_first_of_simdgroup()) return;
  for (int row = 0; row < ROWS; row++)
    for (int column = 0; column < COLUMNS; column++) matrix.values[row][column] = from[row * stride + column];
}

template <typename T, int COLUMNS, int ROWS>
inline void simdgroup_store(const simdgroup_matrix<T, COLUMNS, ROWS>& matrix, T* to, ulong stride) {
  if (!host::is_first_of_simdgroup()) return;
  for (int row = 0; row < ROWS; row++)
    for (int column = 0; column < COLUMNS; column++) to[row * stride + column] = matrix.values[row][column];
}

// result = a * b + c
template <typename T, int COLUMNS, int INNER, int ROWS>
inline void simdgroup_multiply_accumulate(
    simdgroup_matrix<float, COLUMNS, ROWS>& result,
    const simdgroup_matrix<T, INNER, ROWS>& a,
    const simdgroup_matrix<T, COLUMNS, INNER>& b,
    const simdgroup_matrix<float, COLUMNS, ROWS>& c) {
  if (!host::is_first_of_simdgroup()) return;
  simdgroup_matrix<float, COLUMNS, ROWS> sum = c;
  for (int row = 0; row < ROWS; row++)
    for (int inner = 0; inner < INNER; inner++)
      for (int column = 0; column < COLUMNS; column++)
        sum.values[row][column] += float(a.values[row][inner]) * float(b.values[inner][column]);
  result = sum;
}

}  // namespace metal
