// SPDX-License-Identifier: Apache-2.0
// What the attention kernels for sm_90a hand to the tensor cores, as their own functions say it: they run
// with a wgmma that only writes its operands down. For cute_peer.cu, which holds them against CUTLASS's.
#ifndef ORRERY_TESTS_KERNELS_WGMMA_FORMS_H
#define ORRERY_TESTS_KERNELS_WGMMA_FORMS_H

#include <stdint.h>

enum { WGMMA_MOST_STEPS = 8 };

// One product of a warpgroup: m64 n k16 for each step of 16 of what it sums over.
struct wgmma_form {
    int n, steps;
    bool registers, a_turned, b_turned; // registers: A is there; turned: MN-major
    struct wgmma_step {
        uint64_t a, b;   // descriptors
        int first;       // registers: of A's array, the first of four
        bool accumulate; // or overwrite
    } step[WGMMA_MOST_STEPS];
};

// Operands' panels begin at these addresses. The forward's: q k^T, p v. The backward's: k q^T and v dO^T;
// p^T dO and ds^T q; ds k.
struct wgmma_form wgmma_logits(int head_dim, uint32_t q, uint32_t k);
struct wgmma_form wgmma_output(int head_dim, uint32_t v);
struct wgmma_form wgmma_turned(int head_dim, uint32_t k, uint32_t q);
struct wgmma_form wgmma_gradient(int head_dim, uint32_t q);
struct wgmma_form wgmma_dq(int head_dim, uint32_t ds, uint32_t k);

#endif
