// A token on a cluster of blocks, for decode.cu: what the blocks send one another,
// their shared memory, and attention.
#pragma once
#include "decode.cuh"

namespace {

constexpr int kBlocks = 16; // of the cluster: a warp sends to each
static_assert(kBlocks == kWarps, "a warp sends to each block");

#ifndef EMULATED
// All blocks have begun, and their barriers are made. Between the two, others may
// be late.
DEVICE void begin_cluster() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
DEVICE void meet_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// A barrier in shared memory that a thread and a number of bytes must reach.
DEVICE void mbarrier_init(uint32_t bar, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory"); }
DEVICE void mbarrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_expect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
DEVICE void mbarrier_wait(uint32_t bar, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
  } while (!done);
}
DEVICE uint32_t in_block(uint32_t address, int block) {
  uint32_t a;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(a) : "r"(address), "r"(block));
  return a;
}
// Writes to the same place of another block's shared memory and counts the bytes
// at its barrier.
DEVICE void push(int block, uint32_t to, float4 v, uint32_t bar) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(in_block(to, block)), "f"(v.x),
               "f"(v.y), "f"(v.z), "f"(v.w), "r"(in_block(bar, block))
               : "memory");
}
DEVICE void push(int block, uint32_t to, float v, uint32_t bar) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(in_block(to, block)), "f"(v), "r"(in_block(bar, block))
               : "memory");
}
// Copies to shared memory what the barrier has been told to expect; all is in
// units of 16 bytes.
DEVICE void bulk_copy(uint32_t to, const void* from, int bytes, uint32_t bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}
#else
DEVICE void begin_cluster() {}
DEVICE void meet_cluster() { emu::grid_barrier(); }
template <class T>
DEVICE void push(int block, uint32_t to, T v, uint32_t bar) {
  if (to % sizeof(T)) emu::fail("what is pushed is not aligned");
  memcpy(emu::shared_of(block) + to - 1024, &v, sizeof(T));
  EmuBarrier* b = (EmuBarrier*)(emu::shared_of(block) + bar - 1024);
  b->pending -= sizeof(T), emu_arrived(b);
}
DEVICE void bulk_copy(uint32_t to, const void* from, int bytes, uint32_t bar) {
  if (to % 16 || (uintptr_t)from % 16 || bytes % 16 || bytes <= 0) emu::fail("a bulk copy is not aligned");
  memcpy(emu::at(to), from, bytes);
  emu_barrier(bar)->pending -= bytes, emu_arrived(emu_barrier(bar));
}
#endif

// A place in the block's dynamic shared memory. The compiler knows that it is there,
// as it does not of pointers that are in memory.
DEVICE unsigned char* dynamic_shared() {
  DYNAMIC_SHARED(shared);
  return shared;
}
template <class T>
struct Place {
  uint32_t at;
  DEVICE operator T*() const { return (T*)(dynamic_shared() + at); }
};

DEVICE int whole4(int n) { return (n + 3) / 4 * 4; }
DEVICE int rows_of(int N) { return (N + kBlocks - 1) / kBlocks; } // a block has these, one after another

// A vector of which every block makes a chunk that is sent to all. Blocks may be
// one turn of a layer apart, never two, so memory for one vector of each kind is
// enough.
struct Exchange {
  Place<float> in; // [kBlocks][chunk]
  uint32_t bar;    // when all chunks are there
  int chunk;       // a multiple of 4
};
// Sends out [chunk] when all threads have come.
DEVICE void send(const Exchange& e, const float* out) {
  __syncthreads();
  const uint32_t to = shared_address(e.in + block() * e.chunk);
#pragma unroll 1
  for (int i = thread() % 32 * 4; i < e.chunk; i += 128) push(thread() / 32, to + 4 * i, *(const float4*)(out + i), e.bar);
}
DEVICE void expect(const Exchange& e) { mbarrier_expect(e.bar, 4 * kBlocks * e.chunk); }
DEVICE void receive(const Exchange& e, int turn) {
  mbarrier_wait(e.bar, turn & 1);
  if (thread() == 0) expect(e);
}

