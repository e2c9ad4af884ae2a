// SPDX-License-Identifier: Apache-2.0
// Sums over rows and over everything. col_sum: out[j] (+)= sum over i of x[i, j], fp32. First stage: a block
// owns 32 columns of ROWS rows, its threads every 8th row, added in a fixed tree; second stage: the blocks'
// sums, the same way. sum_squares: blocks of 4096 elements in double, a thread's in fours, then one block
// over them, of several vectors at once. No atomics; the order depends on shapes alone. Bytes: x once.
#include "kernels/cuda/kernel.cuh"

enum {
    COLUMNS = 32,
    LANES = 8,
    ROWS = GPU_SUM_ROWS,
    SQUARES = GPU_SQUARES,
    FOURS = SQUARES / CUDA_THREADS / 4
};

// grid (column blocks, row blocks), block (COLUMNS, LANES); row block b writes out + b out_ld.
template <class T>
static __global__ void col_sum_kernel(rows_of<const T> x, int64_t rows, int64_t cols, float *out,
                                      int64_t out_ld, bool accumulate) {
    __shared__ float part[LANES][COLUMNS];
    int64_t col = (int64_t)blockIdx.x * COLUMNS + threadIdx.x, first = (int64_t)blockIdx.y * ROWS;
    int64_t end = first + ROWS < rows ? first + ROWS : rows;
    float sum = 0;
    for (int64_t r = first + threadIdx.y; col < cols && r < end; r += LANES) sum += number_of(x.row(r)[col]);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || col >= cols) return;
    for (int l = 1; l < LANES; l++) sum += part[l][threadIdx.x];
    float *to = out + (int64_t)blockIdx.y * out_ld + col;
    *to = accumulate ? *to + sum : sum;
}

template <class T>
static int col_sum(struct device *d, rows_of<const T> x, int64_t rows, int64_t cols, float *out,
                   bool accumulate, float *scratch, struct err *e) {
    int64_t blocks = cuda_blocks(rows, ROWS);
    dim3 grid((unsigned)cuda_blocks(cols, COLUMNS), (unsigned)blocks), block(COLUMNS, LANES);
    if (blocks > 65535) return err_set(e, ERR_BUG, "col_sum: %lld rows are too many", (long long)rows);
    bool last = blocks <= 1;
    if (rows == 0) grid.y = 1; // writes the empty sum
    int rc = cuda_check(LAUNCH((col_sum_kernel<T>), grid, block, 0, cuda_of(d)->stream, x, rows, cols,
                               last ? out : scratch, cols, last && accumulate),
                        "col_sum", e);
    if (rc || last) return rc;
    return col_sum<float>(d, rows_of<const float>{scratch, cols}, blocks, cols, out, accumulate,
                          scratch + blocks * cols, e);
}

int cuda_col_sum_f32(struct device *d, const float *x, int64_t ld, int64_t rows, int64_t cols, float *out,
                     bool accumulate, void *scratch, struct err *e) {
    return col_sum<float>(d, rows_of<const float>{x, ld}, rows, cols, out, accumulate, (float *)scratch, e);
}

int cuda_col_sum(struct device *d, const struct op_col_sum_args *a, struct err *e) {
    int64_t rows = a->x.shape[0], cols = a->x.shape[1];
    CUDA_REQUIRE(cuda_is_rows(&a->x, rows, cols) && cuda_is_vector(&a->out, cols));
    void *scratch = NULL;
    int rc = cuda_scratch(d, &scratch, gpu_col_sum_bytes(rows, cols), e);
    if (rc) return rc;
    if (a->x.dtype == DTYPE_BF16)
        return col_sum<bf16>(d, cuda_rows<const bf16>(&a->x), rows, cols, tensor_f32(&a->out), a->accumulate,
                             (float *)scratch, e);
    return col_sum<float>(d, cuda_rows<const float>(&a->x), rows, cols, tensor_f32(&a->out), a->accumulate,
                          (float *)scratch, e);
}

static_assert(sizeof(struct cuda_squares) == GPU_SQUARES_BYTES, "what plans count with");

// A launch's parts are its argument.
enum { PARTS = 128 };
struct squares_walk {
    const float *x;
    int parts;
    op_squares_part part[PARTS];
    int32_t first_block[PARTS + 1];
};

