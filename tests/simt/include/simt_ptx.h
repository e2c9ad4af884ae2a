// SPDX-License-Identifier: Apache-2.0
// Models of the instructions of kernels/cuda/ptx.cuh, written from the PTX ISA: what each does to registers
// and shared memory, lane by lane (simt_layout.h has the places). Included by ptx.cuh outside nvcc.
#ifndef ORRERY_TESTS_SIMT_PTX_H
#define ORRERY_TESTS_SIMT_PTX_H

#include "simt_layout.h"

static inline uint32_t shared_address(const void *p) {
    return simt_shared_address(p);
}

template <class T> static inline const T *worked_out_anew(const T *p) {
    return p;
}

static inline float exp2_fast(float x) {
    return exp2f(x);
}

static inline float inverse_fast(float x) {
    return fabsf(x) > 0x1p126f ? copysignf(0, x) : 1 / x;
}

static inline float simt_bf16(uint16_t bits) {
    return __bfloat162float(__nv_bfloat16{bits});
}
static inline float simt_half_of(uint32_t pair, int high) {
    return simt_bf16((uint16_t)(high ? pair >> 16 : pair));
}

// ---- sm_80

static inline void cp_async16(uint32_t to, const void *from, bool valid) {
    if (to % 16 != 0 || (valid && (uintptr_t)from % 16 != 0)) simt_fail("cp.async: not 16-byte aligned");
    unsigned char *out = simt_shared(to, 16);
    simt_defer(SIMT_CP_ASYNC, simt_self->number, [=] {
        if (valid) {
            memcpy(out, from, 16);
        } else {
            memset(out, 0, 16);
        }
    });
}
static inline void cp_async_commit() {
    simt_commit(SIMT_CP_ASYNC, simt_self->number);
}
template <int KEEP> static inline void cp_async_wait() {
    simt_drain(SIMT_CP_ASYNC, simt_self->number, KEEP);
}

struct simt_ldmatrix {
    uint32_t row, *r;
};
static inline void simt_ldmatrix4(uint32_t (&r)[4], uint32_t row, bool turned) {
    simt_ldmatrix me = {row, r};
    if (row % 16 != 0) simt_fail("ldmatrix: row at %u is not 16-byte aligned", row);
    simt_warp_all(
        0xffffffffu, turned ? "ldmatrix.trans" : "ldmatrix", &me, [turned](simt_ldmatrix **a, int n) {
            for (int lane = 0; lane < n; lane++) {
                for (int i = 0; i < 4; i++) {
                    uint16_t v[2];
                    for (int c = 0; c < 2; c++) {
                        simt_element from = simt_ldmatrix_source(lane, i, c, turned);
                        memcpy(&v[c], simt_shared(a[from.lane]->row + 2 * (uint32_t)from.column, 2), 2);
                    }
                    a[lane]->r[i] = v[0] | (uint32_t)v[1] << 16;
                }
            }
        });
}
static inline void ldmatrix4(uint32_t (&r)[4], uint32_t row) {
    simt_ldmatrix4(r, row, false);
}
static inline void ldmatrix4_turned(uint32_t (&r)[4], uint32_t row) {
    simt_ldmatrix4(r, row, true);
}

static inline float2 shared_pair(uint32_t at) {
    float2 v;
    memcpy(&v, simt_shared(at, sizeof v), sizeof v);
    return v;
}
struct simt_stmatrix {
    uint32_t row, r[4];
};
static inline void stmatrix4(uint32_t row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
    simt_stmatrix me = {row, {r0, r1, r2, r3}};
    if (row % 16 != 0) simt_fail("stmatrix: row at %u is not 16-byte aligned", row);
    simt_warp_all(0xffffffffu, "stmatrix", &me, [](simt_stmatrix **a, int n) {
        for (int lane = 0; lane < n; lane++) {
            for (int i = 0; i < 4; i++) { // the other way round
                simt_element to = simt_ldmatrix_source(lane, i, 0, false);
                uint32_t at = a[to.lane]->row + 2 * (uint32_t)to.column;
                memcpy(simt_shared(at, 4), &a[lane]->r[i], 4);
                simt_stored(simt_self->number / 32 * 32 + lane, at, 4);
            }
        }
    });
}

