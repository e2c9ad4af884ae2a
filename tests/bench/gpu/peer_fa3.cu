// SPDX-License-Identifier: Apache-2.0
// FlashAttention-3 (Hopper) behind a C interface for peers.py, which has PyTorch but not that library.
// peer_fa3.sh compiles it against a checkout's headers. bf16, head_dim 128, as many heads of keys as of
// queries; tensors are batch x tokens x heads x 128 without gaps; tokens a multiple of 256, where
// FlashAttention-3 itself pairs blocks.
//
// What its host code decides is decided here: which templates (run_mha_fwd_, run_mha_bwd_hdim128), and the
// params (flash_api.cpp). Its macros end the process when a launch is refused; here they throw, and the call
// fails.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cuda_check.h>

struct refused {
    const char *what;
};

#undef CHECK_CUDA
#undef CHECK_CUTLASS
#define CHECK_CUDA(call)                                                                                     \
    do {                                                                                                     \
        cudaError_t rc_ = (call);                                                                            \
        if (rc_ != cudaSuccess) throw refused{cudaGetErrorString(rc_)};                                      \
    } while (0)
#define CHECK_CUTLASS(call)                                                                                  \
    do {                                                                                                     \
        cutlass::Status rc_ = (call);                                                                        \
        if (rc_ != cutlass::Status::kSuccess) throw refused{cutlass::cutlassGetStatusString(rc_)};           \
    } while (0)

#include <flash_bwd_launch_template.h>
#include <flash_fwd_launch_template.h>

using bf16 = cutlass::bfloat16_t;

enum { DIM = 128, TOKENS_BY = 256, KEYS = 128 }; // KEYS: of a block of the backward pass
enum { QUERIES_FULL = 80, QUERIES_CAUSAL = 64 }; // of its steps: dq's sum is padded to them

extern "C" {
// Device pointers, owned by the caller. lse is fp32, batch x heads x tokens, natural logarithm.
struct fa3_tensors {
    void *q, *k, *v, *o, *lse, *d_o, *dq, *dk, *dv;
};

struct fa3_problem {
    int batch, tokens, heads, multiprocessors;
    bool causal;
    // Device memory: dq's sum; per query lse in base 2 and sum of o d_o; dq's turns; the queue of the forward
    // pass.
    float *dq_sum, *lse2, *delta;
    int *turns, *queue;
};
#pragma GCC visibility push(default)
struct fa3_problem *fa3_open(int batch, int tokens, int heads, int causal); // NULL: refused, a line on stderr
int fa3_forward(const struct fa3_problem *p, const struct fa3_tensors *t, void *stream); // 0: queued
int fa3_backward(const struct fa3_problem *p, const struct fa3_tensors *t, int fixed, void *stream);
void fa3_close(struct fa3_problem *p);
#pragma GCC visibility pop
}

static int padded_tokens(const struct fa3_problem *p) {
    return cute::round_up(p->tokens, p->causal ? (int)QUERIES_CAUSAL : (int)QUERIES_FULL);
}

// What both passes read. Strides count elements; the windows are those of no window.
static void fill(Flash_fwd_params *f, const struct fa3_problem *p, const struct fa3_tensors *t) {
    int64_t row = (int64_t)p->heads * DIM, sequence = row * p->tokens;
    f->q_ptr = t->q, f->k_ptr = t->k, f->v_ptr = t->v, f->o_ptr = t->o, f->softmax_lse_ptr = t->lse;
    f->q_batch_stride = f->k_batch_stride = f->v_batch_stride = f->o_batch_stride = sequence;
    f->q_row_stride = f->k_row_stride = f->v_row_stride = f->o_row_stride = row;
    f->q_head_stride = f->k_head_stride = f->v_head_stride = f->o_head_stride = DIM;
    f->v_dim_stride = 1;
    f->b = f->b_k = p->batch;
    f->h = f->h_k = p->heads;
    f->seqlen_q = f->seqlen_k = f->seqlen_k_rounded = p->tokens; // a multiple of KEYS
    f->seqlen_q_rounded = padded_tokens(p);
    f->total_q = f->total_k = p->batch * p->tokens;
    f->d = f->dv = f->d_rounded = f->dv_rounded = DIM;
    f->scale_softmax = 1 / sqrtf(DIM);
    f->p_dropout = f->rp_dropout = 1; // probability of keeping
    f->p_dropout_in_uint8_t = 255;
    f->window_size_left = p->tokens - 1;
    f->window_size_right = p->causal ? 0 : p->tokens - 1;
    f->is_bf16 = true;
    f->is_causal = p->causal;
    f->num_splits = 1;
    f->page_size = 1;
    f->tile_count_semaphore = p->queue;
    f->arch = 90;
    f->num_sm = p->multiprocessors;
}

