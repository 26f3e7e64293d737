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
  int thread, waits; // waits: 0 runs, 1 for the warp, 2 for the block, 3 done
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
void block_barrier() { yield(2); }
void warp_barrier() { yield(1); }
static void entry() {
  (*body)();
  yield(3);
  abort();
}

void run(uint3 grid, int threads, size_t shared, const std::function<void()>& f) {
  constexpr size_t STACK = 64 << 10;
  static uint32_t seed = 1;
  body = &f;
  stacks.resize(STACK * threads);
  all.resize(threads);
  unsigned char* memory = (unsigned char*)aligned_alloc(1024, (shared + 2047) / 1024 * 1024);
  gridDim = grid, blockDim = {(unsigned)threads, 1, 1};
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
        dynamic = memory;
        memset(dynamic, 0xff, shared + 64); // NaN in every format
        fibers.assign(threads, {});
        for (int i = 0; i < threads; i++) {
          void** top = (void**)((uintptr_t)(stacks.data() + STACK * (i + 1)) & ~(uintptr_t)15);
          *--top = nullptr;
          *--top = (void*)entry;
          top -= 6;
          fibers[i] = {top, i, 0};
        }
        for (int done = 0; done < threads;) {
          bool moved = false;
          seed = seed * 1664525 + 1013904223;
          const int rot = (seed >> 8) % threads;
          for (int n = 0; n < threads; n++) {
            Fiber& fb = fibers[(n + rot) % threads];
            if (fb.waits != 0) continue;
            moved = true;
            current = &fb;
            threadIdx = {(unsigned)fb.thread, 0, 0};
            lanes = &all[fb.thread / 32 * 32];
            emu_switch(&main_sp, fb.sp);
            if (fb.waits == 3) done++;
          }
          // A warp goes on when all its lanes that still run wait for it.
          for (int w = 0; w < threads; w += 32) {
            bool meet = true, any = false;
            for (int i = w; i < w + 32; i++) meet &= fibers[i].waits == 1 || fibers[i].waits == 3, any |= fibers[i].waits == 1;
            if (meet && any) {
              moved = true;
              for (int i = w; i < w + 32; i++)
                if (fibers[i].waits == 1) fibers[i].waits = 0;
            }
          }
          bool meet = true, any = false;
          for (auto& fb : fibers) meet &= fb.waits == 2 || fb.waits == 3, any |= fb.waits == 2;
          if (meet && any) {
            moved = true;
            for (auto& fb : fibers)
              if (fb.waits == 2) fb.waits = 0;
          }
          if (!moved) { fprintf(stderr, "emulator: deadlock\n"); abort(); }
        }
        for (size_t i = 0; i < 64; i++)
          if (dynamic[shared + i] != 0xff) { fprintf(stderr, "emulator: write past %zu bytes of shared memory\n", shared); abort(); }
      }
  free(memory);
}
} // namespace emu