// Where the outputs of linear layers with n parts of N rows are in a chunk of
// theirs and others: a block's rows [n][whole4(rows_of(N))].
DEVICE int linear_chunk(int n, int N) { return n * whole4(rows_of(N)); }
DEVICE int linear_place(int i, int N, int chunk) {
  const int rows = rows_of(N), r = i % N;
  return r / rows * chunk + i / N * whole4(rows) + r % rows;
}

// Attention's units: a head, or where there are more blocks than heads a part of
// one; unit u is block u mod kBlocks's number u/kBlocks.
DEVICE int splits_of(const Heads& w) { return max(1, min(kBlocks / w.heads, w.hd)); }
DEVICE int widest_share(const Heads& w) { return whole4((w.hd + splits_of(w) - 1) / splits_of(w)); }
DEVICE int unit_place(const Heads& w, int i, int chunk) {
  const int splits = splits_of(w), head = i / w.hd, c = i % w.hd, part = ((c + 1) * splits - 1) / w.hd, unit = head * splits + part;
  return unit % kBlocks * chunk + unit / kBlocks * widest_share(w) + c - w.hd * part / splits;
}

// Where a head mixer's output i is: its rows are those of every group of n heads.
DEVICE int mixer_place(const Heads& w, int n, int i, int chunk) {
  const int head = i / w.hd, row = head / n * w.hd + i % w.hd, rows = rows_of(w.heads / n * w.hd);
  return row / rows * chunk + head % n * whole4(rows) + row % rows;
}

// What a block does in attention: of a head, whose keys and values are number
// group, the channels c0 … c0 + width − 1 of the values, and of the positions
// before the token's, kept in all and in slots from start on, the keys of lo … hi −
// 1. Keys and values come by copies to two areas of shared memory, a row of 16
// bytes a position after another: keys to area 0, then values in turn to areas 1
// and 0.
struct Unit {
  int head, part, c0, width, group;
  int start, kept, lo, hi;
  int key_rows, row0, rows; // rows of a key, and of the share's values
  int keys, values[2];      // how many positions an area has room for, a multiple of 4 less than their pitch
  bool keep;                // it puts the token's own key and value into the cache
};

// One step between two exchanges: what it reads and how it makes its input x of
// that, of width d in parts of K, and where it writes to.
template <class X>
struct Step {
  Exchange from, to;
  Place<uint16_t> place; // of values in from
  Place<X> x;
  int d, K;
  bool fake8;
};
enum { kQKV, kMix, kO, kGateUp, kDown, kLast, kSteps };

// A block's shared memory, and where in it things are.
template <class X>
struct Memory {
  Unit unit;
  Step<X> steps[kSteps];
  float eps;
  Place<Layer> layer;   // [2]: the current one and the next
  Place<float> h, z;    // the residual stream [d], and a step's input before rounding [max(d, hidden)]
  Place<float> squares; // of norm_factor
  Place<X> xd, xh, xm;  // inputs of parts of d, of hidden, and of heads
  Place<float> rot;     // [hd]
  Place<float> out;     // the chunk that is made
  Place<float> scratch; // [64]
  Place<float> q, k, v; // of attention: the rotated query, with zeros up to whole 64, and the token's own key and value [hd]
  Place<int8_t> q8;     // of an int8 cache: the three rounded, with zeros up to whole 64
  Place<float> p;       // weights [block + 4]
  Place<uint16_t> own;  // [3][hd]: where the unit's query, key and value are in qkv
  Exchange qkv, o, m, t[2], act;
  Place<uint16_t> place_o, place_m, place_t, place_act; // where a value is in these
  uint32_t scores, copies;                              // barriers: of scores, of copies to each area
  Place<unsigned char> area[2];                         // where keys and values of positions are copied to
  Heads heads; // here and not from the kernel's parameters, of which the compiler would keep everything in registers
  int splits, widest, units; // of attention
};

