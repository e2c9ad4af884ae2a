// SPDX-License-Identifier: Apache-2.0
// bench_stall URL [SAVES]: how long a step stands still for an asynchronous save, beside the bare copy of the
// same tensors. Each save is waited for before the next begins; medians.
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

#define fail_msg(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))
#include "fake_step.h"
#include "trainer/snapshot.h"

#define SAVES_MAX 200

struct stall {
    struct fixture f;
    struct snapshot *snapshot;
    struct ckpt_state *state;
    float *copy;
    double stalls[SAVES_MAX], copies[SAVES_MAX], overs[SAVES_MAX];
};

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[n / 2];
}

// What a save copies: weights and the optimiser's state. Returns the floats; copies when `into` is given.
static int64_t copy_tensors(const struct fixture *f, float *into) {
    const struct params *p = model_params(f->model);
    int64_t used = 0;
    for (int i = 0; i < p->n; i++) {
        const float *from[1 + OPTIM_STATES] = {model_weights(f->model) + p->list[i].offset};
        for (int w = 0; w < OPTIM_STATES; w++) from[1 + w] = optim_state_of(f->optim, i, (enum optim_state)w);
        for (int k = 0; k <= OPTIM_STATES; k++) {
            if (!from[k]) continue;
            if (into) memcpy(into + used, from[k], (size_t)p->list[i].elems * sizeof(float));
            used += p->list[i].elems;
        }
    }
    return used;
}

static void save(struct stall *s, int number) {
    struct err e = {0};
    s->state->step = number + 1;
    double begun = clock_seconds();
    copy_tensors(&s->f, s->copy);
    double copied = clock_seconds();
    if (snapshot_begin(s->snapshot, s->state, &e)) fail_msg("%s", e.text);
    double ended = clock_seconds();
    if (snapshot_finish(s->snapshot, &e)) fail_msg("%s", e.text);
    s->copies[number] = copied - begun;
    s->stalls[number] = ended - copied;
    s->overs[number] = s->stalls[number] - s->copies[number];
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct buf yaml;
    struct stall *s = calloc(1, sizeof *s);
    int64_t saves = 21;
    if (!s || argc < 2 ||
        (argc > 2 && (!bytes_parse_i64(argv[2], &saves) || saves < 1 || saves > SAVES_MAX))) {
        fprintf(stderr, "usage: bench_stall URL [SAVES]\n");
        return 64;
    }
    open_fixture(&s->f,
                 fake_config("model.width=512", "model.layers=6", "checkpoint.keep=2", "train.batch=4"));
    snprintf(s->f.rank.ckpt_url, sizeof s->f.rank.ckpt_url, "%s", argv[1]);
    if (snapshot_open(&s->snapshot, &s->f.rank, s->f.model, s->f.optim, &s->f.fault, &e))
        fail_msg("%s", e.text);
    int64_t floats = copy_tensors(&s->f, NULL);
    s->copy = malloc((size_t)floats * sizeof(float));
    s->state = calloc(1, sizeof *s->state);
    if (!s->copy || !s->state) fail_msg("no memory");
    buf_init(&yaml, sizeof s->state->config_yaml - 1);
    if (config_write_values(s->f.rank.file, &yaml, &e)) fail_msg("%s", e.text);
    memcpy(s->state->config_yaml, yaml.data, yaml.len);
    memset(s->state->sample_sha256, '0', 64);
    for (int i = 0; i < (int)saves; i++) save(s, i);
    printf("%.0f MB: a step stands still for %.1f ms, the copy alone takes %.1f ms; %.2f ms beyond it "
           "(median of %d)\n",
           4e-6 * (double)floats, 1e3 * median(s->stalls, (int)saves), 1e3 * median(s->copies, (int)saves),
           1e3 * median(s->overs, (int)saves), (int)saves);
    buf_fini(&yaml);
    snapshot_close(s->snapshot);
    close_fixture(&s->f);
    free(s->copy);
    free(s->state);
    free(s);
    return 0;
}
