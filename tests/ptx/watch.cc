// SPDX-License-Identifier: Apache-2.0
#include "tests/ptx/watch.h"

#include <algorithm>
#include <bitset>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "tests/ptx/machine.h"

namespace {

enum { CELL = 2, PAGE = 4096, MBARS = 64, GROUPS = 8, SENDERS = 32, WARP = 32 };

typedef std::vector<uint32_t> clocks;

// Who touched a place, and when by its clock: a thread, or something that works on its own.
struct mark {
    const ptx_code *code; // NULL: nobody
    uint32_t who, clock;
    bool atomic;
};

struct shared_cell {
    mark write;
    std::vector<mark> reads;
    bool valid;
};

// What is known of other blocks, by their number. Many threads share the same clocks of a block, which never
// change.
typedef std::map<uint32_t, std::shared_ptr<const clocks>> blocks_known;

struct mbar {
    clocks arrived, over[2];
    blocks_known known, known_over[2];
    uint32_t phase;
};

// Groups of asynchronous work, closed so far.
struct groups {
    uint32_t closed;
};

struct block {
    int threads;
    uint32_t number;
    size_t actors, first_mbar, first_group, first_read, first_done; // components of a clock
    std::vector<clocks> now;                                        // of each thread
    std::vector<blocks_known> known;                                // of other blocks, by thread
    std::map<int, clocks> places;
    std::map<int, blocks_known> known_places;
    blocks_known cluster_place[2]; // of the cluster's first block: even and odd rounds of barrier.cluster
    std::vector<uint32_t> cluster_rounds; // of each thread: how often it went through
    std::map<uint32_t, size_t> mbar_number;
    mbar mbars[MBARS];
    groups products[GROUPS], bulks[SENDERS];
    std::vector<groups> copies;
    std::map<int, size_t> sender; // of bulk copies, by thread
    std::vector<shared_cell> cells;
};

block &here() {
    return *(block *)simt_now->witness;
}
block &block_of(uint32_t shared) {
    return *(block *)simt_block_of(shared)->witness;
}
uint32_t launch;
std::unordered_map<const void *, blocks_known> flags;

int self() {
    return simt_self->number;
}
clocks &mine() {
    return here().now[(size_t)self()];
}
void take_all(clocks *to, const clocks &from) {
    if (to->empty()) to->resize(here().actors);
    for (size_t i = 0; i < from.size(); i++) (*to)[i] = std::max((*to)[i], from[i]);
}
bool covers(const clocks &a, const clocks &b) {
    for (size_t i = 0; i < b.size(); i++)
        if (i >= a.size() ? b[i] > 0 : a[i] < b[i]) return false;
    return true;
}
void learn(std::shared_ptr<const clocks> *to, const std::shared_ptr<const clocks> &from) {
    if (*to == from) return;
    if (!*to || covers(*from, **to)) {
        *to = from;
        return;
    }
    if (covers(**to, *from)) return;
    auto both = std::make_shared<clocks>(**to);
    take_all(both.get(), *from);
    *to = both;
}
void learn_all(blocks_known *to, const blocks_known &from) {
    for (auto &k : from) learn(&(*to)[k.first], k.second);
}
blocks_known &my_known() {
    return here().known[(size_t)self()];
}
// What others know of this block is what its thread is to know itself.
void take_known(const blocks_known &from) {
    for (auto &k : from) {
        if (k.first == here().number)
            take_all(&mine(), *k.second);
        else
            learn(&my_known()[k.first], k.second);
    }
}
void tick() {
    mine()[(size_t)self()]++;
}
mark mark_of(const ptx_code *c, size_t who, uint32_t clock) {
    return {c, (uint32_t)who, clock, false};
}
mark own_mark(const ptx_code *c) {
    return mark_of(c, (size_t)self(), mine()[(size_t)self()]);
}
bool before(const mark &m, const clocks &now) {
    return m.code == nullptr || now[m.who] >= m.clock;
}
// The thread knows of what happened in that block.
bool before(const mark &m, uint32_t number) {
    if (number == here().number) return before(m, mine());
    auto other = my_known().find(number);
    return m.code == nullptr || (other != my_known().end() && before(m, *other->second));
}

std::string name_of(const mark &m, const block &b) {
    const char *what = "";
    if (m.who < (uint32_t)b.threads) return "thread " + std::to_string(m.who);
    if (m.who < b.first_mbar)
        what = "a cp.async";
    else if (m.who < b.first_group)
        what = "a load of the copy engine";
    else if (m.who < b.first_read)
        what = "a product of a warpgroup";
    else
        what = "a bulk store";
    return what;
}

[[noreturn]] void race(const ptx_code *c, const char *does, const char *memory, unsigned long long at,
                       const char *did, const mark &m, const block &b) {
    ptx_fail(c, "%s %s memory at %llu, which %s %s at %s:%d (%s); nothing orders the two", does, memory, at,
             name_of(m, b).c_str(), did, m.code->file, m.code->line, m.code->name);
}

// ---- shared memory

bool is_same_reader(const mark &a, const mark &c) {
    if (a.who >= (uint32_t)here().threads || c.who >= (uint32_t)here().threads) return a.who == c.who;
    return a.who / WARP == c.who / WARP;
}

// Of any block of the cluster; a thread itself touches its own block's only.
void touch_shared(const ptx_code *c, uint32_t at, size_t bytes, enum watch_kind kind, const mark &m) {
    block &b = block_of(at);
    uint32_t first = simt_offset(at);
    (void)simt_shared(at, bytes); // within the block's
    for (size_t i = first / CELL; i <= (first + bytes - 1) / CELL; i++) {
        shared_cell *cell = &b.cells[i];
        unsigned long long where = i * CELL;
        if (!before(cell->write, b.number) && !(kind == WATCH_ATOMIC && cell->write.atomic))
            race(c, kind == WATCH_READ ? "reads" : "writes", "shared", where, "wrote", cell->write, b);
        if (kind == WATCH_READ) {
            if (!cell->valid) ptx_fail(c, "reads shared memory at %llu, which nobody has written", where);
            auto same = std::find_if(cell->reads.begin(), cell->reads.end(),
                                     [&](const mark &r) { return is_same_reader(r, m); });
            if (same == cell->reads.end())
                cell->reads.push_back(m);
            else
                *same = m;
            continue;
        }
        for (const mark &r : cell->reads)
            if (!before(r, b.number)) race(c, "writes", "shared", where, "reads", r, b);
        cell->reads.clear();
        cell->write = m;
        cell->write.atomic = kind == WATCH_ATOMIC;
        cell->valid = true;
    }
}

// ---- device memory

struct global_mark {
    mark m;
    uint32_t launch, block;
};
struct global_cell {
    global_mark write, reads[2];
};
struct page {
    std::bitset<PAGE> ours, valid;
    std::unique_ptr<global_cell[]> cells;
};
std::unordered_map<uintptr_t, page> &all_pages() { // asked for before the program's main
    static std::unordered_map<uintptr_t, page> all;
    return all;
}

template <class F> void each_page(const void *p, size_t bytes, F f) {
    uintptr_t at = (uintptr_t)p, end = at + bytes;
    while (at < end) {
        uintptr_t stop = std::min(end, (at / PAGE + 1) * PAGE);
        f(&all_pages()[at / PAGE], at % PAGE, stop - at, at);
        at = stop;
    }
}
void set_bits(std::bitset<PAGE> *bits, size_t at, size_t n, bool value) {
    if (n == PAGE) {
        if (value)
            bits->set();
        else
            bits->reset();
        return;
    }
    for (size_t i = at; i < at + n; i++) bits->set(i, value);
}
bool all_set(const std::bitset<PAGE> &bits, size_t at, size_t n) {
    for (size_t i = at; i < at + n; i++)
        if (!bits[i]) return false;
    return true;
}

bool is_ordered(const global_mark &g) {
    return g.launch != launch || before(g.m, g.block);
}

std::string name_of(const global_mark &g) {
    return name_of(g.m, here()) + (g.block == here().number ? "" : " of block " + std::to_string(g.block));
}

void check_global(const ptx_code *c, const global_mark &old, const void *at, const char *does,
                  const char *did) {
    if (!is_ordered(old))
        ptx_fail(c, "%s device memory at %p, which %s %s at %s:%d (%s); nothing orders the two", does, at,
                 name_of(old).c_str(), did, old.m.code->file, old.m.code->line, old.m.code->name);
}

void touch_global(const ptx_code *c, const void *p, size_t bytes, enum watch_kind kind, const mark &m) {
    const char *does = kind == WATCH_READ ? "reads" : "writes";
    global_mark now = {m, launch, here().number};
    each_page(p, bytes, [&](page *g, size_t at, size_t n, uintptr_t address) {
        if (!all_set(g->ours, at, n))
            ptx_fail(c, "%s %zu bytes at %p, which are not device memory", does, bytes, p);
        if (kind != WATCH_WRITE && !all_set(g->valid, at, n))
            ptx_fail(c, "reads device memory at %p, which nobody has written", p);
        if (!g->cells) g->cells.reset(new global_cell[PAGE / CELL]());
        for (size_t i = at / CELL; i <= (at + n - 1) / CELL; i++, address += CELL) {
            global_cell *cell = &g->cells[i];
            if (!(kind == WATCH_ATOMIC && cell->write.m.atomic))
                check_global(c, cell->write, (void *)address, does, "wrote");
            if (kind == WATCH_READ) {
                bool first = cell->reads[0].block == now.block && cell->reads[0].launch == launch &&
                             is_same_reader(cell->reads[0].m, m);
                if (!first) cell->reads[1] = cell->reads[0];
                cell->reads[0] = now;
                continue;
            }
            for (const global_mark &r : cell->reads) check_global(c, r, (void *)address, does, "read");
            cell->write = now;
            cell->write.m.atomic = kind == WATCH_ATOMIC;
        }
        if (kind != WATCH_READ) set_bits(&g->valid, at, n, true);
    });
}

// ---- numbers of actors

size_t mbar_at(block *b, uint32_t bar) {
    auto found = b->mbar_number.find(simt_offset(bar));
    if (found != b->mbar_number.end()) return found->second;
    size_t n = b->mbar_number.size();
    if (n == MBARS) simt_fail("more than %d mbarriers", MBARS);
    return b->mbar_number[simt_offset(bar)] = n;
}
size_t sender() {
    auto found = here().sender.find(self());
    if (found != here().sender.end()) return found->second;
    size_t n = here().sender.size();
    if (n == SENDERS) simt_fail("more than %d threads send", SENDERS);
    return here().sender[self()] = n;
}
void wait_for(size_t actor, const groups &g, int keep) {
    uint32_t done = g.closed > (uint32_t)keep ? g.closed - (uint32_t)keep : 0;
    mine()[actor] = std::max(mine()[actor], done);
}

} // namespace

