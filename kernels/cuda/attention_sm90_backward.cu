// SPDX-License-Identifier: Apache-2.0
// Backward of attention on Hopper, all five products in one pass. With s = q k^T, p = exp(s - lse), delta =
// sum o dO, ds = p (dO v^T - delta):   dv = p^T dO;  dk = ds^T q;  dq = ds k.
//
// A block owns 128 keys of a head (64 per consumer warpgroup), whose dk and dv stay in registers, and walks
// the query tiles of 64 that see them. Products are turned (keys x queries), so that p^T and ds^T are A
// operands in registers; only ds goes through shared memory, for dq. A tile's share of dq (fp32) is added to
// global memory by the copy engine. So that the sum has one order, a flag per query tile counts the key tiles
// that have added, and a share waits for its turn: the order of the queue, in which key tiles of a head come
// in waves and, within a wave, the last key tile first. With a causal mask every block starts at its own
// diagonal, where it is its turn at once, and neighbours follow one step behind: nobody waits. With a full
// mask the blocks of a wave line up one step apart, once. Since the order is that of the queue, any number of
// blocks, even one, gets through, and the bits do not depend on it.
//
// Per step at D = 128: 10.5 MFLOP, 1.4 us at the datasheet's 990 TFLOP/s; Q and dO 32 KB in, dq 32 KB added
// in L2, shared by the blocks of a wave. Registers of a consumer: dk, dv 128, s and dp 64 (then dq 32 and the
// next s 32), p and ds as bf16 32: 224 at the most crowded point, of 232 or 240.
// Shared memory at D = 128: k, v 64 KB (also dk, dv on their way out), two stages of q, dO 64 KB, ds 32 KB, dq
// 32 KB.
#include "kernels/cuda/attention_sm90.cuh"

