// SPDX-License-Identifier: Apache-2.0
// What every back end agrees on.
#include "kernels/ops.h"

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// The Gram matrix, of the smaller side, is the smallest product. Multiprocessors: 132 of an H100, 148 of a
// B200.
int op_muon_most(int64_t rows, int64_t cols) {
    enum { TILE = 128, TILES = OPS_MUON_MOST, ELEMS = 1 << 24 };
    int64_t edge = (least(rows, cols) + TILE - 1) / TILE, tiles = edge * edge;
    int64_t most = least((TILES + tiles - 1) / tiles, ELEMS / (rows * cols));
    return most > 1 ? (int)most : 1;
}

int64_t op_muon_padded(int64_t elems) {
    return (elems + 127) / 128 * 128;
}

// The momentum's direction and the next iterate [r, c], two r x r products; r the smaller side.
int64_t op_muon_work_elems(int64_t rows, int64_t cols, int count) {
    int64_t r = least(rows, cols);
    return count * 2 * (op_muon_padded(rows * cols) + op_muon_padded(r * r));
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
