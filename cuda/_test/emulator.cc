// The fibers of emulator.h.
#include "emulator.h"
#include <functional>
#include <vector>

uint3 threadIdx, blockIdx, gridDim, blockDim;

namespace emu {
unsigned char* dynamic;
Lane* lanes;

struct Fiber {
  void* sp;
  int block, thread, waits; // waits: 0 runs, 1 for the warp, 2 for the block, 3 for all blocks, 4 done
};
static std::vector<Fiber> fibers;
static std::vector<Lane> all;
static std::vector<unsigned char> stacks;
static void* main_sp;
static Fiber* current;
static const std::function<void()>* body;

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
static void yield(int waits) {
  current->waits = waits;
  emu_switch(&current->sp, main_sp);
}
void grid_barrier() { yield(3); }
void block_barrier() { yield(2); }
void warp_barrier() { yield(1); }
static void entry() {
  (*body)();
  yield(4);
  abort();
}

// Lets fibers first … last−1 that wait for one another go on, if all that still
// run do. Returns whether they do.
static bool meet(int first, int last, int waits) {
  bool any = false;
  for (int i = first; i < last; i++) {
    if (fibers[i].waits != waits && fibers[i].waits != 4) return false;
    any |= fibers[i].waits == waits;
  }
  for (int i = first; i < last; i++)
    if (fibers[i].waits == waits) fibers[i].waits = 0;
  return any;
}

// Runs blocks first … first + blocks − 1 of a grid together.
static void run_blocks(uint3 grid, int first, int blocks, int threads, size_t shared) {
  constexpr size_t STACK = 64 << 10;
  static uint32_t seed = 1;
  const int count = blocks * threads;
  stacks.resize(STACK * count);
  all.resize(count);
  const size_t each = (shared + 64 + 1023) / 1024 * 1024;
  unsigned char* memory = (unsigned char*)aligned_alloc(1024, each * blocks);
  memset(memory, 0xff, each * blocks); // NaN in every format
  fibers.assign(count, {});
  for (int i = 0; i < count; i++) {
    void** top = (void**)((uintptr_t)(stacks.data() + STACK * (i + 1)) & ~(uintptr_t)15);
    *--top = nullptr;
    *--top = (void*)entry;
    top -= 6;
    fibers[i] = {top, i / threads, i % threads, 0};
  }
  for (int done = 0; done < count;) {
    bool moved = false;
    seed = seed * 1664525 + 1013904223;
    const int rot = (seed >> 8) % count;
    for (int n = 0; n < count; n++) {
      Fiber& fb = fibers[(n + rot) % count];
      if (fb.waits != 0) continue;
      moved = true;
      current = &fb;
      const unsigned b = first + fb.block;
      blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
      threadIdx = {(unsigned)fb.thread, 0, 0};
      dynamic = memory + each * fb.block;
      lanes = &all[fb.block * threads + fb.thread / 32 * 32];
      emu_switch(&main_sp, fb.sp);
      if (fb.waits == 4) done++;
    }
    for (int b = 0; b < count; b += threads) {
      for (int w = b; w < b + threads; w += 32) moved |= meet(w, w + 32, 1);
      moved |= meet(b, b + threads, 2);
    }
    moved |= meet(0, count, 3);
    if (!moved) { fprintf(stderr, "emulator: deadlock\n"); abort(); }
  }
  for (int b = 0; b < blocks; b++)
    for (size_t i = shared; i < each; i++)
      if (memory[each * b + i] != 0xff) { fprintf(stderr, "emulator: write past %zu bytes of shared memory\n", shared); abort(); }
  free(memory);
}

void run(uint3 grid, int threads, size_t shared, bool together, const std::function<void()>& f) {
  body = &f;
  gridDim = grid, blockDim = {(unsigned)threads, 1, 1};
  const int blocks = grid.x * grid.y * grid.z, step = together ? blocks : 1;
  for (int b = 0; b < blocks; b += step) run_blocks(grid, b, step, threads, shared);
}
} // namespace emu