namespace {

enum { BAR_BOTH = 1, BAR_STORE = 2 }; // of both consumers; of one of them
enum { STAGES = 2, QUERIES = SM90_QUERIES };

template <int D> struct plan {
    enum {
        TILE_K = 128 * D * 2,
        TILE_Q = QUERIES * D * 2,
        PANEL_Q = QUERIES * 128,
        TILE_DS = 128 * QUERIES * 2,
        K = 0,
        V = K + TILE_K,
        Q = V + TILE_K,
        G = Q + STAGES * TILE_Q, // dO
        DS = G + STAGES * TILE_Q,
        DQ = DS + 2 * TILE_DS,
        LSE = DQ + QUERIES * D * 4,
        DELTA = LSE + STAGES * QUERIES * 4,
        BARS = DELTA + STAGES * QUERIES * 4,
        KV_FULL = BARS,
        KV_EMPTY = BARS + 8,
        DQ_FULL = BARS + 16,
        DQ_EMPTY = BARS + 24,
        ITEM_FULL = BARS + 32,
        ITEM_EMPTY = ITEM_FULL + 16,
        Q_FULL = ITEM_EMPTY + 16,
        G_FULL = Q_FULL + 8 * STAGES,
        EMPTY = G_FULL + 8 * STAGES,
        ITEMS = EMPTY + 8 * STAGES,
        BYTES = ITEMS + 16
    };
};

// Which keys an item is.
struct place {
    int b, hk, tile, steps;
};

__device__ __forceinline__ struct place place_of(const struct sm90_backward &f, int item) {
    int units = f.t.sequences * f.t.kv_heads, wave = item / (f.wave * units), first = wave * f.wave;
    int n = f.key_tiles - first < f.wave ? f.key_tiles - first : f.wave;
    item -= first * units;
    struct place p;
    p.b = item / n / f.t.kv_heads;
    p.hk = item / n % f.t.kv_heads;
    p.tile = first + n - 1 - item % n;
    p.steps = f.turned[p.b].tile[p.tile].steps;
    return p;
}

// How many key tiles add to this query tile before ours does.
__device__ __forceinline__ uint32_t turn_of(const struct sm90_backward &f, const struct mask_view &m, int query_tile,
                                            int key_tile) {
    int wave = key_tile / f.wave * f.wave, end = wave + f.wave, turn = 0;
    struct schedule_tile t = m.tile[query_tile];
    for (int i = t.first; i < t.first + t.count; i++) {
        struct schedule_range r = m.range[i];
        if (r.lo >= end) break;
        int before = min(r.hi, wave) - r.lo, same = min(r.hi, end) - max(r.lo, key_tile + 1);
        turn += max(before, 0) + max(same, 0);
    }
    return (uint32_t)turn;
}

template <int D> __device__ __forceinline__ void produce(const struct sm90_backward &f, uint32_t base, int *items) {
    typedef plan<D> P;
    const struct attention_task &t = f.t;
    int group = t.heads / t.kv_heads, item = (int)atomicAdd(f.next, 1u);
    struct ring r = {0, 1};
    for (int n = 0;; n++) {
        int slot = n & 1, next = f.items;
        mbar_wait(base + P::ITEM_EMPTY + 8 * slot, (uint32_t)(n >> 1 & 1) ^ 1);
        items[slot] = item;
        mbar_arrive(base + P::ITEM_FULL + 8 * slot);
        if (item >= f.items) break;
        next = (int)atomicAdd(f.next, 1u);
        struct place p = place_of(f, item);
        mbar_wait(base + P::KV_EMPTY, (uint32_t)(n & 1) ^ 1);
        mbar_expect(base + P::KV_FULL, 2 * P::TILE_K);
        for (int c = 0; c < D / 64; c++) {
            tma_load(base + P::K + c * SM90_PANEL, &f.k, base + P::KV_FULL, p.hk * D + 64 * c, p.tile * SM90_KEYS, p.b);
            tma_load(base + P::V + c * SM90_PANEL, &f.v, base + P::KV_FULL, p.hk * D + 64 * c, p.tile * SM90_KEYS, p.b);
        }
        const struct mask_view m = f.turned[p.b];
        for (int h = p.hk * group; h < (p.hk + 1) * group; h++) {
            const float *lse2 = t.lse2 + ((int64_t)p.b * t.heads + h) * t.padded,
                        *delta = t.delta + ((int64_t)p.b * t.heads + h) * t.padded;
            struct tile_walk w = walk_begin(&m, p.tile, 0, p.steps);
            for (; w.left > 0; walk_next(&w)) {
                uint32_t q_full = base + P::Q_FULL + 8 * r.at, g_full = base + P::G_FULL + 8 * r.at;
                mbar_wait(base + P::EMPTY + 8 * r.at, r.round);
                mbar_expect(q_full, P::TILE_Q + 4 * QUERIES);
                for (int c = 0; c < D / 64; c++)
                    tma_load(base + P::Q + r.at * P::TILE_Q + c * P::PANEL_Q, &f.q, q_full, h * D + 64 * c, w.j * QUERIES,
                             p.b);
                bulk_load(base + P::LSE + r.at * QUERIES * 4, lse2 + w.j * QUERIES, QUERIES * 4, q_full);
                mbar_expect(g_full, P::TILE_Q + 4 * QUERIES);
                for (int c = 0; c < D / 64; c++)
                    tma_load(base + P::G + r.at * P::TILE_Q + c * P::PANEL_Q, &f.d_o, g_full, h * D + 64 * c,
                             w.j * QUERIES, p.b);
                bulk_load(base + P::DELTA + r.at * QUERIES * 4, delta + w.j * QUERIES, QUERIES * 4, g_full);
                ring_next<STAGES>(&r);
            }
        }
        item = next;
    }
}

// Adds the shares of dq, each in its turn.
template <int D> __device__ __forceinline__ void add_dq(const struct sm90_backward &f, uint32_t base, const int *items) {
    typedef plan<D> P;
    const struct attention_task &t = f.t;
    int group = t.heads / t.kv_heads;
    uint32_t parity = 0;
    for (int n = 0;; n++) {
        int slot = n & 1;
        mbar_wait(base + P::ITEM_FULL + 8 * slot, (uint32_t)(n >> 1 & 1));
        int item = items[slot];
        mbar_arrive(base + P::ITEM_EMPTY + 8 * slot);
        if (item >= f.items) break;
        struct place p = place_of(f, item);
        const struct mask_view m = f.turned[p.b], rows = t.view[p.b];
        for (int h = p.hk * group; h < (p.hk + 1) * group; h++) {
            int64_t head = ((int64_t)p.b * t.heads + h) * t.tiles;
            struct tile_walk w = walk_begin(&m, p.tile, 0, p.steps);
            for (; w.left > 0; walk_next(&w)) {
                float *to = f.dq + (head + w.j) * (QUERIES * D);
                uint32_t turn = f.free_order ? 1 : turn_of(f, rows, w.j, p.tile);
                mbar_wait(base + P::DQ_FULL, parity);
                if (!f.free_order) flag_wait(f.flag + head + w.j, turn);
                fence_async_global();
                if (turn == 0) {
                    bulk_store(to, base + P::DQ, QUERIES * D * 4);
                } else {
                    bulk_add(to, base + P::DQ, QUERIES * D * 4);
                }
                bulk_commit();
                bulk_wait_read<0>();
                mbar_arrive(base + P::DQ_EMPTY);
                if (!f.free_order) {
                    bulk_wait<0>();
                    fence_async_global();
                    flag_add(f.flag + head + w.j, 1);
                }
                parity ^= 1;
            }
        }
    }
    bulk_wait<0>();
}

// c = 64 rows of a (panels of 128) times a stage of 64 rows of b.
template <int D> __device__ __forceinline__ void issue_turned(float (&c)[32], uint32_t a, uint32_t b) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint32_t at_a = (uint32_t)(i / 4 * SM90_PANEL + i % 4 * 32), at_b = (uint32_t)(i / 4 * plan<D>::PANEL_Q + i % 4 * 32);
        wgmma<0, 0>(c, wgmma_matrix(a + at_a, 0), wgmma_matrix(b + at_b, 0), i > 0);
    }
}