void watch_allocated(void *p, size_t bytes) {
    each_page(p, bytes, [](page *g, size_t at, size_t n, uintptr_t) {
        set_bits(&g->ours, at, n, true);
        set_bits(&g->valid, at, n, false);
        for (size_t i = at / CELL; g->cells && i <= (at + n - 1) / CELL; i++) g->cells[i] = global_cell();
    });
}
void watch_freed(void *p, size_t bytes) {
    each_page(p, bytes, [](page *g, size_t at, size_t n, uintptr_t) { set_bits(&g->ours, at, n, false); });
}
void watch_written(void *p, size_t bytes) {
    each_page(p, bytes, [](page *g, size_t at, size_t n, uintptr_t) { set_bits(&g->valid, at, n, true); });
}
void watch_copied(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        uintptr_t a = (uintptr_t)from + i, z = (uintptr_t)to + i;
        all_pages()[z / PAGE].valid.set(z % PAGE, all_pages()[a / PAGE].valid[a % PAGE]);
    }
}

void watch_launch() {
    launch++;
    flags.clear();
}

void watch_block(struct simt_block *of, bool has_cp_async) {
    uint3 at = of->index;
    size_t n = (size_t)of->threads;
    block *b = new block();
    b->threads = of->threads;
    b->number = (at.z * of->grid.y + at.y) * of->grid.x + at.x;
    b->first_mbar = n + (has_cp_async ? n : 0);
    b->first_group = b->first_mbar + MBARS;
    b->first_read = b->first_group + GROUPS;
    b->first_done = b->first_read + SENDERS;
    b->actors = b->first_done + SENDERS;
    b->now.assign(n, clocks(b->actors));
    for (size_t i = 0; i < n; i++) b->now[i][i] = 1;
    b->known.resize(n);
    b->copies.resize(n);
    b->cluster_rounds.resize(n);
    b->cells.resize(of->shared_bytes / CELL + 1);
    of->witness = b;
    of->forget = [](void *witness) { delete (block *)witness; };
}

