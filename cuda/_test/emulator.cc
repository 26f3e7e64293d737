// The fibers of emulator.h.
#include "emulator.h"
#include <vector>

uint3 threadIdx, blockIdx, gridDim, blockDim;

// Saves the callee-saved registers and the stack pointer, takes the other's.
extern "C" void emu_switch(void** from, void* to);
asm(R"(
.globl emu_switch
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

namespace emu {
unsigned char* shared;

namespace {

unsigned char* memory; // of all blocks, each so far from the next
size_t each;

constexpr size_t kStack = 128 << 10;

struct Meeting {
  int members = 0, arrived = 0; // members: that still run
  std::vector<void*> brought;
  std::vector<int> waiting; // fibers
};

struct Fiber {
  void* sp;
  int block, thread;
  bool waits, done;
  std::vector<std::vector<Copy>> copies; // groups; the last is open
};

std::vector<Fiber> fibers;
std::vector<Meeting> warps, computing, blocks;
Meeting everyone;
int threads, current;
void* scheduler;
bool moved;
const std::function<void()>* body;

Meeting& of(Kind kind, const Fiber& f, int& number) {
  const int perBlock = (threads + 31) / 32;
  switch (kind) {
  case WARP: number = f.thread % 32; return warps[f.block * perBlock + f.thread / 32];
  case COMPUTING: number = f.thread; return computing[f.block];
  case BLOCK: number = f.thread; return blocks[f.block];
  default: number = f.block * threads + f.thread; return everyone;
  }
}

void release(Meeting& m) {
  m.arrived = 0;
  for (int f : m.waiting) fibers[f].waits = false;
  m.waiting.clear();
  std::fill(m.brought.begin(), m.brought.end(), nullptr);
  moved = true;
}

// A thread that ends is waited for no longer.
void leave(Meeting& m) {
  if (--m.members > 0 && m.arrived == m.members) release(m);
}

void entry() {
  (*body)();
  Fiber& f = fibers[current];
  f.done = moved = true;
  int number;
  leave(of(WARP, f, number)), leave(of(BLOCK, f, number)), leave(everyone);
  if (f.thread < 256) leave(computing[f.block]);
  emu_switch(&f.sp, scheduler);
  abort();
}

void join(Meeting& m, int size) {
  m.members = size, m.arrived = 0;
  m.brought.assign(size, nullptr);
  m.waiting.clear();
}

// Runs blocks first … first + count − 1 of a grid together.
void run_blocks(uint3 grid, int first, int count, size_t bytes) {
  static unsigned char* stacks;
  static size_t room;
  static uint32_t seed = 1;
  const int n = count * threads, perBlock = (threads + 31) / 32;
  if (room < kStack * n) {
    free(stacks);
    room = kStack * n;
    stacks = (unsigned char*)aligned_alloc(4096, room);
  }
  each = (bytes + 64 + 1023) / 1024 * 1024;
  memory = (unsigned char*)aligned_alloc(1024, each * count);
  memset(memory, 0xff, each * count); // NaN in every format
  warps.resize(count * perBlock), computing.resize(count), blocks.resize(count), fibers.resize(n);
  for (int b = 0; b < count; b++) {
    for (int w = 0; w < perBlock; w++) {
      Meeting& m = warps[b * perBlock + w];
      join(m, 32);
      m.members = threads - 32 * w < 32 ? threads - 32 * w : 32;
    }
    join(computing[b], threads < 256 ? threads : 256), join(blocks[b], threads);
  }
  join(everyone, n);
  for (int i = 0; i < n; i++) {
    void** top = (void**)(stacks + kStack * (i + 1) - 64);
    *--top = nullptr;
    *--top = (void*)entry;
    top -= 6;
    Fiber& f = fibers[i];
    f.sp = top, f.block = i / threads, f.thread = i % threads, f.waits = f.done = false;
    f.copies.assign(1, {});
  }
  int idle = 0;
  for (int left = n; left > 0;) {
    moved = false;
    seed = seed * 1664525 + 1013904223;
    const int from = (seed >> 8) % n;
    for (int i = 0; i < n; i++) {
      current = (from + i) % n;
      Fiber& f = fibers[current];
      if (f.waits || f.done) continue;
      const unsigned b = first + f.block;
      blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
      threadIdx = {(unsigned)f.thread, 0, 0};
      shared = memory + each * f.block;
      emu_switch(&scheduler, f.sp);
      left -= fibers[current].done;
    }
    if ((idle = moved ? 0 : idle + 1) > 100) fail("deadlock");
  }
  for (int b = 0; b < count; b++)
    for (size_t i = bytes; i < each; i++)
      if (memory[each * b + i] != 0xff) fail("a write past the end of shared memory");
  free(memory);
}

} // namespace

unsigned char* shared_of(unsigned block) { return memory + each * block; }
void yield() { emu_switch(&fibers[current].sp, scheduler); }
void changed() { moved = true; }

void meet(Kind kind, void* brought, void (*act)(void**, void*), void* context) {
  int number;
  Fiber& f = fibers[current];
  Meeting& m = of(kind, f, number);
  moved = true;
  m.brought[number] = brought;
  if (++m.arrived == m.members) {
    if (act) act(m.brought.data(), context);
    release(m);
    return;
  }
  m.waiting.push_back(current);
  f.waits = true;
  yield();
}

void copy(Copy c) { fibers[current].copies.back().push_back(c); }
void commit() { fibers[current].copies.emplace_back(); }
void wait(int groups) {
  auto& all = fibers[current].copies;
  while ((int)all.size() - 1 > groups) {
    for (const Copy& c : all.front()) {
      memset(at(c.to), 0, c.size);
      memcpy(at(c.to), c.from, c.bytes);
    }
    all.erase(all.begin());
  }
}

void run(uint3 grid, int count, size_t bytes, bool together, const std::function<void()>& f) {
  body = &f;
  threads = count;
  gridDim = grid, blockDim = {(unsigned)threads, 1, 1};
  const int all = grid.x * grid.y * grid.z, step = together ? all : 1;
  for (int b = 0; b < all; b += step) run_blocks(grid, b, step, bytes);
}
} // namespace emu
