// SPDX-License-Identifier: Apache-2.0
// The task `plan`: what a run will take and cost, as JSON on stdout, from the config alone: no data, no
// peers.
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "comm/grid.h"
#include "trainer/evaluate.h"
#include "trainer/grads.h"
#include "trainer/memory.h"
#include "trainer/snapshot.h"
#include "trainer/step.h"
#include "trainer/task.h"

// Program, libraries and threads; what Open MPI adds with peers: as measured on x86-64 with Open MPI 4.1.
#define PROGRAM_BYTES  ((int64_t)18 << 20)
#define PEERS_BYTES    ((int64_t)10 << 20)
#define PICTURES_BYTES ((int64_t)28 << 20) // rank 0 draws strip and animation

#define STEP_BYTES_MAX 0x1p60 // more is not planned

// Compute capabilities whose kernels take different memory: Ampere's and newer ones', Hopper's.
static const int generations[] = {80, 90};

struct plan {
    const struct config *c;
    struct modality_set set;
    struct params params;
    int world;
    int64_t train_cells, eval_cells; // decoded data sets, bytes; -1: not known without the network
};

struct plan_memory {
    int64_t weights, optimiser, activations, step, snapshot, data, evaluation, program, total;
};

// What all episodes of a local data set take when decoded. A remote or missing one is not asked.
static int64_t cells_of(const struct plan *p, const char *url, const struct store_options *options) {
    struct dataset *d = NULL;
    struct err ignored = {0};
    int64_t each = 0;
    if (!url[0] || dataset_is_remote(url)) return -1;
    if (dataset_open(&d, url, options, &ignored)) return -1;
    for (int i = 0; i < p->set.n; i++)
        each += p->set.spec[i].frame_elems * (int64_t)p->set.spec[i].modality->cell + 1;
    int64_t cells = dataset_frames(d) * each;
    dataset_close(d);
    return cells;
}

// A cache holds the whole data set, or as much of it as it may.
static int64_t cache_bytes(const struct config *c, int64_t cells) {
    int64_t budget = c->data_memory_mb << 20;
    return cells >= 0 && cells < budget ? cells : budget;
}

static struct plan_memory memory_of(const struct plan *p, int rank) {
    const struct config *c = p->c;
    int64_t micro = c->train_batch / c->comm_shards;
    struct plan_memory m = {.program = PROGRAM_BYTES};
    const struct device host = {.host_memory = true};
    m.weights = p->params.elems * (int64_t)sizeof(float);
    m.optimiser = optim_bytes(c, &p->params, p->world, rank, &host);
    m.activations = model_training_bytes(c, &p->set, NULL, micro, c->data_frames);
    m.step = step_bytes(c, &p->set, &p->params, p->world, rank, &host);
    m.snapshot = snapshot_bytes(c, &p->params, p->world, rank);
    m.data = cache_bytes(c, p->train_cells);
    if (c->data_eval[0]) {
        m.evaluation = cache_bytes(c, p->eval_cells) +
                       model_forecast_bytes(c, &p->set, NULL, EVALUATE_CHUNK, c->data_frames);
        if (rank == 0) m.evaluation += PICTURES_BYTES;
    }
    if (p->world > 1) m.program += PEERS_BYTES;
    m.total =
        m.weights + m.optimiser + m.activations + m.step + m.snapshot + m.data + m.evaluation + m.program;
    return m;
}

static void put_memory(struct json_writer *w, const struct plan *p, int rank) {
    struct plan_memory m = memory_of(p, rank);
    json_put_object(w, NULL);
    json_put_int(w, "rank", rank);
    json_put_int(w, "weights", m.weights);
    json_put_int(w, "optimiser", m.optimiser);
    json_put_int(w, "activations", m.activations);
    json_put_int(w, "step_buffers", m.step);
    json_put_int(w, "snapshot_copy", m.snapshot);
    json_put_int(w, "data_cache", m.data);
    json_put_int(w, "evaluation", m.evaluation);
    json_put_int(w, "program", m.program);
    json_put_int(w, "total", m.total);
    json_close(w, '}');
}

