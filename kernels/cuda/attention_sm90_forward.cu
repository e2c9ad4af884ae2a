// SPDX-License-Identifier: Apache-2.0
// o = softmax(q k^T) v on Hopper: TMA, wgmma, one producer warp and two consumer warpgroups per block (the
// plan of FlashAttention-3, 2407.08608), blocks that stay and take query tiles from a queue.
//
// A tile is 128 queries x 128 keys, 64 queries per warpgroup. Work per tile and block at D = 128: 8.4 MFLOP,
// 1.12 us at the 990 TFLOP/s of a datasheet; 64 KB of k and v from L2, 58 GB/s per block times 132 = 7.7
// TB/s, a lot to ask of an L2 (what it gives: not measured). So heads are taken in sections whose k and v fit
// into L2, and where neighbouring tiles of queries see the same keys, or heads share them, pairs of blocks
// (clusters) take them: one block fetches k for both, the other v, and L2 gives half. A stage is fetched anew
// when both blocks are done with it, so a pair walks in step, two stages apart at most. Per tile and
// warpgroup 8192 exp2 (16 per clock: 512 clocks) beside 2 x 512 clocks of wgmma for both: while one warpgroup
// does its exponentials the other multiplies (named barriers hand the tensor cores over), and within one the
// next logits are under way before the last weights are used. Registers of a consumer: o 64, logits 64,
// weights 32 (bf16, the A operand): 160 of 232. Shared memory at D = 128: two query tiles 64 KB (also o on
// its way out), two stages of k and v 128 KB. Order of every sum: fixed by the mask; the queue only decides
// which block does a tile.
#include "kernels/cuda/attention_sm90.cuh"

