// SPDX-License-Identifier: Apache-2.0
// The numeric seam: every operation of the model on any device, forward and backward. One row per op in
// ops.def; each back end fills a `struct ops`.
//
// Types. A device has a compute type (device.h). Tensors of that type: what goes into products and attention
// and comes out of them - rows, e, act, y, qkv, q, k, v, o, up's x and y, `normed`, and their gradients,
// dpred too. fp32 on every device: the stream x and its gradient dx of norm_mod, gated_add and assemble; c,
// mod, gamma, slot and their gradients; frames, noise levels, predictions; rstd, lse, angles; weights'
// gradients, the optimiser. gemm takes A and B of one type and gives C in that type or in fp32, with a bias
// in fp32 C alone. The CPU's compute type is fp32.
//
// All memory that tensors and pointers name is the device's, but for what an op calls host memory.
//
// Words used below: N = B*F*P tokens (B sequences of F frames of P tokens, frame-major), D = width, M =
// number of modalities, G = B*F*M groups (a modality within a frame), c = the [G, 6D] conditioning: for a
// group the six vectors (s1, k1, g1, s2, k2, g2), each D wide; mod = a layer's [6, D] offset on it.
// "=" overwrites, "+=" accumulates. Sums have a fixed order that depends on shapes alone.
#ifndef ORRERY_KERNELS_OPS_H
#define ORRERY_KERNELS_OPS_H

#include "base/err.h"
#include "base/rng.h"
#include "kernels/device.h"
#include "kernels/mask.h"
#include "kernels/rounding.h"
#include "kernels/tensor.h"

// Which group a token belongs to: token t of a frame belongs to modality slot_modality[t].
struct token_map {
    int64_t frames;               // B*F
    int32_t per_frame;            // P
    int32_t modalities;           // M
    const int32_t *slot_modality; // [P], non-decreasing; host memory
};

// C (=, or += with accumulate) op(A) op(B) + bias, row-major: op(A) is [m, k], op(B) is [k, n].
struct op_gemm_args {
    struct tensor a, b, c; // 2-d, any row stride
    bool trans_a, trans_b, accumulate;
    struct tensor bias; // optional [n], only without accumulate
};

// out[n] (+)= sum over rows of x[rows, n]: the gradient of a bias.
struct op_col_sum_args {
    struct tensor x, out;
    bool accumulate;
};

struct op_silu_args {
    struct tensor x, y;
};
struct op_silu_backward_args {
    struct tensor x, dy, dx; // dx = dy silu'(x); dx may be dy
};

// y[i] = silu(u) w with [u; w] = x's two halves: x [rows, 2h], y [rows, h].
struct op_swiglu_args {
    struct tensor x, y;
};
struct op_swiglu_backward_args {
    struct tensor x, dy, dx; // dx [rows, 2h] =
};

// y = rms(x) (1 + k) + s with rms(x) = x / sqrt(mean x^2 + 1e-6) and (s, k) = columns [which*3D, +D) and
// [(which*3+1)D, +D) of c[group] + mod. rstd [N] is saved for the backward. c or mod absent: y = rms(x).
struct op_norm_mod_args {
    struct tensor x, y, rstd;
    struct tensor c, mod; // [G, 6D], [6, D]; both optional together
    int which;            // 0: before attention, 1: before the MLP
    const struct token_map *map;
};
struct op_norm_mod_backward_args {
    struct tensor x, rstd, dy;
    struct tensor c, mod;
    struct tensor dx;       // += (the residual stream's gradient)
    struct tensor dc, dmod; // +=, their (s, k) columns only
    int which;
    const struct token_map *map;
};

// out = x + (1 + g) y with g = columns [(which*3+2)D, +D) of c[group] + mod; out may be x. y is kept by the
// caller for the backward.
struct op_gated_add_args {
    struct tensor x, y, out, c, mod;
    int which;
    const struct token_map *map;
};
struct op_gated_add_backward_args {
    struct tensor y, dx, c, mod;
    struct tensor dy;       // = (1 + g) dx
    struct tensor dc, dmod; // +=, their g columns only
    int which;
    const struct token_map *map;
};

