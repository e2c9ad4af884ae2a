// SPDX-License-Identifier: Apache-2.0
// Tensor cores, matrix loads, asynchronous copies, mbarriers: the operands are taken from registers here,
// what then happens is the emulator's model of the instruction (simt_ptx.h).
#include "tests/ptx/async.h"

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <array>

#include "kernels/cuda/ptx.cuh"
#include "tests/ptx/machine.h"

namespace {

typedef uint32_t u32;
typedef uint64_t u64;

#define DO       [](ptx_run * t, const ptx_code *c)
#define IN(T, n) ptx_get<T>(t, c, n)

void *pointer(const ptx_run *t, const ptx_code *c, int operand) {
    return (void *)(uintptr_t)ptx_address(t, c, operand);
}

// ---- a warp's matrices

// Lane i reads or writes row i % 8 of matrix i / 8: it stands for the whole of that row.
void watch_row(const ptx_code *c, u32 row, enum watch_kind kind) {
    watch_shared(c, row, 16, kind);
}

template <bool TURNED> void ldmatrix(ptx_run *t, const ptx_code *c) {
    u32 r[4], row = ptx_shared_address(t, c, 4);
    watch_row(c, row, WATCH_READ);
    simt_ldmatrix4(r, row, TURNED);
    for (int i = 0; i < 4; i++) ptx_put(t, c, i, r[i]);
}

void stmatrix(ptx_run *t, const ptx_code *c) {
    u32 row = ptx_shared_address(t, c, 0);
    watch_row(c, row, WATCH_WRITE);
    stmatrix4(row, IN(u32, 1), IN(u32, 2), IN(u32, 3), IN(u32, 4));
}

void mma(ptx_run *t, const ptx_code *c) {
    u32 a[4];
    float d[4];
    for (int i = 0; i < 4; i++) a[i] = IN(u32, 4 + i), d[i] = IN(float, 10 + i);
    mma_bf16(d, a, IN(u32, 8), IN(u32, 9));
    for (int i = 0; i < 4; i++) ptx_put(t, c, i, d[i]);
}

// ---- cp.async

void copy16(ptx_run *t, const ptx_code *c) {
    u32 to = ptx_shared_address(t, c, 0), bytes = IN(u32, 3);
    if (IN(u32, 2) != 16 || (bytes != 0 && bytes != 16))
        ptx_fail(c, "copies %u of %u bytes", bytes, IN(u32, 2));
    if (bytes) watch_global(c, pointer(t, c, 1), 16, WATCH_READ);
    watch_copy(c, to, 16);
    cp_async16(to, pointer(t, c, 1), bytes != 0);
}
void copy_wait(ptx_run *t, const ptx_code *c) {
    int keep = (int)IN(u32, 0);
    simt_drain(SIMT_CP_ASYNC, simt_self->number, (size_t)keep);
    watch_copy_wait(keep);
}

// ---- mbarriers

void arrive(ptx_run *t, const ptx_code *c) {
    u32 bar = ptx_shared_address(t, c, 1);
    watch_mbar_arrive(bar);
    mbar_arrive(bar);
}
void expect(ptx_run *t, const ptx_code *c) {
    u32 bar = ptx_shared_address(t, c, 1);
    int bytes = (int)IN(u32, 2);
    watch_mbar_arrive(bar);
    mbar_expect(bar, bytes);
}
void try_wait(ptx_run *t, const ptx_code *c) {
    u32 bar = ptx_shared_address(t, c, 1), parity = IN(u32, 2);
    mbar_wait(bar, parity);
    watch_mbar_waited(bar, parity & 1);
    ptx_put(t, c, 0, true);
}

// ---- clusters

void cluster_arrive_at(ptx_run *t, const ptx_code *c) {
    u32 bar = ptx_shared_address(t, c, 1);
    watch_mbar_arrive(bar);
    cluster_arrive(bar);
}
void cluster_tell_word(ptx_run *t, const ptx_code *c) {
    u32 to = ptx_shared_address(t, c, 0), bar = ptx_shared_address(t, c, 2);
    watch_load(c, to, 4, bar);
    cluster_tell(to, IN(u32, 1), bar);
}
void cluster_come(ptx_run *, const ptx_code *) {
    watch_cluster_join();
    simt_cluster_arrive();
}
void cluster_go_on(ptx_run *, const ptx_code *) {
    simt_cluster_wait();
    watch_cluster_met();
}

// ---- the copy engine

size_t box_bytes(const CUtensorMap *m) {
    return (size_t)m->box[0] * m->box[1] * m->box[2] * 2;
}
// The rows of the box that lie in the tensor.
template <class F> void each_row(const CUtensorMap *m, const int (&at)[3], F f) {
    for (u32 k = 0; k < m->box[2]; k++) {
        for (u32 j = 0; j < m->box[1]; j++) {
            int64_t x = at[0], y = at[1] + (int64_t)j, z = at[2] + (int64_t)k, end = x + m->box[0];
            if (x < 0 || y < 0 || z < 0 || y >= (int64_t)m->dim[1] || z >= (int64_t)m->dim[2]) continue;
            end = end < (int64_t)m->dim[0] ? end : (int64_t)m->dim[0];
            if (end > x)
                f(m->base + x * 2 + y * (int64_t)m->stride[1] + z * (int64_t)m->stride[2],
                  (size_t)(end - x) * 2);
        }
    }
}
void global_rows(const ptx_code *c, const void *p, size_t bytes) { // TMA reads what it likes of a row
    for (size_t i = 0; i < bytes; i += 2) watch_global(c, (const char *)p + i, 2, WATCH_READ);
}

void load_box(ptx_run *t, const ptx_code *c) {
    u32 to = ptx_shared_address(t, c, 0), bar = ptx_shared_address(t, c, 5);
    const CUtensorMap *m = (const CUtensorMap *)pointer(t, c, 1);
    int at[3] = {IN(int, 2), IN(int, 3), IN(int, 4)};
    each_row(m, at, [=](const void *p, size_t n) { global_rows(c, p, n); });
    watch_load(c, to, box_bytes(m), bar);
    tma_load(to, m, bar, at[0], at[1], at[2]);
}
void load_box_for_all(ptx_run *t, const ptx_code *c) {
    u32 to = ptx_shared_address(t, c, 0), bar = ptx_shared_address(t, c, 5), blocks = IN(uint16_t, 6);
    const CUtensorMap *m = (const CUtensorMap *)pointer(t, c, 1);
    int at[3] = {IN(int, 2), IN(int, 3), IN(int, 4)};
    each_row(m, at, [=](const void *p, size_t n) { global_rows(c, p, n); });
    for (u32 rank = 0; rank < 16; rank++)
        if (blocks >> rank & 1)
            watch_load(c, simt_cluster_address(to, rank), box_bytes(m), simt_cluster_address(bar, rank));
    cluster_load(to, m, bar, at[0], at[1], at[2], (uint16_t)blocks);
}
void store_box(ptx_run *t, const ptx_code *c) {
    const CUtensorMap *m = (const CUtensorMap *)pointer(t, c, 0);
    int at[3] = {IN(int, 1), IN(int, 2), IN(int, 3)};
    u32 from = ptx_shared_address(t, c, 4);
    watch_bulk(c, from, box_bytes(m));
    each_row(m, at, [=](void *p, size_t n) { watch_bulk_global(c, p, n, WATCH_WRITE); });
    tma_store(m, from, at[0], at[1], at[2]);
}
void load_run(ptx_run *t, const ptx_code *c) {
    u32 to = ptx_shared_address(t, c, 0), bar = ptx_shared_address(t, c, 3);
    const void *from = pointer(t, c, 1);
    int bytes = IN(int, 2);
    global_rows(c, from, (size_t)bytes);
    watch_load(c, to, (size_t)bytes, bar);
    bulk_load(to, from, bytes, bar);
}
void store_run(ptx_run *t, const ptx_code *c) {
    void *to = pointer(t, c, 0);
    u32 from = ptx_shared_address(t, c, 1);
    watch_bulk(c, from, IN(u32, 2));
    watch_bulk_global(c, to, IN(u32, 2), WATCH_WRITE);
    bulk_store(to, from, IN(int, 2));
}
void add_run(ptx_run *t, const ptx_code *c) {
    void *to = pointer(t, c, 0);
    u32 from = ptx_shared_address(t, c, 1);
    watch_bulk(c, from, IN(u32, 2));
    watch_bulk_global(c, to, IN(u32, 2), WATCH_ATOMIC);
    bulk_add((float *)to, from, IN(int, 2));
}
template <bool READ> void bulk_wait_for(ptx_run *t, const ptx_code *c) {
    int keep = (int)IN(u32, 0);
    simt_drain(SIMT_BULK, simt_self->number, (size_t)keep);
    watch_bulk_wait(keep, READ);
}

// ---- products of a warpgroup

// A thread's part: registers are read and written when the product runs.
struct part {
    ptx_run *t;
    const ptx_code *c;
    u64 a, b;
    bool add;
};

template <int N, bool A_IN_REGISTERS> int input(int n) { // place of the n-th operand behind d
    return N / 2 + (n > 0 && A_IN_REGISTERS ? n + 3 : n);
}

template <int N, bool REGISTERS, int TA, int TB> void product(const std::array<part, 128> &all) {
    static float d[128][N / 2];
    static u32 a[128][4];
    simt_wgmma l[128];
    for (int i = 0; i < 128; i++) {
        const part &p = all[(size_t)i];
        for (int j = 0; j < N / 2; j++) d[i][j] = ptx_get<float>(p.t, p.c, j);
        for (int j = 0; REGISTERS && j < 4; j++) a[i][j] = ptx_get<u32>(p.t, p.c, N / 2 + j);
        l[i] = {d[i], REGISTERS ? a[i] : NULL, p.a, p.b, p.add};
    }
    simt_wgmma_run<N, TA, TB>(l);
    for (int i = 0; i < 128; i++)
        for (int j = 0; j < N / 2; j++) ptx_put(all[(size_t)i].t, all[(size_t)i].c, j, d[i][j]);
}

// The first lane of each warp looks at what the product reads of shared memory.
void watch_matrix(const ptx_code *c, u64 matrix, int rows, bool turned) {
    for (int k = 0; k < 16; k++)
        for (int i = 0; i < rows; i++) watch_operand(c, simt_operand_at(matrix, (u32)i, (u32)k, turned), 2);
}

template <int N, bool REGISTERS, int TA, int TB> void issue(ptx_run *t, const ptx_code *c) {
    part me = {t, c, 0, IN(u64, (input<N, REGISTERS>(1))), IN(bool, (input<N, REGISTERS>(2)))};
    if (!REGISTERS) me.a = IN(u64, (input<N, REGISTERS>(0)));
    if (simt_self->lane == 0) {
        if (!REGISTERS) watch_matrix(c, me.a, 64, TA);
        watch_matrix(c, me.b, N, TB);
    }
    simt_group_all(c->name, &me, [](part **l) {
        std::array<part, 128> all;
        for (size_t i = 0; i < 128; i++) {
            all[i] = *l[i];
            if (l[i]->c != l[0]->c || l[i]->a != l[0]->a || l[i]->b != l[0]->b || l[i]->add != l[0]->add)
                ptx_fail(l[0]->c, "threads of a warpgroup differ in their operands");
        }
        simt_defer(SIMT_PRODUCT, simt_self->number / 128 * 128,
                   [all] { product<N, REGISTERS, TA, TB>(all); });
    });
}

// d, A, B, whether to add, signs of A and B, and which of them are turned.
template <int N> void wgmma_of(ptx_run *t, const ptx_code *c) {
    bool registers = c->second == 4;
    int signs = registers ? input<N, true>(3) : input<N, false>(3);
    if (c->first != N / 2 || IN(u32, signs) != 1 || IN(u32, signs + 1) != 1)
        ptx_fail(c, "this form of a product is not modelled");
    bool first = IN(u32, signs + 2) != 0, second = !registers && IN(u32, signs + 3) != 0;
    if (registers) return first ? issue<N, true, 0, 1>(t, c) : issue<N, true, 0, 0>(t, c);
    if (first) return second ? issue<N, false, 1, 1>(t, c) : issue<N, false, 1, 0>(t, c);
    return second ? issue<N, false, 0, 1>(t, c) : issue<N, false, 0, 0>(t, c);
}

void product_commit(ptx_run *, const ptx_code *c) {
    int none = 0;
    simt_group_all(c->name, &none, [](int **) {
        simt_commit(SIMT_PRODUCT, simt_self->number / 128 * 128);
        watch_product_commit();
    });
}
void product_wait(ptx_run *t, const ptx_code *c) {
    int none = 0, keep = (int)IN(u32, 0);
    simt_group_all(c->name, &none,
                   [keep](int **) { simt_drain(SIMT_PRODUCT, simt_self->number / 128 * 128, (size_t)keep); });
    watch_product_wait(keep);
}

// What has nothing to do here.
void nothing(ptx_run *, const ptx_code *) {}

#define BULK_TENSOR "cp.async.bulk.tensor.3d."
#define WGMMA(n)                                                                                             \
    { "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16", wgmma_of<n> }

// clang-format off
const struct {
    const char *name;
    ptx_do *run;
} TABLE[] = {
    {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", ldmatrix<false>},
    {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", ldmatrix<true>},
    {"stmatrix.sync.aligned.m8n8.x4.shared.b16", stmatrix},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", mma},

    {"cp.async.cg.shared.global", copy16},
    {"cp.async.commit_group", DO { cp_async_commit(); watch_copy_commit(); }},
    {"cp.async.wait_group", copy_wait},

    {"mbarrier.init.shared::cta.b64", DO { mbar_init(ptx_shared_address(t, c, 0), IN(int, 1)); }},
    {"mbarrier.arrive.shared::cta.b64", arrive},
    {"mbarrier.arrive.expect_tx.shared::cta.b64", expect},
    {"mbarrier.try_wait.parity.shared::cta.b64", try_wait},

    {BULK_TENSOR "shared::cluster.global.tile.mbarrier::complete_tx::bytes", load_box},
    {BULK_TENSOR "global.shared::cta.tile.bulk_group", store_box},
    {"cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes", load_run},
    {"cp.async.bulk.global.shared::cta.bulk_group", store_run},
    {"cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32", add_run},
    {"cp.async.bulk.commit_group", DO { bulk_commit(); watch_bulk_commit(); }},
    {"cp.async.bulk.wait_group", bulk_wait_for<false>},
    {"cp.async.bulk.wait_group.read", bulk_wait_for<true>},

    {"mapa.shared::cluster.u32", DO { ptx_put(t, c, 0, simt_cluster_address(ptx_shared_address(t, c, 1), IN(u32, 2))); }},
    {"mbarrier.arrive.shared::cluster.b64", cluster_arrive_at},
    {"st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32", cluster_tell_word},
    {"barrier.cluster.arrive.release", cluster_come},
    {"barrier.cluster.wait.acquire", cluster_go_on},
    {BULK_TENSOR "shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster", load_box_for_all},

    WGMMA(32), WGMMA(64), WGMMA(128),
    {"wgmma.commit_group.sync.aligned", product_commit},
    {"wgmma.wait_group.sync.aligned", product_wait},
    {"wgmma.fence.sync.aligned", nothing},

    {"fence.proxy.async.shared::cta", DO { fence_async(); }},
    {"fence.proxy.async.global", nothing},
    {"fence.mbarrier_init.release.cluster", nothing},
    {"prefetch.tensormap", nothing},
    {"setmaxnreg.inc.sync.aligned.u32", nothing},
    {"setmaxnreg.dec.sync.aligned.u32", nothing},
};
// clang-format on

} // namespace

void ptx_async_instructions(void (*add)(const char *name, ptx_do *run)) {
    for (auto &row : TABLE) add(row.name, row.run);
}