void watch_shared(const ptx_code *c, uint32_t at, size_t bytes, enum watch_kind kind) {
    if (at % bytes != 0) ptx_fail(c, "%zu bytes of shared memory at %u: not aligned", bytes, at);
    touch_shared(c, at, bytes, kind, own_mark(c));
}
void watch_global(const ptx_code *c, const void *at, size_t bytes, enum watch_kind kind) {
    if ((uintptr_t)at % bytes != 0) ptx_fail(c, "%zu bytes of device memory at %p: not aligned", bytes, at);
    touch_global(c, at, bytes, kind, own_mark(c));
}

void watch_join(int place) {
    take_all(&here().places[place], mine());
    learn_all(&here().known_places[place], my_known());
    tick();
}
void watch_met(int place, const int *thread, int count) {
    clocks all;
    blocks_known known;
    all.swap(here().places[place]);
    known.swap(here().known_places[place]);
    for (int i = 0; i < count; i++) {
        take_all(&here().now[(size_t)thread[i]], all);
        learn_all(&here().known[(size_t)thread[i]], known);
    }
}

// A thread of another block brings what it knows of the barrier's own, and of itself.
void watch_mbar_arrive(uint32_t bar) {
    block &b = block_of(bar);
    mbar *m = &b.mbars[mbar_at(&b, bar)];
    if (&b == &here())
        take_all(&m->arrived, mine());
    else
        learn(&m->known[here().number], std::make_shared<clocks>(mine()));
    learn_all(&m->known, my_known());
    tick();
}
void watch_mbar_over(uint32_t bar, uint32_t parity) {
    block &b = block_of(bar);
    size_t n = mbar_at(&b, bar);
    mbar *m = &b.mbars[n];
    m->arrived.resize(b.actors);
    m->arrived[b.first_mbar + n] = ++m->phase;
    m->over[parity] = m->arrived;
    m->known_over[parity] = m->known;
}
void watch_mbar_waited(uint32_t bar, uint32_t parity) {
    const mbar &m = here().mbars[mbar_at(&here(), bar)];
    take_all(&mine(), m.over[parity]);
    take_known(m.known_over[parity]);
}