// Bytes that a rank sends in a step: gradients, and its weights to the others.
static int64_t sent_per_step(const struct plan *p, int rank, const int64_t *offset) {
    int64_t weights = (offset[rank + 1] - offset[rank]) * (p->world - 1);
    return (grads_sent(p->c, &p->params, p->world, rank) + weights) * (int64_t)sizeof(float);
}

static int64_t checkpoint_bytes(const struct plan *p) {
    const struct config *c = p->c;
    int64_t moments = 0;
    for (int i = 0; i < p->params.n; i++) {
        const struct param *t = &p->params.list[i];
        moments += t->elems * (c->optim_kind == CONFIG_optim_kind_muon && t->group == PARAM_MATRIX ? 1 : 2);
    }
    return (p->params.count * (c->optim_ema > 0 ? 2 : 1) + moments) * (int64_t)sizeof(float);
}

// Who works on how much: the rank with most shards sets the pace.
static void put_layout(struct json_writer *w, const struct plan *p) {
    const struct config *c = p->c;
    int64_t micro = c->train_batch / c->comm_shards;
    int64_t most = (c->comm_shards + p->world - 1) / p->world, least = c->comm_shards / p->world;
    json_put_int(w, "ranks", p->world);
    json_put_int(w, "shards", c->comm_shards);
    json_put_int(w, "shards_per_rank_least", least);
    json_put_int(w, "shards_per_rank_most", most);
    json_put_int(w, "sequences_per_step", c->train_batch);
    json_put_int(w, "sequences_per_rank_most", most * micro);
    json_put_int(w, "frames_per_sequence", c->data_frames);
    json_put_int(w, "steps", c->train_steps);
    json_put_int(w, "checkpoint_every", c->checkpoint_every);
    json_put_int(w, "checkpoint_keep", c->checkpoint_keep);
}

static void put_model(struct json_writer *w, const struct plan *p) {
    const struct config *c = p->c;
    json_put_int(w, "parameters", p->params.count);
    json_put_int(w, "tensors", p->params.n);
    json_put_array(w, "modalities");
    for (int i = 0; i < p->set.n; i++) {
        json_put_object(w, NULL);
        json_put_string(w, "name", p->set.spec[i].modality->name);
        json_put_int(w, "tokens_per_frame", p->set.spec[i].tokens);
        json_put_int(w, "values_per_token", p->set.spec[i].value_width);
        json_close(w, '}');
    }
    json_close(w, ']');
    json_put_int(w, "tokens_per_frame", p->set.tokens_per_frame);
    json_put_int(w, "tokens_per_step", p->set.tokens_per_frame * c->data_frames * c->train_batch);
    json_put_int(w, "micro_batch", c->train_batch / c->comm_shards);
    json_put_double(w, "flops_per_step", model_step_flops(c, &p->set, c->train_batch, c->data_frames));
    json_put_bool(w, "data_known", p->train_cells >= 0);
    json_put_int(w, "checkpoint_bytes", checkpoint_bytes(p));
}

// The rank that owns most: state, sums and the copy for a checkpoint grow with it.
static int fullest(const struct plan *p, const int64_t *offset) {
    int full = 0;
    for (int r = 1; r < p->world; r++)
        if (offset[r + 1] - offset[r] > offset[full + 1] - offset[full]) full = r;
    return full;
}

// Many ranks of a large world look alike: the first, the fullest, and the last.
static bool is_shown(const struct plan *p, int rank, int full) {
    return rank < 4 || rank == full || rank == p->world - 1;
}

static void put_gpu_rank(struct json_writer *w, const struct memory_gpu *m, int rank) {
    json_put_object(w, NULL);
    json_put_int(w, "rank", rank);
    for (int i = 0; i < MEMORY_PARTS; i++)
        json_put_int(w, memory_part_name((enum memory_part)i), m->bytes[i]);
    json_put_int(w, "total", m->total);
    json_close(w, '}');
}