namespace {

enum { BAR_TURN = 1, BAR_STORE = 3 }; // named barriers, one for each consumer

template <int D> struct plan {
    enum {
        STAGES = D == 128 ? 2 : 4,
        TILE = 128 * D * 2,
        Q = 0,
        K = 2 * TILE,
        V = K + STAGES * TILE,
        BARS = V + STAGES * TILE,
        Q_FULL = BARS,
        Q_EMPTY = Q_FULL + 16,
        ITEM_FULL = Q_EMPTY + 16,
        ITEM_EMPTY = ITEM_FULL + 16,
        K_FULL = ITEM_EMPTY + 16,
        K_EMPTY = K_FULL + 8 * STAGES,
        V_FULL = K_EMPTY + 8 * STAGES,
        V_EMPTY = V_FULL + 8 * STAGES,
        TOLD = V_EMPTY + 8 * STAGES, // pairs: of the items that the first block tells the second
        ITEMS = TOLD + 16,
        WORDS = ITEMS + 2 * 32, // those items
        BYTES = WORDS + 8
    };
};

#if SM90_CODE

// What an item is: the producer finds it out, since it is ahead, and the consumers read it in shared memory.
struct alignas(16) place {
    int tile; // of queries; -1: there are no more items
    int b, h, hk;
    int steps, range, j, partly; // of its walk: how many, and where the first one is
};

// `of_pair`: which half of a pair's item is this block's; -1: it has no partner.
__device__ __forceinline__ struct place place_of(const struct sm90_forward &f, int item, int of_pair) {
    const struct attention_task &t = f.t;
    bool by_heads = f.pairs == SM90_PAIRS_OF_HEADS;
    int group = t.heads / t.kv_heads / (by_heads ? 2 : 1), units = t.sequences * t.kv_heads, first = 0,
        n = f.per_section;
    int section = t.tiles * group * f.per_section;
    struct place p = {-1, 0, 0, 0, 0, 0, 0, 0};
    if (item >= f.items) return p;
    first = item / section * f.per_section;
    item -= item / section * section;
    if (first + n > units) n = units - first;
    int unit = first + item / group % n;
    p.b = unit / t.kv_heads;
    p.hk = unit % t.kv_heads;
    p.h = p.hk * group + item % group;
    if (by_heads) p.h = 2 * p.h + of_pair;
    const struct mask_view m = t.view[p.b];
    int tile = m.order[item / group / n];
    const struct schedule_tile at = m.tile[tile];
    p.tile = f.pairs == SM90_PAIRS_OF_TILES ? 2 * tile + of_pair : tile;
    p.steps = at.steps;
    p.range = at.first;
    if (p.steps == 0) return p;
    p.j = m.range[p.range].lo;
    p.partly = m.range[p.range].partly;
    return p;
}

__device__ __forceinline__ struct tile_walk walk_of(const struct sm90_forward &f, const struct place &p) {
    struct tile_walk w = {f.t.view[p.b].range + p.range, p.steps, 0, p.j, p.partly != 0};
    return w;
}

// The head of the queue. In a pair the first block takes it and tells the second: `slot` is free on this
// side, and `told` holds the second's last word there.
template <int D>
__device__ __forceinline__ int hear_item(uint32_t base, int slot, uint32_t round, const volatile int *told) {
    typedef plan<D> P;
    mbar_expect(base + P::TOLD + 8 * slot, 4);
    mbar_wait(base + P::TOLD + 8 * slot, round);
    int item = told[slot];
    cluster_arrive(cluster_address(base + P::ITEM_EMPTY + 8 * slot, 0));
    return item;
}
template <int D> __device__ __forceinline__ void tell_item(uint32_t base, int slot, int item) {
    typedef plan<D> P;
    cluster_tell(cluster_address(base + P::WORDS + 4 * slot, 1), (uint32_t)item,
                 cluster_address(base + P::TOLD + 8 * slot, 1));
}

// A tile of k or v into a stage, once its readers have left it. In a pair one block fetches for both, and the
// other waits only until its own last round of that stage is over.
template <int D, bool PAIR>
__device__ __forceinline__ void fetch(const CUtensorMap *map, uint32_t to, uint32_t full, uint32_t empty,
                                      uint32_t round, bool ours, int head, int row, int b) {
    typedef plan<D> P;
    mbar_wait(ours ? empty : full, round);
    mbar_expect(full, P::TILE);
    if (!ours) return;
    for (int c = 0; c < D / 64; c++) {
        if (PAIR) {
            cluster_load(to + c * SM90_PANEL, map, full, head * D + 64 * c, row, b, 3);
        } else {
            tma_load(to + c * SM90_PANEL, map, full, head * D + 64 * c, row, b);
        }
    }
}

template <int D, bool PAIR>
__device__ __forceinline__ void produce(const struct sm90_forward &f, uint32_t base, struct place *places,
                                        const volatile int *told) {
    typedef plan<D> P;
    struct ring kv = {0, 1};
    int of_pair = PAIR ? (int)cluster_rank() : -1, item = of_pair > 0 ? 0 : (int)atomicAdd(f.next, 1u);
    for (int n = 0;; n++) {
        int slot = n & 1;
        uint32_t parity = (uint32_t)(n >> 1 & 1) ^ 1;
        if (of_pair > 0) item = hear_item<D>(base, slot, parity ^ 1, told);
        if (of_pair == 0) { // first of all: the partner has to look it up too
            mbar_wait(base + P::ITEM_EMPTY + 8 * slot, parity);
            tell_item<D>(base, slot, item);
        }
        struct place p = place_of(f, item, of_pair);
        mbar_wait(base + P::ITEM_EMPTY + 8 * slot, parity);
        places[slot] = p;
        mbar_arrive(base + P::ITEM_FULL + 8 * slot);
        if (p.tile < 0) break;
        if (of_pair <= 0) item = (int)atomicAdd(f.next, 1u);
        mbar_wait(base + P::Q_EMPTY + 8 * slot, parity);
        mbar_expect(base + P::Q_FULL + 8 * slot, P::TILE);
        for (int c = 0; c < D / 64; c++)
            tma_load(base + P::Q + slot * P::TILE + c * SM90_PANEL, &f.q, base + P::Q_FULL + 8 * slot,
                     p.h * D + 64 * c, p.tile * SM90_ROWS, p.b);
        for (struct tile_walk w = walk_of(f, p); w.left > 0; walk_next(&w)) {
            int at = kv.at, row = w.j * SM90_KEYS;
            fetch<D, PAIR>(&f.k, base + P::K + at * P::TILE, base + P::K_FULL + 8 * at,
                           base + P::K_EMPTY + 8 * at, kv.round, of_pair <= 0, p.hk, row, p.b);
            fetch<D, PAIR>(&f.v, base + P::V + at * P::TILE, base + P::V_FULL + 8 * at,
                           base + P::V_EMPTY + 8 * at, kv.round, of_pair != 0, p.hk, row, p.b);
            ring_next<P::STAGES>(&kv);
        }
    }
}

// s = 64 queries times a tile of keys.
template <int D> __device__ __forceinline__ void issue_logits(float (&s)[64], uint32_t q, uint32_t k) {
    uint64_t a = wgmma_matrix(q, WGMMA_BY_ROWS), b = wgmma_matrix(k, WGMMA_BY_ROWS);
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint32_t step = (uint32_t)(i / 4 * SM90_PANEL + i % 4 * 32);
        wgmma<0, 0>(s, wgmma_further(a, step), wgmma_further(b, step), i > 0);
    }
}