constexpr int kMemory = 1024;
template <class X>
DEVICE void arrange(Memory<X>& s, const Decode& m, int n) {
  static_assert(sizeof s <= kMemory, "its place");
  uint32_t at = kMemory;
  auto take = [&](size_t bytes) {
    const uint32_t p = at;
    at += (bytes + 15) / 16 * 16;
    return p;
  };
  const Heads& w = m.heads;
  const int hd = w.hd, hd64 = whole64(hd);
  const int d = linear_chunk(n, m.d / n), act = linear_chunk(n, m.hidden / n), qkv = d + 2 * linear_chunk(n, w.kv_heads * hd / n);
  const int o = rows_of(w.heads * splits_of(w)) * widest_share(w), mixed = m.mixer_n ? linear_chunk(m.mixer_n, w.heads / m.mixer_n * hd) : 0;
  uint32_t bar = shared_address(dynamic_shared() + take(128));
  auto exchange = [&](int chunk) {
    bar += 8;
    return Exchange{{take(4 * kBlocks * chunk)}, bar - 8, chunk};
  };
  s.layer = {take(2 * sizeof(Layer))}, s.scratch = {take(256)}, s.h = {take(4 * m.d)}, s.z = {take(4 * max(m.d, m.hidden))};
  s.xd = {take(sizeof(X) * padded_width(n, m.d / n))}, s.xh = {take(sizeof(X) * padded_width(n, m.hidden / n))};
  s.xm = {take(sizeof(X) * padded_width(w.heads, hd))};
  s.squares = {take(64 * square_pitch(m.d))}, s.rot = {take(4 * hd)};
  s.q = {take(4 * hd64)}, s.k = {take(4 * hd)}, s.v = {take(4 * hd)}, s.q8 = {take(3 * hd64)};
  s.p = {take(4 * w.block + 16)}, s.own = {take(6 * hd)};
  s.qkv = exchange(qkv), s.o = exchange(o), s.m = exchange(mixed), s.t[0] = exchange(d), s.t[1] = exchange(d), s.act = exchange(act);
  s.scores = bar, s.copies = bar + 8;
  s.out = {take(4 * max(max(qkv, o), max(mixed, act)))};
  s.place_o = {take(2 * m.d)}, s.place_m = {take(2 * m.d)}, s.place_t = {take(2 * m.d)}, s.place_act = {take(2 * m.hidden)};
  s.area[0] = {at}, s.area[1] = {at + m.area[0]}, s.units = w.heads * splits_of(w), s.splits = splits_of(w), s.widest = widest_share(w), s.heads = w;
  const Exchange none = {};
  const bool fake8 = m.fake8;
  s.steps[kQKV] = {s.t[1], s.qkv, s.place_t, s.xd, m.d, m.d / n, fake8};
  s.steps[kMix] = {s.o, s.m, s.place_o, s.xm, m.d, hd, false};
  s.steps[kO] = {m.mixer_n ? s.m : s.o, s.t[0], m.mixer_n ? s.place_m : s.place_o, s.xd, m.d, m.d / n, fake8};
  s.steps[kGateUp] = {s.t[0], s.act, s.place_t, s.xd, m.d, m.d / n, fake8};
  s.steps[kDown] = {s.act, s.t[1], s.place_act, s.xh, m.hidden, m.hidden / n, fake8};
  s.steps[kLast] = {s.t[1], none, s.place_t, s.xd, m.d, m.d, false};
  s.eps = m.eps;
}

