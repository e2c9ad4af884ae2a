// SPDX-License-Identifier: Apache-2.0
// parity_dump OUT.safetensors [key=value ...]: one batch of random data under the config's regimes, stirred
// weights, losses and the gradient of every tensor, in one file, for parity.py.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/rng.h"
#include "fake_set.h"
#include "flat_grads.h"
#include "kernels/device.h"
#include "trainer/model.h"
#include "trainer/regime.h"

enum { ENTRIES_MAX = 512 };

struct entry {
    char name[96];
    int rank;
    int64_t shape[3];
    float *data;
    int64_t elems;
};

struct dump {
    struct config_file *file;
    const struct config *c;
    struct modality_set set;
    struct device *device;
    struct model *model;
    int64_t sequences, frames;
    float *x[4], *z[4], *history[4], *active[4];
    float *tau, *past, *tau_history, *hide, *grads;
    uint64_t *sample;
    struct entry list[ENTRIES_MAX];
    int n;
};

static float *floats(int64_t n) {
    return calloc((size_t)n, sizeof(float));
}

static void keep(struct dump *d, const char *prefix, const char *name, float *data, const int64_t *shape,
                 int rank) {
    struct entry *t = &d->list[d->n++];
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    t->data = data;
    t->rank = rank;
    t->elems = 1;
    for (int i = 0; i < rank; i++) t->elems *= t->shape[i] = shape[i];
}

static void random_normals(float *v, int64_t n, double sd, uint32_t stream) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(5, RNG_TEST, stream), 0, 0);
    for (int64_t i = 0; i < n; i++) v[i] += (float)(sd * rng_next_normal(&r));
}

// Zero starts would hide what stands behind them.
static void stir(struct dump *d) {
    const struct params *p = model_params(d->model);
    for (int i = 0; i < p->n; i++) {
        const struct param *t = &p->list[i];
        double sd = t->rank == 2 ? 1 / sqrt((double)t->shape[1]) : 0.3;
        random_normals(model_weights(d->model) + t->offset, t->elems, 0.5 * sd, 100 + (uint32_t)i);
    }
}

static void draw(struct dump *d) {
    for (int64_t b = 0; b < d->sequences; b++) {
        float hide[4];
        struct regime_draw r = {d->tau + b * d->frames * 4, d->past + b * d->frames,
                                d->tau_history + b * d->frames, hide};
        d->sample[b] = (uint64_t)b;
        regime_sample(d->c, &d->set, d->frames, d->sample[b], &r);
        for (int i = 0; i < 4; i++) d->hide[i * d->sequences + b] = hide[i];
    }
}

static int add_noise(struct dump *d, int i, struct err *e) {
    int64_t frames = d->sequences * d->frames, width = d->frames * d->set.spec[i].frame_elems;
    d->x[i] = floats(frames * d->set.spec[i].frame_elems);
    d->z[i] = floats(frames * d->set.spec[i].frame_elems);
    d->history[i] = floats(frames * d->set.spec[i].frame_elems);
    d->active[i] = floats(frames);
    random_normals(d->x[i], d->sequences * width, 1, 10 + (uint32_t)i);
    for (int64_t f = 0; f < frames; f++) d->active[i][f] = d->tau[f * 4 + i] < 1 ? 1 : 0;
    struct op_noise_args a = {.x = tensor_2d(d->x[i], d->sequences, width),
                              .z = tensor_2d(d->z[i], d->sequences, width),
                              .tau = tensor_1d(d->tau + i, frames),
                              .tau_stride = 4,
                              .frames = d->frames,
                              .key = rng_key(1, RNG_NOISE, (uint32_t)i),
                              .sample = d->sample};
    int rc = d->device->ops->noise(d->device, &a, e);
    a.z = tensor_2d(d->history[i], d->sequences, width);
    a.tau = tensor_1d(d->past, frames);
    a.tau_stride = 1;
    a.key = rng_key(1, RNG_HISTORY_NOISE, (uint32_t)i);
    a.hide = d->hide + i * d->sequences;
    return rc ? rc : d->device->ops->noise(d->device, &a, e);
}

static int compute(struct dump *d, float *losses, struct err *e) {
    struct model_input in = {
        .sequences = d->sequences, .frames = d->frames, .tau = d->tau, .tau_history = d->tau_history};
    struct model_target t = {.tau = d->tau};
    double loss[4] = {0};
    float scale[4];
    t.scale = scale;
    for (int i = 0; i < 4; i++) {
        in.z[i] = d->z[i];
        in.history[i] = d->history[i];
        t.x[i] = d->x[i];
        t.active[i] = d->active[i];
        double count = 0;
        for (int64_t f = 0; f < d->sequences * d->frames; f++) count += (double)d->active[i][f];
        scale[i] = count > 0 ? (float)(d->set.spec[i].loss_weight / count) : 0;
    }
    int rc = model_reserve(d->model, d->sequences, d->frames, e);
    if (!rc) rc = model_forward(d->model, &in, e);
    if (!rc) rc = model_loss(d->model, &t, loss, e);
    const struct model_grads grads = flat_grads(d->grads);
    if (!rc) rc = model_backward(d->model, &grads, e);
    for (int i = 0; i < 4; i++) losses[i] = (float)(loss[i] * (double)scale[i]);
    return rc;
}

