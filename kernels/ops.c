// SPDX-License-Identifier: Apache-2.0
// What every back end agrees on.
#include "kernels/ops.h"

// The momentum's direction and the next iterate [r, c], two r x r products; r the smaller side.
int64_t op_muon_work_elems(int64_t rows, int64_t cols) {
    int64_t r = rows < cols ? rows : cols;
    return 2 * rows * cols + 2 * r * r;
}

static double power(double base, int64_t n) {
    double result = 1;
    for (; n > 0; n >>= 1, base *= base)
        if (n & 1) result *= base;
    return result;
}

struct op_update op_update(float rate, float beta1, float beta2, float decay, int64_t step) {
    return (struct op_update){.rate = rate,
                              .step_size = (float)((double)rate / (1 - power((double)beta1, step))),
                              .v_scale = (float)(1 / (1 - power((double)beta2, step))),
                              .rest = 1.0f - decay,
                              .step = (uint32_t)step,
                              .grad_scale = 1};
}