// Fills in unit number i. For one thread.
template <bool ROUNDED>
DEVICE void describe(Unit& u, const Decode& m, const Span& p, int i) {
  const Heads& w = m.heads;
  constexpr int EACH = 16 / sizeof(typename Kept<ROUNDED>::Value);
  const int splits = splits_of(w), per_key = w.heads / w.kv_heads;
  u.head = i / splits, u.part = i % splits, u.c0 = w.hd * u.part / splits, u.width = w.hd * (u.part + 1) / splits - u.c0;
  u.group = u.head / per_key, u.keep = u.head % per_key == 0;
  u.start = p.start, u.kept = p.n - 1;
  const int most = (u.kept + splits - 1) / splits;
  u.lo = min(u.kept, u.part * most), u.hi = min(u.kept, u.lo + most);
  u.key_rows = (w.hd + 15) / 16 * 16 / EACH, u.row0 = u.c0 / EACH, u.rows = (u.c0 + u.width + EACH - 1) / EACH - u.row0;
  auto room = [](int size, int rows) { return (size / (16 * rows) - 1) / 4 * 4; };
  u.keys = room(m.area[0], u.key_rows);
  for (int a = 0; a < 2; a++) u.values[a] = room(m.area[a], u.rows);
}
DEVICE int pitch_of(int room) { return room + 1; } // odd, so that rows are in different banks
DEVICE int slot_of(const Unit& u, int ring, int i) { return u.start + i - (u.start + i >= ring ? ring : 0); }

// Starts to copy rows of count positions from slot at on, of a ring, to rows at a
// pitch in shared memory. By all warps.
DEVICE void copy_rows(uint32_t to, int pitch, const unsigned char* from, int ring, int rows, int at, int count, uint32_t bar) {
  const int head = min(count, ring - at);
  if (thread() == 0) mbarrier_expect(bar, 16 * count * rows);
  if (thread() % 32) return;
#pragma unroll 1
  for (int g = thread() / 32; g < rows; g += kWarps) {
    const unsigned char* row = from + (size_t)16 * ring * g;
    bulk_copy(to + 16 * pitch * g, row + (size_t)16 * at, 16 * head, bar);
    if (count > head) bulk_copy(to + 16 * (pitch * g + head), row, 16 * (count - head), bar);
  }
}
template <class X>
DEVICE void fetch_keys(const Memory<X>& s, const CacheHead& c, int ring, int from) {
  const Unit& u = s.unit;
  if (from < u.hi)
    copy_rows(shared_address(s.area[0]), pitch_of(u.keys), (const unsigned char*)c.keys, ring, u.key_rows, slot_of(u, ring, from), min(u.keys, u.hi - from), s.copies);
}
template <class X>
DEVICE void fetch_values(const Memory<X>& s, const CacheHead& c, int ring, int a, int from) {
  const Unit& u = s.unit;
  if (from < u.kept)
    copy_rows(shared_address(s.area[a]), pitch_of(u.values[a]), (const unsigned char*)c.values + (size_t)16 * ring * u.row0, ring, u.rows, slot_of(u, ring, from),
              min(u.values[a], u.kept - from), s.copies + 8 * a);
}
// What need not wait for the token; when nobody reads the areas any more.
template <class X>
DEVICE void prepare(const Memory<X>& s, const Heads& w, const Cache& cache) {
  const CacheHead c = cache_head(cache, w, s.unit.group);
  fetch_keys(s, c, w.ring, s.unit.lo), fetch_values(s, c, w.ring, 1, 0);
}
// Bytes; a barrier that expects none would be over before all have waited for it.
DEVICE int scores_of_others(const Unit& u) { return 4 * (u.kept - (u.hi - u.lo)); }

// Sums in order: an addition waits for the one before, four cycles, in which there is
// time for the product that comes later and the loads that come later still.
constexpr int kAhead = 16;

