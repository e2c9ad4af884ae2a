// SPDX-License-Identifier: Apache-2.0
// What every back end agrees on.
#include "kernels/ops.h"

// The momentum's direction and the next iterate [r, c], two r x r products; r the smaller side.
int64_t op_muon_work_elems(int64_t rows, int64_t cols) {
    int64_t r = rows < cols ? rows : cols;
    return 2 * rows * cols + 2 * r * r;
}
