// SPDX-License-Identifier: Apache-2.0
// Our attention as a library for peer_attention.py: runs on the caller's buffers, [sequences, S, heads, hd].
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/lib/mask_make.h"

struct peer {
    float *q, *k, *v, *o, *lse, *d_o, *dq, *dk, *dv;
    int64_t sequences, length, block; // block 0: full; else tokens of a frame
    int32_t heads, head_dim;
};

struct device *peer_open(int threads);
int peer_run(struct device *d, const struct peer *p, int backward);

struct device *peer_open(int threads) {
    struct err e = {0};
    struct device *d = NULL;
    return device_open_cpu(&d, threads, &e) == 0 ? d : NULL;
}

static int forward(struct device *d, const struct peer *p, const struct mask *m, struct err *e) {
    int64_t rows = p->sequences * p->length, cols = (int64_t)p->heads * p->head_dim;
    struct op_attention_args a = {.q = tensor_2d(p->q, rows, cols), .k = tensor_2d(p->k, rows, cols)};
    a.v = tensor_2d(p->v, rows, cols);
    a.o = tensor_2d(p->o, rows, cols);
    a.lse = tensor_2d(p->lse, rows, p->heads);
    a.sequences = p->sequences;
    a.heads = a.kv_heads = p->heads;
    a.head_dim = p->head_dim;
    a.mask = m;
    return d->ops->attention(d, &a, e);
}

static int backward(struct device *d, const struct peer *p, const struct mask *m, struct err *e) {
    int64_t rows = p->sequences * p->length, cols = (int64_t)p->heads * p->head_dim;
    struct op_attention_backward_args a = {.q = tensor_2d(p->q, rows, cols),
                                           .k = tensor_2d(p->k, rows, cols)};
    a.v = tensor_2d(p->v, rows, cols);
    a.o = tensor_2d(p->o, rows, cols);
    a.lse = tensor_2d(p->lse, rows, p->heads);
    a.d_o = tensor_2d(p->d_o, rows, cols);
    a.dq = tensor_2d(p->dq, rows, cols);
    a.dk = tensor_2d(p->dk, rows, cols);
    a.dv = tensor_2d(p->dv, rows, cols);
    a.sequences = p->sequences;
    a.heads = a.kv_heads = p->heads;
    a.head_dim = p->head_dim;
    a.mask = m;
    return d->ops->attention_backward(d, &a, e);
}

// Forward, and with `with_backward` also backward.
int peer_run(struct device *d, const struct peer *p, int with_backward) {
    struct err e = {0};
    struct mask m;
    int64_t frames = p->block > 0 ? p->length / p->block : 1;
    int rc = 0;
    if (p->block > 0)
        rc = mask_block_causal(&m, frames, p->block, 0, frames, &e);
    else
        m = mask_make_full(p->length, p->length);
    if (rc != 0) return rc;
    rc = forward(d, p, &m, &e);
    if (rc == 0 && with_backward) rc = backward(d, p, &m, &e);
    mask_fini(&m);
    return rc;
}
