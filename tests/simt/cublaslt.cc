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
    *l = new simt_layout{type, (int64_t)rows, (int64_t)cols, ld};
    return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
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

static uint64_t mixed(uint64_t seed, const simt_layout *l) {
    const uint64_t told[] = {(uint64_t)l->type, (uint64_t)l->rows, (uint64_t)l->cols, (uint64_t)l->ld};
    for (uint64_t v : told) seed = (seed ^ v) * 1099511628211u;
    return seed;
}

// The order of sums depends on all that the choice was told, as it may in the library: how many of the
// products along k are added before their sum goes to the others.
static uint64_t chunk_of(const cublasLtMatmulAlgo_t *algo, const simt_layout *a, const simt_layout *b,
                         const simt_layout *d) {
    uint64_t seed = mixed(mixed(mixed(14695981039346656037u, a), b), d);
    for (int i = 0; i < 4; i++) seed = (seed ^ algo->data[i]) * 1099511628211u;
    return 3 + (seed >> 32) % 29;
}

enum { ALGO_CHUNK = 4 };

// What was promised of the pointers goes along in the algorithm.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t p,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *out, int *count) {
    *count = 0;
    if (preference->reductions != CUBLASLT_REDUCTION_SCHEME_NONE || wanted < 1 || !types_fit(p, a, b, d) ||
        c->type != d->type)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++) out->algo.data[i] = preference->align[i];
    out->algo.data[ALGO_CHUNK] = chunk_of(&out->algo, a, b, d);
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static float number_at(const void *data, const simt_layout *l, int64_t row, int64_t col) {
    int64_t at = row + col * l->ld;
    return l->type == CUDA_R_32F ? ((const float *)data)[at]
                                 : __bfloat162float(((const __nv_bfloat16 *)data)[at]);
}

static void put_at(void *data, const simt_layout *l, int64_t row, int64_t col, float x) {
    int64_t at = row + col * l->ld;
    if (l->type == CUDA_R_32F)
        ((float *)data)[at] = x;
    else
        ((__nv_bfloat16 *)data)[at] = __float2bfloat16(x);
}

// Everything of a call, as it was when it was made.
struct simt_call {
    simt_product p;
    simt_layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    int64_t chunk;
};

static float dot(const simt_call &q, int64_t i, int64_t j, int64_t from, int64_t end) {
    bool ta = q.p.transpose_a == CUBLAS_OP_T, tb = q.p.transpose_b == CUBLAS_OP_T;
    float sum = 0;
    for (int64_t x = from; x < end; x++)
        sum += number_at(q.a, &q.la, ta ? x : i, ta ? i : x) * number_at(q.b, &q.lb, tb ? j : x, tb ? x : j);
    return sum;
}

static void multiply(const simt_call &q) {
    int64_t m = q.ld.rows, n = q.ld.cols, k = q.p.transpose_a == CUBLAS_OP_T ? q.la.rows : q.la.cols;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            float sum = 0;
            for (int64_t x = 0; x < k; x += q.chunk)
                sum += dot(q, i, j, x, x + q.chunk < k ? x + q.chunk : k);
            sum *= q.alpha;
            if (q.beta != 0) sum += q.beta * number_at(q.c, &q.lc, i, j);
            if (q.p.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += q.p.bias[i];
            put_at(q.d, &q.ld, i, j, sum);
        }
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t p, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *, size_t,
                              cudaStream_t stream) {
    bool ta = p->transpose_a == CUBLAS_OP_T, tb = p->transpose_b == CUBLAS_OP_T;
    int64_t m = ld->rows, n = ld->cols, k = ta ? la->rows : la->cols;
    const void *at[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)at[i] % algo->data[i] != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
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
                   (int64_t)algo->data[ALGO_CHUNK]};
    return simt_enqueue(stream, [=] { multiply(q); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                     : CUBLAS_STATUS_INVALID_VALUE;
}
