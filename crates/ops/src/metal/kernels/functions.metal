// What all kernels use: functions of single values, in 32 bits.

#include <metal_stdlib>
using namespace metal;

inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// GELU by the tanh approximation, which is x * sigmoid of twice its argument.
inline float gelu_tanh(float x) { return x * sigmoid(1.595769f * (x + 0.044715f * x * x * x)); }

// The complementary error function of a non-negative number, to a relative error of about 5e-7. Press et al., "Numerical
// Recipes", erfcc, a Chebyshev fit.
inline float complementary_error(float x) {
  float t = 1.0f / (1.0f + 0.5f * x);
  float series = 0.17087277f;
  series = series * t - 0.82215223f;
  series = series * t + 1.48851587f;
  series = series * t - 1.13520398f;
  series = series * t + 0.27886807f;
  series = series * t - 0.18628806f;
  series = series * t + 0.09678418f;
  series = series * t + 0.37409196f;
  series = series * t + 1.00002368f;
  series = series * t - 1.26551223f;
  return t * exp(series - x * x);
}

// GELU by the error function: x times the normal distribution function.
inline float gelu(float x) {
  float smaller = 0.5f * complementary_error(fabs(x) * 0.70710678f);
  return x * (x < 0.0f ? smaller : 1.0f - smaller);
}
