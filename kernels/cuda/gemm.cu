// SPDX-License-Identifier: Apache-2.0
// C (+)= op(A) op(B) + bias through cuBLASLt, row-major: as the library sees it, C^T = op(B)^T op(A)^T,
// column-major; or as many such products, without a bias, of matrices that lie at equal distances. A and B
// both bf16 (C bf16 or fp32) or both fp32 (C fp32; TF32 when the device's precision says so); sums in fp32.
// The algorithm of a shape is chosen once and kept. None that splits k over blocks is allowed, so the order
// of every sum depends on the shape alone. That of a batch is chosen for the largest one, must support all
// smaller ones and serves them all; where the library has none, or none that does, one product follows
// another. A bias is fp32 and needs an fp32 C.
#include <cublasLt.h>
#include <stdlib.h>

#include "kernels/cuda/kernel.cuh"

enum {
    SLOTS = 1024,  // shapes that are remembered
    CANDIDATES = 8 // algorithms that a batch chooses from
};

struct gemm_shape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t align_a, align_b, align_c, align_bias; // of the pointers, at most 16; bias 0: none
    uint8_t trans_a, trans_b, accumulate, in_bf16, out_bf16, tf32, pad[2];
    int64_t stride_a, stride_b, stride_c; // of a batch
    int64_t most;                         // products of a batch; 1: none
};

struct gemm_choice {
    struct gemm_shape shape;
    bool known;
    bool together; // a batch in one call
    int32_t batch; // that the layouts say now
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct gemm_cache {
    cublasLtHandle_t handle;
    void *workspace;
    struct gemm_choice slot[SLOTS];
    int used;
};

static int lt_check(cublasStatus_t rc, const char *what, const struct gemm_shape *s, struct err *e) {
    if (rc == CUBLAS_STATUS_SUCCESS) return 0;
    return err_set(e, ERR_DEVICE, "gemm %lld x %lld x %lld (%s): %s failed with cuBLAS status %d",
                   (long long)s->m, (long long)s->n, (long long)s->k, s->in_bf16 ? "bf16" : "fp32", what,
                   (int)rc);
}

static void forget(struct gemm_choice *g) {
    if (g->a) cublasLtMatrixLayoutDestroy(g->a);
    if (g->b) cublasLtMatrixLayoutDestroy(g->b);
    if (g->c) cublasLtMatrixLayoutDestroy(g->c);
    if (g->product) cublasLtMatmulDescDestroy(g->product);
    g->a = g->b = g->c = NULL;
    g->product = NULL;
    g->known = g->together = false;
    g->batch = 0;
}

void cuda_gemm_close(struct cuda_device *c) {
    struct gemm_cache *cache = c->gemm;
    if (!cache) return;
    for (int i = 0; i < SLOTS; i++) forget(&cache->slot[i]);
    if (cache->workspace) (void)cudaFree(cache->workspace);
    if (cache->handle) cublasLtDestroy(cache->handle);
    free(cache);
    c->gemm = NULL;
}

static int open_cache(struct cuda_device *c, struct err *e) {
    struct gemm_shape none = {};
    if (c->gemm) return 0;
    c->gemm = (struct gemm_cache *)calloc(1, sizeof *c->gemm);
    if (!c->gemm) return err_set(e, ERR_MEMORY, "gemm: no memory for a table of shapes");
    int rc = lt_check(cublasLtCreate(&c->gemm->handle), "cublasLtCreate", &none, e);
    return rc ? rc : cuda_check(cudaMalloc(&c->gemm->workspace, GPU_WORKSPACE), "gemm's workspace", e);
}

// Of a pointer and of all that lie multiples of `stride` bytes behind it. Beyond 16 bytes, more than which no
// load needs, where a tensor lies differs with the number of ranks and their buffers: the algorithm, and so
// the bits, must not.
static int32_t align_of(const void *p, int64_t stride) {
    uintptr_t at = (uintptr_t)p | (uintptr_t)stride;
    return at % 16 == 0 ? 16 : (int32_t)(at & (~at + 1));
}

// Row-major [rows, cols] is column-major [cols, rows].
static cublasStatus_t make_layout(cublasLtMatrixLayout_t *out, bool is_bf16, int64_t rows, int64_t cols,
                                  int64_t ld) {
    return cublasLtMatrixLayoutCreate(out, is_bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)cols, (uint64_t)rows,
                                      ld);
}

