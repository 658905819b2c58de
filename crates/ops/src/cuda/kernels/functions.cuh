// Functions of single values, in 32 bits.
#pragma once

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// GELU by the tanh approximation, which is x * sigmoid of twice its argument.
__device__ inline float gelu_tanh(float x) { return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); }

// GELU by the error function: x times the normal distribution function.
__device__ inline float gelu(float x) { return x * normcdff(x); }

// 0 none, 1 GELU, 2 GELU by tanh, 3 quick GELU, 4 silu
__device__ inline float activated(float x, unsigned activation) {
  switch (activation) {
    case 1: return gelu(x);
    case 2: return gelu_tanh(x);
    case 3: return x * sigmoid(1.702f * x);
    case 4: return x * sigmoid(x);
    default: return x;
  }
}