struct simt_mma {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};
static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    simt_mma me = {c, a, {b0, b1}};
    simt_warp_all(0xffffffffu, "mma", &me, [](simt_mma **l, int n) {
        float a[16][16], b[16][8];
        for (int i = 0; i < 16; i++) {
            for (int k = 0; k < 16; k++)
                a[i][k] = simt_half_of(l[simt_a_lane(i, k)]->a[simt_a_register(i, k)], k % 2);
            for (int j = 0; j < 8; j++)
                b[i][j] = simt_half_of(l[simt_b_lane(i, j)]->b[simt_b_register(i)], i % 2);
        }
        for (int i = 0; i < 16; i++) {
            for (int j = 0; j < 8; j++) {
                float *c = &l[simt_c_lane(i, j)]->c[simt_c_register(i, j)];
                for (int k = 0; k < 16; k++) *c += a[i][k] * b[k][j];
            }
        }
    });
}

// ---- sm_90

static inline void bar_sync(int id, int threads) {
    if (id < 1 || id > 15 || threads % 32 != 0) simt_fail("bar.sync %d, %d", id, threads);
    simt_meet(id, threads, "named barrier", NULL, NULL, NULL);
}
static inline void bar_arrive(int id, int threads) {
    if (id < 1 || id > 15 || threads % 32 != 0) simt_fail("bar.arrive %d, %d", id, threads);
    simt_arrive(id, threads, "named barrier");
}

struct simt_mbar {
    int64_t missing : 12, count : 12, bytes : 24, phase : 16;
};
static inline simt_mbar *simt_mbar_at(uint32_t bar) {
    if (bar % 8 != 0) simt_fail("mbarrier at %u", bar);
    return (simt_mbar *)simt_shared(bar, 8);
}
static inline void simt_mbar_check(uint32_t bar) {
    simt_mbar *m = simt_mbar_at(bar);
    if (m->missing < 0) simt_fail("mbarrier: more arrivals than its count");
    if (m->missing > 0 || m->bytes != 0) return;
    if (simt_phase_over != NULL) simt_phase_over(bar, (uint32_t)m->phase & 1);
    m->phase = m->phase + 1;
    m->missing = m->count;
}
static inline void mbar_init(uint32_t bar, int count) {
    simt_mbar *m = simt_mbar_at(bar);
    *m = simt_mbar{count, count, 0, 0};
}
static inline void mbar_init_done() {}
static inline void mbar_arrive(uint32_t bar) {
    simt_mbar *m = simt_mbar_at(bar);
    m->missing = m->missing - 1;
    simt_mbar_check(bar);
}
static inline void mbar_expect(uint32_t bar, int bytes) {
    simt_mbar *m = simt_mbar_at(bar);
    m->bytes = m->bytes + bytes;
    mbar_arrive(bar);
}
static inline void simt_mbar_bytes(uint32_t bar, int bytes) {
    simt_mbar *m = simt_mbar_at(bar);
    m->bytes = m->bytes - bytes;
    simt_mbar_check(bar);
}
static inline void mbar_wait(uint32_t bar, uint32_t parity) {
    simt_mbar *m = simt_mbar_at(bar);
    while (((uint32_t)m->phase & 1) == parity) {
        uint64_t word;
        memcpy(&word, m, 8);
        simt_wait((const volatile uint64_t *)m, word, "mbarrier");
    }
}

static inline void store_quad(void *shared, float4 v) {
    memcpy(shared, &v, sizeof v);
    simt_stored(simt_self->number, simt_shared_address(shared), sizeof v);
}
static inline void fence_async() {
    simt_fenced(simt_self->number);
}
static inline void fence_async_global() {}
static inline void tma_prefetch_map(const CUtensorMap *) {}

// Bytes of a box's row in shared memory, 0: not swizzled.
static inline uint32_t simt_swizzled_row(const CUtensorMap *m) {
    return m->swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : 16u << m->swizzle;
}