// c (64 keys x D) += w (64 keys x 64 queries) times a stage of 64 queries.
template <int D> __device__ __forceinline__ void issue_gradient(float (&c)[D / 2], const uint32_t (&w)[16], uint32_t b) {
#pragma unroll
    for (int i = 0; i < QUERIES / 16; i++)
        wgmma<1>(c, w + 4 * i, wgmma_matrix(b + (uint32_t)i * 2048, plan<D>::PANEL_Q), true);
}

// dq (64 queries x half of D) = ds turned back, times that half of k.
template <int D> __device__ __forceinline__ void issue_dq(float (&c)[D / 4], uint32_t ds, uint32_t k) {
#pragma unroll
    for (int i = 0; i < SM90_KEYS / 16; i++)
        wgmma<1, 1>(c, wgmma_matrix(ds + (uint32_t)i * 2048, 0), wgmma_matrix(k + (uint32_t)i * 2048, 0), i > 0);
}

// Writes an accumulator (64 keys x D) into the panels of k or v, whence TMA takes it.
template <int D>
__device__ __forceinline__ void stage_gradient(unsigned char *panel, const float (&c)[D / 2], int first_row) {
    int thread = (int)threadIdx.x % 128, row = first_row + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
        store_pair(panel, swizzled<128>(row, j, thread % 4), pack_bf16(c[4 * j], c[4 * j + 1]));
        store_pair(panel, swizzled<128>(row + 8, j, thread % 4), pack_bf16(c[4 * j + 2], c[4 * j + 3]));
    }
}

// Keys that nobody sees.
template <int D> __device__ __forceinline__ void store_nothing(const struct sm90_backward &f, const struct place &p, int who) {
    int first = p.tile * SM90_KEYS + 64 * who;
    for (int i = (int)threadIdx.x % 128; i < 64 * (D / 8); i += 128) {
        int key = first + i / (D / 8), c = p.hk * D + i % (D / 8) * 8;
        if (key >= f.t.keys) break;
        int64_t row = (int64_t)p.b * f.t.keys + key;
        *(uint4 *)(f.t.dk.data + row * f.t.dk.stride + c) = make_uint4(0, 0, 0, 0);
        *(uint4 *)(f.t.dv.data + row * f.t.dv.stride + c) = make_uint4(0, 0, 0, 0);
    }
}

