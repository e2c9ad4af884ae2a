// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

static float dot(const float *x, const float *y, int n) {
    vf sum = {0};
    for (int i = 0; i < n; i += VW) sum = vf_fma(vf_load_n(x + i, n - i), vf_load_n(y + i, n - i), sum);
    return vf_sum(sum);
}

static void backward_query(const struct op_attention_backward_args *a, const struct mask *m,
                           const struct mask_run *run, int64_t b, int h, int64_t q) {
    int hd = a->head_dim, hk = h / (a->heads / a->kv_heads);
    int64_t row = b * m->queries + q;
    const float *x = cpu_row(&a->q, row) + h * hd, *g = cpu_row(&a->d_o, row) + h * hd;
    float *dx = cpu_row(&a->dq, row) + h * hd, lse = cpu_row(&a->lse, row)[h];
    float delta = dot(g, cpu_row(&a->o, row) + h * hd, hd);
    for (int32_t v = run->first; v < run->first + run->count; v++) {
        for (int64_t k = m->intervals[v].lo; k < m->intervals[v].hi; k++) {
            const float *key = cpu_row(&a->k, b * m->keys + k) + hk * hd,
                        *value = cpu_row(&a->v, b * m->keys + k) + hk * hd;
            float *dk = cpu_row(&a->dk, b * m->keys + k) + hk * hd,
                  *dv = cpu_row(&a->dv, b * m->keys + k) + hk * hd;
            float p = expf(dot(x, key, hd) - lse), ds = p * (dot(g, value, hd) - delta);
            for (int i = 0; i < hd; i++) {
                dv[i] += p * g[i];
                dk[i] += ds * x[i];
                dx[i] += ds * key[i];
            }
        }
    }
}

static void clear(struct tensor *t, int64_t row, int64_t lo, int64_t n) {
    for (int64_t i = 0; i < n; i++) cpu_row(t, row)[lo + i] = 0;
}

static void backward_task(void *arg, int64_t task) {
    struct op_attention_backward_args *a = arg;
    int64_t b = task / a->kv_heads;
    int hk = (int)(task % a->kv_heads), group = a->heads / a->kv_heads;
    const struct mask *m = a->masks != NULL ? a->masks[b] : a->mask;
    for (int64_t k = 0; k < m->keys; k++) {
        clear(&a->dk, b * m->keys + k, hk * a->head_dim, a->head_dim);
        clear(&a->dv, b * m->keys + k, hk * a->head_dim, a->head_dim);
    }
    for (int64_t q = 0; q < m->queries; q++)
        clear(&a->dq, b * m->queries + q, hk * group * a->head_dim, group * a->head_dim);
    for (int h = hk * group; h < (hk + 1) * group; h++) {
        for (int32_t r = 0; r < m->n_runs; r++) {
            for (int64_t q = m->runs[r].q_lo; q < m->runs[r].q_hi; q++)
                backward_query(a, m, &m->runs[r], b, h, q);
        }
    }
}

int CPU_FN(attention_backward)(struct device *d, const struct op_attention_backward_args *a, struct err *e) {
    struct op_attention_backward_args job = *a;
    cpu_run(d, a->sequences * a->kv_heads, backward_task, &job);
    return 0;
}
