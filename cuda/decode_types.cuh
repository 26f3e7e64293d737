// A model as the device has it, for decode.cu, prefill.cu and their tests; Go's
// decodeModel and decodeLayer (cuda/session.go) have the same layout.
#pragma once
#include <stdint.h>

// Weights of a linear layer or a head mixer: rows [N][n][words] of a word's
// sixteen columns each, words = ⌈K/16⌉, padded with zeros: ternary uint32 with
// weight w of column 4e + b in bits 8b + 2e, 8b + 2e + 1 as w + 1 (so padding
// is 1), int8 [16], or float [16]. A mixer's rows are its outputs. The factor of
// row r is gain[r], or 1 without gain.
struct Linear {
  const void* w;
  const float* gain;
  int N, K; // widths of a part
};

struct Layer {
  const float *attention_norm, *ffn_norm; // [d]
  Linear q, k, v, o, gate, up, down, mixer; // without a head mixer, mixer.w is NULL
  void *keys, *values;                      // see attend
  float *key_scale, *value_scale;           // of an int8 cache [kv_heads][ring], else NULL
  uint32_t minus[16];                       // bit j of minus[k]: sign[k xor j][j] is −1
  long long n;                              // dimension of the algebra
};

// An embedding [vocab, d], or the output's own table.
struct Table {
  const void* data;      // int8 or float [vocab, d]; for groups their low bits
  const uint8_t *high;   // of groups of 6 bits
  const uint8_t *factor; // of groups
  const float* scale;    // of a row; NULL for floats
  long long bits;        // 8; 4 or 6: groups of 32 as kernel.Grouped has them; 32: floats
};

struct Decode {
  const Layer* layers;
  const float* norm; // [d]
  Table embedding, output;
  float *q, *k, *v, *o, *m, *act, *t; // activations of one token
  float* z;                           // out: float numerics' input of the output's table [d]
  int8_t* x;                          // out: int8's, and its scale
  float* scale;
  const int* state; // token, position, two unused, then the position's cosines and sines [hd/2]
  uint32_t minus[16]; // of the mixer's algebra
  int n_layer, d, hidden, heads, kv_heads, hd, ring, block, mixer_n;
  float eps, attention_scale;
  int fake8; // float numerics: linear layers' inputs are rounded to int8 levels
};
