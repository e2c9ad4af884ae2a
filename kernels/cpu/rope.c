// SPDX-License-Identifier: Apache-2.0
// QK-norm and rotation. With n = x r, r = 1 / sqrt(mean x^2 + 1e-6) over a head, R the rotation of pairs (i,
// i + hd/2):
//   q = R n gamma/hd, k = R n;   with u = R^T dout, t = sum u n:  dx = s r (u - n t/hd), s = gamma/hd or 1
//   dgamma = sum over tokens of t/hd. Rows are summed in blocks of 64, blocks in order.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#define ROPE_EPS 1e-6f
enum { ROPE_ROWS = 64 };

struct rope_angles {
    const float *cos, *sin;
};

static void rope_head(const float *x, float *out, float *rstd, float scale, int hd, struct rope_angles w) {
    int half = hd / 2;
    vf sum = {0};
    for (int i = 0; i < hd; i += VW) {
        vf v = vf_load_n(x + i, hd - i);
        sum = vf_fma(v, v, sum);
    }
    float r = 1.0f / sqrtf(vf_sum(sum) / (float)hd + ROPE_EPS), s = r * scale;
    *rstd = r;
    for (int i = 0; i < half; i += VW) {
        int left = half - i;
        vf a = vf_load_n(x + i, left) * s, b = vf_load_n(x + half + i, left) * s;
        vf c = vf_load_n(w.cos + i, left), n = vf_load_n(w.sin + i, left);
        vf_store_n(out + i, a * c - b * n, left);
        vf_store_n(out + half + i, a * n + b * c, left);
    }
}

struct rope_job {
    const struct op_qk_rope_args *a;
};

static void rope_task(void *arg, int64_t task) {
    const struct op_qk_rope_args *a = ((const struct rope_job *)arg)->a;
    int64_t end = cpu_min(a->qkv.shape[0], (task + 1) * ROPE_ROWS);
    int hd = a->head_dim, all = a->heads + a->kv_heads;
    for (int64_t row = task * ROPE_ROWS; row < end; row++) {
        int64_t position = a->first_position + row % a->per_sequence;
        struct rope_angles w = {cpu_row(&a->cos, position), cpu_row(&a->sin, position)};
        const float *x = cpu_row(&a->qkv, row);
        float *rstd = tensor_f32(&a->rstd) + row * all;
        for (int h = 0; h < all; h++) {
            bool is_q = h < a->heads;
            float *out = is_q ? cpu_row(&a->q, row) + h * hd : cpu_row(&a->k, row) + (h - a->heads) * hd;
            rope_head(x + h * hd, out, rstd + h, is_q ? tensor_f32(&a->gamma)[h] / (float)hd : 1.0f, hd, w);
        }
    }
}

// What forward and backward have in common.
static bool rope_shapes_fit(int heads, int kv_heads, int hd, int64_t first, int64_t per_sequence,
                            const struct tensor *cosines, const struct tensor *sines) {
    int64_t positions = cosines->shape[0];
    return heads > 0 && kv_heads > 0 && hd > 0 && hd % 2 == 0 && per_sequence > 0 && first >= 0 &&
           first + per_sequence <= positions && cpu_is_rows(cosines, positions, hd / 2) &&
           cpu_is_rows(sines, positions, hd / 2);
}