static void fill_backward(Flash_bwd_params *b, const struct fa3_problem *p, const struct fa3_tensors *t) {
    fill(b, p, t);
    b->do_ptr = t->d_o, b->dq_ptr = t->dq, b->dk_ptr = t->dk, b->dv_ptr = t->dv;
    b->do_batch_stride = b->dq_batch_stride = b->dk_batch_stride = b->dv_batch_stride = b->q_batch_stride;
    b->do_row_stride = b->dq_row_stride = b->dk_row_stride = b->dv_row_stride = b->q_row_stride;
    b->do_head_stride = b->dq_head_stride = b->dk_head_stride = b->dv_head_stride = b->q_head_stride;
    b->dq_accum_ptr = p->dq_sum; // it and the turns are zeroed by the first kernel
    b->softmax_lse_log2_ptr = p->lse2;
    b->dsoftmax_sum = p->delta;
    b->dq_semaphore = p->turns;
}

template <bool Causal> static void forward(Flash_fwd_params &f, cudaStream_t stream) {
    if (Causal) CHECK_CUDA(cudaMemsetAsync(f.tile_count_semaphore, 0, sizeof(int), stream));
    run_flash_fwd<90, DIM, DIM, Causal ? 1 : 2, bf16, bf16, Causal, false, false, false, false, false, false,
                  false, false, false>(f, stream);
}

template <bool Causal, bool Fixed> static void backward(Flash_bwd_params &b, cudaStream_t stream) {
    b.deterministic = Fixed;
    run_flash_bwd<90, DIM, Causal ? QUERIES_CAUSAL : QUERIES_FULL, KEYS, bf16, Causal, false, false, false,
                  Fixed, false, 2, 2, true, false, !Causal, 2, 1, 2, 1, false>(b, stream);
}

static int say(const char *what, const char *why) {
    fprintf(stderr, "FlashAttention-3: %s: %s\n", what, why);
    return -1;
}

static bool allocate(void **to, size_t bytes) {
    return cudaMalloc(to, bytes) == cudaSuccess;
}

// The device's multiprocessors, or 0 and a line: these kernels are for compute capability 9.0 only.
static int multiprocessors(void) {
    int device = 0, major = 0, minor = 0, count = 0;
    cudaError_t rc = cudaGetDevice(&device);
    if (rc == cudaSuccess) rc = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (rc == cudaSuccess) rc = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (rc == cudaSuccess) rc = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    if (rc != cudaSuccess)
        say("no GPU", cudaGetErrorString(rc));
    else if (major != 9 || minor != 0)
        say("not this GPU", "its kernels are for compute capability 9.0");
    return rc == cudaSuccess && major == 9 && minor == 0 ? count : 0;
}

struct fa3_problem *fa3_open(int batch, int tokens, int heads, int causal) {
    if (batch < 1 || heads < 1 || tokens < TOKENS_BY || tokens % TOKENS_BY != 0) {
        say("fa3_open", "tokens are no multiple of 256, or there is no batch or head");
        return NULL;
    }
    int count = multiprocessors();
    struct fa3_problem *p = count > 0 ? (struct fa3_problem *)calloc(1, sizeof *p) : NULL;
    if (p == NULL) return NULL;
    p->batch = batch, p->tokens = tokens, p->heads = heads, p->causal = causal != 0,
    p->multiprocessors = count;
    size_t rows = (size_t)batch * (size_t)heads * (size_t)padded_tokens(p), row = sizeof(float);
    if (allocate((void **)&p->dq_sum, rows * DIM * row) && allocate((void **)&p->lse2, rows * row) &&
        allocate((void **)&p->delta, rows * row) &&
        allocate((void **)&p->turns, rows / QUERIES_CAUSAL * row) && allocate((void **)&p->queue, row))
        return p;
    say("fa3_open", "no device memory for its sums");
    fa3_close(p);
    return NULL;
}

void fa3_close(struct fa3_problem *p) {
    if (p == NULL) return;
    void *all[] = {p->dq_sum, p->lse2, p->delta, p->turns, p->queue};
    for (void *each : all) cudaFree(each);
    free(p);
}

int fa3_forward(const struct fa3_problem *p, const struct fa3_tensors *t, void *stream) {
    Flash_fwd_params f = {};
    fill(&f, p, t);
    try {
        (p->causal ? forward<true> : forward<false>)(f, (cudaStream_t)stream);
    } catch (const struct refused &why) {
        return say("forward", why.what);
    }
    return 0;
}

int fa3_backward(const struct fa3_problem *p, const struct fa3_tensors *t, int fixed, void *stream) {
    Flash_bwd_params b = {};
    fill_backward(&b, p, t);
    auto run = p->causal ? (fixed ? backward<true, true> : backward<true, false>)
                         : (fixed ? backward<false, true> : backward<false, false>);
    try {
        run(b, (cudaStream_t)stream);
    } catch (const struct refused &why) {
        return say("backward", why.what);
    }
    return 0;
}