// A channel's sum of values times weights, in ascending order; from one position's
// value to the next it is STEP.
template <int STEP, class Value>
DEVICE float chain(float sum, const Value* v, const float* p, int count) {
  float y[kAhead] = {}, w[kAhead] = {}; // products to be added, and weights and values behind them
  Value x[kAhead] = {};
  auto load = [&](int i) {
    if (i + kAhead > count) return;
#pragma unroll
    for (int e = 0; e < kAhead; e += 4) {
      const float4 u = *(const float4*)(p + i + e);
      w[e] = u.x, w[e + 1] = u.y, w[e + 2] = u.z, w[e + 3] = u.w;
    }
#pragma unroll
    for (int e = 0; e < kAhead; e++) x[e] = v[(i + e) * STEP];
  };
  load(0);
#pragma unroll
  for (int e = 0; e < kAhead; e++) y[e] = mul(w[e], (float)x[e]);
  load(kAhead);
  int i = 0;
#pragma unroll 1
  for (; i + kAhead <= count; i += kAhead) {
#pragma unroll
    for (int e = 0; e < kAhead; e++) {
      sum = add(sum, y[e]);
      y[e] = mul(w[e], (float)x[e]);
    }
    load(i + 2 * kAhead);
  }
#pragma unroll 1
  for (; i < count; i++) sum = add(sum, mul(p[i], (float)v[i * STEP]));
  return sum;
}

// The sum of p [n], by sixteen accumulators. For a warp.
DEVICE float sum16(const float* p, int n) {
  float sum = 0;
  int i = thread() % 16;
#pragma unroll 1
  for (; i + 15 * 16 < n; i += 256) {
    float x[16];
#pragma unroll
    for (int e = 0; e < 16; e++) x[e] = p[i + 16 * e];
#pragma unroll
    for (int e = 0; e < 16; e++) sum = add(sum, x[e]);
  }
#pragma unroll 1
  for (; i < n; i += 16) sum = add(sum, p[i]);
  return fold16(sum);
}

// How often the barriers of copies have been waited for, a bit each.
struct Turns {
  uint32_t parity;
  // Waits for the copies to an area.
  DEVICE void wait(uint32_t copies, int area) {
    mbarrier_wait(copies + 8 * area, parity >> area & 1);
    parity ^= 1 << area;
  }
};

