// SPDX-License-Identifier: Apache-2.0
// Starting weights: the words of the CPU's stream, so the same normals to a rounding of the double functions.
// A thread owns one Philox block, two elements. Bytes: w once, fp32; bound by double log and cos.
#include "kernels/cuda/kernel.cuh"

extern "C" {
#include "base/rng.h"
}

struct draw_shape {
    int64_t n, cols, first_cols;
    double first_scale, rest_scale;
    struct rng_key key;
};

static __global__ void draw_kernel(rows_of<float> w, draw_shape s) {
    for (int64_t block = thread_number(); block < (s.n + 1) / 2; block += thread_count()) {
        uint32_t words[4];
        rng_block(s.key, 0, 0, (uint32_t)block, words);
        for (int k = 0; k < 2 && 2 * block + k < s.n; k++) {
            int64_t i = 2 * block + k, col = i % s.cols;
            double radius = ((double)words[2 * k] + 0.5) * (1.0 / 4294967296.0);
            double angle = (double)words[2 * k + 1] * (6.283185307179586 / 4294967296.0);
            double scale = col < s.first_cols ? s.first_scale : s.rest_scale;
            w.row(i / s.cols)[col] = (float)(scale * (sqrt(-2.0 * log(radius)) * cos(angle)));
        }
    }
}

int cuda_draw(struct device *d, const struct op_draw_args *a, struct err *e) {
    draw_shape s = {tensor_elems(&a->w), a->w.shape[1], a->first_cols, a->first_scale, a->rest_scale, a->key};
    CUDA_REQUIRE(cuda_is_f32(&a->w, a->w.shape[0], s.cols) && s.n / 2 < UINT32_MAX);
    if (s.n == 0) return 0;
    return CUDA_RUN(d, draw_kernel, cuda_grid((s.n + 1) / 2, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<float>(&a->w), s);
}
