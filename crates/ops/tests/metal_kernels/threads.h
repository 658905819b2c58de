// What a kernel gets from its launch, and its threads: those of a threadgroup are fibers on one CPU thread. Each runs until it meets
// others at a barrier or in an operation of its simdgroup. Threads that do not all get there, which is undefined in Metal, end the
// program.

namespace host {

[[noreturn]] inline void fail(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

// What a launch gives to a kernel.

constexpr int BUFFERS = 31, CONSTANTS = 16;

struct Launch {
  void* buffers[BUFFERS];
  size_t sizes[BUFFERS];  // in bytes
  uint constants[CONSTANTS];
  int constant_count;
};
static Launch launch;

// As in Metal, a kernel that reads a constant is not launched without its value.
template <typename T, int INDEX>
struct FunctionConstant {
  operator T() const {
    if (INDEX >= launch.constant_count) fail("the kernel reads a function constant that was not set");
    return T(launch.constants[INDEX]);
  }
};

// A kernel's arguments of the types `T*` and `constant T&`.
struct Pointer {
  int index;
  template <typename T> operator T*() const { return static_cast<T*>(launch.buffers[index]); }
};
struct Reference {
  int index;
  template <typename T> operator T&() const {
    if (launch.sizes[index] != sizeof(T)) fail("the kernel's parameters have another size than those that it was given");
    return *static_cast<T*>(launch.buffers[index]);
  }
};

constexpr uint SIMDGROUP = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 128 << 10;

// A place in the grid, for kernels with one, two or three dimensions.
struct Place {
  uint x, y, z;
  operator uint() const { return x; }
  operator uint2() const { return {x, y}; }
  operator uint3() const { return {x, y, z}; }
};

enum class State { READY, IN_SIMDGROUP, IN_THREADGROUP, DONE };

// The names of places are those of Metal's attributes.
struct Thread {
  Place threadgroup_position_in_grid, thread_position_in_threadgroup, threads_per_threadgroup;
  uint thread_index_in_threadgroup, simdgroup_index_in_threadgroup, simdgroups_per_threadgroup, thread_index_in_simdgroup;
  State state;
  uint exchanges;  // operations of its simdgroup so far
  ucontext_t context;
};

static Thread threads[MOST_THREADS];
static uint thread_count, threads_begun;
// Whether threads run in the reverse of the order of their indices: what depends on the order has a race.
static bool reversed;
static ulong threadgroups_begun;
static Thread* running;
static ucontext_t scheduler;
static void (*kernel_to_run)();

static Thread* in_order(uint i) { return &threads[reversed ? thread_count - 1 - i : i]; }

// Leaves this thread until others are there as well.
inline void wait_in(State state) {
  running->state = state;
  swapcontext(&running->context, &scheduler);
}

// What a fiber does: it runs one thread after another. A thread that waits keeps the fiber, and the next one begins in another.
static void run_threads() {
  while (threads_begun < thread_count) {
    running = in_order(threads_begun++);
    kernel_to_run();
    running->state = State::DONE;
  }
  setcontext(&scheduler);
}

static void begin_fiber(char* stack) {
  static ucontext_t fiber;
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stack;
  fiber.uc_stack.ss_size = STACK;
  fiber.uc_link = nullptr;
  makecontext(&fiber, run_threads, 0);
  swapcontext(&scheduler, &fiber);
}

static bool all(uint first, uint count, State state) {
  for (uint i = first; i < first + count; i++)
    if (threads[i].state != state) return false;
  return true;
}

// Runs those threads when it is their turn.
static void make_ready(uint first, uint count) {
  for (uint i = first; i < first + count; i++) threads[i].state = State::READY;
}

// Lets those go on that have met. There have to be some.
static void end_meetings() {
  if (all(0, thread_count, State::IN_THREADGROUP)) return make_ready(0, thread_count);
  bool have_met = false;
  for (uint first = 0; first < thread_count; first += SIMDGROUP) {
    if (!all(first, SIMDGROUP, State::IN_SIMDGROUP)) continue;
    make_ready(first, SIMDGROUP);
    have_met = true;
  }
  if (!have_met) fail("some threads of a group wait for others that do not come");
}

static void run_threadgroup() {
  static char* stacks = static_cast<char*>(
      mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0));
  if (stacks == MAP_FAILED) fail("no memory for stacks");
  threadgroups_begun++;
  threads_begun = 0;
  for (uint i = 0; i < thread_count; i++) threads[i].exchanges = 0;
  for (uint fibers = 0; threads_begun < thread_count; fibers++) begin_fiber(stacks + fibers * STACK);
  while (!all(0, thread_count, State::DONE)) {
    end_meetings();
    for (uint i = 0; i < thread_count; i++) {
      running = in_order(i);
      if (running->state == State::READY) swapcontext(&scheduler, &running->context);
    }
  }
}

// An array of a threadgroup. Its bytes are 0xFF, NaN as floats, until they are written.
template <typename T, size_t SIZE>
struct Shared {
  T values[SIZE];
  ulong of_threadgroup = 0;

  void enter() {
    if (of_threadgroup == threadgroups_begun) return;
    memset(static_cast<void*>(values), 0xFF, sizeof values);
    of_threadgroup = threadgroups_begun;
  }
  operator T*() { return values; }
};

// The values of all threads of the simdgroup, combined in pairs.
template <typename T, typename Combine>
inline T combined(T value, Combine combine) {
  // Two sets: a thread may be at its next operation while others have yet to read the values of this one.
  static T sets[MOST_THREADS / SIMDGROUP][2][SIMDGROUP];
  T* set = sets[running->simdgroup_index_in_threadgroup][running->exchanges++ % 2];
  set[running->thread_index_in_simdgroup] = value;
  wait_in(State::IN_SIMDGROUP);
  T values[SIMDGROUP];
  memcpy(values, set, sizeof values);
  for (uint step = SIMDGROUP / 2; step > 0; step /= 2)
    for (uint i = 0; i < step; i++) values[i] = combine(values[i], values[i + step]);
  return values[0];
}

inline bool is_first_of_simdgroup() { return running->thread_index_in_simdgroup == 0; }

}  // namespace host

// What of Metal's library is between threads.
namespace metal {

enum class mem_flags { mem_none, mem_device, mem_threadgroup };

inline void threadgroup_barrier(mem_flags) { host::wait_in(host::State::IN_THREADGROUP); }

inline float simd_sum(float value) { return host::combined(value, [](float a, float b) { return a + b; }); }
inline float simd_max(float value) { return host::combined(value, [](float a, float b) { return max(a, b); }); }
inline uint simd_max(uint value) { return host::combined(value, [](uint a, uint b) { return max(a, b); }); }

}  // namespace metal