void watch_cluster_join() {
    uint32_t round = here().cluster_rounds[(size_t)self()];
    blocks_known *place = &((block *)simt_now->of_cluster[0]->witness)->cluster_place[round & 1];
    learn(&(*place)[here().number], std::make_shared<clocks>(mine()));
    learn_all(place, my_known());
    tick();
}
void watch_cluster_met() {
    uint32_t round = here().cluster_rounds[(size_t)self()]++;
    take_known(((block *)simt_now->of_cluster[0]->witness)->cluster_place[round & 1]);
}

void watch_release(const void *flag) {
    blocks_known *at = &flags[flag];
    learn_all(at, my_known());
    learn(&(*at)[here().number], std::make_shared<clocks>(mine()));
    tick();
}
void watch_acquire(const void *flag) {
    auto found = flags.find(flag);
    if (found != flags.end()) take_known(found->second);
}

void watch_load(const ptx_code *c, uint32_t to, size_t bytes, uint32_t bar) {
    block &b = block_of(to);
    size_t n = mbar_at(&b, bar);
    touch_shared(c, to, bytes, WATCH_WRITE, mark_of(c, b.first_mbar + n, b.mbars[n].phase + 1));
}

void watch_copy(const ptx_code *c, uint32_t to, size_t bytes) {
    size_t n = (size_t)self();
    touch_shared(c, to, bytes, WATCH_WRITE,
                 mark_of(c, (size_t)here().threads + n, here().copies[n].closed + 1));
}
void watch_copy_commit() {
    here().copies[(size_t)self()].closed++;
}
void watch_copy_wait(int keep) {
    wait_for((size_t)(here().threads + self()), here().copies[(size_t)self()], keep);
}

void watch_bulk(const ptx_code *c, uint32_t from, size_t bytes) {
    size_t n = sender();
    touch_shared(c, from, bytes, WATCH_READ, mark_of(c, here().first_read + n, here().bulks[n].closed + 1));
}
void watch_bulk_global(const ptx_code *c, void *to, size_t bytes, enum watch_kind kind) {
    size_t n = sender();
    touch_global(c, to, bytes, kind, mark_of(c, here().first_done + n, here().bulks[n].closed + 1));
}
void watch_bulk_commit() {
    here().bulks[sender()].closed++;
}
void watch_bulk_wait(int keep, bool read) {
    size_t n = sender();
    wait_for(here().first_read + n, here().bulks[n], keep);
    if (!read) wait_for(here().first_done + n, here().bulks[n], keep);
}

void watch_operand(const ptx_code *c, uint32_t at, size_t bytes) {
    size_t n = (size_t)self() / 128;
    touch_shared(c, at, bytes, WATCH_READ, mark_of(c, here().first_group + n, here().products[n].closed + 1));
}
void watch_product_commit() {
    here().products[(size_t)self() / 128].closed++;
}
void watch_product_wait(int keep) {
    size_t n = (size_t)self() / 128;
    wait_for(here().first_group + n, here().products[n], keep);
}