// Splits qkv [N, (H + 2 Hkv) hd] into rms-normalised, rotated q (also scaled by gamma[h] / hd) and k; v is
// read from qkv in place by attention. Rotation pairs element i with i + hd/2 by the angle table cos/sin [S,
// hd/2], S = F*P positions of one sequence (the same for every sequence; row t mod S). rstd [N, H + Hkv] is
// saved.
struct op_qk_rope_args {
    struct tensor qkv, q, k, rstd; // q [N, H hd], k [N, Hkv hd]
    struct tensor cos, sin, gamma; // gamma [H]
    int heads, kv_heads, head_dim;
    int64_t first_position; // of row 0 of every sequence in the tables (decoding)
    int64_t per_sequence;   // rows per sequence
};
struct op_qk_rope_backward_args {
    struct tensor qkv, rstd, dq, dk;
    struct tensor cos, sin, gamma;
    struct tensor dqkv;   // = its q and k columns; the v columns are attention's
    struct tensor dgamma; // [H] +=
    int heads, kv_heads, head_dim;
    int64_t first_position, per_sequence;
};

// o = softmax(q k^T + mask) v for every sequence and head; logits are already scaled. Row t of sequence b is
// row b*queries + t (keys likewise). lse [B*queries, H] = log sum exp, saved. A query that sees nothing gives
// 0. Memory linear in the sequence; never an S x S matrix. Keys and values that nobody sees are finite
// numbers all the same: their weight is 0, and 0 times NaN is none.
struct op_attention_args {
    struct tensor q, k, v, o, lse; // q, o [B Sq, H hd]; k, v [B Sk, Hkv hd]; any row stride
    int64_t sequences;
    int heads, kv_heads, head_dim;
    const struct mask *mask;         // Sq x Sk, the same for every sequence
    const struct mask *const *masks; // or one per sequence; NULL: use mask
};
struct op_attention_backward_args {
    struct tensor q, k, v, o, lse, d_o;
    struct tensor dq, dk, dv; // =
    int64_t sequences;
    int heads, kv_heads, head_dim;
    const struct mask *mask;
    const struct mask *const *masks;
};

// w = scale N(0, 1): normal number i of the stream (key; step 0, sample 0), i counting row by row (rng.h's
// rng_next_normal); columns from first_cols on take the other scale.
struct op_draw_args {
    struct tensor w;
    struct rng_key key;
    int64_t first_cols;
    double first_scale, rest_scale;
};

// z = tau x + (1 - tau) eps, eps = N(0,1) from Philox(key; step, sample[b], element); x, z [B, F*E]; tau
// [B*F] with the given stride (tau[(b*F+f)*tau_stride]). tau = 1 copies. Zeros instead where hide[b] or
// valid[b*F+f] is 0. Normals: Box-Muller on the block of element/4, elements 4i..4i+3 of sequence b from one
// Philox block.
struct op_noise_args {
    struct tensor x, z, tau;
    int64_t tau_stride, frames;
    struct rng_key key;
    uint32_t step;
    const uint64_t *sample;     // [B], device memory
    const float *hide;          // [B], device memory; optional
    const unsigned char *valid; // [B*F], device memory; optional
};

// How a modality's frame is cut into tokens: [height, width, channels] in patches of patch x patch; token (i,
// j) is number i*(width/patch)+j. Non-visual senses are 1 x tokens x channels with patch 1.
struct patch_grid {
    int32_t height, width, channels, patch, margin;
};
static inline bool patch_grid_fits(const struct patch_grid *g) {
    return g->height > 0 && g->width > 0 && g->channels > 0 && g->patch > 0 && g->margin >= 0 &&
           g->height % g->patch == 0 && g->width % g->patch == 0;
}
static inline int64_t patch_grid_tokens(const struct patch_grid *g) {
    return (int64_t)(g->height / g->patch) * (g->width / g->patch);
}
// Numbers of a frame, of a token's own value, of one of its history slots.
static inline int64_t patch_grid_frame(const struct patch_grid *g) {
    return (int64_t)g->height * g->width * g->channels;
}
static inline int64_t patch_grid_value(const struct patch_grid *g) {
    return (int64_t)g->patch * g->patch * g->channels;
}
static inline int64_t patch_grid_seen(const struct patch_grid *g) {
    int64_t side = g->patch + 2 * (int64_t)g->margin;
    return side * side * g->channels;
}