int CPU_FN(qk_rope)(struct device *d, const struct op_qk_rope_args *a, struct err *e) {
    int64_t rows = a->qkv.shape[0], hd = a->head_dim;
    CPU_REQUIRE(rope_shapes_fit(a->heads, a->kv_heads, a->head_dim, a->first_position, a->per_sequence,
                                &a->cos, &a->sin));
    CPU_REQUIRE(cpu_is_rows(&a->qkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CPU_REQUIRE(cpu_is_rows(&a->q, rows, a->heads * hd) && cpu_is_rows(&a->k, rows, a->kv_heads * hd));
    CPU_REQUIRE(cpu_is_vector(&a->rstd, rows * (a->heads + a->kv_heads)) &&
                cpu_is_vector(&a->gamma, a->heads));
    struct rope_job job = {a};
    cpu_run(d, cpu_blocks(rows, ROPE_ROWS), rope_task, &job);
    return 0;
}

// Returns t. scale is gamma/hd or 1.
static float rope_head_backward(const float *x, const float *dout, float *dx, float r, float scale, int hd,
                                struct rope_angles w) {
    int half = hd / 2;
    vf dot = {0};
    for (int i = 0; i < half; i += VW) {
        int left = half - i;
        vf a = vf_load_n(dout + i, left), b = vf_load_n(dout + half + i, left);
        vf c = vf_load_n(w.cos + i, left), n = vf_load_n(w.sin + i, left);
        vf ua = a * c + b * n, ub = b * c - a * n;
        dot = vf_fma(ua, vf_load_n(x + i, left) * r, dot);
        dot = vf_fma(ub, vf_load_n(x + half + i, left) * r, dot);
    }
    float t = vf_sum(dot), mean = t / (float)hd * r, s = scale * r;
    for (int i = 0; i < half; i += VW) {
        int left = half - i;
        vf a = vf_load_n(dout + i, left), b = vf_load_n(dout + half + i, left);
        vf c = vf_load_n(w.cos + i, left), n = vf_load_n(w.sin + i, left);
        vf ua = a * c + b * n, ub = b * c - a * n;
        vf_store_n(dx + i, (ua - vf_load_n(x + i, left) * mean) * s, left);
        vf_store_n(dx + half + i, (ub - vf_load_n(x + half + i, left) * mean) * s, left);
    }
    return t;
}

struct rope_backward_job {
    const struct op_qk_rope_backward_args *a;
    float *part; // [blocks, heads]
};

static void rope_backward_task(void *arg, int64_t task) {
    const struct rope_backward_job *j = arg;
    const struct op_qk_rope_backward_args *a = j->a;
    int64_t end = cpu_min(a->qkv.shape[0], (task + 1) * ROPE_ROWS);
    int hd = a->head_dim, all = a->heads + a->kv_heads;
    float *part = j->part + task * a->heads;
    for (int h = 0; h < a->heads; h++) part[h] = 0;
    for (int64_t row = task * ROPE_ROWS; row < end; row++) {
        int64_t position = a->first_position + row % a->per_sequence;
        struct rope_angles w = {cpu_row(&a->cos, position), cpu_row(&a->sin, position)};
        const float *x = cpu_row(&a->qkv, row), *rstd = tensor_f32(&a->rstd) + row * all;
        float *dx = cpu_row(&a->dqkv, row);
        for (int h = 0; h < all; h++) {
            bool is_q = h < a->heads;
            const float *dout =
                is_q ? cpu_row(&a->dq, row) + h * hd : cpu_row(&a->dk, row) + (h - a->heads) * hd;
            float scale = is_q ? tensor_f32(&a->gamma)[h] / (float)hd : 1.0f;
            float t = rope_head_backward(x + h * hd, dout, dx + h * hd, rstd[h], scale, hd, w);
            if (is_q) part[h] += t / (float)hd;
        }
    }
}

int CPU_FN(qk_rope_backward)(struct device *d, const struct op_qk_rope_backward_args *a, struct err *e) {
    int64_t rows = a->qkv.shape[0], hd = a->head_dim, blocks = cpu_blocks(rows, ROPE_ROWS);
    CPU_REQUIRE(rope_shapes_fit(a->heads, a->kv_heads, a->head_dim, a->first_position, a->per_sequence,
                                &a->cos, &a->sin));
    CPU_REQUIRE(cpu_is_rows(&a->qkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CPU_REQUIRE(cpu_is_rows(&a->dqkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CPU_REQUIRE(cpu_is_rows(&a->dq, rows, a->heads * hd) && cpu_is_rows(&a->dk, rows, a->kv_heads * hd));
    CPU_REQUIRE(cpu_is_vector(&a->rstd, rows * (a->heads + a->kv_heads)));
    CPU_REQUIRE(cpu_is_vector(&a->gamma, a->heads) && cpu_is_vector(&a->dgamma, a->heads));
    struct rope_backward_job job = {.a = a};
    int rc = cpu_scratch(d, (void **)&job.part, (size_t)(blocks * a->heads) * sizeof(float), e);
    if (rc != 0) return rc;
    cpu_run(d, blocks, rope_backward_task, &job);
    float *dgamma = tensor_f32(&a->dgamma);
    for (int64_t b = 0; b < blocks; b++) {
        for (int h = 0; h < a->heads; h++) dgamma[h] += job.part[b * a->heads + h];
    }
    return 0;
}
