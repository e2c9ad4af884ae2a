// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/wgmma_recorder.cuh"

#include "kernels/cuda/attention_sm90_forward.cu"

template <int D> static void logits(uint32_t q, uint32_t k) {
    float s[64] = {};
    issue_logits<D>(s, q, k);
}

template <int D> static void output(uint32_t v) {
    float o[D / 2] = {};
    issue_output<D>(o, recorded_weights, v);
}

struct wgmma_form wgmma_logits(int head_dim, uint32_t q, uint32_t k) {
    recording = {};
    head_dim == 64 ? logits<64>(q, k) : logits<128>(q, k);
    return recording;
}

struct wgmma_form wgmma_output(int head_dim, uint32_t v) {
    recording = {};
    head_dim == 64 ? output<64>(v) : output<128>(v);
    return recording;
}
