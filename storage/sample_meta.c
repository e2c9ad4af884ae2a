// SPDX-License-Identifier: Apache-2.0
#include "storage/sample_meta.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define FRAMES_MAX ((int64_t)1 << 31)
#define SHAPE_MAX  ((int64_t)1 << 31)

// Copies an optional (empty when absent) or required text of at most cap - 1 bytes.
static int take_text(const struct json *doc, const struct json_value *o, const char *key, bool required,
                     const char *what, char *out, size_t cap, struct err *e) {
    const char *text;
    out[0] = 0;
    if (!required && !json_get(o, key)) return 0;
    int rc = json_need_string(doc, o, key, &text, e);
    if (rc) return rc;
    size_t n = strlen(text);
    if (required && !n) return err_set(e, ERR_DATA, "%s: '%s' is empty", what, key);
    if (n >= cap)
        return err_set(e, ERR_DATA, "%s: '%s' has %zu bytes, at most %zu are allowed", what, key, n, cap - 1);
    memcpy(out, text, n + 1);
    return 0;
}

static int take_number(const struct json_value *o, const char *key, double fallback, double lo, double hi,
                       const char *what, double *out, struct err *e) {
    const struct json_value *v = json_get(o, key);
    *out = fallback;
    if (!v && fallback >= lo) return 0;
    if (!json_as_double(v, out)) return err_set(e, ERR_DATA, "%s: '%s' is missing or no number", what, key);
    if (!(*out >= lo && *out <= hi))
        return err_set(e, ERR_DATA, "%s: '%s' is %g, outside %g .. %g", what, key, *out, lo, hi);
    return 0;
}

static int take_shape(const struct json_value *o, const char *what, struct stream_schema *s, struct err *e) {
    const struct json_value *shape = json_get(o, "shape");
    size_t rank = json_size(shape);
    if (!json_is_array(shape) || rank > 4)
        return err_set(e, ERR_DATA, "%s: 'shape' of stream '%s' is no array of at most 4 sizes", what,
                       s->name);
    s->rank = (int)rank;
    for (size_t i = 0; i < rank; i++)
        if (!json_as_int(json_at(shape, i), &s->shape[i]) || s->shape[i] < 1 || s->shape[i] > SHAPE_MAX)
            return err_set(e, ERR_DATA, "%s: size %zu of stream '%s' is no whole number in 1 .. %" PRId64,
                           what, i, s->name, SHAPE_MAX);
    return 0;
}

static int take_stream(const struct json *doc, const struct json_value *o, const char *what,
                       struct stream_schema *s, struct err *e) {
    int rc = 0;
    if (!json_is_object(o)) return err_set(e, ERR_DATA, "%s: a stream is no object", what);
    if ((rc = take_text(doc, o, "name", true, what, s->name, sizeof s->name, e))) return rc;
    if ((rc = take_text(doc, o, "modality", true, what, s->modality, sizeof s->modality, e))) return rc;
    if ((rc = take_text(doc, o, "member", true, what, s->member, sizeof s->member, e))) return rc;
    if ((rc = take_text(doc, o, "dtype", true, what, s->dtype, sizeof s->dtype, e))) return rc;
    if ((rc = take_text(doc, o, "unit", false, what, s->unit, sizeof s->unit, e))) return rc;
    if ((rc = take_shape(o, what, s, e))) return rc;
    if ((rc = take_number(o, "rate_hz", -1, 1e-6, 1e9, what, &s->rate_hz, e))) return rc;
    if ((rc = take_number(o, "t0", 0, -1e9, 1e9, what, &s->t0, e))) return rc;
    return take_number(o, "scale", 0, 0, 1e30, what, &s->scale, e);
}

int sample_meta_get_streams(const struct json *doc, const struct json_value *array, const char *what,
                            struct stream_schema out[DATASET_STREAMS_MAX], int *n, struct err *e) {
    size_t count = json_size(array);
    *n = 0;
    if (!json_is_array(array)) return err_set(e, ERR_DATA, "%s: 'streams' is no array", what);
    if (count > DATASET_STREAMS_MAX)
        return err_set(e, ERR_DATA, "%s: %zu streams, at most %d are allowed", what, count,
                       DATASET_STREAMS_MAX);
    memset(out, 0, DATASET_STREAMS_MAX * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        int rc = take_stream(doc, json_at(array, i), what, &out[i], e);
        if (rc) return rc;
        for (size_t j = 0; j < i; j++)
            if (!strcmp(out[i].name, out[j].name) || !strcmp(out[i].member, out[j].member))
                return err_set(e, ERR_DATA, "%s: streams %zu and %zu share a name or a member", what, j, i);
    }
    *n = (int)count;
    return 0;
}