// out [width] = softmax(scale·q·Kᵀ)·V of the unit, whose copies are under way; the
// layer's first waits for query, key and value. The blocks of a head send one
// another their scores. All threads of a block.
template <bool ROUNDED, class X>
DEVICE void attend(float* out, const Memory<X>& s, const Cache& layer_cache, Turns& turns, int layer, bool first, int slot) {
  typedef Kept<ROUNDED> T;
  typedef typename T::Value Value;
  constexpr int EACH = 16 / sizeof(Value);
  const Unit& u = s.unit;
  const Heads& w = s.heads;
  const CacheHead cache = cache_head(layer_cache, w, u.group);
  const int hd = w.hd, t = thread(), lane = t % 32, warp = t / 32, kept = u.kept, n = kept + 1, splits = s.splits, hd64 = whole64(hd), half = hd / 2;
  // Four lanes a position, each with four of the sixteen accumulators.
  const int quarter = lane / 8, own = 8 * warp + lane % 8;
  float key_scale[4] = {}, value_scale[2] = {};
  if (ROUNDED && kept) {
#pragma unroll
    for (int e = 0; e < 4; e++) key_scale[e] = cache.key_scale[slot_of(u, w.ring, min(u.lo + own + 8 * kWarps * e, kept - 1))];
#pragma unroll
    for (int e = 0; e < 2; e++) value_scale[e] = cache.value_scale[slot_of(u, w.ring, min(t + kThreads * e, kept - 1))];
  }
  if (warp < 3) { // the query, the key, the value
    if (first) receive(s.qkv, layer);
    const float* in = s.qkv.in;
    const uint16_t* from = s.own + warp * hd;
    float* x = Place<float>{warp == 0 ? s.q.at : warp == 1 ? s.k.at : s.v.at};
#pragma unroll 1
    for (int i = lane; i < half; i += 32) {
      const float a = in[from[2 * i]], b = in[from[2 * i + 1]];
      if (warp < 2) rotate_pair(x, a, b, s.rot, half, i);
      else x[2 * i] = a, x[2 * i + 1] = b;
    }
    if (ROUNDED) {
      __syncwarp();
      float most = 0;
#pragma unroll 1
      for (int e = lane; e < hd; e += 32) most = fmaxf(most, fabsf(x[e]));
      most = warp_most(most);
#pragma unroll 1
      for (int e = lane; e < hd64; e += 32) s.q8[warp * hd64 + e] = e < hd ? rounded8(x[e], most) : 0;
      if (lane == 0) s.scratch[40 + warp] = scale8(most);
    }
  }
  __syncthreads();
  const float factor = ROUNDED ? mul(s.scratch[40], w.scale) : w.scale;
  const int c = u.c0 + t; // the thread's channel
  if (u.keep && t >= kThreads - u.width) { // nobody reads the slot before the next token
    const int e = u.c0 + t - (kThreads - u.width);
    const size_t at = cache_place<Value>(w.ring, slot, e);
    ((Value*)cache.keys)[at] = ROUNDED ? (Value)s.q8[hd64 + e] : (Value)s.k[e];
    ((Value*)cache.values)[at] = ROUNDED ? (Value)s.q8[2 * hd64 + e] : (Value)s.v[e];
    if (ROUNDED && e == 0) cache.key_scale[slot] = s.scratch[41], cache.value_scale[slot] = s.scratch[42];
  }
  if (warp == kWarps - 2) { // the token's own key
    float x = 0;
    if (ROUNDED) {
      int dot = 0;
#pragma unroll 1
      for (int e = lane; e < hd; e += 32) dot += (int)s.q8[e] * s.q8[hd64 + e];
      x = mul((float)warp_add(dot), mul(factor, s.scratch[41]));
    } else {
#pragma unroll 1
      for (int e = t % 16; e < hd; e += 16) x = add(x, mul(s.q[e], s.k[e]));
      x = mul(factor, fold16(x));
    }
    if (lane == 0) s.p[kept] = x;
  }
  // Behind the end of q are zeros.
  for (int from = u.lo; from < u.hi; from += u.keys) {
    const int end = min(u.hi, from + u.keys);
    if (from > u.lo) {
      __syncthreads();
      fetch_keys(s, cache, w.ring, from);
    }
    turns.wait(s.copies, 0);
    const typename T::Keys* keys = Place<const typename T::Keys>{s.area[0].at};
#pragma unroll 1
    for (int i = from + own, round = 0; i - lane % 8 < end; i += 16 * kWarps, round += from == u.lo) {
      constexpr int PER = ROUNDED ? 1 : 4;
      const int at[2] = {min(i, end - 1) - from, min(i + 8 * kWarps, end - 1) - from};
      typename T::Sums a[2] = {};
#pragma unroll 1
      for (int e0 = 0; e0 < u.key_rows; e0 += 4 * PER)
#pragma unroll
        for (int e = 0; e < PER; e++) {
          const int row = min(e0 + 4 * e + quarter, u.key_rows - 1) * pitch_of(u.keys);
          const typename T::Keys q = Place<const typename T::Keys>{ROUNDED ? s.q8.at : s.q.at}[e0 + 4 * e + quarter];
          key_step(a[0], q, keys[row + at[0]]), key_step(a[1], q, keys[row + at[1]]);
        }
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float scale = factor;
        if (ROUNDED)
          scale = mul(factor, round == 0 && from == u.lo  ? key_scale[e]
                              : round == 1 && from == u.lo ? key_scale[2 + e]
                                                           : load_fresh(cache.key_scale + slot_of(u, w.ring, from + at[e])));
        const float x = mul((float)key_fold(a[e]), scale);
        const int j = i + 8 * kWarps * e;
        if (j >= end) continue;
#pragma unroll 1
        for (int peer = quarter; peer < splits; peer += 4) {
          if (peer == u.part) s.p[j] = x;
          else push(u.head * splits + peer, shared_address(s.p + j), x, s.scores);
        }
      }
    }
  }
  __syncthreads();
  fetch_values(s, cache, w.ring, 0, u.values[1]);
  if (const int bytes = scores_of_others(u)) {
    mbarrier_wait(s.scores, layer & 1);
    if (t == 0) mbarrier_expect(s.scores, bytes);
  }
  const bool works = t - lane < n; // the warp has weights to make
  if (works) {
    float top = -INFINITY;
#pragma unroll 1
    for (int i = t; i < n; i += kThreads) top = fmaxf(top, s.p[i]);
    top = warp_max(top);
    if (lane == 0) s.scratch[warp] = top;
  }
  __syncthreads();
  if (works) {
    const float top = warp_max(s.scratch[32 * lane < n ? lane % kWarps : 0]);
#pragma unroll 1
    for (int i = t; i < n; i += kThreads) s.p[i] = exp_exact(add(s.p[i], -top));
  }
  __syncthreads();
  if (warp == 0) {
    const float sum = sum16(s.p, n);
    if (t == 0) s.scratch[32] = 1 / sum;
  }
  __syncthreads();
  if (works) {
    const float inv = s.scratch[32];
#pragma unroll 1
    for (int i = t, round = 0; i < n; i += kThreads, round++) {
      float y = mul(s.p[i], inv);
      if (ROUNDED)
        y = mul(y, i == kept    ? s.scratch[42]
                   : round == 0 ? value_scale[0]
                   : round == 1 ? value_scale[1]
                                : load_fresh(cache.value_scale + slot_of(u, w.ring, i)));
      s.p[i] = y;
    }
  }
  __syncthreads();
  float sum = 0;
  for (int from = 0, a = 1; from < kept; a ^= 1) {
    const int count = min(u.values[a], kept - from);
    if (from > 0) fetch_values(s, cache, w.ring, a ^ 1, from + count); // the area of the turn before
    turns.wait(s.copies, a);
    if (t < u.width)
      sum = chain<EACH>(sum, (const Value*)(s.area[a] + 16 * pitch_of(u.values[a]) * (c / EACH - u.row0)) + c % EACH, s.p + from, count);
    if ((from += count) < kept) __syncthreads();
  }
  if (t < u.width) out[t] = add(sum, mul(s.p[kept], ROUNDED ? (float)s.q8[2 * hd64 + c] : s.v[c]));
}

