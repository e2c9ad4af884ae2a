// SPDX-License-Identifier: Apache-2.0
// z = tau x + (1 - tau) eps. Philox and Box-Muller on a vector of blocks at a time; block i gives elements
// 4i..4i+3: r cos, r sin of words (0, 1), then of words (2, 3), with r = sqrt(-2 ln u0), angle = 2 pi u1, u
// as in rng_unit.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

enum { NOISE_CHUNK = 4 * VW, NOISE_TASK = 64 * NOISE_CHUNK };

SIMD_INLINE vf unit_of(vu bits) {
    return (__builtin_convertvector((vi)(bits >> 9), vf) + 0.5f) * (1.0f / 8388608.0f);
}

SIMD_INLINE void normal_pair(vu w0, vu w1, vf *a, vf *b) {
    vf r = vf_sqrt(vf_log(unit_of(w0)) * -2.0f), s, c;
    vf_sincos_turns(unit_of(w1), &s, &c);
    *a = r * c;
    *b = r * s;
}

// The normals of blocks first .. first + VW - 1.
static void normals(struct rng_key key, uint32_t step, uint64_t sample, uint32_t first,
                    float out[NOISE_CHUNK]) {
    uint32_t lane[VW];
    for (uint32_t i = 0; i < VW; i++) lane[i] = first + i;
    vu c0, c1 = vu_set1((uint32_t)sample), c2 = vu_set1((uint32_t)(sample >> 32)), c3 = vu_set1(step);
    memcpy(&c0, lane, sizeof c0);
    uint32_t k0 = key.k0, k1 = key.k1;
    for (int round = 0; round < 10; round++) {
        vu h0, l0, h1, l1;
        vu_mul_wide(c0, 0xD2511F53u, &h0, &l0);
        vu_mul_wide(c2, 0xCD9E8D57u, &h1, &l1);
        c0 = h1 ^ c1 ^ k0;
        c2 = h0 ^ c3 ^ k1;
        c1 = l1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vf n[4];
    normal_pair(c0, c1, &n[0], &n[1]);
    normal_pair(c2, c3, &n[2], &n[3]);
    for (int i = 0; i < VW; i++) {
        for (int w = 0; w < 4; w++) out[4 * i + w] = n[w][i];
    }
}

struct noise_job {
    const struct op_noise_args *a;
    int64_t per_frame, tasks; // elements of a frame; tasks of a sequence
};

static void mix(float *z, const float *x, const float *eps, float tau, int64_t n) {
    float rest = 1.0f - tau;
    for (int64_t i = 0; i < n; i += VW) {
        vf v = vf_load_n(x + i, n - i);
        if (rest != 0) v = vf_fma(v, vf_set1(tau), vf_load_n(eps + i, n - i) * rest);
        vf_store_n(z + i, v, n - i);
    }
}

static void noise_chunk(const struct noise_job *j, int64_t b, int64_t lo, int64_t hi) {
    const struct op_noise_args *a = j->a;
    const float *tau = tensor_f32(&a->tau) + b * a->frames * a->tau_stride;
    float eps[NOISE_CHUNK];
    bool drawn = false;
    while (lo < hi) {
        int64_t f = lo / j->per_frame, end = cpu_min(hi, (f + 1) * j->per_frame);
        int64_t start = lo / NOISE_CHUNK * NOISE_CHUNK;
        float t = tau[f * a->tau_stride];
        if (t != 1.0f && !drawn) {
            normals(a->key, a->step, a->sample[b], (uint32_t)(start / 4), eps);
            drawn = true;
        }
        mix(cpu_row(&a->z, b) + lo, cpu_row(&a->x, b) + lo, eps + (lo - start), t, end - lo);
        lo = end;
    }
}

static void noise_task(void *arg, int64_t task) {
    const struct noise_job *j = arg;
    int64_t b = task / j->tasks, lo = task % j->tasks * NOISE_TASK;
    int64_t hi = cpu_min(lo + NOISE_TASK, j->per_frame * j->a->frames);
    if (j->a->hide != NULL && j->a->hide[b] == 0) {
        memset(cpu_row(&j->a->z, b) + lo, 0, (size_t)(hi - lo) * sizeof(float));
        return;
    }
    for (; lo < hi; lo += NOISE_CHUNK) noise_chunk(j, b, lo, cpu_min(hi, lo + NOISE_CHUNK));
}

int CPU_FN(noise)(struct device *d, const struct op_noise_args *a, struct err *e) {
    int64_t sequences = a->x.shape[0], n = a->x.shape[1];
    CPU_REQUIRE(cpu_is_rows(&a->x, sequences, n) && cpu_is_rows(&a->z, sequences, n));
    CPU_REQUIRE(a->frames > 0 && n % a->frames == 0 && n / 4 < UINT32_MAX && a->tau.data != NULL &&
                a->sample != NULL);
    if (n == 0) return 0;
    struct noise_job job = {a, n / a->frames, cpu_blocks(n, NOISE_TASK)};
    cpu_run(d, sequences * job.tasks, noise_task, &job);
    for (int64_t f = 0; a->valid != NULL && f < sequences * a->frames; f++) {
        float *to = cpu_row(&a->z, f / a->frames) + f % a->frames * job.per_frame;
        if (!a->valid[f]) memset(to, 0, (size_t)job.per_frame * sizeof *to);
    }
    return 0;
}
