// SPDX-License-Identifier: Apache-2.0
#include "launcher/estimate.h"

#include <stdio.h>
#include <string.h>

// Shares of the peak that large transformers reach: well tuned, and common.
#define BEST_SHARE   0.5
#define COMMON_SHARE 0.2
#define GPUS_A_NODE  8
#define STATE_PASSES 2 // read and written

static const struct estimate_gpu gpus[] = {
#define GPU(name, model, compute, bf16, tf32, fp32, memory_gb_s, memory_gib, link, net)                      \
    {#name,       model,                                                                                     \
     compute,     {[ESTIMATE_BF16] = bf16, [ESTIMATE_TF32] = tf32, [ESTIMATE_FP32] = fp32},                  \
     memory_gb_s, memory_gib,                                                                                \
     link,        net},
#include "launcher/gpus.def"
#undef GPU
};
#define N_GPUS (sizeof gpus / sizeof *gpus)

const struct estimate_gpu *estimate_find(const char *name) {
    for (size_t i = 0; i < N_GPUS; i++)
        if (!strcmp(gpus[i].name, name)) return &gpus[i];
    return NULL;
}

void estimate_names(char *out, size_t n) {
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < N_GPUS && used < n; i++)
        used += (size_t)snprintf(out + used, n - used, "%s%s", i ? ", " : "", gpus[i].name);
}

void estimate_step(const struct estimate_gpu *gpu, const struct estimate_load *load, struct estimate *out) {
    double peak_ms = 1e3 * load->flops / (1e12 * gpu->tflops[load->precision]);
    double wire = load->ranks > GPUS_A_NODE ? gpu->net_gb_s : gpu->link_gb_s;
    out->compute_ms[0] = peak_ms / BEST_SHARE;
    out->compute_ms[1] = peak_ms / COMMON_SHARE;
    out->update_ms = STATE_PASSES * load->state_bytes / (1e6 * gpu->memory_gb_s);
    out->network_ms = load->ranks > 1 ? load->bytes_sent / (1e6 * wire) : 0;
    // At best the sending hides behind the computing; at worst it comes on top.
    double hidden = out->compute_ms[0] > out->network_ms ? out->compute_ms[0] : out->network_ms;
    out->step_ms[0] = hidden + out->update_ms;
    out->step_ms[1] = out->compute_ms[1] + out->network_ms + out->update_ms;
}