// Moves a box between global memory and its swizzled place in shared memory.
static inline void simt_box(const CUtensorMap &m, uint32_t shared, int x, int y, int z, bool load) {
    for (uint32_t k = 0; k < m.box[2]; k++) {
        for (uint32_t j = 0; j < m.box[1]; j++) {
            for (uint32_t i = 0; i < m.box[0]; i++) {
                uint32_t at = simt_box_at(shared, m.box[0], i, k * m.box[1] + j, simt_swizzled_row(&m));
                unsigned char *s = simt_shared(at, 2);
                int64_t c[3] = {x + (int64_t)i, y + (int64_t)j, z + (int64_t)k};
                bool in = true;
                uint8_t *g = m.base;
                for (int d = 0; d < 3; d++) {
                    in = in && c[d] >= 0 && c[d] < (int64_t)m.dim[d];
                    g += c[d] * (int64_t)m.stride[d];
                }
                if (load) {
                    const uint16_t zero = 0;
                    memcpy(s, in ? (const void *)g : &zero, 2);
                } else if (in) {
                    memcpy(g, s, 2);
                }
            }
        }
    }
}
static inline void simt_check_box(const CUtensorMap *map, uint32_t shared) {
    uint32_t row = simt_swizzled_row(map);
    if (shared % (row > 0 ? 8 * row : 128) != 0) simt_fail("TMA: shared address %u is not aligned", shared);
    simt_shared_async(shared, map->box[0] * map->box[1] * map->box[2] * 2);
}
static inline void tma_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int x, int y, int z) {
    simt_check_box(map, to);
    CUtensorMap m = *map;
    simt_later([=] {
        simt_box(m, to, x, y, z, true);
        simt_mbar_bytes(bar, (int)(m.box[0] * m.box[1] * m.box[2] * 2));
    });
}
// ---- clusters

static inline uint32_t cluster_rank() {
    return (uint32_t)simt_now->rank;
}
static inline uint32_t cluster_address(uint32_t address, uint32_t rank) {
    return simt_cluster_address(address, rank);
}
static inline void cluster_sync() {
    simt_cluster_arrive();
    simt_cluster_wait();
}
static inline void cluster_arrive(uint32_t bar) {
    mbar_arrive(bar);
}
static inline void cluster_tell(uint32_t to, uint32_t value, uint32_t bar) {
    if (to % 4 != 0 || simt_block_of(to) != simt_block_of(bar))
        simt_fail("st.async to %u on a barrier of another block, or not aligned", simt_offset(to));
    simt_later([=] {
        memcpy(simt_shared(to, 4), &value, 4);
        simt_mbar_bytes(bar, 4);
    });
}
static inline void cluster_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int x, int y, int z,
                                uint16_t blocks) {
    for (uint32_t rank = 0; rank < 16; rank++)
        if (blocks >> rank & 1)
            tma_load(simt_cluster_address(to, rank), map, simt_cluster_address(bar, rank), x, y, z);
}

static inline void tma_store(const CUtensorMap *map, uint32_t from, int x, int y, int z) {
    simt_check_box(map, from);
    CUtensorMap m = *map;
    simt_defer(SIMT_BULK, simt_self->number, [=] { simt_box(m, from, x, y, z, false); });
}
static inline void simt_check_bulk(const void *global, uint32_t shared, int bytes) {
    if ((uintptr_t)global % 16 != 0 || shared % 16 != 0 || bytes % 16 != 0 || bytes <= 0)
        simt_fail("bulk copy: alignment");
    simt_shared_async(shared, (size_t)bytes);
}
static inline void bulk_load(uint32_t to, const void *from, int bytes, uint32_t bar) {
    simt_check_bulk(from, to, bytes);
    simt_later([=] {
        memcpy(simt_shared(to, (size_t)bytes), from, (size_t)bytes);
        simt_mbar_bytes(bar, bytes);
    });
}
static inline void bulk_store(void *to, uint32_t from, int bytes) {
    simt_check_bulk(to, from, bytes);
    simt_defer(SIMT_BULK, simt_self->number,
               [=] { memcpy(to, simt_shared(from, (size_t)bytes), (size_t)bytes); });
}
static inline void bulk_add(float *to, uint32_t from, int bytes) {
    simt_check_bulk(to, from, bytes);
    simt_defer(SIMT_BULK, simt_self->number, [=] {
        const float *s = (const float *)simt_shared(from, (size_t)bytes);
        for (int i = 0; i < bytes / 4; i++) to[i] += s[i];
    });
}
static inline void bulk_commit() {
    simt_commit(SIMT_BULK, simt_self->number);
}
template <int KEEP> static inline void bulk_wait_read() {
    simt_drain(SIMT_BULK, simt_self->number, KEEP);
}
template <int KEEP> static inline void bulk_wait() {
    simt_drain(SIMT_BULK, simt_self->number, KEEP);
}