static void list_all(struct dump *d, float *losses) {
    const struct params *p = model_params(d->model);
    int64_t bf[3] = {d->sequences, d->frames, 4};
    for (int i = 0; i < p->n; i++) {
        keep(d, "weight.", p->list[i].name, model_weights(d->model) + p->list[i].offset, p->list[i].shape,
             p->list[i].rank);
        keep(d, "grad.", p->list[i].name, d->grads + p->list[i].offset, p->list[i].shape, p->list[i].rank);
    }
    for (int i = 0; i < 4; i++) {
        const char *name = d->set.spec[i].modality->name;
        int64_t shape[3] = {d->sequences, d->frames, d->set.spec[i].frame_elems};
        keep(d, "x.", name, d->x[i], shape, 3);
        keep(d, "z.", name, d->z[i], shape, 3);
        keep(d, "history.", name, d->history[i], shape, 3);
        keep(d, "active.", name, d->active[i], bf, 2);
    }
    int64_t four = 4;
    keep(d, "", "tau", d->tau, bf, 3);
    keep(d, "", "tau_history", d->tau_history, bf, 2);
    keep(d, "", "losses", losses, &four, 1);
}

static int write_header(const struct dump *d, struct buf *b, struct err *e) {
    struct json_writer w;
    int64_t at = 0;
    json_begin(&w, b);
    json_put_object(&w, NULL);
    for (int i = 0; i < d->n; i++) {
        const struct entry *t = &d->list[i];
        json_put_object(&w, t->name);
        json_put_string(&w, "dtype", "F32");
        json_put_array(&w, "shape");
        for (int k = 0; k < t->rank; k++) json_put_int(&w, NULL, t->shape[k]);
        json_close(&w, ']');
        json_put_array(&w, "data_offsets");
        json_put_int(&w, NULL, at);
        json_put_int(&w, NULL, at += t->elems * 4);
        json_close(&w, ']');
        json_close(&w, '}');
    }
    json_close(&w, '}');
    return json_end(&w, e);
}

static int write_all(const struct dump *d, const char *path, struct err *e) {
    struct buf header, out;
    unsigned char size[8];
    buf_init(&header, 1 << 20);
    buf_init(&out, (size_t)1 << 30);
    int rc = write_header(d, &header, e);
    bytes_put_le64(size, header.len);
    if (!rc) rc = buf_append(&out, size, sizeof size, e);
    if (!rc) rc = buf_append(&out, header.data, header.len, e);
    for (int i = 0; !rc && i < d->n; i++)
        rc = buf_append(&out, d->list[i].data, (size_t)d->list[i].elems * sizeof(float), e);
    if (!rc) rc = bytes_write_file(path, out.data, out.len, e);
    buf_fini(&header);
    buf_fini(&out);
    return rc;
}

static int run(struct dump *d, const char *path, const char *const *overrides, size_t n, struct err *e) {
    float losses[4];
    int rc = config_load(&d->file, NULL, overrides, n, e);
    if (rc) return rc;
    d->c = config_values(d->file);
    fake_set(&d->set, d->c);
    d->sequences = d->c->train_batch;
    d->frames = d->c->data_frames;
    int64_t frames = d->sequences * d->frames;
    d->tau = floats(frames * 4);
    d->past = floats(frames);
    d->tau_history = floats(frames);
    d->hide = floats(d->sequences * 4);
    d->sample = calloc((size_t)d->sequences, sizeof *d->sample);
    rc = device_open_cpu(&d->device, 0, e);
    if (!rc) rc = model_create(&d->model, d->c, &d->set, d->device, e);
    if (rc) return rc;
    d->grads = floats(model_params(d->model)->elems);
    stir(d);
    draw(d);
    for (int i = 0; !rc && i < 4; i++) rc = add_noise(d, i, e);
    if (!rc) rc = compute(d, losses, e);
    list_all(d, losses);
    return rc ? rc : write_all(d, path, e);
}

static void release(struct dump *d) {
    for (int i = 0; i < 4; i++) {
        free(d->x[i]);
        free(d->z[i]);
        free(d->history[i]);
        free(d->active[i]);
    }
    free(d->tau);
    free(d->past);
    free(d->tau_history);
    free(d->hide);
    free(d->sample);
    free(d->grads);
    model_destroy(d->model);
    device_close(d->device);
    config_close(d->file);
    free(d);
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct dump *d = calloc(1, sizeof *d);
    if (argc < 2 || !d) return 64;
    int rc = run(d, argv[1], (const char *const *)argv + 2, (size_t)argc - 2, &e);
    if (rc) fprintf(stderr, "parity_dump: %s\n", e.text);
    release(d);
    return rc ? 1 : 0;
}
