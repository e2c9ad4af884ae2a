// SPDX-License-Identifier: Apache-2.0
#include <cublasLt.h>

struct simt_blas {
    int open;
};
struct simt_product {
    cublasOperation_t transpose_a, transpose_b;
    cublasLtEpilogue_t epilogue;
    const float *bias;
    cudaDataType_t bias_type;
};
struct simt_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
    int32_t batch;
    int64_t stride; // elements
};
struct simt_preference {
    uint32_t reductions, align[4]; // of a, b, c, d
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = new simt_blas{1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *p, cublasComputeType_t, cudaDataType_t scale) {
    *p = new simt_product{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, CUDA_R_16BF};
    return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> static cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t bytes) {
    switch (which) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(&p->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(&p->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&p->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&p->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return take(&p->bias_type, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    *l = new simt_layout{type, (int64_t)rows, (int64_t)cols, ld, 1, 0};
    return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                                cublasLtMatrixLayoutAttribute_t which, const void *value,
                                                size_t bytes) {
    switch (which) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(&l->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(&l->stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = new simt_preference{~0u, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void *value, size_t bytes) {
    size_t workspace;
    switch (which) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(&workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(&p->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(&p->align[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(&p->align[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(&p->align[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(&p->align[3], value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

static bool types_fit(const simt_product *p, const simt_layout *a, const simt_layout *b,
                      const simt_layout *c) {
    if (a->type != b->type || (a->type == CUDA_R_32F && c->type != CUDA_R_32F)) return false;
    return p->epilogue == CUBLASLT_EPILOGUE_DEFAULT || p->bias_type == c->type;
}

// Results of a batch do not overlap.
static bool batches_fit(const simt_layout *a, const simt_layout *b, const simt_layout *c,
                        const simt_layout *d) {
    if (a->batch < 1 || a->batch != b->batch || a->batch != c->batch || a->batch != d->batch) return false;
    return d->batch == 1 || d->stride >= d->ld * d->cols;
}

// What an algorithm is: what was promised of the pointers, how many partial sums it adds in turn, and whether
// it serves even batches only.
enum { ALGO_ALIGN, ALGO_SUMS = 4, ALGO_EVEN, MOST_SUMS = 4 + 3 * 2 };

static void put_algo(cublasLtMatmulHeuristicResult_t *to, const simt_preference *preference, int32_t sums,
                     bool even) {
    *to = {};
    for (int i = 0; i < 4; i++) to->algo.data[ALGO_ALIGN + i] = preference->align[i];
    to->algo.data[ALGO_SUMS] = (uint64_t)sums;
    to->algo.data[ALGO_EVEN] = even;
}

static int32_t sums_of(const simt_preference *p, int32_t batch) {
    int32_t sums = batch == 1 ? 1 : 2 + batch % 3;
    for (int i = 0; i < 3; i++) sums += __builtin_ctz(p->align[i]) % 3;
    return sums;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t p,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *out, int *count) {
    *count = 0;
    if (preference->reductions != CUBLASLT_REDUCTION_SCHEME_NONE || wanted < 1 || !types_fit(p, a, b, d) ||
        c->type != d->type || !batches_fit(a, b, c, d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d->batch > 1 && (d->rows == 1 || d->cols == 1)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d->batch > 1) put_algo(&out[(*count)++], preference, 5, true);
    if (*count < wanted) put_algo(&out[(*count)++], preference, sums_of(preference, d->batch), false);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
    if (!types_fit(p, a, b, d) || !batches_fit(a, b, c, d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (algo->data[ALGO_EVEN] && d->batch % 2) return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = 0;
    return CUBLAS_STATUS_SUCCESS;
}

static float number_at(const void *data, const simt_layout *l, int32_t z, int64_t row, int64_t col) {
    int64_t at = z * l->stride + row + col * l->ld;
    return l->type == CUDA_R_32F ? ((const float *)data)[at]
                                 : __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

static void put_at(void *data, const simt_layout *l, int32_t z, int64_t row, int64_t col, float x) {
    int64_t at = z * l->stride + row + col * l->ld;
    if (l->type == CUDA_R_32F)
        ((float *)data)[at] = x;
    else
        ((__nv_bfloat16 *)data)[at] = __float2bfloat16(x);
    simt_written((char *)data + at * (l->type == CUDA_R_32F ? 4 : 2), l->type == CUDA_R_32F ? 4 : 2);
}

// Everything of a call, as it was when it was made.
struct simt_call {
    simt_product p;
    simt_layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    int sums;
};

static float dot(const simt_call &q, int32_t z, int64_t i, int64_t j) {
    bool ta = q.p.transpose_a == CUBLAS_OP_T, tb = q.p.transpose_b == CUBLAS_OP_T;
    int64_t k = ta ? q.la.rows : q.la.cols;
    float sum[MOST_SUMS] = {};
    for (int64_t x = 0; x < k; x++)
        sum[x % q.sums] += number_at(q.a, &q.la, z, ta ? x : i, ta ? i : x) *
                           number_at(q.b, &q.lb, z, tb ? j : x, tb ? x : j);
    for (int s = 1; s < q.sums; s++) sum[0] += sum[s];
    return sum[0];
}

static void multiply(const simt_call &q, int32_t z) {
    for (int64_t j = 0; j < q.ld.cols; j++) {
        for (int64_t i = 0; i < q.ld.rows; i++) {
            float sum = dot(q, z, i, j) * q.alpha;
            if (q.beta != 0) sum += q.beta * number_at(q.c, &q.lc, z, i, j);
            if (q.p.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += q.p.bias[i];
            put_at(q.d, &q.ld, z, i, j, sum);
        }
    }
}

static void multiply_all(const simt_call &q) {
    for (int32_t z = 0; z < q.ld.batch; z++) multiply(q, z);
}

static bool is_aligned(const void *at, const simt_layout *l, uint64_t align) {
    uint64_t size = l->type == CUDA_R_32F ? 4 : 2;
    return (uintptr_t)at % align == 0 && (l->batch == 1 || (uint64_t)l->stride * size % align == 0);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t p, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *, size_t,
                              cudaStream_t stream) {
    bool ta = p->transpose_a == CUBLAS_OP_T, tb = p->transpose_b == CUBLAS_OP_T;
    int64_t m = ld->rows, n = ld->cols, k = ta ? la->rows : la->cols;
    const void *at[4] = {a, b, c, d};
    const simt_layout *of[4] = {la, lb, lc, ld};
    cublasLtMatmulHeuristicResult_t checked;
    cublasStatus_t status = cublasLtMatmulAlgoCheck(NULL, p, la, lb, lc, ld, algo, &checked);
    for (int i = 0; i < 4; i++)
        if (!is_aligned(at[i], of[i], algo->data[ALGO_ALIGN + i])) status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if ((ta ? la->cols : la->rows) != m || (tb ? lb->rows : lb->cols) != n ||
        (tb ? lb->cols : lb->rows) != k || lc->rows != m || lc->cols != n)
        return CUBLAS_STATUS_INVALID_VALUE;
    simt_call q = {*p,
                   *la,
                   *lb,
                   *lc,
                   *ld,
                   a,
                   b,
                   c,
                   d,
                   *(const float *)alpha,
                   *(const float *)beta,
                   (int)algo->data[ALGO_SUMS]};
    return simt_enqueue(stream, [=] { multiply_all(q); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                         : CUBLAS_STATUS_INVALID_VALUE;
}