static inline void flag_add(uint32_t *flag, uint32_t value) {
    *flag += value;
}
static inline uint32_t flag_read(const uint32_t *flag) {
    return *flag;
}
static inline void flag_wait(const uint32_t *flag, uint32_t value) {
    if (*flag < value) simt_wait_flag(flag, value);
}

template <int REGISTERS> static inline void registers_more() {
    __syncwarp();
}
template <int REGISTERS> static inline void registers_fewer() {
    __syncwarp();
}

// A warpgroup: four warps from a multiple of 128 threads.
template <class T, class F> static inline void simt_group_all(const char *what, T *arg, F f) {
    int group = simt_self->number / 128;
    if (group >= 8) simt_fail("%s: outside a warpgroup", what);
    simt_meet(
        SIMT_WARPGROUP + group, 128, what, arg,
        [](void **args, int, void *context) { (*(F *)context)((T **)args); }, &f);
}
static inline void wgmma_begin() {}
static inline void wgmma_commit() {
    int none = 0;
    simt_group_all("wgmma.commit", &none,
                   [](int **) { simt_commit(SIMT_PRODUCT, simt_self->number / 128 * 128); });
}
template <int KEEP> static inline void wgmma_wait() {
    int none = 0;
    simt_group_all("wgmma.wait", &none,
                   [](int **) { simt_drain(SIMT_PRODUCT, simt_self->number / 128 * 128, KEEP); });
}
template <int N> static inline void wgmma_hold(float (&)[N]) {}

// Element (i, k) of an operand in shared memory; i counts M or N.
static inline float simt_operand(uint64_t matrix, int i, int k, bool turned) {
    if (simt_matrix_row(matrix) == 0) simt_fail("wgmma: only swizzles of 128 and 64 bytes are modelled");
    uint16_t bits;
    memcpy(&bits, simt_shared_async(simt_operand_at(matrix, (uint32_t)i, (uint32_t)k, turned), 2), 2);
    return simt_bf16(bits);
}

struct simt_wgmma {
    float *d;
    const uint32_t *a;
    uint64_t a_matrix, b_matrix;
    bool add;
};
template <int N, int TA, int TB> static void simt_wgmma_run(const simt_wgmma *l) {
    static float a[64][16], b[16][N];
    for (int k = 0; k < 16; k++) {
        for (int i = 0; i < 64; i++) {
            a[i][k] =
                l[0].a == NULL
                    ? simt_operand(l[0].a_matrix, i, k, TA)
                    : simt_half_of(
                          l[simt_warp_of(i) * 32 + simt_a_lane(i % 16, k)].a[simt_a_register(i % 16, k)],
                          k % 2);
        }
        for (int j = 0; j < N; j++) b[k][j] = simt_operand(l[0].b_matrix, j, k, TB);
    }
    for (int i = 0; i < 64; i++) {
        float row[N] = {0};
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < N; j++) row[j] += a[i][k] * b[k][j];
        }
        for (int j = 0; j < N; j++) {
            float *d = &l[simt_d_thread(i, j)].d[simt_d_register(i, j)];
            *d = l[0].add ? *d + row[j] : row[j];
        }
    }
}
template <int N, int TA, int TB>
static inline void simt_wgmma_issue(float *d, const uint32_t *a, uint64_t am, uint64_t bm, bool add) {
    simt_wgmma me = {d, a, am, bm, add};
    simt_group_all("wgmma", &me, [](simt_wgmma **l) {
        std::array<simt_wgmma, 128> all;
        for (int i = 0; i < 128; i++) {
            all[i] = *l[i];
            if (l[i]->a_matrix != l[0]->a_matrix || l[i]->b_matrix != l[0]->b_matrix ||
                l[i]->add != l[0]->add)
                simt_fail("wgmma: threads of a warpgroup differ in their operands");
        }
        simt_defer(SIMT_PRODUCT, simt_self->number / 128 * 128,
                   [all] { simt_wgmma_run<N, TA, TB>(all.data()); });
    });
}
template <int TA, int TB, int HALF>
static inline void wgmma(float (&d)[HALF], uint64_t a, uint64_t b, bool add) {
    simt_wgmma_issue<2 * HALF, TA, TB>(d, NULL, a, b, add);
}
template <int TB, int HALF>
static inline void wgmma(float (&d)[HALF], const uint32_t *a, uint64_t b, bool add) {
    simt_wgmma_issue<2 * HALF, 0, TB>(d, a, 0, b, add);
}

#endif