template <int D>
__device__ __forceinline__ void issue_output(float (&o)[D / 2], const uint32_t (&p)[32], uint32_t v) {
    uint64_t b = wgmma_matrix(v, D > 64 ? SM90_PANEL : 0);
#pragma unroll
    for (int i = 0; i < SM90_KEYS / 16; i++)
        wgmma<1>(o, p + 4 * i, wgmma_further(b, (uint32_t)i * 2048), true);
}

// Logits become weights; returns by how much what was summed before is to be scaled.
__device__ __forceinline__ void soften(float (&s)[64], float (&top)[2], float (&sum)[2], float (&scale)[2]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float high = fmaxf(top[i], fmaxf(s[2 * i], s[2 * i + 1]));
#pragma unroll
        for (int j = 1; j < 16; j++) high = fmaxf(high, fmaxf(s[4 * j + 2 * i], s[4 * j + 2 * i + 1]));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        float finite = high == -INFINITY ? 0 : high, base = finite * ATTENTION_LOG2E, total = 0;
        scale[i] = exp2_fast((top[i] - finite) * ATTENTION_LOG2E); // 1 when nothing greater came
        top[i] = high;
#pragma unroll
        for (int j = 0; j < 16; j++) {
#pragma unroll
            for (int c = 4 * j + 2 * i; c < 4 * j + 2 * i + 2; c++) {
                s[c] = exp2_fast(s[c] * ATTENTION_LOG2E - base);
                total += s[c];
            }
        }
        sum[i] = sum[i] * scale[i] + total;
    }
}

// Through `room`, 64 rows in panels of 128.
template <int D>
__device__ __forceinline__ void store_tile(const struct sm90_forward &f, const struct place &p, uint32_t room,
                                           int who, const float (&o)[D / 2], const float (&top)[2],
                                           const float (&sum)[2]) {
    int thread = (int)threadIdx.x % 128, first = p.tile * SM90_ROWS + 64 * who;
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float total = sum[i];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        inverse[i] = total > 0 ? 1 / total : 0;
        int q = first + thread / 32 * 16 + thread % 32 / 4 + 8 * i;
        if (thread % 4 == 0 && q < f.t.queries)
            f.t.lse[((int64_t)p.b * f.t.queries + q) * f.t.lse_stride + p.h] =
                total > 0 ? top[i] + ATTENTION_LN2 * __log2f(total) : -INFINITY;
    }
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        const float *c = o + 8 * j;
        stmatrix4(
            room + swizzled<128>(thread / 32 * 16, j, thread % 32),
            pack_bf16(c[0] * inverse[0], c[1] * inverse[0]), pack_bf16(c[2] * inverse[1], c[3] * inverse[1]),
            pack_bf16(c[4] * inverse[0], c[5] * inverse[0]), pack_bf16(c[6] * inverse[1], c[7] * inverse[1]));
    }
    fence_async();
    bar_sync(BAR_STORE + who, 128);
    if (thread == 0) {
        for (int c = 0; c < D / 64; c++) tma_store(&f.o, room + c * SM90_PANEL, p.h * D + 64 * c, first, p.b);
        bulk_commit();
    }
}

// Queries that see nothing.
template <int D>
__device__ __forceinline__ void store_nothing(const struct sm90_forward &f, const struct place &p, int who) {
    int first = p.tile * SM90_ROWS + 64 * who, thread = (int)threadIdx.x % 128;
    for (int i = thread; i < 64 * (D / 8); i += 128) {
        int q = first + i / (D / 8);
        if (q >= f.t.queries) break;
        int64_t row = (int64_t)p.b * f.t.queries + q;
        *(uint4 *)(f.t.o.data + row * f.t.o.stride + p.h * D + i % (D / 8) * 8) = make_uint4(0, 0, 0, 0);
        if (i % (D / 8) == 0) f.t.lse[row * f.t.lse_stride + p.h] = -INFINITY;
    }
}