template <int D>
__device__ __forceinline__ void consume(const struct sm90_backward &f, unsigned char *shared, uint32_t base, int who,
                                        const int *items) {
    typedef plan<D> P;
    const struct attention_task &t = f.t;
    int thread = (int)threadIdx.x % 128, lane = thread % 32, group = t.heads / t.kv_heads;
    int row = 64 * who + thread / 32 * 16 + lane / 4; // of the tile, and + 8
    struct ring r = {0, 0};
    uint32_t step = 0; // of all, for the rings of ds and dq
    for (int n = 0;; n++) {
        int slot = n & 1;
        mbar_wait(base + P::ITEM_FULL + 8 * slot, (uint32_t)(n >> 1 & 1));
        int item = items[slot];
        __syncwarp();
        if (lane == 0) mbar_arrive(base + P::ITEM_EMPTY + 8 * slot);
        if (item >= f.items) break;
        struct place p = place_of(f, item);
        mbar_wait(base + P::KV_FULL, (uint32_t)n & 1);
        if (p.steps == 0) {
            store_nothing<D>(f, p, who);
            bar_sync(BAR_STORE + who, 128); // every warp has seen this round of KV_FULL
            if (thread == 0) mbar_arrive(base + P::KV_EMPTY);
            continue;
        }
        const struct mask_view m = f.turned[p.b];
        struct tile_walk w = walk_begin(&m, p.tile, 0, p.steps);
        struct row_cursor cursor[2];
        float dk[D / 2], dv[D / 2], s[32];
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
#pragma unroll
        for (int i = 0; i < 2; i++) cursor[i] = cursor_of(&m, p.tile * SM90_KEYS + row + 8 * i, t.keys);
        mbar_wait(base + P::Q_FULL + 8 * r.at, r.round);
        wgmma_begin();
        issue_turned<D>(s, base + P::K + 8192 * who, base + P::Q + r.at * P::TILE_Q);
        wgmma_commit();
        for (int left = p.steps * group; left > 0; left--) {
            uint32_t q = base + P::Q + r.at * P::TILE_Q, g = base + P::G + r.at * P::TILE_Q;
            uint32_t ds_at = P::DS + (step & 1) * P::TILE_DS, weights[16], slopes[16];
            const float *lse2 = (const float *)(shared + P::LSE) + r.at * QUERIES + 2 * (lane % 4),
                        *delta = (const float *)(shared + P::DELTA) + r.at * QUERIES + 2 * (lane % 4);
            float dp[32];
            mbar_wait(base + P::G_FULL + 8 * r.at, r.round);
            issue_turned<D>(dp, base + P::V + 8192 * who, g);
            wgmma_commit();
            wgmma_wait<1>();
            wgmma_hold(s);
            if (w.partly) hide90<QUERIES>(s, m.interval, cursor, w.j * QUERIES);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float2 l = *(const float2 *)(lse2 + 8 * j);
                s[4 * j] = exp2_fast(s[4 * j] * ATTENTION_LOG2E - l.x);
                s[4 * j + 1] = exp2_fast(s[4 * j + 1] * ATTENTION_LOG2E - l.y);
                s[4 * j + 2] = exp2_fast(s[4 * j + 2] * ATTENTION_LOG2E - l.x);
                s[4 * j + 3] = exp2_fast(s[4 * j + 3] * ATTENTION_LOG2E - l.y);
            }
            to_bf16<QUERIES>(weights, s);
            wgmma_wait<0>();
            wgmma_hold(dp);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float2 d = *(const float2 *)(delta + 8 * j);
                slopes[2 * j] = pack_bf16(s[4 * j] * (dp[4 * j] - d.x), s[4 * j + 1] * (dp[4 * j + 1] - d.y));
                slopes[2 * j + 1] = pack_bf16(s[4 * j + 2] * (dp[4 * j + 2] - d.x), s[4 * j + 3] * (dp[4 * j + 3] - d.y));
                store_pair(shared + ds_at, swizzled<128>(row, j, lane % 4), slopes[2 * j]);
                store_pair(shared + ds_at, swizzled<128>(row + 8, j, lane % 4), slopes[2 * j + 1]);
            }
            fence_async();
            float dq[D / 4];
            wgmma_hold(dv);
            wgmma_hold(dk);
            wgmma_begin();
            issue_gradient<D>(dv, weights, g);
            wgmma_commit();
            bar_sync(BAR_BOTH, 256);
            issue_dq<D>(dq, base + ds_at, base + P::K + (D == 128 ? who * SM90_PANEL : who * 64));
            wgmma_commit();
            issue_gradient<D>(dk, slopes, q);
            wgmma_commit();
            struct ring after = r;
            ring_next<STAGES>(&after);
            // After the last step: a product of whatever lies there, which nobody reads.
            if (left > 1) mbar_wait(base + P::Q_FULL + 8 * after.at, after.round);
            issue_turned<D>(s, base + P::K + 8192 * who, base + P::Q + after.at * P::TILE_Q);
            wgmma_commit();
            wgmma_wait<2>();
            wgmma_hold(dv);
            wgmma_hold(dq);
            mbar_wait(base + P::DQ_EMPTY, (step & 1) ^ 1);
#pragma unroll
            for (int i = 0; i < D / 16; i++)
                *(float4 *)(shared + P::DQ + ((who * (D / 16) + i) * 128 + thread) * 16) =
                    make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
            fence_async();
            __syncwarp();
            if (lane == 0) mbar_arrive(base + P::DQ_FULL);
            wgmma_wait<1>();
            wgmma_hold(dk);
            if (lane == 0) mbar_arrive(base + P::EMPTY + 8 * r.at);
            r = after;
            step++;
            walk_next(&w);
            if (w.left == 0 && left > 1) { // the group's next head
                w = walk_begin(&m, p.tile, 0, p.steps);
                for (int i = 0; i < 2; i++) cursor[i] = cursor_of(&m, p.tile * SM90_KEYS + row + 8 * i, t.keys);
            }
        }
        wgmma_wait<0>();
        wgmma_hold(s);
        bar_sync(BAR_BOTH, 256); // k is no longer read
        stage_gradient<D>(shared + P::K, dk, 64 * who);
        stage_gradient<D>(shared + P::V, dv, 64 * who);
        fence_async();
        bar_sync(BAR_STORE + who, 128);
        if (thread == 0) {
            int key = p.tile * SM90_KEYS + 64 * who;
            for (int c = 0; c < D / 64; c++) {
                tma_store(&f.dk, base + P::K + c * SM90_PANEL + 8192 * who, p.hk * D + 64 * c, key, p.b);
                tma_store(&f.dv, base + P::V + c * SM90_PANEL + 8192 * who, p.hk * D + 64 * c, key, p.b);
            }
            bulk_commit();
            bulk_wait_read<0>();
            mbar_arrive(base + P::KV_EMPTY);
        }
    }
    if (thread == 0) bulk_wait<0>();
}