static int take_meta(const struct json *doc, const struct json_value *o, const char *what,
                     struct sample_meta *m, struct err *e) {
    int rc = 0;
    if ((rc = take_text(doc, o, "id", false, what, m->id, sizeof m->id, e))) return rc;
    if ((rc = take_text(doc, o, "embodiment", false, what, m->embodiment, sizeof m->embodiment, e)))
        return rc;
    if ((rc = take_text(doc, o, "split", false, what, m->split, sizeof m->split, e))) return rc;
    if ((rc = take_text(doc, o, "licence", false, what, m->licence, sizeof m->licence, e))) return rc;
    if ((rc = json_need_int(doc, o, "frames", 1, FRAMES_MAX, &m->frames, e))) return rc;
    if ((rc = take_number(o, "rate_hz", -1, 1e-6, 1e9, what, &m->rate_hz, e))) return rc;
    return sample_meta_get_streams(doc, json_get(o, "streams"), what, m->streams, &m->n_streams, e);
}

int sample_meta_parse(struct sample_meta *out, bool *known, const char *text, size_t n, const char *what,
                      struct err *e) {
    struct json *doc = NULL;
    memset(out, 0, sizeof *out);
    *known = false;
    if (n > SAMPLE_META_BYTES_MAX)
        return err_set(e, ERR_DATA, "%s: %zu bytes of metadata, at most %zu are allowed", what, n,
                       SAMPLE_META_BYTES_MAX);
    int rc = json_parse(&doc, text, n, what, e);
    if (!rc && json_get(json_root(doc), "streams")) {
        *known = true;
        rc = take_meta(doc, json_root(doc), what, out, e);
    }
    json_destroy(doc);
    return rc;
}

// ---- writing

static void put_stream(struct json_writer *w, const struct stream_schema *s) {
    json_put_object(w, NULL);
    json_put_string(w, "modality", s->modality);
    json_put_string(w, "name", s->name);
    json_put_string(w, "member", s->member);
    json_put_string(w, "dtype", s->dtype);
    json_put_array(w, "shape");
    for (int i = 0; i < s->rank; i++) json_put_int(w, NULL, s->shape[i]);
    json_close(w, ']');
    json_put_double(w, "rate_hz", s->rate_hz);
    json_put_double(w, "t0", s->t0);
    json_put_string(w, "unit", s->unit);
    json_put_double(w, "scale", s->scale);
    json_close(w, '}');
}

void sample_meta_put_streams(struct json_writer *w, const char *key, const struct stream_schema *streams,
                             int n) {
    json_put_array(w, key);
    for (int i = 0; i < n; i++) put_stream(w, &streams[i]);
    json_close(w, ']');
}

int sample_meta_write(const struct sample_meta *m, const char *simulator, struct buf *out, struct err *e) {
    struct json_writer w;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "id", m->id);
    json_put_string(&w, "embodiment", m->embodiment);
    json_put_string(&w, "split", m->split);
    json_put_string(&w, "licence", m->licence);
    json_put_int(&w, "frames", m->frames);
    json_put_double(&w, "rate_hz", m->rate_hz);
    sample_meta_put_streams(&w, "streams", m->streams, m->n_streams);
    int rc = 0;
    if (simulator) rc = buf_appendf(out, e, ",\"simulator\":%s", simulator);
    json_close(&w, '}');
    int ended = json_end(&w, e);
    if (!rc) rc = ended;
    return rc ? rc : buf_appends(out, "\n", e);
}

// ---- comparing

static const char *stream_difference(const struct stream_schema *a, const struct stream_schema *b) {
    if (strcmp(a->name, b->name)) return "name";
    if (strcmp(a->modality, b->modality)) return "modality";
    if (strcmp(a->member, b->member)) return "member";
    if (strcmp(a->dtype, b->dtype)) return "dtype";
    if (strcmp(a->unit, b->unit)) return "unit";
    if (a->rank != b->rank || memcmp(a->shape, b->shape, sizeof a->shape)) return "shape";
    if (!(a->rate_hz == b->rate_hz)) return "rate_hz";
    if (!(a->t0 == b->t0)) return "t0";
    return a->scale == b->scale ? NULL : "scale";
}

bool sample_meta_same_streams(const struct stream_schema *a, int na, const struct stream_schema *b, int nb,
                              char why[160]) {
    if (na != nb) {
        snprintf(why, 160, "%d streams and %d", na, nb);
        return false;
    }
    for (int i = 0; i < na; i++) {
        const char *field = stream_difference(&a[i], &b[i]);
        if (!field) continue;
        snprintf(why, 160, "stream '%s' and stream '%s' differ in %s", a[i].name, b[i].name, field);
        return false;
    }
    return true;
}