// A warp is done with a stage of k or v; `empty` is the barrier of the block that fetches it.
template <bool PAIR> __device__ __forceinline__ void leave(uint32_t empty) {
    if (PAIR) {
        cluster_arrive(empty);
    } else {
        mbar_arrive(empty);
    }
}

template <int D, bool PAIR>
__device__ __forceinline__ void consume(const struct sm90_forward &f, uint32_t base, int who,
                                        const struct place *places) {
    typedef plan<D> P;
    int thread = (int)threadIdx.x % 128, lane = thread % 32;
    uint32_t k_empty = PAIR ? cluster_address(base + P::K_EMPTY, 0) : base + P::K_EMPTY;
    uint32_t v_empty = PAIR ? cluster_address(base + P::V_EMPTY, 1) : base + P::V_EMPTY;
    struct ring kv = {0, 0}, vv = {0, 0};
    if (who == 1) bar_arrive(BAR_TURN, 256);
    for (int n = 0;; n++) {
        int slot = n & 1;
        uint32_t parity = (uint32_t)(n >> 1 & 1);
        mbar_wait(base + P::ITEM_FULL + 8 * slot, parity);
        struct place p = places[slot];
        __syncwarp();
        if (lane == 0) mbar_arrive(base + P::ITEM_EMPTY + 8 * slot);
        if (p.tile < 0) break;
        const struct mask_view *m = f.t.view + p.b;
        struct tile_walk w = walk_of(f, p);
        uint32_t q = base + P::Q + slot * P::TILE + 8192 * who;
        int row = p.tile * SM90_ROWS + 64 * who + thread / 32 * 16 + lane / 4;
        float o[D / 2], s[64], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, scale[2];
        uint32_t weights[32];
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] = 0;
        mbar_wait(base + P::Q_FULL + 8 * slot, parity);
        if (thread == 0 && n > 0) { // the last tile's o has left its buffer
            bulk_wait_read<0>();
            mbar_arrive(base + P::Q_EMPTY + 8 * (slot ^ 1));
        }
        if (w.left == 0) {
            store_nothing<D>(f, p, who);
            bar_sync(BAR_STORE + who, 128); // every warp has seen this round of Q_FULL
            continue;
        }
        mbar_wait(base + P::K_FULL + 8 * kv.at, kv.round);
        bar_sync(BAR_TURN + who, 256);
        wgmma_begin();
        issue_logits<D>(s, q, base + P::K + kv.at * P::TILE);
        wgmma_commit();
        bar_arrive(BAR_TURN + 1 - who, 256);
        wgmma_wait<0>();
        wgmma_hold(s);
        if (lane == 0) leave<PAIR>(k_empty + 8 * kv.at);
        ring_next<P::STAGES>(&kv);
        if (w.partly) hide90<128>(s, m, row, f.t.queries, w.j * SM90_KEYS);
        soften(s, top, sum, scale);
        to_bf16<128>(weights, s);
        walk_next(&w);
        for (; w.left > 0; walk_next(&w)) {
            mbar_wait(base + P::K_FULL + 8 * kv.at, kv.round);
            bar_sync(BAR_TURN + who, 256);
            wgmma_hold(s);
            wgmma_hold(o);
            wgmma_begin();
            issue_logits<D>(s, q, base + P::K + kv.at * P::TILE);
            wgmma_commit();
            mbar_wait(base + P::V_FULL + 8 * vv.at, vv.round);
            wgmma_begin();
            issue_output<D>(o, weights, base + P::V + vv.at * P::TILE);
            wgmma_commit();
            bar_arrive(BAR_TURN + 1 - who, 256);
            wgmma_wait<1>();
            wgmma_hold(s);
            if (lane == 0) leave<PAIR>(k_empty + 8 * kv.at);
            ring_next<P::STAGES>(&kv);
            if (w.partly) hide90<128>(s, m, row, f.t.queries, w.j * SM90_KEYS);
            soften(s, top, sum, scale);
            done_by_now(base + P::V_FULL + 8 * vv.at, vv.round, sum[0] + sum[1] < 0);
            wgmma_wait<0>();
            wgmma_hold(o);
            if (lane == 0) leave<PAIR>(v_empty + 8 * vv.at);
            ring_next<P::STAGES>(&vv);
            // In a long row the greatest logit seldom changes: with independent ones, for none of a warp's
            // rows in half of the steps of 8k keys, in four of five of 32k.
            if (__any_sync(0xffffffffu, scale[0] != 1 || scale[1] != 1)) {
#pragma unroll
                for (int i = 0; i < D / 2; i++) o[i] *= scale[i / 2 % 2];
            }
            to_bf16<128>(weights, s);
        }
        mbar_wait(base + P::V_FULL + 8 * vv.at, vv.round);
        wgmma_hold(o);
        wgmma_begin();
        issue_output<D>(o, weights, base + P::V + vv.at * P::TILE);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(o);
        if (lane == 0) leave<PAIR>(v_empty + 8 * vv.at);
        ring_next<P::STAGES>(&vv);
        // Both halves of a product read q only; each warpgroup's own rows are free for o.
        store_tile<D>(f, p, q, who, o, top, sum);
    }
    if (who == 0) bar_sync(BAR_TURN, 256);
    if (thread == 0) bulk_wait<0>();
}

