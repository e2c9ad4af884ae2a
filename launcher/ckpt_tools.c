// SPDX-License-Identifier: Apache-2.0
#include "launcher/ckpt_tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/config.h"
#include "base/json.h"

#define SLAB_ELEMS ((int64_t)4 << 20)

// ---- diff

static void compare(const float *x, const float *y, int64_t n, struct tensor_diff *d) {
    for (int64_t i = 0; i < n; i++) {
        if (!memcmp(&x[i], &y[i], sizeof *x)) continue;
        double apart = fabs((double)x[i] - (double)y[i]);
        d->differing++;
        if (!(apart <= d->largest)) d->largest = isnan(apart) ? INFINITY : apart;
    }
}

// Reads both, in slabs of the first dimension.
static int diff_tensor(struct ckpt *a, struct ckpt *b, const struct ckpt_tensor *t, struct tensor_diff *d,
                       struct err *e) {
    struct ckpt_tensor slab = *t;
    int64_t row = 1, rows = t->rank ? t->shape[0] : 1;
    for (int i = 1; i < t->rank; i++) row *= t->shape[i];
    int64_t most = SLAB_ELEMS / row < 1 ? 1 : SLAB_ELEMS / row;
    if (most > rows) most = rows;
    float *x = calloc((size_t)(most * row), sizeof *x), *y = calloc((size_t)(most * row), sizeof *y);
    int rc = x && y ? 0 : err_set(e, ERR_MEMORY, "no memory to compare tensor '%s'", t->name);
    for (int64_t at = 0; at < rows && !rc; at += most) {
        int64_t n = rows - at < most ? rows - at : most;
        if (t->rank) {
            slab.offset[0] = at;
            slab.extent[0] = n;
        }
        rc = ckpt_read(a, &slab, x, e);
        if (!rc) rc = ckpt_read(b, &slab, y, e);
        if (!rc) compare(x, y, n * row, d);
    }
    d->elems = rows * row;
    free(x);
    free(y);
    return rc;
}

static bool same_shape(const struct ckpt_tensor *a, const struct ckpt_tensor *b) {
    return a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof a->shape);
}

// Tensor i of a and k of b, which have one name.
static int diff_pair(struct ckpt *a, size_t i, struct ckpt *b, size_t k, struct tensor_diff *d,
                     struct err *e) {
    struct ckpt_tensor x, y;
    ckpt_tensor_at(a, i, &x);
    ckpt_tensor_at(b, k, &y);
    if (!same_shape(&x, &y)) d->why = "the shapes differ";
    if (d->why || ckpt_tensor_same(a, i, b, k)) return 0;
    return diff_tensor(a, b, &x, d, e);
}

// Walks both lists of names, which are sorted.
int ckpt_tools_compare(struct ckpt *a, struct ckpt *b, ckpt_tools_each_fn *each, void *arg, struct err *e) {
    size_t i = 0, k = 0, na = ckpt_tensors(a), nb = ckpt_tensors(b);
    while (i < na || k < nb) {
        struct ckpt_tensor x = {.name = NULL}, y = {.name = NULL};
        if (i < na) ckpt_tensor_at(a, i, &x);
        if (k < nb) ckpt_tensor_at(b, k, &y);
        int order = !x.name ? 1 : !y.name ? -1 : strcmp(x.name, y.name);
        struct tensor_diff d = {.name = order > 0 ? y.name : x.name,
                                .where = order > 0 ? ckpt_tensor_file(b, k) : ckpt_tensor_file(a, i)};
        if (order) d.why = order < 0 ? "only in the first" : "only in the second";
        int rc = order ? 0 : diff_pair(a, i, b, k, &d, e);
        if (rc) return rc;
        if (d.why || d.differing) each(arg, &d);
        i += order <= 0;
        k += order >= 0;
    }
    return 0;
}

struct diff_print {
    bool json;
    int64_t differing;
    struct json_writer w;
};

static void print_diff(void *arg, const struct tensor_diff *d) {
    struct diff_print *p = arg;
    p->differing++;
    if (!p->json) {
        if (d->why)
            printf("%s: %s\n", d->name, d->why);
        else
            printf("%s: %" PRId64 " of %" PRId64 " elements differ, by up to %g\n", d->name, d->differing,
                   d->elems, d->largest);
        return;
    }
    json_put_object(&p->w, NULL);
    json_put_string(&p->w, "name", d->name);
    if (d->why) json_put_string(&p->w, "why", d->why);
    json_put_int(&p->w, "differing", d->differing);
    json_put_int(&p->w, "elems", d->elems);
    json_put_double(&p->w, "largest", d->largest);
    json_close(&p->w, '}');
}

