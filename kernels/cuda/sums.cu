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

// Four numbers from x on, of which `left` are there; all at once where they are aligned.
template <bool ALIGNED> __device__ __forceinline__ void load_four(const float *x, int left, float *v) {
    if (ALIGNED && left >= 4) {
        float4 four = *(const float4 *)x;
        v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
        for (int j = 0; j < 4; j++) v[j] = j < left ? x[j] : 0;
    }
}

// Grid (blocks, vectors); vector v lies at x + v apart, its blocks' sums at out + v (blocks + 1).
template <bool ALIGNED>
static __global__ void squares_kernel(const float *x, int64_t n, int64_t apart, struct cuda_squares *out) {
    __shared__ double part[CUDA_THREADS / CUDA_WARP];
    int64_t first = (int64_t)blockIdx.x * SQUARES;
    int left = n - first < SQUARES ? (int)(n - first) : (int)SQUARES;
    float v[FOURS][4];
    double sum = 0;
    x += blockIdx.y * apart + first;
#pragma unroll
    for (int k = 0; k < FOURS; k++) {
        int at = (k * CUDA_THREADS + (int)threadIdx.x) * 4;
        load_four<ALIGNED>(x + at, left - at, v[k]);
    }
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
    if (threadIdx.x == 0) out[blockIdx.y * (gridDim.x + 1) + blockIdx.x] = cuda_squares{sum, bad};
}

// A block per vector: its sums go behind those of its blocks, or where the pointers say.
static __global__ void squares_end_kernel(struct cuda_squares *x, int64_t n, double *sum_to,
                                          int64_t *bad_to) {
    __shared__ double part[2][CUDA_THREADS / CUDA_WARP];
    double sum = 0, bad = 0;
    x += blockIdx.x * (n + 1);
    for (int64_t i = threadIdx.x; i < n; i += CUDA_THREADS) {
        sum += x[i].sum;
        bad += x[i].bad;
    }
    sum = block_sum(sum, part[0]);
    bad = block_sum(bad, part[1]);
    if (threadIdx.x != 0) return;
    x[n] = cuda_squares{sum, bad};
    if (sum_to) *sum_to = sum;
    if (bad_to) *bad_to = (int64_t)bad;
}

static int sum_squares(struct device *d, const float *x, int64_t n, int64_t apart, int vectors,
                       struct cuda_squares *work, double *sum, int64_t *nonfinite, struct err *e) {
    int64_t blocks = cuda_blocks(n, SQUARES);
    dim3 grid((unsigned)blocks, (unsigned)vectors);
    bool aligned = (uintptr_t)x % 16 == 0 && apart % 4 == 0;
    auto kernel = aligned ? squares_kernel<true> : squares_kernel<false>;
    int rc = 0;
    if (blocks > 0)
        rc = cuda_check(LAUNCH(kernel, grid, dim3(CUDA_THREADS), 0, cuda_of(d)->stream, x, n, apart, work),
                        "sum_squares", e);
    return rc ? rc : CUDA_RUN(d, squares_end_kernel, vectors, CUDA_THREADS, 0, work, blocks, sum, nonfinite);
}

int cuda_sum_squares_of(struct device *d, const float *x, int64_t n, int64_t apart, int vectors,
                        struct cuda_squares *work, struct err *e) {
    return sum_squares(d, x, n, apart, vectors, work, NULL, NULL, e);
}

int cuda_sum_squares(struct device *d, const struct op_sum_squares_args *a, struct err *e) {
    int64_t n = tensor_elems(&a->x);
    CUDA_REQUIRE(n == 0 || cuda_is_vector(&a->x, n));
    CUDA_REQUIRE(a->sum != NULL && a->nonfinite != NULL && cuda_blocks(n, SQUARES) < INT32_MAX);
    void *scratch = NULL;
    int rc = cuda_scratch(d, &scratch, gpu_squares_bytes(n), e);
    return rc ? rc
              : sum_squares(d, (const float *)a->x.data, n, 0, 1, (struct cuda_squares *)scratch, a->sum,
                            a->nonfinite, e);
}