// The bias is known before the algorithm is chosen: the choice takes its alignment from the pointer.
static cublasStatus_t make_product(struct gemm_choice *g, const void *bias) {
    const struct gemm_shape *s = &g->shape;
    cublasOperation_t first = s->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                      second = s->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute = s->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t rc = cublasLtMatmulDescCreate(&g->product, compute, CUDA_R_32F);
    if (!rc)
        rc = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (!rc)
        rc = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (!rc && s->align_bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        cudaDataType_t type = CUDA_R_32F;
        rc = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                            sizeof epilogue);
        if (!rc)
            rc = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type,
                                                sizeof type);
        if (!rc)
            rc = cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                sizeof bias);
    }
    if (!rc) rc = make_layout(&g->a, s->in_bf16, s->trans_b ? s->n : s->k, s->trans_b ? s->k : s->n, s->ldb);
    if (!rc) rc = make_layout(&g->b, s->in_bf16, s->trans_a ? s->k : s->m, s->trans_a ? s->m : s->k, s->lda);
    if (!rc) rc = make_layout(&g->c, s->out_bf16, s->m, s->n, s->ldc);
    return rc;
}

static cublasStatus_t set_stride(cublasLtMatrixLayout_t layout, int64_t stride) {
    return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                            sizeof stride);
}

static cublasStatus_t set_strides(struct gemm_choice *g) {
    cublasStatus_t rc = set_stride(g->a, g->shape.stride_b);
    if (!rc) rc = set_stride(g->b, g->shape.stride_a);
    return rc ? rc : set_stride(g->c, g->shape.stride_c);
}

static cublasStatus_t set_batch(struct gemm_choice *g, int32_t count) {
    cublasLtMatrixLayout_t layout[] = {g->a, g->b, g->c};
    cublasStatus_t rc = CUBLAS_STATUS_SUCCESS;
    if (g->batch == count) return rc;
    g->batch = 0;
    for (int i = 0; !rc && i < 3; i++)
        rc = cublasLtMatrixLayoutSetAttribute(layout[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                              sizeof count);
    if (!rc) g->batch = count;
    return rc;
}

static cublasStatus_t set_preference(cublasLtMatmulPreference_t p, const struct gemm_shape *s) {
    size_t workspace = GPU_WORKSPACE;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE; // no split k: a fixed order
    uint32_t a = (uint32_t)s->align_b, b = (uint32_t)s->align_a, c = (uint32_t)s->align_c;
    cublasStatus_t rc = cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                             &workspace, sizeof workspace);
    if (!rc)
        rc = cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                  sizeof reductions);
    if (!rc)
        rc =
            cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a);
    if (!rc)
        rc =
            cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b);
    if (!rc)
        rc =
            cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c);
    if (!rc)
        rc =
            cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c);
    return rc;
}

// What the library offers, best first.
struct gemm_offer {
    cublasLtMatmulHeuristicResult_t of[CANDIDATES];
    int count;
};

