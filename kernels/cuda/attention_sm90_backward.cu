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
// in L2, shared by the blocks of a wave. Registers of a consumer: dk, dv 128, s and dp 64 (then dq 32), p and
// ds as bf16 32: 224 at the most crowded point, of 240. While the exponentials run, dO v^T is under way;
// while the slopes run, dv's product; while a share of dq is stored, dk's. Nothing is in flight from one step
// to the next: ptxas would put waits of its own. Shared memory at D = 128: k, v 64 KB (also dk, dv on their
// way out), two stages of q, dO 64 KB, ds 32 KB, dq 32 KB. Its 128 bytes a clock are the narrowest place:
// 2048 clocks of operands for 2560 of products, and some 1000 more of copies in and out, ds and dq.
// At D = 64 k lies there twice: a consumer's half of dq is 32 columns of k, half a panel, and wgmma's layouts
// begin with a panel; so for that product k comes in panels of 32 columns too, with the 64-byte swizzle.
#include "kernels/cuda/attention_sm90.cuh"

namespace {

enum { BAR_BOTH = 1, BAR_STORE = 2 };        // of both consumers; of one of them
enum { STAGES = 2, QUERIES = SM90_QUERIES }; // the consumers count on two

template <int D> struct plan {
    enum {
        TILE_K = 128 * D * 2,
        TILE_Q = QUERIES * D * 2,
        PANEL_Q = QUERIES * 128,
        TILE_DS = 128 * QUERIES * 2,
        K = 0,
        V = K + TILE_K,
        HALVES = D == 128 ? K : V + TILE_K, // k in two panels of half of D, for dq
        TILE_HALVES = D == 128 ? 0 : TILE_K,
        PANEL_HALVES = 128 * D,
        Q = V + TILE_K + TILE_HALVES,
        G = Q + STAGES * TILE_Q, // dO
        DS = G + STAGES * TILE_Q,
        DQ = DS + 2 * TILE_DS,
        ROWS = DQ + QUERIES * D * 4, // of a stage: lse2, then delta
        BARS = ROWS + STAGES * QUERIES * 8,
        KV_FULL = BARS,
        KV_EMPTY = BARS + 8,
        DQ_FULL = BARS + 16,
        DQ_EMPTY = BARS + 24,
        ITEM_FULL = BARS + 32,
        ITEM_EMPTY = ITEM_FULL + 16,
        Q_FULL = ITEM_EMPTY + 16,
        G_FULL = Q_FULL + 8 * STAGES,
        EMPTY = G_FULL + 8 * STAGES,
        SHARE_FULL = EMPTY + 8 * STAGES,
        SHARE_EMPTY = SHARE_FULL + 16,
        ITEMS = SHARE_EMPTY + 16,
        SHARES = ITEMS + 32,
        BYTES = SHARES + 16
    };
};

#if SM90_CODE

// Which keys an item is, written where the block's other threads read it: tile of keys (-1: no more), b, kv
// head, steps of one query head.
__device__ __forceinline__ void publish(const struct sm90_backward &f, int item, volatile int *out) {
    int wave = item / (f.wave * f.units), first = wave * f.wave;
    int n = f.key_tiles - first < f.wave ? f.key_tiles - first : f.wave;
    if (item >= f.items) {
        out[0] = -1;
        out[1] = out[2] = out[3] = 0;
        return;
    }
    item -= first * f.units;
    out[0] = first + n - 1 - item % n;
    item /= n;
    out[1] = item / f.t.kv_heads;
    out[2] = item % f.t.kv_heads;
    out[3] = f.turned[out[1]].tile[out[0]].steps;
}

// How many key tiles add to this query tile before ours does.
__device__ __forceinline__ uint32_t turn_of(const struct sm90_backward &f, const struct mask_view *m,
                                            int query_tile, int key_tile) {
    int wave = key_tile / f.wave * f.wave, end = wave + f.wave, turn = 0;
    struct schedule_tile t = m->tile[query_tile];
    for (int i = t.first; i < t.first + t.count; i++) {
        struct schedule_range r = m->range[i];
        if (r.lo >= end) break;
        int before = min(r.hi, wave) - r.lo, same = min(r.hi, end) - max(r.lo, key_tile + 1);
        turn += max(before, 0) + max(same, 0);
    }
    return (uint32_t)turn;
}

// A box of WIDTH columns for each panel of a tile.
template <int D, int WIDTH = 64>
__device__ __forceinline__ void load_panels(uint32_t to, int panel, const CUtensorMap *map, uint32_t full,
                                            int head, int row, int b) {
#pragma unroll
    for (int c = 0; c < D; c += WIDTH, to += (uint32_t)panel) tma_load(to, map, full, head * D + c, row, b);
}

// One step's queries. Registers are scarce here: little is carried, most is worked out anew.
template <int D>
__device__ __forceinline__ void load_queries(const struct sm90_backward &f, uint32_t base,
                                             const volatile int *item, int h, int j, int step) {
    typedef plan<D> P;
    int at = step % STAGES;
    uint32_t full = base + P::Q_FULL + 8 * at;
    mbar_wait(base + P::EMPTY + 8 * at, (uint32_t)(step / STAGES & 1) ^ 1);
    mbar_expect(full, P::TILE_Q + 8 * QUERIES);
    load_panels<D>(base + P::Q + at * P::TILE_Q, P::PANEL_Q, &f.q, full, h, j * QUERIES, item[1]);
    uint32_t row =
        (uint32_t)(item[1] * f.t.heads + h) * (uint32_t)(2 * f.t.padded) + (uint32_t)j * (2 * QUERIES);
    bulk_load(base + P::ROWS + at * QUERIES * 8, f.t.lse2 + row, 8 * QUERIES, full);
    full = base + P::G_FULL + 8 * at;
    mbar_expect(full, P::TILE_Q);
    load_panels<D>(base + P::G + at * P::TILE_Q, P::PANEL_Q, &f.d_o, full, h, j * QUERIES, item[1]);
}

// An item's keys and values.
template <int D>
__device__ __forceinline__ void load_keys(const struct sm90_backward &f, uint32_t base,
                                          const volatile int *item, int n) {
    typedef plan<D> P;
    mbar_wait(base + P::KV_EMPTY, (uint32_t)(n & 1) ^ 1);
    mbar_expect(base + P::KV_FULL, 2 * P::TILE_K + P::TILE_HALVES);
    load_panels<D>(base + P::K, SM90_PANEL, &f.k, base + P::KV_FULL, item[2], item[0] * SM90_KEYS, item[1]);
    load_panels<D>(base + P::V, SM90_PANEL, &f.v, base + P::KV_FULL, item[2], item[0] * SM90_KEYS, item[1]);
    if constexpr (P::TILE_HALVES > 0)
        load_panels<D, D / 2>(base + P::HALVES, P::PANEL_HALVES, &f.k_halves, base + P::KV_FULL, item[2],
                              item[0] * SM90_KEYS, item[1]);
}

// The walk of an item for threads with few registers: heads of the group, ranges, tiles of queries. What can
// be read again is read again; `item` lies in shared memory.
struct lean_walk {
    int h, i, j;
};

__device__ __forceinline__ const struct schedule_tile *tile_of(const struct sm90_backward &f,
                                                               const volatile int *item) {
    return f.turned[item[1]].tile + item[0];
}

__device__ __forceinline__ void lean_begin(const struct sm90_backward &f, const volatile int *item,
                                           struct lean_walk *w) {
    w->h = item[2] * f.group;
    w->i = tile_of(f, item)->first;
    w->j = item[3] > 0 ? f.turned[item[1]].range[w->i].lo : 0;
}

// False: the item is over.
__device__ __forceinline__ bool lean_next(const struct sm90_backward &f, const volatile int *item,
                                          struct lean_walk *w) {
    if (++w->j < f.turned[item[1]].range[w->i].hi) return true;
    const struct schedule_tile *t = tile_of(f, item);
    if (++w->i == t->first + t->count) {
        w->i = t->first;
        if (++w->h == (item[2] + 1) * f.group) return false;
    }
    w->j = f.turned[item[1]].range[w->i].lo;
    return true;
}

template <int D>
__device__ __forceinline__ void produce(const struct sm90_backward &f, uint32_t base, volatile int *items) {
    typedef plan<D> P;
    int step = 0;
#pragma unroll 1
    for (int n = 0;; n++) {
        mbar_wait(base + P::ITEM_EMPTY + 8 * (n & 1), (uint32_t)(n >> 1 & 1) ^ 1);
        volatile int *item = items + 4 * (n & 1);
        publish(f, (int)atomicAdd(f.next, 1u), item);
        mbar_arrive(base + P::ITEM_FULL + 8 * (n & 1));
        if (item[0] < 0) break;
        load_keys<D>(f, base, item, n);
        if (item[3] == 0) continue;
        struct lean_walk w;
        lean_begin(f, item, &w);
#pragma unroll 1
        do load_queries<D>(f, base, item, w.h, w.j, step++);
        while (lean_next(f, item, &w));
    }
}

// Says where a share of dq goes and whether it is the first there, once its turn has come: the flag that was
// acquired here is known to whoever waits for SHARE_FULL.
template <int D>
__device__ __forceinline__ void announce(const struct sm90_backward &f, uint32_t base,
                                         const volatile int *item, const struct lean_walk *w, int step,
                                         volatile int *shares) {
    typedef plan<D> P;
    int slot = step & 1, at = (item[1] * f.t.heads + w->h) * f.t.tiles + w->j;
    mbar_wait(base + P::SHARE_EMPTY + 8 * slot, (uint32_t)(step >> 1 & 1) ^ 1);
    shares[2 * slot] = at;
    uint32_t turn = f.free_order ? 1 : turn_of(f, f.t.view + item[1], w->j, item[0]);
    shares[2 * slot + 1] = turn == 0;
    if (!f.free_order && turn > 0) flag_wait(f.flag + shares[2 * slot], turn);
    mbar_arrive(base + P::SHARE_FULL + 8 * slot);
}

// A warp of its own: the look-ups and the flag's way from L2 take as long as half a step, and from a share's
// arrival to the next key tile's turn nothing should pass that could have been done before.
template <int D>
__device__ __forceinline__ void scout(const struct sm90_backward &f, uint32_t base, const volatile int *items,
                                      volatile int *shares) {
    typedef plan<D> P;
    int step = 0;
#pragma unroll 1
    for (int n = 0;; n++) {
        mbar_wait(base + P::ITEM_FULL + 8 * (n & 1), (uint32_t)(n >> 1 & 1));
        const volatile int *item = items + 4 * (n & 1);
        if (item[0] < 0) break;
        if (item[3] > 0) {
            struct lean_walk w;
            lean_begin(f, item, &w);
#pragma unroll 1
            do announce<D>(f, base, item, &w, step++, shares);
            while (lean_next(f, item, &w));
        }
        mbar_arrive(base + P::ITEM_EMPTY + 8 * (n & 1));
    }
    mbar_wait(base + P::SHARE_EMPTY + 8 * (step & 1), (uint32_t)(step >> 1 & 1) ^ 1);
    shares[2 * (step & 1)] = -1;
    mbar_arrive(base + P::SHARE_FULL + 8 * (step & 1));
}

template <int D>
__device__ __forceinline__ void add_share(const struct sm90_backward &f, uint32_t base, int at, bool first) {
    typedef plan<D> P;
    fence_async_global();
    float *to = f.dq + (int64_t)at * (QUERIES * D);
    if (first) {
        bulk_store(to, base + P::DQ, QUERIES * D * 4);
    } else {
        bulk_add(to, base + P::DQ, QUERIES * D * 4);
    }
    bulk_commit();
    bulk_wait_read<0>();
    mbar_arrive(base + P::DQ_EMPTY);
    if (f.free_order) return;
    bulk_wait<0>();
    fence_async_global();
    flag_add(f.flag + at, 1);
}

// Adds the shares of dq, each in its turn.
template <int D>
__device__ __forceinline__ void add_dq(const struct sm90_backward &f, uint32_t base,
                                       const volatile int *shares) {
    typedef plan<D> P;
#pragma unroll 1
    for (int step = 0;; step++) {
        int slot = step & 1;
        mbar_wait(base + P::SHARE_FULL + 8 * slot, (uint32_t)(step >> 1 & 1));
        int at = shares[2 * slot];
        if (at < 0) break;
        bool first = shares[2 * slot + 1] != 0;
        mbar_arrive(base + P::SHARE_EMPTY + 8 * slot);
        mbar_wait(base + P::DQ_FULL, (uint32_t)(step & 1));
        add_share<D>(f, base, at, first);
    }
    bulk_wait<0>();
}

// s = 64 keys (in panels of 128 rows) times a stage of 64 queries.
template <int D> __device__ __forceinline__ void issue_turned(float (&s)[32], uint32_t k, uint32_t q) {
    uint64_t a = wgmma_matrix(k, WGMMA_BY_ROWS), b = wgmma_matrix(q, WGMMA_BY_ROWS);
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint32_t at_a = (uint32_t)(i / 4 * SM90_PANEL + i % 4 * 32),
                 at_b = (uint32_t)(i / 4 * plan<D>::PANEL_Q + i % 4 * 32);
        wgmma<0, 0>(s, wgmma_further(a, at_a), wgmma_further(b, at_b), i > 0);
    }
}