int ckpt_tools_diff(struct ckpt *a, struct ckpt *b, bool json, int64_t *differing, struct err *e) {
    struct diff_print p = {.json = json};
    struct buf out;
    buf_init(&out, (size_t)64 << 20);
    json_begin(&p.w, &out);
    json_put_array(&p.w, NULL);
    int rc = ckpt_tools_compare(a, b, print_diff, &p, e);
    json_close(&p.w, ']');
    int ended = json_end(&p.w, e);
    if (!rc) rc = ended;
    if (!rc && json) puts(out.data);
    if (!rc && !json && !p.differing) printf("the same: %zu tensors, bit for bit\n", ckpt_tensors(a));
    *differing = p.differing;
    buf_fini(&out);
    return rc;
}

// ---- export

struct file_out {
    int fd;
    const char *path;
};

static int write_out(void *arg, const void *data, size_t bytes, struct err *e) {
    const struct file_out *f = arg;
    return bytes_write_whole(f->fd, data, bytes) < bytes ? err_errno(e, errno, "cannot write %s", f->path)
                                                         : 0;
}

static int export_weights(struct ckpt *c, const char *prefix, bool weights, const char *folder,
                          struct err *e) {
    char path[4096], temporary[4200];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(temporary, sizeof temporary, "%s.tmp-%d", path, (int)getpid());
    struct file_out f = {open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666), path};
    if (f.fd < 0) return err_errno(e, errno, "cannot create %s", temporary);
    int rc = ckpt_export_to(c, prefix, weights ? "optim." : NULL, write_out, &f, e);
    if (!rc && fsync(f.fd)) rc = err_errno(e, errno, "cannot sync %s", path);
    if (close(f.fd) && !rc) rc = err_errno(e, errno, "cannot close %s", path);
    if (!rc && rename(temporary, path)) rc = err_errno(e, errno, "cannot rename %s", temporary);
    if (rc) unlink(temporary);
    return rc;
}

static void put_state(struct json_writer *w, const struct ckpt *c) {
    const struct ckpt_state *s = ckpt_state_of(c);
    char text[32];
    json_put_string(w, "save", ckpt_id(c));
    json_put_int(w, "step", s->step);
    json_put_int(w, "next_sample", s->next_sample);
    snprintf(text, sizeof text, "%" PRIu64, s->seed);
    json_put_string(w, "seed", text);
    json_put_string(w, "sample_sha256", s->sample_sha256);
}

static int export_config(const struct ckpt *c, const char *folder, struct err *e) {
    const char *yaml = ckpt_state_of(c)->config_yaml;
    char path[4096];
    struct config_file *f = NULL;
    struct json_writer w;
    struct buf out;
    buf_init(&out, (size_t)1 << 20);
    int rc = config_parse(&f, "the checkpoint's config", yaml, strlen(yaml), e);
    if (rc) goto out;
    json_begin(&w, &out);
    json_put_object(&w, NULL);
    put_state(&w, c);
    config_put_json(&w, "config", config_values(f));
    json_close(&w, '}');
    if ((rc = json_end(&w, e)) || (rc = buf_appends(&out, "\n", e))) goto out;
    snprintf(path, sizeof path, "%s/config.yaml", folder);
    if ((rc = bytes_write_file(path, yaml, strlen(yaml), e))) goto out;
    snprintf(path, sizeof path, "%s/config.json", folder);
    rc = bytes_write_file(path, out.data, out.len, e);
out:
    config_close(f);
    buf_fini(&out);
    return rc;
}

int ckpt_tools_export(struct ckpt *c, const char *prefix, bool weights, const char *folder, struct err *e) {
    int rc = bytes_make_dirs(folder, e);
    if (!rc) rc = export_config(c, folder, e);
    if (!rc) rc = export_weights(c, prefix, weights, folder, e);
    if (!rc) printf("%s/model.safetensors\n%s/config.yaml\n%s/config.json\n", folder, folder, folder);
    return rc;
}