static cublasStatus_t ask(struct gemm_cache *cache, const struct gemm_choice *g, int wanted,
                          struct gemm_offer *offer) {
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    if (!status) status = set_preference(preference, &g->shape);
    if (!status)
        status = cublasLtMatmulAlgoGetHeuristic(cache->handle, g->product, g->a, g->b, g->c, g->c, preference,
                                                wanted, offer->of, &offer->count);
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

// Does the algorithm serve every batch up to the largest?
static bool serves_all(struct gemm_cache *cache, struct gemm_choice *g, const cublasLtMatmulAlgo_t *algo) {
    for (int32_t count = 1; count <= (int32_t)g->shape.most; count++) {
        cublasLtMatmulHeuristicResult_t found = {};
        if (set_batch(g, count) ||
            cublasLtMatmulAlgoCheck(cache->handle, g->product, g->a, g->b, g->c, g->c, algo, &found))
            return false;
        if (found.workspaceSize > GPU_WORKSPACE) return false;
    }
    return true;
}

// False: there is none.
static bool choose_for_batch(struct gemm_cache *cache, struct gemm_choice *g) {
    struct gemm_offer offer = {};
    if (set_strides(g) || set_batch(g, (int32_t)g->shape.most) || ask(cache, g, CANDIDATES, &offer))
        return false;
    for (int i = 0; i < offer.count; i++) {
        if (offer.of[i].state || !serves_all(cache, g, &offer.of[i].algo)) continue;
        g->algo = offer.of[i].algo;
        return true;
    }
    return false;
}

static int choose(struct gemm_cache *cache, struct gemm_choice *g, const void *bias, struct err *e) {
    struct gemm_offer offer = {};
    cublasStatus_t status = make_product(g, bias);
    if (!status && g->shape.most > 1) g->together = choose_for_batch(cache, g);
    if (!status && !g->together) status = set_batch(g, 1);
    if (!status && !g->together) status = ask(cache, g, 1, &offer);
    int rc = lt_check(status, "the choice of an algorithm", &g->shape, e);
    if (!rc && !g->together && offer.count == 0)
        rc = err_set(e, ERR_DEVICE, "gemm %lld x %lld x %lld: cuBLASLt knows no fixed-order algorithm",
                     (long long)g->shape.m, (long long)g->shape.n, (long long)g->shape.k);
    if (!g->together) g->algo = offer.of[0].algo;
    g->known = !rc;
    if (rc) forget(g);
    return rc;
}

static uint64_t hash_of(const struct gemm_shape *s) {
    const unsigned char *at = (const unsigned char *)s;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *s; i++) h = (h ^ at[i]) * 1099511628211u;
    return h;
}

// The slot of this shape; when the table is three quarters full it starts anew.
static int find_choice(struct gemm_cache *cache, const struct gemm_shape *s, const void *bias,
                       struct gemm_choice **out, struct err *e) {
    if (cache->used >= SLOTS / 4 * 3) {
        for (int i = 0; i < SLOTS; i++) forget(&cache->slot[i]);
        cache->used = 0;
    }
    size_t i = hash_of(s) % SLOTS;
    while (cache->slot[i].known && memcmp(&cache->slot[i].shape, s, sizeof *s) != 0) i = (i + 1) % SLOTS;
    *out = &cache->slot[i];
    if ((*out)->known) return 0;
    (*out)->shape = *s;
    cache->used++;
    return choose(cache, *out, bias, e);
}

static struct gemm_shape shape_of(struct device *d, const struct op_gemm_args *a,
                                  const struct gemm_batch *batch) {
    struct gemm_shape s;
    memset(&s, 0, sizeof s); // it is hashed whole
    s.m = a->c.shape[0], s.n = a->c.shape[1], s.k = a->a.shape[a->trans_a ? 0 : 1];
    s.lda = a->a.stride[0], s.ldb = a->b.stride[0], s.ldc = a->c.stride[0];
    s.trans_a = a->trans_a, s.trans_b = a->trans_b, s.accumulate = a->accumulate;
    s.in_bf16 = a->a.dtype == DTYPE_BF16, s.out_bf16 = a->c.dtype == DTYPE_BF16;
    int64_t in = s.in_bf16 ? 2 : 4, out = s.out_bf16 ? 2 : 4;
    s.align_a = align_of(a->a.data, batch->a * in), s.align_b = align_of(a->b.data, batch->b * in);
    s.align_c = align_of(a->c.data, batch->c * out);
    s.align_bias = a->bias.data ? align_of(a->bias.data, 0) : 0;
    s.tf32 = !s.in_bf16 && cuda_of(d)->precision == DEVICE_TF32;
    s.stride_a = batch->a, s.stride_b = batch->b, s.stride_c = batch->c;
    s.most = batch->most;
    return s;
}

