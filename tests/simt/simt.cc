// SPDX-License-Identifier: Apache-2.0
// The engine: fibers, meeting places, shared memory between guard pages.
#include "tests/simt/runtime.h"

#include <stdarg.h>
#include <sys/mman.h>

#include <deque>
#include <map>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct simt_options simt_options;
struct simt_thread *simt_self;
struct simt_block *simt_now;
simt_instead_fn *simt_instead;
const struct simt_witness *simt_watched;
simt_phase_fn *simt_phase_over;

enum { STACK = 256 * 1024, PAGE = 4096, SHARED_MAX = 232448, MAX_THREADS = 1024, WORD = 4, MOST_BLOCKS = 8 };

struct meeting {
    uint64_t round; // counts up when everybody came
    int count, came;
    const char *what;
    simt_all_fn *all;
    void *context;
    void *arg[MAX_THREADS]; // by thread number
    bool here[MAX_THREADS];
};

typedef std::vector<std::function<void()>> simt_group;

// A multiprocessor's worth of state: one block at a time.
struct resident {
    struct simt_block block; // first
    struct meeting meetings[SIMT_PLACES];
    struct simt_thread threads[MAX_THREADS];
    std::deque<std::function<void()>> pending;
    std::deque<simt_group> groups[SIMT_KINDS][MAX_THREADS]; // the youngest is still open
    uint16_t writer[SHARED_MAX / WORD + 1];                 // of a word that is not fenced: its thread + 1
    std::vector<uint32_t> unfenced[MAX_THREADS];
    unsigned char *shared_base;
    unsigned pace; // a turn in so many rounds
    bool busy;
    uint64_t cluster_round; // of the cluster's first block: counts up when all its threads came
    int cluster_came;
};
static struct resident *residents[MOST_BLOCKS];
static void *scheduler;
static const std::function<void()> *kernel_now;
static uint64_t deeds; // of threads, but for sleeping

static struct resident *now() {
    return (struct resident *)simt_now;
}

void simt_fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "simt: ");
    if (simt_self != NULL)
        fprintf(stderr, "block %u,%u thread %d: ", simt_now->index.x, simt_now->index.y, simt_self->number);
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
    abort();
}

// ---- device memory

struct simt_memory simt_memory;

static size_t bytes_from(const char *variable, size_t fallback) {
    const char *text = getenv(variable);
    return text != NULL ? (size_t)strtoull(text, NULL, 10) : fallback;
}

size_t simt_memory_total() {
    return bytes_from("ORRERY_SIMT_MEMORY", (size_t)4 << 30);
}

size_t simt_memory_room() {
    size_t total = simt_memory_total(), taken = simt_memory.used + bytes_from("ORRERY_SIMT_HELD", 0);
    return taken < total ? total - taken : 0;
}

__attribute__((destructor)) static void tell_peak() {
    const char *path = getenv("ORRERY_SIMT_PEAK");
    FILE *f = path != NULL ? fopen(path, "w") : NULL;
    if (f == NULL) return;
    fprintf(f, "%zu\n", simt_memory.peak);
    fclose(f);
}

// ---- kernels' shared memory

enum { ROOM = 48 * 1024 };
static std::map<const void *, int> &rooms() {
    static std::map<const void *, int> all;
    return all;
}

cudaError_t simt_make_room(const void *kernel, int bytes) {
    if (bytes > SHARED_MAX) return cudaErrorInvalidValue;
    rooms()[kernel] = bytes;
    return cudaSuccess;
}

bool simt_has_room(const void *kernel, size_t bytes) {
    auto asked = rooms().find(kernel);
    return bytes <= ROOM || (asked != rooms().end() && bytes <= (size_t)asked->second);
}

// ---- fibers