// A block's numbers, `left` of them, a thread's in fours; whole and aligned ones four at a time.
__device__ __forceinline__ void load_fours(const float *x, int left, float (&v)[FOURS][4]) {
    if (left == SQUARES && (uintptr_t)x % 16 == 0) {
#pragma unroll
        for (int k = 0; k < FOURS; k++) {
            float4 four = ((const float4 *)x)[k * CUDA_THREADS + threadIdx.x];
            v[k][0] = four.x, v[k][1] = four.y, v[k][2] = four.z, v[k][3] = four.w;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < FOURS * 4; i++) {
        int at = (i / 4 * CUDA_THREADS + (int)threadIdx.x) * 4 + i % 4;
        v[i / 4][i % 4] = at < left ? x[at] : 0;
    }
}

static __global__ void squares_kernel(const __grid_constant__ squares_walk w, struct cuda_squares *out) {
    __shared__ double part[CUDA_THREADS / CUDA_WARP];
    int number = part_at(w.first_block, w.parts, (int32_t)blockIdx.x);
    int64_t first = (int64_t)((int)blockIdx.x - w.first_block[number]) * SQUARES,
            rest = w.part[number].n - first;
    int left = rest < SQUARES ? (int)rest : (int)SQUARES;
    const float *x = w.x + w.part[number].at + first;
    float v[FOURS][4];
    double sum = 0;
    load_fours(x, left, v);
#pragma unroll
    for (int k = 0; k < FOURS; k++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sum = fma((double)v[k][j], (double)v[k][j], sum);
    }
    // Squares of finite floats cannot overflow a double: a sound sum means that all numbers are.
    double bad = 0;
    if (__syncthreads_or(!isfinite(sum))) {
        for (int i = 0; i < FOURS * 4; i++) bad += !isfinite(v[i / 4][i % 4]);
        bad = block_sum(bad, part);
        __syncthreads();
    }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) out[blockIdx.x] = cuda_squares{sum, bad};
}

// A block per part: its sums go to `result`, and where the pointers say.
static __global__ void squares_end_kernel(const __grid_constant__ squares_walk w, const cuda_squares *blocks,
                                          cuda_squares *result, double *sum_to, int64_t *bad_to) {
    __shared__ double part[2][CUDA_THREADS / CUDA_WARP];
    double sum = 0, bad = 0;
    for (int i = w.first_block[blockIdx.x] + (int)threadIdx.x; i < w.first_block[blockIdx.x + 1];
         i += CUDA_THREADS) {
        sum += blocks[i].sum;
        bad += blocks[i].bad;
    }
    sum = block_sum(sum, part[0]);
    bad = block_sum(bad, part[1]);
    if (threadIdx.x != 0) return;
    result[blockIdx.x] = cuda_squares{sum, bad};
    if (sum_to) sum_to[blockIdx.x] = sum;
    if (bad_to) bad_to[blockIdx.x] = (int64_t)bad;
}

// Results of all parts come first in the work. `sum` and `nonfinite` may be NULL.
static int sum_squares(struct device *d, const float *x, const struct op_squares_part *part, int parts,
                       struct cuda_squares *work, double *sum, int64_t *nonfinite, struct err *e) {
    struct cuda_squares *blocks = work + parts;
    int rc = 0;
    for (int from = 0; !rc && from < parts; from += PARTS) {
        squares_walk w = {x, parts - from < PARTS ? parts - from : (int)PARTS};
        for (int i = 0; i < w.parts; i++) {
            w.part[i] = part[from + i];
            w.first_block[i + 1] = w.first_block[i] + (int32_t)gpu_squares_blocks(w.part[i].n);
        }
        int32_t n = w.first_block[w.parts];
        if (n > 0) rc = CUDA_RUN(d, squares_kernel, n, CUDA_THREADS, 0, w, blocks);
        if (!rc)
            rc = CUDA_RUN(d, squares_end_kernel, w.parts, CUDA_THREADS, 0, w, (const cuda_squares *)blocks,
                          work + from, sum ? sum + from : NULL, nonfinite ? nonfinite + from : NULL);
        blocks += n;
    }
    return rc;
}

int cuda_sum_squares_of(struct device *d, const float *x, const struct op_squares_part *part, int parts,
                        struct cuda_squares *work, struct err *e) {
    return sum_squares(d, x, part, parts, work, NULL, NULL, e);
}

int cuda_sum_squares(struct device *d, const struct op_sum_squares_args *a, struct err *e) {
    int64_t n = tensor_elems(&a->x), blocks = 0;
    CUDA_REQUIRE(n == 0 || cuda_is_vector(&a->x, n));
    CUDA_REQUIRE(a->sum != NULL && a->nonfinite != NULL && a->parts >= 0);
    for (int i = 0; i < a->parts; i++) {
        const struct op_squares_part *p = &a->part[i];
        CUDA_REQUIRE(p->at >= 0 && p->n >= 0 && p->at + p->n <= n);
        blocks += gpu_squares_blocks(p->n);
    }
    CUDA_REQUIRE(cuda_is_few(blocks));
    void *scratch = NULL;
    int rc = cuda_scratch(d, &scratch, gpu_squares_bytes(blocks, a->parts), e);
    return rc ? rc
              : sum_squares(d, (const float *)a->x.data, a->part, a->parts, (struct cuda_squares *)scratch,
                            a->sum, a->nonfinite, e);
}
