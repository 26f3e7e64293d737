// A model as the device has it, for decode.cu, prefill.cu and their tests; Go's
// decodeModel and decodeLayer (cuda/session_weights.go) have the same layout.
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

// The keys and values of a layer, a ring of positions: position p is in slot p mod
// ring, and ring ≥ block. Both are padded with zeros to hd16 = 16·⌈hd/16⌉ and stand
// in rows of 16 bytes a position.
//
//	float   [kv_heads][hd16/4][ring][4]
//	int8    [kv_heads][hd16/16][ring][16], and a scale each [kv_heads][ring]
struct Cache {
  void *keys, *values;
  float *key_scale, *value_scale; // NULL: float
};

// One transformer block.
struct Layer {
  const float *attention_norm, *ffn_norm;   // [d]
  Linear q, k, v, o, gate, up, down, mixer; // without a head mixer, mixer.w is NULL
  Cache cache;
  uint32_t minus[16]; // bit j of minus[k]: sign[k xor j][j] is −1
};

// An embedding [vocab, d], or the output's own table.
struct Table {
  const void* data;      // int8 or float [vocab, d]; of groups their low bits
  const uint8_t* high;   // of groups of 6 bits
  const uint8_t* factor; // of groups
  const float* scale;    // of a row; NULL for floats
  int64_t bits;          // 8; 4 or 6: groups of 32 as kernel.Grouped has them; 32: floats
};

// Widths of attention.
struct Heads {
  int heads, kv_heads, hd, ring, block;
  float scale;
};

// A token's way through the layers.
struct Decode {
  const Layer* layers;
  const float* norm; // [d]
  Table embedding;
  void* x;                            // out: the output table's input [d], int8 or float
  float* scale;                       // out: its scale, of int8
  const int* state;                   // token, position, two unused, then the position's cosines and sines [hd/2]
  uint32_t minus[16];                 // of the mixer's algebra
  int n_layer, d, hidden, mixer_n;
  Heads heads;
  float eps;
  int fake8;   // float numerics: linear layers' inputs are rounded to int8 levels
  int area[2]; // bytes of shared memory for keys and for values, eight positions of them at least, a multiple of 16
};

static_assert(sizeof(Linear) == 24 && sizeof(Cache) == 32 && sizeof(Layer) == 304 && sizeof(Table) == 40 && sizeof(Heads) == 24 && sizeof(Decode) == 200,
              "as in cuda/session_weights.go");