#if defined(__x86_64__)
extern "C" void simt_switch(void **save, void *load);
asm(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size simt_switch,.-simt_switch\n");
static void fiber_new(struct simt_thread *t, void (*entry)()) {
    void **top = (void **)((char *)t->stack + STACK);
    *--top = NULL; // so that the entry sees the alignment of a call
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = NULL;
    t->context = top;
}
#else
static void simt_switch(void **save, void *load) {
    if (*save == NULL) *save = new ucontext_t;
    swapcontext((ucontext_t *)*save, (ucontext_t *)load);
}
static void fiber_new(struct simt_thread *t, void (*entry)()) {
    if (t->context == NULL) t->context = new ucontext_t;
    ucontext_t *c = (ucontext_t *)t->context;
    getcontext(c);
    c->uc_stack.ss_sp = t->stack;
    c->uc_stack.ss_size = STACK;
    makecontext(c, entry, 0);
    t->context = c;
}
#endif

static void pause_fiber() {
    struct simt_thread *me = simt_self;
    simt_switch(&me->context, scheduler);
}

void simt_wait_flag(const volatile uint32_t *flag, uint32_t least) {
    simt_self->flag = flag;
    simt_self->least = least;
    simt_self->what = "a flag";
    pause_fiber();
    simt_self->what = NULL;
    simt_self->flag = NULL;
}

void simt_sleep() {
    simt_self->asleep = true;
    simt_self->since = deeds;
    simt_self->what = "another block";
    pause_fiber();
    simt_self->what = NULL;
}

void simt_wait(const volatile uint64_t *word, uint64_t old, const char *what) {
    if (*word != old) return;
    simt_self->wait = word;
    simt_self->old = old;
    simt_self->what = what;
    pause_fiber();
    simt_self->what = NULL;
    simt_self->wait = NULL;
}

// ---- meetings

static void meeting_close(struct meeting *m) {
    static void *args[MAX_THREADS];
    int n = 0;
    for (int i = 0; i < simt_now->threads; i++) {
        if (m->here[i]) args[n++] = m->arg[i];
        m->here[i] = false;
    }
    m->came = 0;
    if (m->all != NULL) m->all(args, n, m->context);
    m->round++;
}

static struct meeting *meeting_join(int place, int count, const char *what) {
    struct meeting *m = &now()->meetings[place];
    if (m->came > 0 && (m->what != what && strcmp(m->what, what) != 0))
        simt_fail("comes to %s while others wait in %s", what, m->what);
    if (m->came > 0 && m->count != count && place != SIMT_BLOCK)
        simt_fail("%s of barrier %d: %d threads expected here, %d elsewhere", what, place, count, m->count);
    m->what = what;
    m->count = count;
    m->came++;
    return m;
}

void simt_meet(int place, int count, const char *what, void *arg, simt_all_fn *all, void *context) {
    struct meeting *m = meeting_join(place, count, what);
    int me = simt_self->number;
    m->arg[me] = arg;
    m->here[me] = true;
    m->all = all;
    m->context = context;
    if (m->came >= count) return meeting_close(m);
    simt_wait(&m->round, m->round, what);
}

void simt_arrive(int place, int count, const char *what) {
    struct meeting *m = meeting_join(place, count, what);
    if (m->came >= count) meeting_close(m);
}

// ---- asynchronous work

static bool is_late(enum simt_kind kind) {
    return kind == SIMT_PRODUCT ? simt_options.late_products : simt_options.late_copies;
}

void simt_later(const std::function<void()> &work) {
    if (!simt_options.late_copies) return work();
    now()->pending.push_back(work);
}

void simt_defer(enum simt_kind kind, int owner, const std::function<void()> &work) {
    if (!is_late(kind)) return work();
    std::deque<simt_group> &g = now()->groups[kind][owner];
    if (g.empty()) g.emplace_back();
    g.back().push_back(work);
}

void simt_commit(enum simt_kind kind, int owner) {
    if (!is_late(kind)) return;
    std::deque<simt_group> &g = now()->groups[kind][owner];
    if (g.empty()) g.emplace_back();
    g.emplace_back();
}

void simt_drain(enum simt_kind kind, int owner, size_t keep) {
    std::deque<simt_group> &g = now()->groups[kind][owner];
    while (g.size() > keep + 1) {
        for (auto &work : g.front()) work();
        g.pop_front();
    }
}

// Something that was put off happens now; false: there is nothing.
static bool simt_settle() {
    if (now()->pending.empty()) return false;
    std::function<void()> work = now()->pending.front();
    now()->pending.pop_front();
    work();
    return true;
}

static void simt_finish() {
    if (!now()->pending.empty()) simt_fail("the block ended before its bulk copies");
    for (int kind = 0; kind < SIMT_KINDS; kind++) {
        for (int i = 0; i < simt_now->threads; i++) {
            std::deque<simt_group> &g = now()->groups[kind][i];
            for (const simt_group &one : g) {
                if (!one.empty())
                    simt_fail("thread %d ended before its asynchronous work of kind %d", i, kind);
            }
            g.clear();
        }
    }
}

// ---- shared memory

struct simt_block *simt_block_of(uint32_t address) {
    uint32_t named = address >> SIMT_RANK_SHIFT;
    if (named == 0) return simt_now;
    if ((int)named > simt_now->cluster) simt_fail("shared memory: block %u of the cluster", named - 1);
    struct simt_block *block = simt_now->of_cluster[named - 1];
    if (block->running == 0) simt_fail("shared memory of the cluster's block %u, which has ended", named - 1);
    return block;
}

uint32_t simt_cluster_address(uint32_t address, uint32_t rank) {
    if ((int)rank >= simt_now->cluster) simt_fail("block %u of a cluster of %d", rank, simt_now->cluster);
    return simt_offset(address) | (rank + 1) << SIMT_RANK_SHIFT;
}

unsigned char *simt_shared(uint32_t address, size_t bytes) {
    const struct simt_block *block = simt_block_of(address);
    uint32_t at = simt_offset(address);
    if (at > block->shared_bytes || bytes > block->shared_bytes - at)
        simt_fail("shared memory: %zu bytes at %u, of %zu", bytes, at, block->shared_bytes);
    return block->shared + at;
}

uint32_t simt_shared_address(const void *p) {
    ptrdiff_t at = (const unsigned char *)p - simt_now->shared;
    if (at < 0 || at > (ptrdiff_t)simt_now->shared_bytes) simt_fail("%p is not in dynamic shared memory", p);
    return (uint32_t)at;
}

void simt_stored(int thread, uint32_t address, size_t bytes) {
    for (uint32_t word = address / WORD; word < (address + bytes + WORD - 1) / WORD; word++) {
        now()->writer[word] = (uint16_t)(thread + 1);
        now()->unfenced[thread].push_back(word);
    }
}

void simt_fenced(int thread) {
    for (uint32_t word : now()->unfenced[thread])
        if (now()->writer[word] == thread + 1) now()->writer[word] = 0;
    now()->unfenced[thread].clear();
}

unsigned char *simt_shared_async(uint32_t address, size_t bytes) {
    unsigned char *at = simt_shared(address, bytes);
    const uint16_t *writer = ((struct resident *)simt_block_of(address))->writer;
    uint32_t first = simt_offset(address);
    for (uint32_t word = first / WORD; word < (first + bytes + WORD - 1) / WORD; word++)
        if (writer[word] != 0)
            simt_fail(
                "shared memory at %u: thread %d wrote it and has not fenced it for the asynchronous proxy",
                word * WORD, writer[word] - 1);
    return at;
}

enum { CANARY = 0xc5 };

static void shared_begin(size_t bytes) {
    if (bytes > SHARED_MAX) simt_fail("%zu bytes of shared memory, at most %d", bytes, SHARED_MAX);
    size_t room = 64 * PAGE;
    if (now()->shared_base == NULL) {
        unsigned char *all =
            (unsigned char *)mmap(NULL, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        now()->shared_base = all + PAGE;
        if (all == MAP_FAILED || mprotect(now()->shared_base, room, PROT_READ | PROT_WRITE) != 0)
            simt_fail("no memory");
    }
    size_t take = (bytes + 1023) / 1024 * 1024;
    memset(now()->shared_base, CANARY, room);
    simt_now->shared = now()->shared_base + room - take; // its end meets the guard page
    simt_now->shared_bytes = bytes;
    memset(simt_now->shared, 0xff, bytes); // NaN in every format
    for (int i = 0; i < MAX_THREADS; i++) simt_fenced(i);
}

static void shared_end() {
    const unsigned char *end = now()->shared_base + 64 * PAGE;
    for (const unsigned char *p = now()->shared_base; p < end; p++) {
        if (p == simt_now->shared && simt_now->shared_bytes > 0) p += simt_now->shared_bytes;
        if (p < end && *p != CANARY)
            simt_fail("block %u: byte %td beyond shared memory was written", simt_now->index.x,
                      p - simt_now->shared);
    }
}

// ---- clusters

static struct resident *first_of_cluster() {
    return (struct resident *)simt_now->of_cluster[0];
}

static int cluster_running(const struct simt_block *b) {
    int running = 0;
    for (int i = 0; i < b->cluster; i++) running += b->of_cluster[i]->running;
    return running;
}

// Goes on when whoever of the cluster still runs has come.
static void close_cluster_round() {
    struct resident *first = first_of_cluster();
    if (first->cluster_came == 0 || first->cluster_came < cluster_running(simt_now)) return;
    first->cluster_came = 0;
    first->cluster_round++;
}

void simt_cluster_arrive() {
    simt_self->cluster_round = first_of_cluster()->cluster_round;
    first_of_cluster()->cluster_came++;
    close_cluster_round();
}

void simt_cluster_wait() {
    simt_wait(&first_of_cluster()->cluster_round, simt_self->cluster_round, "barrier.cluster");
}

// ---- blocks

static void thread_main() {
    (*kernel_now)();
    simt_self->done = true;
    simt_now->running--;
    close_cluster_round();
    // Those who still wait for the whole block no longer wait for this thread.
    struct meeting *m = &now()->meetings[SIMT_BLOCK];
    if (m->came > 0 && m->came >= simt_now->running) meeting_close(m);
    pause_fiber();
    abort();
}

static void deadlock() {
    simt_self = NULL;
    for (struct resident *r : residents) {
        if (r == NULL || !r->busy) continue;
        simt_now = &r->block;
        for (int i = 0; i<simt_now->threads; i += simt_now->threads> 64 ? 32 : 1) {
            const struct simt_thread *t = &r->threads[i];
            fprintf(stderr, "  block %u,%u thread %d: %s\n", simt_now->index.x, simt_now->index.y, i,
                    t->done ? "done" : t->what);
        }
    }
    simt_fail("block %u,%u: nobody can go on", simt_now->index.x, simt_now->index.y);
}

static unsigned next_random() {
    static unsigned state;
    state = state * 1664525u + 1013904223u + simt_options.seed;
    return state >> 8;
}

static void begin_thread(struct simt_thread *t, int number) {
    if (t->stack == NULL) {
        t->stack =
            mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (t->stack == MAP_FAILED) simt_fail("no memory for stacks");
    }
    t->number = number;
    t->lane = number % 32;
    unsigned u = (unsigned)number, x = simt_now->dim.x, y = simt_now->dim.y;
    t->tid = {u % x, u / x % y, u / (x * y)};
    t->done = t->asleep = false;
    t->wait = NULL;
    t->flag = NULL;
    t->what = NULL;
    fiber_new(t, thread_main);
}

static void begin_block(struct resident *r, dim3 grid, dim3 block, size_t shared_bytes, uint64_t number) {
    simt_now = &r->block;
    r->cluster_round = 0;
    r->cluster_came = 0;
    simt_now->grid = grid;
    simt_now->dim = block;
    simt_now->index = {(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                       (unsigned)(number / grid.x / grid.y)};
    simt_now->threads = simt_now->running = (int)(block.x * block.y * block.z);
    simt_now->thread = r->threads;
    simt_now->witness = NULL;
    shared_begin(shared_bytes);
    memset(r->meetings, 0, sizeof r->meetings);
    for (int i = 0; i < simt_now->threads; i++) begin_thread(&r->threads[i], i);
    r->pace = simt_options.seed == 0 ? 1 : 1 + next_random() % 6;
    r->busy = true;
}

static void end_block(struct resident *r) {
    simt_finish();
    shared_end();
    if (simt_now->witness != NULL) simt_now->forget(simt_now->witness);
    r->busy = false;
}

static bool can_go_on(const struct simt_thread *t) {
    if (t->done || (t->wait != NULL && *t->wait == t->old)) return false;
    if (t->flag != NULL && *t->flag < t->least) return false;
    return !t->asleep || t->since != deeds;
}

// Gives each thread of the block that can go on a turn. False: nobody has done anything.
static bool take_turns(struct resident *r) {
    bool moved = false;
    unsigned n = (unsigned)r->block.threads, start = simt_options.seed == 0 ? 0 : next_random() % n;
    simt_now = &r->block;
    for (unsigned i = 0; i < n; i++) {
        struct simt_thread *t = &r->threads[(i + start) % n];
        if (!can_go_on(t)) continue;
        t->asleep = false;
        simt_self = t;
        simt_switch(&scheduler, t->context);
        simt_self = NULL;
        if (t->asleep) continue;
        moved = true;
        deeds++;
    }
    return moved;
}

// A round of all blocks; in a hurry none is left out. False: nobody has done anything.
static bool round_of_blocks(bool hurry) {
    bool moved = false;
    for (struct resident *r : residents) {
        if (r == NULL || !r->busy || (!hurry && next_random() % r->pace != 0)) continue;
        moved = take_turns(r) || moved;
    }
    return moved;
}

static bool settle_one() {
    for (struct resident *r : residents) {
        if (r == NULL || !r->busy) continue;
        simt_now = &r->block;
        if (simt_settle()) return true;
    }
    return false;
}

// The next blocks, as many as a cluster has, each where none runs; false: there is no room.
static bool begin_cluster(int most, int cluster, dim3 grid, dim3 block, size_t shared_bytes,
                          uint64_t number) {
    struct resident *take[SIMT_CLUSTER];
    int n = 0;
    for (int i = 0; i < most && n < cluster; i++) {
        if (residents[i] == NULL) residents[i] = new resident();
        if (!residents[i]->busy) take[n++] = residents[i];
    }
    if (n < cluster) return false;
    for (int i = 0; i < cluster; i++) {
        struct simt_block *b = &take[i]->block;
        b->rank = i;
        b->cluster = cluster;
        for (int j = 0; j < cluster; j++) b->of_cluster[j] = &take[j]->block;
        begin_block(take[i], grid, block, shared_bytes, number + (uint64_t)i);
    }
    return true;
}

void simt_launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel,
                 int cluster) {
    if (simt_self != NULL) simt_fail("a launch inside a kernel");
    uint64_t n = (uint64_t)block.x * block.y * block.z, begun = 0, left = (uint64_t)grid.x * grid.y * grid.z;
    if (n == 0 || n > MAX_THREADS || left == 0 || grid.y > 65535 || grid.z > 65535)
        simt_fail("launch of %u x %u x %u blocks of %llu threads", grid.x, grid.y, grid.z,
                  (unsigned long long)n);
    if (grid.x % (unsigned)cluster != 0) simt_fail("%u blocks in clusters of %d", grid.x, cluster);
    kernel_now = &kernel;
    uint64_t all = left;
    int most = std::min(std::max(simt_options.blocks, cluster), (int)MOST_BLOCKS);
    while (left > 0) {
        while (begun < all && begin_cluster(most, cluster, grid, block, shared_bytes, begun))
            begun += (uint64_t)cluster;
        if (!round_of_blocks(false) && !round_of_blocks(true) && !settle_one()) deadlock();
        for (struct resident *r : residents) {
            if (r == NULL || !r->busy || cluster_running(&r->block) > 0) continue;
            simt_now = &r->block;
            end_block(r);
            left--;
        }
    }
}

// ---- streams and what is captured of them

struct simt_stream {
    bool captured;
    bool loose; // captured, and nobody has joined what it did last
};
struct simt_graph {
    std::vector<std::function<void()>> work; // in the order of the capture, which is one that the edges allow
};

static struct {
    cudaStream_t origin; // NULL: no capture
    std::vector<cudaStream_t> streams;
    simt_graph *graph;
    bool invalid;
} capture;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = new simt_stream{false, false};
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) {
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    delete s;
    return cudaSuccess;
}

bool simt_captures(cudaStream_t s) {
    return s != NULL && s->captured;
}

cudaError_t simt_refuse(cudaStream_t) {
    capture.invalid = true;
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t simt_enqueue(cudaStream_t s, const std::function<void()> &work) {
    if (!simt_captures(s)) {
        work();
        return cudaSuccess;
    }
    s->loose = s != capture.origin;
    capture.graph->work.push_back(work);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    e->captured = simt_captures(s);
    e->stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (!e->captured) return simt_captures(s) ? simt_refuse(s) : cudaSuccess;
    if (!s->captured) capture.streams.push_back(s);
    s->captured = true;
    s->loose = s != capture.origin;
    if (e->stream != s) e->stream->loose = false;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (capture.origin != NULL) return cudaErrorStreamCaptureUnsupported;
    capture.origin = s;
    capture.streams = {s};
    capture.graph = new simt_graph;
    capture.invalid = false;
    s->captured = true;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out) {
    if (s != capture.origin) return cudaErrorInvalidValue;
    cudaError_t rc = capture.invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (cudaStream_t member : capture.streams) {
        if (member->loose && rc == cudaSuccess) rc = cudaErrorStreamCaptureUnjoined;
        member->captured = member->loose = false;
    }
    capture.origin = NULL;
    *out = capture.graph;
    if (rc == cudaSuccess) return rc;
    delete capture.graph;
    *out = NULL;
    return rc;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    *out = new simt_graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) {
    if (simt_captures(s)) return simt_refuse(s);
    for (const std::function<void()> &work : graph->work) work();
    return cudaSuccess;
}