template <int D>
__global__ void __launch_bounds__(SM90_THREADS, 1) backward90(const __grid_constant__ struct sm90_backward f) {
#if SM90_CODE
    typedef plan<D> P;
    DYNAMIC_SHARED(shared);
    uint32_t base = shared_address(shared);
    int *items = (int *)(shared + P::ITEMS);
    if (threadIdx.x == 0) {
        mbar_init(base + P::KV_FULL, 1);
        mbar_init(base + P::KV_EMPTY, 2);
        mbar_init(base + P::DQ_FULL, 8);
        mbar_init(base + P::DQ_EMPTY, 1);
        for (int i = 0; i < 2; i++) {
            mbar_init(base + P::ITEM_FULL + 8 * i, 1);
            mbar_init(base + P::ITEM_EMPTY + 8 * i, 9);
        }
        for (int i = 0; i < STAGES; i++) {
            mbar_init(base + P::Q_FULL + 8 * i, 1);
            mbar_init(base + P::G_FULL + 8 * i, 1);
            mbar_init(base + P::EMPTY + 8 * i, 8);
        }
        mbar_init_done();
    }
    __syncthreads();
    int group = (int)threadIdx.x / 128;
    if (group == 0) {
        registers_fewer<24>();
        if (threadIdx.x == 0) produce<D>(f, base, items);
        if (threadIdx.x == 32) add_dq<D>(f, base, items);
    } else {
        registers_more<240>();
        consume<D>(f, shared, base, group - 1, items);
    }
#endif
}

// dq from its fp32 sums: a block per query tile and head. Reads 4 bytes, writes 2 per element.
template <int D> __global__ void finish_dq(const __grid_constant__ struct sm90_backward f) {
    const struct attention_task &t = f.t;
    int tile = (int)blockIdx.x % t.tiles, h = (int)blockIdx.x / t.tiles % t.heads, b = (int)blockIdx.x / t.tiles / t.heads;
    const float4 *sum = (const float4 *)(f.dq + (int64_t)blockIdx.x * (QUERIES * D));
    bool any = t.view[b].tile[tile].steps > 0;
    for (int i = (int)threadIdx.x; i < QUERIES * D / 4; i += (int)blockDim.x) {
        int thread = i % 128, part = i / 128; // part: 8 columns
        int row = tile * QUERIES + thread / 32 * 16 + thread % 32 / 4, c = h * D + 8 * part + 2 * (thread % 4);
        float4 v = any ? sum[i] : make_float4(0, 0, 0, 0);
        bf16 *to = t.dq.data + ((int64_t)b * t.queries + row) * t.dq.stride + c;
        if (row < t.queries) *(uint32_t *)to = pack_bf16(v.x, v.y);
        if (row + 8 < t.queries) *(uint32_t *)(to + 8 * t.dq.stride) = pack_bf16(v.z, v.w);
    }
}

template <int D> cudaError_t launch(const struct sm90_backward *f, int blocks, cudaStream_t stream) {
    cudaError_t rc = launch_room(backward90<D>, plan<D>::BYTES);
    if (rc == cudaSuccess)
        rc = LAUNCH((backward90<D>), dim3((unsigned)blocks), dim3(SM90_THREADS), plan<D>::BYTES, stream, *f);
    unsigned tiles = (unsigned)f->t.tiles * (unsigned)f->t.heads * (unsigned)f->t.sequences;
    return rc != cudaSuccess ? rc : LAUNCH((finish_dq<D>), dim3(tiles), dim3(256), 0, stream, *f);
}

} // namespace

cudaError_t attention_backward_sm90(const struct sm90_backward *f, int head_dim, int blocks, cudaStream_t stream) {
    return head_dim == 64 ? launch<64>(f, blocks, stream) : launch<128>(f, blocks, stream);
}
