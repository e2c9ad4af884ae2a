// SPDX-License-Identifier: Apache-2.0
#include "trainer/memory.h"

#include <stdio.h>

#include "kernels/cuda/sizes.h"
#include "trainer/evaluate.h"
#include "trainer/model.h"
#include "trainer/optim.h"
#include "trainer/step.h"

// What a driver and NCCL take for themselves, as is usual; not measured.
#define CONTEXT_BYTES ((int64_t)512 << 20)
#define NCCL_BYTES    ((int64_t)512 << 20)

static const struct {
    const char *name, *words;
} parts[] = {
#define MEMORY_ROW(name, words) {#name, words},
    MEMORY_PARTS_LIST(MEMORY_ROW)
#undef MEMORY_ROW
};

const char *memory_part_name(enum memory_part part) {
    return parts[part].name;
}

static void count_state(struct memory_gpu *m, const struct config *c, const struct modality_set *set,
                        const struct params *p, int world, int rank, const struct device *d) {
    int64_t *b = m->bytes;
    b[MEMORY_weights] = p->elems * (int64_t)sizeof(float);
    b[MEMORY_copy] = d->compute == DTYPE_F32 ? 0 : p->elems * (int64_t)dtype_bytes(d->compute);
    b[MEMORY_average] = optim_average_bytes(c, p, world, rank);
    b[MEMORY_optimiser] = optim_bytes(c, p, world, rank, d) - b[MEMORY_average];
    b[MEMORY_inputs] = step_input_bytes(c, set, p, world, rank, d);
    b[MEMORY_gradients] = step_bytes(c, set, p, world, rank, d) - b[MEMORY_inputs];
}

// Of the norm of this rank's gradients.
static int squares_scratch(int64_t *out, const struct config *c, const struct params *p, int world, int rank,
                           struct err *e) {
    int lo = 0, hi = 0;
    int64_t blocks = 0;
    if (optim_tensors(c, p, world, rank, &lo, &hi)) return err_set(e, ERR_MEMORY, "no memory for a plan");
    for (int i = lo; i < hi; i++) blocks += gpu_squares_blocks(p->list[i].elems);
    *out = (int64_t)gpu_squares_bytes(blocks, hi - lo);
    return 0;
}

int memory_gpu_plan(struct memory_gpu *out, const struct config *c, const struct modality_set *set,
                    const struct params *p, int world, int rank, int compute, struct err *e) {
    enum device_precision precision = (enum device_precision)c->cuda_precision;
    struct device d = {.compute = precision == DEVICE_BF16 ? DTYPE_BF16 : DTYPE_F32};
    int64_t micro = c->train_batch / c->comm_shards, *b = out->bytes, squares = 0;
    struct model_gpu_bytes of_ops;
    *out = (struct memory_gpu){0};
    int rc = gpu_supports(compute, precision, c->model_head_dim, e);
    if (!rc) rc = model_gpu_bytes(&of_ops, c, set, &d, compute, micro, c->data_frames, e);
    if (!rc) rc = squares_scratch(&squares, c, p, world, rank, e);
    if (rc) return rc;
    count_state(out, c, set, p, world, rank, &d);
    b[MEMORY_activations] = model_training_bytes(c, set, &d, micro, c->data_frames);
    b[MEMORY_schedules] = of_ops.schedules;
    b[MEMORY_scratch] = of_ops.scratch;
    if (squares > b[MEMORY_scratch]) b[MEMORY_scratch] = squares;
    b[MEMORY_products] = GPU_WORKSPACE;
    if (c->data_eval[0])
        b[MEMORY_evaluation] = model_forecast_bytes(c, set, &d, EVALUATE_CHUNK, c->data_frames);
    if (rank_talks_by_nccl(c, world > 1)) b[MEMORY_nccl] = NCCL_BYTES;
    b[MEMORY_context] = CONTEXT_BYTES;
    for (int i = 0; i < MEMORY_PARTS; i++) out->total += b[i];
    return 0;
}

void memory_gpu_advice(const struct memory_gpu *m, const struct config *c, char out[MEMORY_ADVICE_BYTES]) {
    const int64_t *b = m->bytes;
    int64_t micro = c->train_batch / c->comm_shards, n = MEMORY_ADVICE_BYTES;
    int64_t of_batch = b[MEMORY_activations] + b[MEMORY_inputs] + b[MEMORY_scratch] + b[MEMORY_schedules];
    int64_t of_model =
        b[MEMORY_weights] + b[MEMORY_copy] + b[MEMORY_gradients] + b[MEMORY_optimiser] + b[MEMORY_average];
    if (of_batch > of_model && micro > 1)
        snprintf(
            out, (size_t)n,
            "raise comm.shards (now %lld: %lld sequences at a time) or lower train.batch, data.frames or "
            "model.layers",
            (long long)c->comm_shards, (long long)micro);
    else if (of_batch > of_model)
        snprintf(out, (size_t)n, "lower data.frames, model.layers or model.width");
    else
        snprintf(out, (size_t)n,
                 "lower model.width or model.layers, or start more ranks, which share the optimiser%s",
                 c->comm_zero == 1                            ? "; comm.zero=2 shares the gradients too"
                 : c->comm_reduce == CONFIG_comm_reduce_exact ? "; comm.reduce=fast keeps fewer of them"
                                                              : "");
}

static double mib(int64_t bytes) {
    return (double)bytes / (1 << 20);
}

// "fp32 weights 1.2, gradients 2.4": what is not there yet, in MiB; `whole`: how many bytes that is.
static void list_parts(const struct memory_gpu *m, char *out, size_t room, int64_t *whole) {
    size_t used = 0;
    out[0] = 0;
    *whole = 0;
    for (int i = 0; i < MEMORY_PARTS && used < room; i++) {
        if (m->bytes[i] == 0 || i == MEMORY_context) continue;
        *whole += m->bytes[i];
        used += (size_t)snprintf(out + used, room - used, "%s%s %.1f", used ? ", " : "", parts[i].words,
                                 mib(m->bytes[i]));
    }
}

int memory_check(const struct rank *r, const struct modality_set *set, struct err *e) {
    struct device_info info;
    struct memory_gpu m;
    struct params p;
    char list[512], advice[MEMORY_ADVICE_BYTES];
    if (r->device->host_memory) return 0;
    device_describe(r->device, &info);
    int rc = params_init(&p, r->config, set, e);
    if (rc) return rc;
    rc = memory_gpu_plan(&m, r->config, set, &p, r->world, r->number, info.compute, e);
    params_fini(&p);
    if (rc) return rc;
    int64_t need;
    list_parts(&m, list, sizeof list, &need);
    if (need <= info.free_bytes) return 0;
    bool others = m.total <= info.memory_bytes;
    memory_gpu_advice(&m, r->config, advice);
    return err_set(
        e, others ? ERR_MEMORY : ERR_CONFIG,
        "the GPU has no room for this training: %.1f MiB are needed (%s), %.1f of %.1f MiB are free; %s%s",
        mib(need), list, mib(info.free_bytes), mib(info.memory_bytes),
        others ? "others hold the rest (nvidia-smi says who): end them, or " : "", advice);
}