// Rows for the embedding GEMM, [B F n, value + slots * seen]: c_in(tau) * patch of z(f), then for i
// = 1..slots the patch with its margin (value outside the picture or before frame 0: zero) of history(f - i).
// c_in = tau / (tau^2 + (1 - tau)^2). value = patch^2 C, seen = (patch + 2 margin)^2 C.
struct op_patchify_args {
    struct tensor z, history, tau, rows; // z, history [B*F, H W C]
    int64_t tau_stride, frames;
    int slots;
    struct patch_grid grid;
};

// frame [B*F, H W C] = token rows [B*F*n, patch^2 C]; rows may have a stride.
struct op_unpatchify_args {
    struct tensor rows, frame;
    struct patch_grid grid;
};

// x[token] = e_m[its row] + slot[t] + act[frame]: gathers the modalities' embeddings into frame-major tokens.
#define OPS_MODALITIES_MAX 16
struct op_assemble_args {
    struct tensor x;                     // [N, D]
    struct tensor e[OPS_MODALITIES_MAX]; // [B F n_m, D]
    struct tensor slot, act;             // [P, D], [B F, D] (act optional)
    const struct token_map *map;
};
struct op_assemble_backward_args {
    struct tensor dx;
    struct tensor de[OPS_MODALITIES_MAX]; // = (data NULL: not wanted)
    struct tensor dslot;                  // +=
    struct tensor dact;                   // =
    const struct token_map *map;
};

// gather: rows = x;  scatter: x = rows. The rows of one modality: rows [B F n_m, D] <-> x [N, D].
struct op_gather_args {
    struct tensor x, rows;
    int modality;
    const struct token_map *map;
};
struct op_scatter_args {
    struct tensor x, rows;
    int modality;
    const struct token_map *map;
};

// The embedding of noise levels, one row per group: for tau of the group, of the frame's action group and of
// the frame's history: cos and sin of pi tau {0.5, 1, 2, 4}; then one-hot of the modality. out [G, 24 + M].
struct op_cond_features_args {
    struct tensor tau, tau_history, out; // tau [B F, M], tau_history [B F]
    int action; // index of the action modality, -1: none (its features are those of tau = 0)
};

// Masked squared error of one modality in patch layout. For frames with active[bf] != 0:
//   loss += scale w(tau) mean_over_elements (pred - x)^2 ;  dpred = its gradient (0 elsewhere; = ).
// scale = lambda / number of active frames of the whole global batch. loss_sum: one double, +=, without
// lambda (plain weighted mean before scale), so that the caller can log per modality.
struct op_loss_args {
    struct tensor pred;   // [B F n, patch^2 C]
    struct tensor target; // [B F, H W C]
    struct tensor tau;    // [B F] with tau_stride
    int64_t tau_stride;
    const float *active; // [B F], device memory: 0 or 1
    struct tensor dpred; // optional
    const float *scale;  // one number, device memory
    int weighting;       // 0 one, 1 ramp, 2 v
    struct patch_grid grid;
    double *loss_sum; // device memory
};

// What an update reads of its step, in device memory: it is queued before the host knows whether it will be
// applied, and one that was recorded is repeated with other numbers.
struct op_update {
    float rate;
    float step_size, v_scale; // AdamW: rate / (1 - beta1^step), 1 / (1 - beta2^step)
    float rest;               // of the average: 1 - decay
    uint32_t step;            // from 1
    float grad_scale;         // judge's: the clip factor
    int32_t skip;             // judge's: 1: weights, moments and average stay as they are
};
// Without clipping, not skipped.
struct op_update op_update(float rate, float beta1, float beta2, float decay, int64_t step);

// What all ranks told of a step: may its update be applied, and by how much is the gradient clipped? It may
// not when a gradient, the loss or the norm is not finite, or the norm is above `spike`. loss = sum over
// senses of weight sum(losses) / frames, without those of 0 frames; norm = sqrt(sum of squares). Sums in the
// tables' order, in double: the same norm on every device.
struct op_verdict {
    double norm;
    int64_t nonfinite, skip;
};
struct op_judge_args {
    const double *told; // the counts among them are int64_t
    // Where in `told`: [squares] of the norm, [counts] of bad numbers, [senses, shards] losses.
    const int32_t *at;
    int32_t squares, counts, senses, shards;
    const double *frames, *weight; // [senses]
    double clip, spike;            // 0: none
    struct op_update *update;      // grad_scale and skip =
    struct op_verdict *verdict;    // = ; all pointers are device memory
};