#endif

template <int D, bool PAIR>
__global__ void __launch_bounds__(SM90_THREADS, 1) forward90(const __grid_constant__ struct sm90_forward f) {
#if SM90_CODE
    typedef plan<D> P;
    DYNAMIC_SHARED(shared);
    uint32_t base = shared_address(shared);
    struct place *places = (struct place *)(shared + P::ITEMS);
    if (threadIdx.x == 0) {
        bool hears = PAIR && cluster_rank() == 0; // that the partner has read an item's number
        tma_prefetch_map(&f.q);
        tma_prefetch_map(&f.k);
        tma_prefetch_map(&f.v);
        for (int i = 0; i < 2; i++) {
            mbar_init(base + P::Q_FULL + 8 * i, 1);
            mbar_init(base + P::Q_EMPTY + 8 * i, 2);
            mbar_init(base + P::ITEM_FULL + 8 * i, 1);
            mbar_init(base + P::ITEM_EMPTY + 8 * i, hears ? 9 : 8);
            mbar_init(base + P::TOLD + 8 * i, 1);
        }
        for (int i = 0; i < P::STAGES; i++) {
            mbar_init(base + P::K_FULL + 8 * i, 1);
            mbar_init(base + P::K_EMPTY + 8 * i, PAIR ? 16 : 8);
            mbar_init(base + P::V_FULL + 8 * i, 1);
            mbar_init(base + P::V_EMPTY + 8 * i, PAIR ? 16 : 8);
        }
        mbar_init_done();
    }
    if (PAIR) {
        cluster_sync();
    } else {
        __syncthreads();
    }
    int group = warpgroup_of_block();
    if (group == 0) {
        registers_fewer<40>();
        if (threadIdx.x == 0) produce<D, PAIR>(f, base, places, (const volatile int *)(shared + P::WORDS));
    } else {
        registers_more<232>();
        consume<D, PAIR>(f, base, group - 1, places);
    }
    if (PAIR) cluster_sync(); // the partner may still arrive at this block's barriers
#else
    __trap(); // built without sm_90a: an error, and not an o that nobody wrote
#endif
}

template <int D> cudaError_t launch(const struct sm90_forward *f, int blocks, cudaStream_t stream) {
    dim3 grid((unsigned)blocks), threads(SM90_THREADS);
    size_t bytes = plan<D>::BYTES;
    bool pairs = f->pairs != SM90_ALONE;
    cudaError_t rc = pairs ? launch_room(forward90<D, true>, bytes) : launch_room(forward90<D, false>, bytes);
    if (rc != cudaSuccess) return rc;
    return pairs ? launch_pairs(forward90<D, true>, grid, threads, bytes, stream, *f)
                 : LAUNCH((forward90<D, false>), grid, threads, bytes, stream, *f);
}

} // namespace

cudaError_t attention_forward_sm90(const struct sm90_forward *f, int head_dim, int blocks,
                                   cudaStream_t stream) {
    return head_dim == 64 ? launch<64>(f, blocks, stream) : launch<128>(f, blocks, stream);
}
