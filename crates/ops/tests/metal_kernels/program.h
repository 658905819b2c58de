// Launches a kernel of the table that stands before this:
//
//   PROGRAM KERNEL forward|reversed GROUPS THREADS CONSTANT...     GROUPS and THREADS are three numbers each
//
// Standard input has the buffers: for each its index and its size in bytes, 32 bits each, and its bytes. A size of 0xFFFFFFFF says
// that the buffer is the one whose index follows. They are written to standard output, as they then are, in the same order.

namespace host {

constexpr uint SAME_AS = 0xFFFFFFFF;

// Memory that ends where a page that cannot be read begins, so that a kernel that goes beyond it ends the program.
static void* guarded(size_t size) {
  size_t page = size_t(sysconf(_SC_PAGESIZE)), whole = (size + page - 1) / page * page;
  void* begin = mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (begin == MAP_FAILED || mprotect(static_cast<char*>(begin) + whole, page, PROT_NONE) != 0) fail("no memory for buffers");
  memset(begin, 0xFF, whole);
  return static_cast<char*>(begin) + whole - size;
}

static void read_exactly(void* to, size_t size) {
  if (fread(to, 1, size, stdin) != size) fail("the buffers end early");
}

static int index_of_buffer() {
  uint index;
  read_exactly(&index, sizeof index);
  if (index >= BUFFERS) fail("no buffer has this index");
  return int(index);
}

static Place place_from(char** words) {
  uint numbers[3];
  for (int i = 0; i < 3; i++) numbers[i] = uint(strtoul(words[i], nullptr, 10));
  return {numbers[0], numbers[1], numbers[2]};
}

static int run(int count, char** words) {
  if (count < 9) fail("a kernel, an order, three numbers of groups and three of threads are needed");
  for (const Kernel& kernel : KERNELS)
    if (strcmp(kernel.name, words[1]) == 0) kernel_to_run = kernel.run;
  if (kernel_to_run == nullptr) fail("there is no kernel of this name");
  reversed = strcmp(words[2], "reversed") == 0;
  Place groups = place_from(words + 3), size = place_from(words + 6);
  thread_count = size.x * size.y * size.z;
  if (thread_count > MOST_THREADS || thread_count % SIMDGROUP != 0) fail("a threadgroup of whole simdgroups and at most 1024 threads is needed");
  launch.constant_count = count - 9;
  if (launch.constant_count > CONSTANTS) fail("too many function constants");
  for (int i = 9; i < count; i++) launch.constants[i - 9] = uint(strtoul(words[i], nullptr, 10));

  int order[BUFFERS], buffers = 0;
  for (int next; (next = getchar()) != EOF;) {
    ungetc(next, stdin);
    int index = index_of_buffer();
    uint bytes;
    read_exactly(&bytes, sizeof bytes);
    if (launch.buffers[index] != nullptr) fail("a buffer was given twice");
    if (bytes == SAME_AS) {
      int other = index_of_buffer();
      launch.buffers[index] = launch.buffers[other];
      launch.sizes[index] = launch.sizes[other];
      continue;
    }
    launch.buffers[index] = guarded(bytes);
    launch.sizes[index] = bytes;
    read_exactly(launch.buffers[index], bytes);
    order[buffers++] = index;
  }

  for (uint i = 0; i < groups.x * groups.y * groups.z; i++) {
    uint group = reversed ? groups.x * groups.y * groups.z - 1 - i : i;
    for (uint index = 0; index < thread_count; index++) {
      Thread& own = threads[index];
      own.threadgroup_position_in_grid = {group % groups.x, group / groups.x % groups.y, group / groups.x / groups.y};
      own.thread_position_in_threadgroup = {index % size.x, index / size.x % size.y, index / size.x / size.y};
      own.threads_per_threadgroup = size;
      own.thread_index_in_threadgroup = index;
      own.simdgroup_index_in_threadgroup = index / SIMDGROUP;
      own.simdgroups_per_threadgroup = thread_count / SIMDGROUP;
      own.thread_index_in_simdgroup = index % SIMDGROUP;
    }
    run_threadgroup();
  }
  for (int i = 0; i < buffers; i++) fwrite(launch.buffers[order[i]], 1, launch.sizes[order[i]], stdout);
  return 0;
}

}  // namespace host

int main(int count, char** words) { return host::run(count, words); }
