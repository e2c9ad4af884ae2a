// SPDX-License-Identifier: Apache-2.0
// Attention with mma.sync and cp.async (FlashAttention-2, Dao 2307.08691), for every GPU from sm_80 on.
//
// Forward: o = softmax(q k^T) v. A block owns 128 queries of a head, a warp 16 of them; tiles of 64 keys and
// values pass through two stages of shared memory. Logits, maximum m, sum l and o stay in registers in fp32;
// weights are rounded to bf16 for the second product. Bytes: q, o once; k, v once per query tile (from L2).
//
// Backward, with p = exp(q k^T - lse), delta = sum o dO, ds = p (dO v^T - delta):
//   dq = ds k;  dk = ds^T q;  dv = p^T dO.
// Two passes of one shape: rows (queries; or keys) stay, columns (keys; or queries) stream past in tiles of
// 32. Each output is owned by one block, so the order of every sum is fixed. Seven products instead of five.
// Shared memory: 96 KB at D = 128, which every such GPU has.
#include "kernels/cuda/attention.cuh"

enum { THREADS = 256 };

// Byte offset of 16-byte piece `piece` of a row of D bf16, so that ldmatrix meets no bank twice.
template <int D> static __device__ __forceinline__ uint32_t at(int row, int piece) {
    int turn = D >= 64 ? row & 7 : (row >> 1) & 3;
    return (uint32_t)(row * D * 2 + (piece ^ turn) * 16);
}

// ROWS x D elements; rows from `valid` on become zero.
template <int D, int ROWS>
static __device__ __forceinline__ void load_rows(uint32_t to, const bf16 *from, int64_t stride, int valid) {
#pragma unroll
    for (int i = 0; i < ROWS * D / 8; i += THREADS) {
        int piece = (int)threadIdx.x + i, row = piece / (D / 8);
        if (ROWS * D / 8 % THREADS != 0 && row >= ROWS) break;
        piece %= D / 8;
        bool in = row < valid;
        cp_async16(to + at<D>(row, piece), from + (in ? row * stride + piece * 8 : 0), in);
    }
}

// A: rows row .. row + 15, columns 16 k ..
template <int D>
static __device__ __forceinline__ void load_a(uint32_t (&a)[4], uint32_t tile, int row, int k) {
    int lane = (int)threadIdx.x % 32, m = lane / 8;
    ldmatrix4(a, tile + at<D>(row + m % 2 * 8 + lane % 8, 2 * k + m / 2));
}
// B for C += A tile^T: rows n .. n + 15 of the tile are columns of C; b[0..1], b[2..3] for 8 each.
template <int D>
static __device__ __forceinline__ void load_b(uint32_t (&b)[4], uint32_t tile, int n, int k) {
    int lane = (int)threadIdx.x % 32, m = lane / 8;
    ldmatrix4(b, tile + at<D>(n + m / 2 * 8 + lane % 8, 2 * k + m % 2));
}
// B for C += A tile: rows k .. k + 15, columns 8 n .. 8 n + 15.
template <int D>
static __device__ __forceinline__ void load_b_turned(uint32_t (&b)[4], uint32_t tile, int k, int n) {
    int lane = (int)threadIdx.x % 32, m = lane / 8;
    ldmatrix4_turned(b, tile + at<D>(k + m % 2 * 8 + lane % 8, n + m / 2));
}

// c (16 x N) = rows of a times (N rows of b)^T.
template <int D, int N>
static __device__ __forceinline__ void product(float (&c)[N / 8][4], uint32_t a, int row, uint32_t b) {
#pragma unroll
    for (int j = 0; j < N / 8; j++) c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
#pragma unroll(N == 16 ? 2 : D / 16) // the crowded kernel: fewer addresses at a time
    for (int k = 0; k < D / 16; k++) {
        uint32_t x[4], y[4];
        load_a<D>(x, a, row, k);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            load_b<D>(y, b, 16 * j, k);
            mma_bf16(c[2 * j], x, y[0], y[1]);
            mma_bf16(c[2 * j + 1], x, y[2], y[3]);
        }
    }
}

// c (16 x D) += w (16 x N, rounded to bf16) times N rows of b.
template <int D, int N>
static __device__ __forceinline__ void accumulate(float (&c)[D / 8][4], const float (&w)[N / 8][4],
                                                  uint32_t b) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        uint32_t x[4] = {pack_bf16(w[2 * k][0], w[2 * k][1]), pack_bf16(w[2 * k][2], w[2 * k][3]),
                         pack_bf16(w[2 * k + 1][0], w[2 * k + 1][1]),
                         pack_bf16(w[2 * k + 1][2], w[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t y[4];
            load_b_turned<D>(y, b, 16 * k, n);
            mma_bf16(c[n], x, y[0], y[1]);
            mma_bf16(c[n + 1], x, y[2], y[3]);
        }
    }
}

