// The embedding table: rows gathered in the forward, and gradients added to
// them in the backward, in an order that the ids alone decide.
//
// The backward reads the tokens in the order of their ids, which comes from the
// host, cuts the list into segments of 32 tokens, and adds up each segment's
// runs of equal ids. A run within one segment goes straight to the table's
// gradient; a longer one leaves one partial sum a segment, added up in order by
// a second launch.
#include "device.cuh"

namespace {
constexpr int kSegment = 32;
}

// embedding: y [n, d] = table[ids].
// launch: grid n, block 128, no dynamic shared; arguments (float* y, const
// float* table, const int32* ids, int d).
KERNEL(128, 8)
embedding(float* y, const float* table, const int* ids, int d) {
  const size_t row = blockIdx.x, id = ids[row];
  y += row * d, table += id * d;
  if (d % 4 == 0)
    for (int c = threadIdx.x * 4; c < d; c += 512) store4(y + c, load4(table + c));
  else
    for (int c = threadIdx.x; c < d; c += 128) y[c] = table[c];
}

namespace {

DEVICE float plus(float a, float b) { return a + b; }
DEVICE float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// One column group of one segment. What is read is read AHEAD tokens early.
template <class V>
DEVICE void segment(float* dtable, float* part, const float* dy, const int* tokens, const int* ids, int before, int after, int count, int d, int c) {
  constexpr int AHEAD = 8;
  auto row = [&](int i) { return (V*)(dtable + (size_t)ids[i] * d + c); };
  auto ends = [&](int i) { return i + 1 == count || ids[i + 1] != ids[i]; };
  // The run that ends at i lies in this segment alone.
  auto whole = [&](int i) { return ends(i) && ids[i] != before && !(i + 1 == count && ids[i] == after); };
  V next[AHEAD], old[AHEAD], sum;
  auto load = [&](int i, int e) {
    next[e] = *(const V*)(dy + (size_t)tokens[i] * d + c);
    if (whole(i)) old[e] = *row(i);
  };
#pragma unroll
  for (int i = 0; i < AHEAD; i++)
    if (i < count) load(i, i);
  for (int i0 = 0; i0 < count; i0 += AHEAD) {
#pragma unroll
    for (int e = 0; e < AHEAD; e++) {
      const int i = i0 + e;
      if (i >= count) break;
      sum = i && ids[i] == ids[i - 1] ? plus(sum, next[e]) : next[e];
      if (whole(i))
        *row(i) = plus(old[e], sum);
      else if (ends(i))
        *(V*)(part + (ids[i] == before ? 0 : d) + c) = sum;
      if (i + AHEAD < count) load(i + AHEAD, e);
    }
  }
}

// Adds up a run that begins in a segment and goes on in later ones: four groups
// of threads each a quarter of the later ones, then these in order.
template <class V>
DEVICE void join(V (*quarters)[128], float* dtable, const float* part, int segments, int id, int d, int c, bool inside) {
  const int group = threadIdx.x / 128, t = threadIdx.x % 128, later = segments - 1;
  const int from = 1 + later * group / 4, to = 1 + later * (group + 1) / 4;
  V sum = {};
  if (inside) {
#pragma unroll 8
    for (int s = from; s < to; s++) sum = plus(sum, *(const V*)(part + (size_t)s * 2 * d + c));
  }
  quarters[group][t] = sum;
  __syncthreads();
  if (group == 0 && inside) {
    sum = *(const V*)(part + d + c);
    for (int i = 0; i < 4; i++) sum = plus(sum, quarters[i][t]);
    V* to = (V*)(dtable + (size_t)id * d + c);
    *to = plus(*to, sum);
  }
  __syncthreads();
}

} // namespace

// embedding_segments: the first of the two launches that add dy [n, d] to rows
// of dtable. order [n] are the tokens by their ids, equal ids in the order of the
// tokens, sorted [n] these ids; part is scratch [⌈n/32⌉, 2, d].
// launch: grid (⌈n/32⌉, ⌈d/512⌉), block 128, no dynamic shared; arguments
// (float* dtable, float* part, const float* dy, const int32* order, const
// int32* sorted, int n, int d).
KERNEL(128, 4)
embedding_segments(float* dtable, float* part, const float* dy, const int* order, const int* sorted, int n, int d) {
  SHARED int tokens[kSegment], ids[kSegment];
  const int first = blockIdx.x * kSegment, count = min(kSegment, n - first);
  if ((int)threadIdx.x < count) {
    tokens[threadIdx.x] = order[first + threadIdx.x];
    ids[threadIdx.x] = sorted[first + threadIdx.x];
  }
  const int before = first ? sorted[first - 1] : -1, after = first + count < n ? sorted[first + count] : -1;
  __syncthreads();
  part += (size_t)blockIdx.x * 2 * d;
  const int c0 = blockIdx.y * 512, c1 = min(d, c0 + 512);
  if (d % 4 == 0) {
    int c = c0 + threadIdx.x * 4;
    if (c < c1) segment<float4>(dtable, part, dy, tokens, ids, before, after, count, d, c);
  } else {
    for (int c = c0 + threadIdx.x; c < c1; c += 128) segment<float>(dtable, part, dy, tokens, ids, before, after, count, d, c);
  }
}

// embedding_join: the second launch.
// launch: grid (⌈n/32⌉, ⌈d/512⌉), block 512, no dynamic shared; arguments
// (float* dtable, const float* part, const int32* sorted, int n, int d).
KERNEL(512, 2)
embedding_join(float* dtable, const float* part, const int* sorted, int n, int d) {
  SHARED int scratch[32];
  SHARED float4 quarters[4][128];
  const int first = blockIdx.x * kSegment, end = first + kSegment;
  if (end >= n) return;
  const int id = sorted[end - 1];
  if (sorted[end] != id) return;                                        // no run goes on
  if (first && sorted[first] == id && sorted[first - 1] == id) return; // it began earlier
  int segments = 1; // those whose first token goes on with the run, and this
  for (int more = 512, s = threadIdx.x; more == 512; s += 512) {
    more = block_sum((int)(end + s * kSegment < n && sorted[end + s * kSegment] == id), scratch);
    segments += more;
    __syncthreads();
  }
  part += (size_t)blockIdx.x * 2 * d;
  const int c0 = blockIdx.y * 512, c1 = min(d, c0 + 512), t = threadIdx.x % 128;
  if (d % 4 == 0)
    join<float4>(quarters, dtable, part, segments, id, d, c0 + t * 4, c0 + t * 4 < c1);
  else
    for (int c = c0; c < c1; c += 128) join<float>((float(*)[128])quarters, dtable, part, segments, id, d, c + t, c + t < c1);
}
