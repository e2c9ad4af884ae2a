// SPDX-License-Identifier: Apache-2.0
// z = tau x + (1 - tau) eps, eps from Philox and Box-Muller as on the CPU: the same words, normals to a few
// ulps. A thread owns one Philox block, four elements of a sequence. Bytes: x and z once, fp32.
#include "kernels/cuda/kernel.cuh"

extern "C" {
#include "base/rng.h"
}

__device__ __forceinline__ void normal_pair(uint32_t w0, uint32_t w1, float *out) {
    float r = sqrtf(-2.0f * logf(rng_unit(w0))), s, c;
    sincospif(2.0f * rng_unit(w1), &s, &c);
    out[0] = r * c;
    out[1] = r * s;
}

struct noise_shape {
    int64_t sequences, n, per_frame, tau_stride, frames;
    struct rng_key key;
    uint32_t step;
};

static __global__ void noise_kernel(rows_of<const float> x, rows_of<float> z, const float *tau,
                                    const uint64_t *sample, const float *hide, const unsigned char *valid,
                                    noise_shape s) {
    int64_t blocks = (s.n + 3) / 4;
    for (int64_t i = thread_number(); i < s.sequences * blocks; i += thread_count()) {
        int64_t b = i / blocks, first = i % blocks * 4;
        const float *from = x.row(b) + first;
        float *to = z.row(b) + first;
        int n = s.n - first < 4 ? (int)(s.n - first) : 4;
        bool hidden = hide && hide[b] == 0, whole = n == 4 && ((uintptr_t)from | (uintptr_t)to) % 16 == 0;
        float eps[4], v[4] = {0, 0, 0, 0};
        if (!hidden) {
            uint32_t w[4];
            rng_block(s.key, s.step, sample[b], (uint32_t)(first / 4), w);
            normal_pair(w[0], w[1], eps);
            normal_pair(w[2], w[3], eps + 2);
            if (whole) {
                float4 p = *(const float4 *)from;
                v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w;
            } else {
                for (int k = 0; k < n; k++) v[k] = from[k];
            }
            for (int k = 0; k < n; k++) {
                int64_t frame = b * s.frames + (first + k) / s.per_frame;
                float t = tau[frame * s.tau_stride];
                if (valid && !valid[frame])
                    v[k] = 0;
                else if (t != 1.0f)
                    v[k] = fmaf(v[k], t, eps[k] * (1.0f - t));
            }
        }
        if (whole) {
            *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
        } else {
            for (int k = 0; k < n; k++) to[k] = v[k];
        }
    }
}

int cuda_noise(struct device *d, const struct op_noise_args *a, struct err *e) {
    noise_shape s = {a->x.shape[0], a->x.shape[1], 0, a->tau_stride, a->frames, a->key, a->step};
    CUDA_REQUIRE(cuda_is_f32(&a->x, s.sequences, s.n) && cuda_is_f32(&a->z, s.sequences, s.n));
    CUDA_REQUIRE(a->frames > 0 && s.n % a->frames == 0 && s.n / 4 < UINT32_MAX && a->tau.data != NULL &&
                 a->sample != NULL);
    if (s.n == 0 || s.sequences == 0) return 0;
    s.per_frame = s.n / s.frames;
    return CUDA_RUN(d, noise_kernel, cuda_grid(s.sequences * ((s.n + 3) / 4), CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const float>(&a->x), cuda_rows<float>(&a->z), (const float *)a->tau.data,
                    a->sample, a->hide, a->valid, s);
}