// Writes `value` over what the thread's two rows do not see of the columns from lo on.
template <int N>
static __device__ __forceinline__ void hide(float (&c)[N / 8][4], const struct mask_view *m,
                                            struct row_cursor (&row)[2], int lo, float value) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t bits[(N + 31) / 32];
        row_bits(m->interval, &row[i], lo, bits);
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            uint32_t two = bits[j / 4] >> (8 * (j % 4) + 2 * ((int)threadIdx.x % 4));
            if (!(two & 1)) c[j][2 * i] = value;
            if (!(two & 2)) c[j][2 * i + 1] = value;
        }
    }
}

static __device__ __forceinline__ float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
static __device__ __forceinline__ float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// ---- forward

template <int D> struct forward_state {
    float o[D / 8][4], s[SM80_COLUMNS / 8][4];
    float top[2], sum[2];
    struct row_cursor row[2];
};

// s becomes weights; o and sum are scaled to the new maximum.
template <int D> static __device__ __forceinline__ void soften(struct forward_state<D> *f) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float top = f->top[i];
#pragma unroll
        for (int j = 0; j < SM80_COLUMNS / 8; j++)
            top = fmaxf(top, fmaxf(f->s[j][2 * i], f->s[j][2 * i + 1]));
        top = quad_max(top);
        float base = top == -INFINITY ? 0 : top * ATTENTION_LOG2E, sum = 0;
        float old = exp2_fast(f->top[i] * ATTENTION_LOG2E - base);
        f->top[i] = top;
#pragma unroll
        for (int j = 0; j < SM80_COLUMNS / 8; j++) {
#pragma unroll
            for (int c = 2 * i; c < 2 * i + 2; c++) {
                f->s[j][c] = exp2_fast(f->s[j][c] * ATTENTION_LOG2E - base);
                sum += f->s[j][c];
            }
        }
        f->sum[i] = f->sum[i] * old + sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            f->o[j][2 * i] *= old;
            f->o[j][2 * i + 1] *= old;
        }
    }
}

template <int D>
static __device__ __forceinline__ void finish(const struct attention_task &t, struct forward_state<D> *f,
                                              int split, int b, int h, int row) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = quad_sum(f->sum[i]), inverse = sum > 0 ? 1 / sum : 0;
        float lse = sum > 0 ? f->top[i] + ATTENTION_LN2 * __log2f(sum) : -INFINITY;
        int q = row + 8 * i, t4 = (int)threadIdx.x % 4;
        if (q >= t.queries) continue;
        int64_t at = (int64_t)b * t.queries + q;
        if (t.splits > 1) at += (int64_t)split * t.sequences * t.queries;
        if (t4 == 0 && t.splits > 1) t.weight[at * t.heads + h] = lse;
        if (t4 == 0 && t.splits == 1) t.lse[at * t.lse_stride + h] = lse;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            float x = f->o[j][2 * i] * inverse, y = f->o[j][2 * i + 1] * inverse;
            if (t.splits > 1) {
                *(float2 *)(t.part + (at * t.heads + h) * D + 8 * j + 2 * t4) = make_float2(x, y);
            } else {
                *(uint32_t *)(t.o.data + at * t.o.stride + h * D + 8 * j + 2 * t4) = pack_bf16(x, y);
            }
        }
    }
}