// Where a unit's query, key and value are among the outputs of their layers.
template <class X>
DEVICE void find_own(const Memory<X>& s, const Heads& w, int n, int unit) {
  const int head = unit / splits_of(w), g = head / (w.heads / w.kv_heads), N = w.heads * w.hd / n, kv = w.kv_heads * w.hd / n;
  const int at = linear_chunk(n, N), size = linear_chunk(n, kv);
#pragma unroll 1
  for (int i = thread(); i < w.hd; i += kThreads) {
    s.own[i] = linear_place(head * w.hd + i, N, s.qkv.chunk);
    const int p = linear_place(g * w.hd + i, kv, s.qkv.chunk);
    s.own[w.hd + i] = at + p, s.own[2 * w.hd + i] = at + size + p;
  }
}

// The token's attention in one layer, and what the next layer's can have in
// advance.
template <bool ROUNDED, class X>
DEVICE void attention(const Decode& m, Memory<X>& s, int layer, int n, const Span& p, int slot, Turns& turns) {
  const Heads& w = s.heads;
  const Cache &cache = s.layer[layer % 2].cache, &next = s.layer[(layer + 1) % 2].cache;
  const int units = s.units, first = block();
  if (first >= units) receive(s.qkv, layer);
  for (int unit = first; unit < units; unit += kBlocks) {
    if (unit != first) {
      __syncthreads();
      if (thread() == 0) describe<ROUNDED>(s.unit, m, p, unit);
      find_own(s, w, n, unit);
      __syncthreads();
      prepare(s, w, cache);
    }
    attend<ROUNDED>(s.out + unit / kBlocks * s.widest, s, cache, turns, layer, unit == first, slot);
  }
  send(s.o, s.out);
  if (first >= units || layer + 1 == m.n_layer) return;
  if (units > kBlocks) {
    if (thread() == 0) describe<ROUNDED>(s.unit, m, p, first);
    find_own(s, w, n, first);
    __syncthreads();
  }
  prepare(s, w, next);
}

} // namespace