// c (64 keys x D) += w (64 keys x 64 queries) times a stage of 64 queries.
template <int D>
__device__ __forceinline__ void issue_gradient(float (&c)[D / 2], const uint32_t (&w)[16], uint32_t q) {
    uint64_t b = wgmma_matrix(q, D > 64 ? plan<D>::PANEL_Q : 0);
#pragma unroll
    for (int i = 0; i < QUERIES / 16; i++) wgmma<1>(c, w + 4 * i, wgmma_further(b, (uint32_t)i * 2048), true);
}

// dq (64 queries x half of D) = ds turned back, times that half of k, D bytes to a row.
template <int D> __device__ __forceinline__ void issue_dq(float (&c)[D / 4], uint32_t ds, uint32_t k) {
    uint64_t a = wgmma_matrix(ds, 0), b = wgmma_matrix<D>(k, 0);
#pragma unroll
    for (int i = 0; i < SM90_KEYS / 16; i++)
        wgmma<1, 1>(c, wgmma_further(a, (uint32_t)i * 2048), wgmma_further(b, (uint32_t)i * (16 * D)), i > 0);
}

// A step's share of dq, for the copy engine to add once it has taken the one before.
template <int D>
__device__ __forceinline__ void give_dq(unsigned char *shared, uint32_t base, int who, uint32_t parity,
                                        const float (&dq)[D / 4]) {
    typedef plan<D> P;
    int thread = (int)threadIdx.x % 128;
    mbar_wait(base + P::DQ_EMPTY, parity);
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        store_quad(shared + P::DQ + ((who * (D / 16) + i) * 128 + thread) * 16,
                   make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]));
    fence_async();
    __syncwarp();
    if (thread % 32 == 0) mbar_arrive(base + P::DQ_FULL);
}