template <int D> static __global__ void __launch_bounds__(THREADS, 1) forward(const struct attention_task t) {
    DYNAMIC_SHARED(shared);
    enum { TILE = SM80_COLUMNS * D * 2 };
    uint32_t q_at = shared_address(shared), k_at = q_at + SM80_ROWS * D * 2, v_at = k_at + 2 * TILE;
    int n = (int)blockIdx.x, split = n % t.splits, rank = n / t.splits % t.tiles,
        h = n / t.splits / t.tiles % t.heads;
    int b = n / t.splits / t.tiles / t.heads, hk = h / (t.heads / t.kv_heads);
    struct mask_view m = t.view[b];
    int tile = m.order[rank], steps = m.tile[tile].steps;
    int first = (int)((int64_t)steps * split / t.splits),
        end = (int)((int64_t)steps * (split + 1) / t.splits);
    struct tile_walk w = walk_begin(&m, tile, first, end);
    int q0 = tile * SM80_ROWS, lane = (int)threadIdx.x % 32, warp_row = (int)threadIdx.x / 32 * 16;
    const bf16 *k = t.k.data + (int64_t)b * t.keys * t.k.stride + hk * D;
    const bf16 *v = t.v.data + (int64_t)b * t.keys * t.v.stride + hk * D;
    load_rows<D, SM80_ROWS>(q_at, t.q.data + ((int64_t)b * t.queries + q0) * t.q.stride + h * D, t.q.stride,
                            t.queries - q0);
    auto load = [&](int j, int stage) {
        int64_t row = (int64_t)j * SM80_COLUMNS;
        load_rows<D, SM80_COLUMNS>(k_at + stage * TILE, k + row * t.k.stride, t.k.stride, t.keys - (int)row);
        load_rows<D, SM80_COLUMNS>(v_at + stage * TILE, v + row * t.v.stride, t.v.stride, t.keys - (int)row);
    };
    if (w.left > 0) load(w.j, 0);
    cp_async_commit();
    struct forward_state<D> f = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        f.top[i] = -INFINITY;
        f.row[i] = cursor_of(&m, q0 + warp_row + lane / 4 + 8 * i, t.queries);
    }
    for (int stage = 0; w.left > 0; stage ^= 1) {
        int j = w.j;
        bool partly = w.partly;
        walk_next(&w);
        if (w.left > 0) load(w.j, stage ^ 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        product<D, SM80_COLUMNS>(f.s, q_at, warp_row, k_at + stage * TILE);
        if (partly) hide<SM80_COLUMNS>(f.s, &m, f.row, j * SM80_COLUMNS, -INFINITY);
        soften(&f);
        accumulate<D, SM80_COLUMNS>(f.o, f.s, v_at + stage * TILE);
        __syncthreads();
    }
    cp_async_wait<0>();
    finish(t, &f, split, b, h, q0 + warp_row + lane / 4);
}

// ---- backward

// KEYS: rows are keys, columns are queries of every head of the group; else rows are queries.
template <int D, bool KEYS>
static __global__ void __launch_bounds__(THREADS, 1) backward(const struct attention_task t) {
    DYNAMIC_SHARED(shared);
    // Columns are worked on N at a time: two results of 64 registers leave room for no more.
    enum { COLUMNS = SM80_BACKWARD_COLUMNS, N = KEYS && D == 128 ? 16 : COLUMNS, TILE = COLUMNS * D * 2 };
    enum { ROWS = SM80_ROWS * D * 2 };
    uint32_t a1 = shared_address(shared), a2 = a1 + ROWS, b1 = a2 + ROWS, b2 = b1 + 2 * TILE;
    int n = (int)blockIdx.x, heads = KEYS ? t.kv_heads : t.heads, group = t.heads / t.kv_heads;
    int head = n / t.tiles % heads, b = n / t.tiles / heads;
    struct mask_view m = t.view[b];
    int tile = m.order[n % t.tiles], row0 = tile * SM80_ROWS;
    int rows = KEYS ? t.keys : t.queries, columns = KEYS ? t.queries : t.keys;
    int lane = (int)threadIdx.x % 32, warp_row = (int)threadIdx.x / 32 * 16;
    const struct attention_rows r1 = KEYS ? t.k : t.q, r2 = KEYS ? t.v : t.d_o, c1 = KEYS ? t.q : t.k,
                                c2 = KEYS ? t.d_o : t.v;
    int64_t first_row = (int64_t)b * rows + row0, column_at = (int64_t)b * columns;
    load_rows<D, SM80_ROWS>(a1, r1.data + first_row * r1.stride + head * D, r1.stride, rows - row0);
    load_rows<D, SM80_ROWS>(a2, r2.data + first_row * r2.stride + head * D, r2.stride, rows - row0);
    float out1[D / 8][4] = {}, out2[KEYS ? D / 8 : 1][4] = {};
    for (int h = KEYS ? head * group : head; h < (KEYS ? (head + 1) * group : head + 1); h++) {
        int column_head = KEYS ? h : h / group;
        auto load = [&](int j, int stage) {
            int column = j * COLUMNS;
            load_rows<D, COLUMNS>(b1 + stage * TILE,
                                  c1.data + (column_at + column) * c1.stride + column_head * D, c1.stride,
                                  columns - column);
            load_rows<D, COLUMNS>(b2 + stage * TILE,
                                  c2.data + (column_at + column) * c2.stride + column_head * D, c2.stride,
                                  columns - column);
        };
        const float *lse2 = t.lse2 + ((int64_t)b * t.heads + h) * (2 * t.padded);
        struct row_cursor cursor[2];
        float row_lse[2], row_delta[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = row0 + warp_row + lane / 4 + 8 * i;
            cursor[i] = cursor_of(&m, row, rows);
            if (!KEYS) {
                row_lse[i] = lse2[row_at(row)];
                row_delta[i] = lse2[row_at(row) + 64];
            }
        }
        struct tile_walk w = walk_begin(&m, tile, 0, m.tile[tile].steps);
        if (w.left > 0) load(w.j, 0);
        cp_async_commit();
        for (int stage = 0; w.left > 0; stage ^= 1) {
            int j = w.j;
            bool partly = w.partly;
            walk_next(&w);
            if (w.left > 0) load(w.j, stage ^ 1);
            cp_async_commit();
            cp_async_wait<1>();
            __syncthreads();
#pragma unroll 1
            for (int x0 = 0; x0 < COLUMNS; x0 += N) {
                uint32_t x1 = b1 + stage * TILE + x0 * D * 2, x2 = b2 + stage * TILE + x0 * D * 2;
                float s[N / 8][4], dp[N / 8][4];
                product<D, N>(s, a1, warp_row, x1);
                if (partly) hide<N>(s, &m, cursor, j * COLUMNS + x0, -INFINITY);
                product<D, N>(dp, a2, warp_row, x2);
#pragma unroll
                for (int x = 0; x < N / 8; x++) {
                    float2 cl = make_float2(0, 0), cd = make_float2(0, 0);
                    if (KEYS) {
                        int column = row_at(j * COLUMNS + x0 + 8 * x + 2 * (lane % 4));
                        cl = *(const float2 *)(lse2 + column);
                        cd = *(const float2 *)(lse2 + column + 64);
                    }
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        float l = KEYS ? (c % 2 ? cl.y : cl.x) : row_lse[c / 2];
                        float d = KEYS ? (c % 2 ? cd.y : cd.x) : row_delta[c / 2];
                        s[x][c] = exp2_fast(s[x][c] * ATTENTION_LOG2E - l);
                        dp[x][c] = s[x][c] * (dp[x][c] - d);
                    }
                }
                if constexpr (KEYS) accumulate<D, N>(out2, s, x2);
                accumulate<D, N>(out1, dp, x1);
            }
            __syncthreads();
        }
        cp_async_wait<0>();
    }
    const struct attention_rows to1 = KEYS ? t.dk : t.dq, to2 = t.dv;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = warp_row + lane / 4 + 8 * i;
        if (row0 + row >= rows) continue;
        int64_t at = first_row + row;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            int c = head * D + 8 * j + 2 * (lane % 4);
            *(uint32_t *)(to1.data + at * to1.stride + c) = pack_bf16(out1[j][2 * i], out1[j][2 * i + 1]);
            if (KEYS)
                *(uint32_t *)(to2.data + at * to2.stride + c) =
                    pack_bf16(out2[KEYS ? j : 0][2 * i], out2[KEYS ? j : 0][2 * i + 1]);
        }
    }
}

