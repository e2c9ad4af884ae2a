// SPDX-License-Identifier: Apache-2.0
// How long a step may take on a GPU of a table, from data sheets and simple counting: an estimate, nothing
// measured.
#ifndef ORRERY_LAUNCHER_ESTIMATE_H
#define ORRERY_LAUNCHER_ESTIMATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"

enum estimate_precision {
    ESTIMATE_BF16 = CONFIG_cuda_precision_bf16,
    ESTIMATE_FP32 = CONFIG_cuda_precision_fp32,
    ESTIMATE_TF32 = CONFIG_cuda_precision_tf32
};

struct estimate_gpu {
    const char *name, *model;
    int compute;      // capability: 90 for 9.0
    double tflops[3]; // by enum estimate_precision
    double memory_gb_s, memory_gib, link_gb_s, net_gb_s;
};

struct estimate_load {
    enum estimate_precision precision;
    int64_t ranks;
    double flops;       // of the rank with most to do
    double state_bytes; // weights, gradients, optimiser: read and written in an update
    double bytes_sent;  // by a rank in a step
    int64_t steps;
};

// From the best that one may hope for to what is common.
struct estimate {
    double compute_ms[2], update_ms, network_ms, step_ms[2];
};

const struct estimate_gpu *estimate_find(const char *name); // NULL: not in the table
void estimate_names(char *out, size_t n);                   // "h200, h100, a100"
void estimate_step(const struct estimate_gpu *gpu, const struct estimate_load *load, struct estimate *out);

#endif