// A GPU's memory, for the kernels of its generation; `refusal` says why it cannot train this, empty: it can.
static void put_gpu(struct json_writer *w, const struct plan *p, int compute, int full) {
    struct memory_gpu m = {0}, most = {0};
    struct err refusal = {0};
    char advice[MEMORY_ADVICE_BYTES] = "";
    json_put_object(w, NULL);
    json_put_int(w, "compute", compute);
    json_put_array(w, "ranks");
    for (int r = 0; r < p->world && !refusal.code; r++) {
        if (!is_shown(p, r, full)) continue;
        if (memory_gpu_plan(&m, p->c, &p->set, &p->params, p->world, r, compute, &refusal)) continue;
        if (m.total > most.total) most = m;
        put_gpu_rank(w, &m, r);
    }
    json_close(w, ']');
    if (!refusal.code) memory_gpu_advice(&most, p->c, advice);
    json_put_string(w, "advice", advice);
    json_put_string(w, "refusal", refusal.code ? refusal.text : "");
    json_close(w, '}');
}

static int put_ranks(struct json_writer *w, const struct plan *p, struct err *e) {
    int64_t *offset = calloc((size_t)p->world + 1, sizeof *offset), most = 0;
    if (!offset) return err_set(e, ERR_MEMORY, "no memory for a plan of %d ranks", p->world);
    optim_split(p->c, &p->params, p->world, offset);
    for (int r = 0; r < p->world; r++) {
        int64_t sent = sent_per_step(p, r, offset);
        if (sent > most) most = sent;
    }
    json_put_int(w, "bytes_sent_per_step_and_rank", most);
    int full = fullest(p, offset);
    json_put_array(w, "memory");
    for (int r = 0; r < p->world; r++)
        if (is_shown(p, r, full)) put_memory(w, p, r);
    json_close(w, ']');
    json_put_array(w, "gpu_memory");
    for (size_t i = 0; i < sizeof generations / sizeof *generations; i++) put_gpu(w, p, generations[i], full);
    json_close(w, ']');
    free(offset);
    return 0;
}

static int write_plan(const struct plan *p, struct buf *text, struct err *e) {
    struct json_writer w;
    json_begin(&w, text);
    json_put_object(&w, NULL);
    put_layout(&w, p);
    put_model(&w, p);
    int rc = put_ranks(&w, p, e);
    json_close(&w, '}');
    return rc ? rc : json_end(&w, e);
}

// Roughly, but within a factor of 8 what the largest buffers take: no sum of a plan that passes overflows.
static int check_size(const struct plan *p, struct err *e) {
    const struct config *c = p->c;
    double sequences = (double)c->train_batch, frames = (double)c->data_frames, each = 0;
    double width = 16 * (double)c->model_width + 6 * (double)params_hidden(c);
    for (int i = 0; i < p->set.n; i++) each += 4 * (double)p->set.spec[i].frame_elems;
    double tokens = sequences / (double)c->comm_shards * frames * (double)p->set.tokens_per_frame;
    double bytes = sizeof(float) * (sequences * frames * each + tokens * width * (double)c->model_layers);
    if (bytes < STEP_BYTES_MAX) return 0;
    return err_set(e, ERR_CONFIG,
                   "a step of %lld sequences x %lld frames x %lld tokens takes exbibytes, which no machine "
                   "has; lower train.batch, data.frames, model.width or model.layers",
                   (long long)c->train_batch, (long long)c->data_frames, (long long)p->set.tokens_per_frame);
}

int task_plan(struct rank *r, struct err *e) {
    struct plan p = {.c = r->config, .world = r->config->launch_ranks > 0 ? (int)r->config->launch_ranks : 1};
    struct buf text;
    buf_init(&text, 1 << 20);
    int rc = grid_check_shards(p.c->comm_shards, p.world, e);
    if (!rc) rc = modality_set_init(&p.set, p.c, NULL, 0, e);
    if (!rc) rc = check_size(&p, e);
    if (!rc) rc = params_init(&p.params, p.c, &p.set, e);
    p.train_cells = cells_of(&p, p.c->data_train, &r->store);
    p.eval_cells = cells_of(&p, p.c->data_eval, &r->store);
    if (!rc) rc = write_plan(&p, &text, e);
    if (!rc) puts(text.data);
    params_fini(&p.params);
    buf_fini(&text);
    return rc;
}
