// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

struct attention_job {
    const struct op_attention_args *a;
    float *logits; // [tasks, Sk]
};

static float dot(const float *x, const float *y, int n) {
    vf sum = {0};
    for (int i = 0; i < n; i += VW) sum = vf_fma(vf_load_n(x + i, n - i), vf_load_n(y + i, n - i), sum);
    return vf_sum(sum);
}

static void attend(const struct op_attention_args *a, const struct mask *m, const struct mask_run *run,
                   int64_t b, int h, int64_t q, float *p) {
    int hd = a->head_dim, hk = h / (a->heads / a->kv_heads);
    const float *x = cpu_row(&a->q, b * m->queries + q) + h * hd;
    float *o = cpu_row(&a->o, b * m->queries + q) + h * hd, top = -INFINITY, sum = 0;
    for (int i = 0; i < hd; i++) o[i] = 0;
    for (int32_t v = run->first; v < run->first + run->count; v++) {
        for (int64_t k = m->intervals[v].lo; k < m->intervals[v].hi; k++) {
            p[k] = dot(x, cpu_row(&a->k, b * m->keys + k) + hk * hd, hd);
            top = p[k] > top ? p[k] : top;
        }
    }
    for (int32_t v = run->first; v < run->first + run->count; v++) {
        for (int64_t k = m->intervals[v].lo; k < m->intervals[v].hi; k++) {
            float w = expf(p[k] - top);
            const float *value = cpu_row(&a->v, b * m->keys + k) + hk * hd;
            sum += w;
            for (int i = 0; i < hd; i++) o[i] += w * value[i];
        }
    }
    for (int i = 0; i < hd; i++) o[i] = sum > 0 ? o[i] / sum : 0;
    cpu_row(&a->lse, b * m->queries + q)[h] = sum > 0 ? top + logf(sum) : -INFINITY;
}

static void attention_task(void *arg, int64_t task) {
    const struct attention_job *j = arg;
    const struct op_attention_args *a = j->a;
    int64_t b = task / a->heads;
    const struct mask *m = a->masks != NULL ? a->masks[b] : a->mask;
    for (int32_t r = 0; r < m->n_runs; r++) {
        for (int64_t q = m->runs[r].q_lo; q < m->runs[r].q_hi; q++) {
            attend(a, m, &m->runs[r], b, (int)(task % a->heads), q, j->logits + task * m->keys);
        }
    }
}

int CPU_FN(attention)(struct device *d, const struct op_attention_args *a, struct err *e) {
    const struct mask *m = a->masks != NULL ? a->masks[0] : a->mask;
    struct attention_job job = {.a = a};
    int rc =
        cpu_scratch(d, (void **)&job.logits, (size_t)(a->sequences * a->heads * m->keys) * sizeof(float), e);
    if (rc != 0) return rc;
    cpu_run(d, a->sequences * a->heads, attention_task, &job);
    return 0;
}