// ---- launches

template <int D> static cudaError_t launch_forward(const struct attention_task *t, cudaStream_t stream) {
    size_t bytes = (SM80_ROWS + 4 * SM80_COLUMNS) * D * 2;
    unsigned blocks = (unsigned)t->splits * (unsigned)t->tiles * (unsigned)t->heads * (unsigned)t->sequences;
    cudaError_t rc = launch_room(forward<D>, bytes);
    return rc != cudaSuccess ? rc : LAUNCH((forward<D>), dim3(blocks), dim3(THREADS), bytes, stream, *t);
}

cudaError_t attention_forward_sm80(const struct attention_task *t, int head_dim, cudaStream_t stream) {
    return head_dim == 32   ? launch_forward<32>(t, stream)
           : head_dim == 64 ? launch_forward<64>(t, stream)
                            : launch_forward<128>(t, stream);
}

template <int D>
static cudaError_t launch_backward(const struct attention_task *t, const struct mask_view *turned,
                                   int key_tiles, cudaStream_t stream) {
    size_t bytes = (2 * SM80_ROWS + 4 * SM80_BACKWARD_COLUMNS) * D * 2;
    cudaError_t rc = launch_room(backward<D, false>, bytes);
    if (rc == cudaSuccess) rc = launch_room(backward<D, true>, bytes);
    if (rc != cudaSuccess) return rc;
    unsigned units = (unsigned)t->sequences * (unsigned)t->tiles;
    if (units > 0)
        rc = LAUNCH((backward<D, false>), dim3(units * (unsigned)t->heads), dim3(THREADS), bytes, stream, *t);
    struct attention_task keys = *t;
    keys.view = turned;
    keys.tiles = key_tiles;
    units = (unsigned)t->sequences * (unsigned)key_tiles;
    if (rc != cudaSuccess || units == 0) return rc;
    return LAUNCH((backward<D, true>), dim3(units * (unsigned)t->kv_heads), dim3(THREADS), bytes, stream,
                  keys);
}

cudaError_t attention_backward_sm80(const struct attention_task *t, const struct mask_view *turned,
                                    int key_tiles, int head_dim, cudaStream_t stream) {
    return head_dim == 32   ? launch_backward<32>(t, turned, key_tiles, stream)
           : head_dim == 64 ? launch_backward<64>(t, turned, key_tiles, stream)
                            : launch_backward<128>(t, turned, key_tiles, stream);
}
