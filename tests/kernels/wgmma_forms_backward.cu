// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/wgmma_recorder.cuh"

#include "kernels/cuda/attention_sm90_backward.cu"

template <int D> static void turned(uint32_t k, uint32_t q) {
    float s[32] = {};
    issue_turned<D>(s, k, q);
}

template <int D> static void gradient(uint32_t q) {
    float dk[D / 2] = {};
    issue_gradient<D>(dk, *(const uint32_t(*)[16])recorded_weights, q);
}

template <int D> static void dq_of(uint32_t ds, uint32_t k) {
    float dq[D / 4] = {};
    issue_dq<D>(dq, ds, k);
}

struct wgmma_form wgmma_turned(int head_dim, uint32_t k, uint32_t q) {
    recording = {};
    head_dim == 64 ? turned<64>(k, q) : turned<128>(k, q);
    return recording;
}

struct wgmma_form wgmma_gradient(int head_dim, uint32_t q) {
    recording = {};
    head_dim == 64 ? gradient<64>(q) : gradient<128>(q);
    return recording;
}

struct wgmma_form wgmma_dq(int head_dim, uint32_t ds, uint32_t k) {
    recording = {};
    head_dim == 64 ? dq_of<64>(ds, k) : dq_of<128>(ds, k);
    return recording;
}