// Where the matrices of one call begin.
struct gemm_at {
    const char *a, *b;
    char *c;
};

static int run_product(struct cuda_device *c, const struct gemm_choice *g, const struct gemm_at *at,
                       struct err *e) {
    float alpha = 1, beta = g->shape.accumulate ? 1 : 0;
    cublasStatus_t status =
        cublasLtMatmul(c->gemm->handle, g->product, &alpha, at->b, g->a, at->a, g->b, &beta, at->c, g->c,
                       at->c, g->c, &g->algo, c->gemm->workspace, GPU_WORKSPACE, c->stream);
    return lt_check(status, "cublasLtMatmul", &g->shape, e);
}

static int run_batch(struct cuda_device *c, struct gemm_choice *g, struct gemm_at at,
                     const struct gemm_batch *batch, struct err *e) {
    int64_t in = g->shape.in_bf16 ? 2 : 4, out = g->shape.out_bf16 ? 2 : 4;
    int calls = g->together ? 1 : batch->count, rc = 0;
    if (g->together) rc = lt_check(set_batch(g, batch->count), "a batch", &g->shape, e);
    for (int i = 0; !rc && i < calls; i++) {
        rc = run_product(c, g, &at, e);
        at.a += batch->a * in, at.b += batch->b * in, at.c += batch->c * out;
    }
    return rc;
}

static int check_gemm(const struct op_gemm_args *a, struct err *e) {
    int64_t m = a->c.shape[0], n = a->c.shape[1], k = a->a.shape[a->trans_a ? 0 : 1];
    CUDA_REQUIRE(cuda_is_rows(&a->c, m, n));
    CUDA_REQUIRE(cuda_is_rows(&a->a, a->trans_a ? k : m, a->trans_a ? m : k));
    CUDA_REQUIRE(cuda_is_rows(&a->b, a->trans_b ? n : k, a->trans_b ? k : n));
    CUDA_REQUIRE(a->a.dtype == a->b.dtype && (a->a.dtype == DTYPE_BF16 || a->c.dtype == DTYPE_F32));
    CUDA_REQUIRE(a->bias.data == NULL ||
                 (cuda_is_vector(&a->bias, n) && !a->accumulate && a->c.dtype == DTYPE_F32));
    if (m == 0 || n == 0 || k == 0) return err_set(e, ERR_BUG, "gemm: a dimension is zero");
    return 0;
}

int cuda_gemm_batch(struct device *d, const struct op_gemm_args *a, const struct gemm_batch *batch,
                    struct err *e) {
    struct gemm_choice *choice = NULL;
    CUDA_REQUIRE(batch->count >= 1 && batch->count <= batch->most);
    CUDA_REQUIRE(batch->most == 1 || a->bias.data == NULL);
    int rc = check_gemm(a, e);
    if (rc) return rc;
    struct gemm_shape s = shape_of(d, a, batch);
    rc = open_cache(cuda_of(d), e);
    if (!rc) rc = find_choice(cuda_of(d)->gemm, &s, a->bias.data, &choice, e);
    if (!rc && a->bias.data)
        rc = lt_check(cublasLtMatmulDescSetAttribute(choice->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                     &a->bias.data, sizeof a->bias.data),
                      "a bias", &s, e);
    struct gemm_at at = {(const char *)a->a.data, (const char *)a->b.data, (char *)a->c.data};
    return rc ? rc : run_batch(cuda_of(d), choice, at, batch, e);
}

int cuda_gemm(struct device *d, const struct op_gemm_args *a, struct err *e) {
    const struct gemm_batch one = {1, 1, 0, 0, 0};
    return cuda_gemm_batch(d, a, &one, e);
}