// How the copy of the weights in bf16 is rounded: to nearest even, or at random (rounding.h).
struct op_rounding {
    bool stochastic;
    struct rng_key key;
};

// One tensor of an update: n numbers from `at` of w, g, m, average and low and from `v` of v.
struct op_adamw_part {
    int64_t at, v, n; // at and v are multiples of ROUNDING_GROUP
    float weight_decay;
};

// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = w (1 - rate wd) - step_size m / (sqrt(v v_scale) + eps)
// with g scaled first; then average += rest (w - average) and low = w in bf16, which a skipped step rounds
// anew too. All tensors at once; what lies between them is not touched.
struct op_adamw_args {
    struct tensor w, g, m, v;
    struct tensor average, low;       // each optional; low is bf16
    const struct op_adamw_part *part; // host
    int parts;
    float beta1, beta2, eps;
    struct op_rounding rounding;
    int64_t first; // number of w's first element among all parameters, a multiple of ROUNDING_GROUP
    const struct op_update *now;
};

// Muon on matrices of one shape: m = momentum m + g; u = g + momentum m; five Newton-Schulz steps on u /
// (|u|_F + 1e-7) with (3.4445, -4.7750, 2.0315); w = w (1 - rate wd) - rate 0.2 sqrt(max(rows, cols)) u;
// average and low as in adamw. A matrix's bits do not depend on what else is in its batch, nor on how many:
// how many equal ones a rank owns depends on the number of ranks. What lies between the matrices is not
// touched.
struct op_muon_args {
    struct tensor w, g, m;      // [n]
    struct tensor average, low; // likewise, each optional; low is bf16
    struct tensor work; // op_muon_work_elems(rows, cols, count) floats; on a GPU at a multiple of 256 bytes
    int64_t rows, cols; // of each matrix, which lies without gaps
    const int64_t *at;  // host, [count]: where in w, g, m, average and low each starts; no two overlap
    int count;          // 1 .. op_muon_most(rows, cols)
    float momentum, weight_decay;
    struct op_rounding rounding;
    int64_t first; // number of w's first element among all parameters
    const struct op_update *now;
};
enum { OPS_MUON_MOST = 256 }; // the most that op_muon_most gives
// The largest batch that is of use, a function of the shape alone: enough tiles of 128 x 128 of the smallest
// product that each multiprocessor of a large GPU has about two, and no more than 2^24 numbers, so that
// several take at most 256 MiB of work.
int op_muon_most(int64_t rows, int64_t cols);
// Floats that one matrix of a batch takes twice over for X, and twice over for its Gram matrix: padded, so
// that each begins at a multiple of 256 bytes in fp32 and in bf16.
int64_t op_muon_padded(int64_t elems);
int64_t op_muon_work_elems(int64_t rows, int64_t cols, int count);

struct op_ema_args {
    struct tensor average, w;    // average += now->rest (w - average)
    const struct op_update *now; // NULL: its rest is 1, for a copy
};

// n numbers from `at` on.
struct op_squares_part {
    int64_t at, n;
};

// Of each part: sum of x^2 in double, blocks of 4096 elements in a fixed order; also counts non-finite
// elements. A part's bits do not depend on the others.
struct op_sum_squares_args {
    struct tensor x;
    const struct op_squares_part *part; // host
    int parts;
    double *sum;        // = [parts]; device memory
    int64_t *nonfinite; // = [parts]; device memory
};

// y = x; fp32 and bf16 in any combination. Rounded to nearest even, or (fp32 to bf16) at random.
struct op_cast_args {
    struct tensor x, y;
    struct op_rounding rounding;
    uint32_t step;               // that random rounding is keyed by; with `now`: so many before its step
    const struct op_update *now; // optional, device memory
    int64_t first; // number of x's first element among all parameters; row after row without gaps
};

// OP(name): the function `name` of struct ops with `const struct op_<name>_args *`.
struct ops {
#define OP(name, doc) int (*name)(struct device * d, const struct op_##name##_args *a, struct err *e);
#include "kernels/ops.def"
#undef OP
};

#endif