// Writes an accumulator (64 keys x D) into the panels of k or v, whence TMA takes it.
template <int D>
__device__ __forceinline__ void stage_gradient(uint32_t panel, const float (&c)[D / 2], int first_row) {
    int row = first_row + (int)threadIdx.x % 128 / 32 * 16;
#pragma unroll
    for (int j = 0; j < D / 16; j++)
        stmatrix4(panel + swizzled<128>(row, j, (int)threadIdx.x % 32), pack_bf16(c[8 * j], c[8 * j + 1]),
                  pack_bf16(c[8 * j + 2], c[8 * j + 3]), pack_bf16(c[8 * j + 4], c[8 * j + 5]),
                  pack_bf16(c[8 * j + 6], c[8 * j + 7]));
}

struct place {
    int b, hk, tile, steps;
};

// Keys that nobody sees.
template <int D>
__device__ __forceinline__ void store_nothing(const struct sm90_backward &f, const struct place &p, int who) {
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
__device__ __forceinline__ void consume(const struct sm90_backward &f, unsigned char *shared, uint32_t base,
                                        int who, const volatile int *items) {
    typedef plan<D> P;
    const struct attention_task &t = f.t;
    int thread = (int)threadIdx.x % 128, lane = thread % 32;
    int row = 64 * who + thread / 32 * 16 + lane / 4; // of the tile, and + 8
    uint32_t step = 0; // of all: its place in the rings of two, and their rounds
    for (int n = 0;; n++) {
        int slot = n & 1;
        mbar_wait(base + P::ITEM_FULL + 8 * slot, (uint32_t)(n >> 1 & 1));
        const struct place p = {items[4 * slot + 1], items[4 * slot + 2], items[4 * slot],
                                items[4 * slot + 3]};
        __syncwarp();
        if (lane == 0) mbar_arrive(base + P::ITEM_EMPTY + 8 * slot);
        if (p.tile < 0) break;
        mbar_wait(base + P::KV_FULL, (uint32_t)n & 1);
        if (p.steps == 0) {
            store_nothing<D>(f, p, who);
            bar_sync(BAR_STORE + who, 128); // every warp has seen this round of KV_FULL
            if (thread == 0) mbar_arrive(base + P::KV_EMPTY);
            continue;
        }
        int i_range = f.turned[p.b].tile[p.tile].first, j_tile = f.turned[p.b].range[i_range].lo;
        float dk[D / 2], dv[D / 2];
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
        mbar_wait(base + P::Q_FULL + 8 * (step & 1), step >> 1 & 1);
        for (int left = p.steps * f.group; left > 0; left--) {
            uint32_t at = step & 1, q = base + P::Q + at * P::TILE_Q, g = base + P::G + at * P::TILE_Q;
            uint32_t ds_at = P::DS + at * P::TILE_DS, weights[16], slopes[16];
            uint32_t lse2 = base + P::ROWS + at * (8 * QUERIES) + 8 * (lane % 4); // of the lane's queries
            float s[32], dp[32], dq[D / 4];
            wgmma_begin();
            issue_turned<D>(s, base + P::K + 8192 * who, q);
            wgmma_commit();
            mbar_wait(base + P::G_FULL + 8 * at, step >> 1 & 1);
            wgmma_begin();
            issue_turned<D>(dp, base + P::V + 8192 * who, g);
            wgmma_commit();
            bool partly = f.turned[p.b].range[i_range].partly; // read before the wait, not behind it
            wgmma_wait<1>();
            wgmma_hold(s);
            if (partly)
                hide90<QUERIES>(s, f.turned + p.b, p.tile * SM90_KEYS + row, t.keys, j_tile * QUERIES);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float2 l = shared_pair(lse2 + 32 * j); // there is no room to read ahead
                s[4 * j] = exp2_fast(s[4 * j] * ATTENTION_LOG2E - l.x);
                s[4 * j + 1] = exp2_fast(s[4 * j + 1] * ATTENTION_LOG2E - l.y);
                s[4 * j + 2] = exp2_fast(s[4 * j + 2] * ATTENTION_LOG2E - l.x);
                s[4 * j + 3] = exp2_fast(s[4 * j + 3] * ATTENTION_LOG2E - l.y);
            }
            to_bf16<QUERIES>(weights, s);
            wgmma_hold(dv); // dv's product is queued behind dp's: it runs while the slopes are worked out
            wgmma_begin();
            issue_gradient<D>(dv, weights, g);
            wgmma_commit();
            float2 delta[3] = {shared_pair(lse2 + 4 * QUERIES), shared_pair(lse2 + 4 * QUERIES + 32)};
            wgmma_wait<1>();
            wgmma_hold(dp);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                if (j < 6) delta[(j + 2) % 3] = shared_pair(lse2 + 4 * QUERIES + 32 * (j + 2));
                float2 d = delta[j % 3];
                slopes[2 * j] = pack_bf16(s[4 * j] * (dp[4 * j] - d.x), s[4 * j + 1] * (dp[4 * j + 1] - d.y));
                slopes[2 * j + 1] =
                    pack_bf16(s[4 * j + 2] * (dp[4 * j + 2] - d.x), s[4 * j + 3] * (dp[4 * j + 3] - d.y));
                if (j % 2 == 1)
                    stmatrix4(base + ds_at +
                                  swizzled<128>(64 * who + thread / 32 * 16, j / 2, (int)threadIdx.x % 32),
                              slopes[2 * j - 2], slopes[2 * j - 1], slopes[2 * j], slopes[2 * j + 1]);
            }
            fence_async();
            bar_sync(BAR_BOTH, 256);
            wgmma_begin();
            issue_dq<D>(dq, base + ds_at, base + P::HALVES + who * P::PANEL_HALVES);
            wgmma_commit();
            wgmma_hold(dk);
            wgmma_begin();
            issue_gradient<D>(dk, slopes, q);
            wgmma_commit();
            if (++j_tile == f.turned[p.b].range[i_range].hi && left > 1) {
                i_range++;
                if ((left - 1) % p.steps == 0) i_range = f.turned[p.b].tile[p.tile].first; // the next head
                j_tile = f.turned[p.b].range[i_range].lo;
            }
            wgmma_wait<1>();
            wgmma_hold(dv);
            wgmma_hold(dq);
            give_dq<D>(shared, base, who, at ^ 1, dq);
            step++;
            if (left > 1) mbar_wait(base + P::Q_FULL + 8 * (step & 1), step >> 1 & 1);
            wgmma_wait<0>();
            wgmma_hold(dk);
            if (lane == 0) mbar_arrive(base + P::EMPTY + 8 * at);
        }
        bar_sync(BAR_BOTH, 256); // k is no longer read
        stage_gradient<D>(base + P::K, dk, 64 * who);
        stage_gradient<D>(base + P::V, dv, 64 * who);
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

#endif

template <int D>
__global__ void __launch_bounds__(SM90_THREADS, 1)
    backward90(const __grid_constant__ struct sm90_backward f) {
#if SM90_CODE
    typedef plan<D> P;
    DYNAMIC_SHARED(shared);
    uint32_t base = shared_address(shared);
    volatile int *items = (volatile int *)(shared + P::ITEMS), *shares = (volatile int *)(shared + P::SHARES);
    if (threadIdx.x == 0) {
        tma_prefetch_map(&f.k);
        if (P::TILE_HALVES > 0) tma_prefetch_map(&f.k_halves);
        tma_prefetch_map(&f.v);
        tma_prefetch_map(&f.q);
        tma_prefetch_map(&f.d_o);
        mbar_init(base + P::KV_FULL, 1);
        mbar_init(base + P::KV_EMPTY, 2);
        mbar_init(base + P::DQ_FULL, 8);
        mbar_init(base + P::DQ_EMPTY, 1);
        for (int i = 0; i < 2; i++) {
            mbar_init(base + P::ITEM_FULL + 8 * i, 1);
            mbar_init(base + P::ITEM_EMPTY + 8 * i, 9);
            mbar_init(base + P::SHARE_FULL + 8 * i, 1);
            mbar_init(base + P::SHARE_EMPTY + 8 * i, 1);
        }
        for (int i = 0; i < STAGES; i++) {
            mbar_init(base + P::Q_FULL + 8 * i, 1);
            mbar_init(base + P::G_FULL + 8 * i, 1);
            mbar_init(base + P::EMPTY + 8 * i, 8);
        }
        mbar_init_done();
    }
    __syncthreads();
    int group = warpgroup_of_block();
    if (group == 0) {
        registers_fewer<24>();
        if (threadIdx.x == 0) {
            produce<D>(f, base, items);
        } else if (threadIdx.x == 32) {
            scout<D>(f, base, items, shares);
        } else if (threadIdx.x == 64) {
            add_dq<D>(f, base, shares);
        }
    } else {
        registers_more<240>();
        consume<D>(f, shared, base, group - 1, items);
    }
#else
    __trap(); // built without sm_90a: an error, and not an o that nobody wrote
#endif
}

// dq from its fp32 sums: a block per query tile and head. Reads 4 bytes, writes 2 per element.
template <int D> __global__ void finish_dq(const __grid_constant__ struct sm90_backward f) {
    const struct attention_task &t = f.t;
    int tile = (int)blockIdx.x % t.tiles, h = (int)blockIdx.x / t.tiles % t.heads,
        b = (int)blockIdx.x / t.tiles / t.heads;
    const float4 *sum = (const float4 *)(f.dq + (int64_t)blockIdx.x * (QUERIES * D));
    bool any = t.view[b].tile[tile].steps > 0;
    for (int i = (int)threadIdx.x; i < QUERIES * D / 4; i += (int)blockDim.x) {
        int thread = i % 128, part = i / 128; // part: 8 columns
        int row = tile * QUERIES + thread / 32 * 16 + thread % 32 / 4,
            c = h * D + 8 * part + 2 * (thread % 4);
        float4 v = any ? sum[i] : make_float4(0, 0, 0, 0);
        bf16 *to = t.dq.data + ((int64_t)b * t.queries + row) * t.dq.stride + c;
        if (row < t.queries) *(uint32_t *)to = pack_bf16(v.x, v.y);
        if (row + 8 < t.queries) *(uint32_t *)(to + 8 * t.dq.stride) = pack_bf16(v.z, v.w);
    }
}

template <int D> cudaError_t launch(const struct sm90_backward *f, int blocks, cudaStream_t stream) {
    static_assert(plan<D>::BYTES <= 227 << 10, "a block's shared memory");
    cudaError_t rc = launch_room(backward90<D>, plan<D>::BYTES);
    if (rc == cudaSuccess)
        rc = LAUNCH((backward90<D>), dim3((unsigned)blocks), dim3(SM90_THREADS), plan<D>::BYTES, stream, *f);
    unsigned tiles = (unsigned)f->t.tiles * (unsigned)f->t.heads * (unsigned)f->t.sequences;
    return rc != cudaSuccess ? rc : LAUNCH((finish_dq<D>), dim3(tiles), dim3(256), 0, stream, *f);
}

} // namespace

cudaError_t attention_backward_sm90(const struct sm90_backward *f, int head_dim, int blocks,
                                    cudaStream_t stream) {
    return head_dim == 64 ? launch<64>(f, blocks, stream) : launch<128>(f, blocks, stream);
}
