// SPDX-License-Identifier: Apache-2.0
// Per active frame of E elements: l = w(tau) mean (p - x)^2, dp = scale w 2 (p - x) / E. A task owns a frame;
// the frames' losses are added in order, in double.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

struct loss_job {
    const struct op_loss_args *a;
    double *frame; // [B F]
};

static float loss_weight(int weighting, float tau) {
    if (weighting == 1) return 0.9f * tau + 0.1f;
    if (weighting == 0) return 1.0f;
    float rest = 1.0f - tau > 0.05f ? 1.0f - tau : 0.05f;
    return 1.0f / (rest * rest);
}

// One line of a patch: adds to *sum, writes the gradient.
SIMD_INLINE void loss_line(const float *pred, const float *target, float *dpred, float slope, int64_t n,
                           vf *sum) {
    for (int64_t i = 0; i < n; i += VW) {
        vf diff = vf_load_n(pred + i, n - i) - vf_load_n(target + i, n - i);
        *sum = vf_fma(diff, diff, *sum);
        if (dpred != NULL) vf_store_n(dpred + i, diff * slope, n - i);
    }
}

static void loss_task(void *arg, int64_t frame) {
    const struct loss_job *j = arg;
    const struct op_loss_args *a = j->a;
    const struct patch_grid *g = &a->grid;
    int32_t across = g->width / g->patch, n = (int32_t)patch_grid_tokens(g);
    int64_t line = (int64_t)g->patch * g->channels, elems = patch_grid_frame(g);
    bool active = a->active[frame] != 0;
    float w = loss_weight(a->weighting, tensor_f32(&a->tau)[frame * a->tau_stride]);
    float slope = *a->scale * w * 2.0f / (float)elems;
    double total = 0;
    for (int32_t t = 0; t < n; t++) {
        const float *pred = cpu_row(&a->pred, frame * n + t);
        const float *target =
            cpu_row(&a->target, frame) + ((int64_t)(t / across) * g->width + t % across) * line;
        float *dpred = a->dpred.data != NULL ? cpu_row(&a->dpred, frame * n + t) : NULL;
        if (!active) {
            for (int64_t i = 0; dpred != NULL && i < g->patch * line; i++) dpred[i] = 0;
            continue;
        }
        vf sum = {0};
        for (int32_t y = 0; y < g->patch; y++) {
            loss_line(pred + y * line, target + (int64_t)y * g->width * g->channels,
                      dpred != NULL ? dpred + y * line : NULL, slope, line, &sum);
        }
        total += (double)vf_sum(sum);
    }
    j->frame[frame] = (double)w * total / (double)elems;
}

int CPU_FN(loss)(struct device *d, const struct op_loss_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    CPU_REQUIRE(patch_grid_fits(g));
    int64_t frames = a->target.shape[0], n = patch_grid_tokens(g), value = patch_grid_value(g);
    CPU_REQUIRE(cpu_is_rows(&a->target, frames, patch_grid_frame(g)) &&
                cpu_is_rows(&a->pred, frames * n, value));
    CPU_REQUIRE(a->dpred.data == NULL || cpu_is_rows(&a->dpred, frames * n, value));
    CPU_REQUIRE(a->active != NULL && a->tau.data != NULL && a->loss_sum != NULL && a->scale != NULL);
    CPU_REQUIRE(a->weighting >= 0 && a->weighting <= 2);
    struct loss_job job = {.a = a};
    int rc = cpu_scratch(d, (void **)&job.frame, (size_t)frames * sizeof(double), e);
    if (rc != 0) return rc;
    cpu_run(d, frames, loss_task, &job);
    double total = 0;
    for (int64_t f = 0; f < frames; f++) total += job.frame[f];
    *a->loss_sum += total;
    return 0;
}
