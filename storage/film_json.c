// SPDX-License-Identifier: Apache-2.0
#include "storage/film_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TICKS_MAX ((int64_t)1 << 53)

static void put_list(struct json_writer *w, const char *key, const uint32_t *list, int64_t n) {
    json_put_array(w, key);
    for (int64_t i = 0; i < n; i++) json_put_int(w, NULL, list[i]);
    json_close(w, ']');
}

static void put_table(struct json_writer *w, const struct film_table *t) {
    json_put_string(w, "codec", t->codec);
    json_put_int(w, "width", t->width);
    json_put_int(w, "height", t->height);
    json_put_int(w, "frames", t->frames);
    json_put_int(w, "timescale", t->timescale);
    json_put_int(w, "last", t->last);
    json_put_int(w, "duration", t->duration);
    if (t->step) json_put_int(w, "step", t->step);
    if (t->steps) put_list(w, "steps", t->steps, t->frames - 1);
    if (t->key_step) json_put_int(w, "key_step", t->key_step);
    if (t->keys) put_list(w, "keys", t->keys, t->n_keys);
}

static void put_parts(struct json_writer *w, const struct film_table *t) {
    json_put_int(w, "lead", t->lead);
    json_put_int(w, "moov_at", t->moov_at);
    json_put_int(w, "moov_bytes", t->moov_bytes);
    json_put_int(w, "block", FILM_BLOCK);
    put_list(w, "crc32c", t->crcs, t->n_crcs);
}

void film_put(struct json_writer *w, const char *key, const struct film_table *t) {
    json_put_object(w, key);
    if (!t->frames)
        json_put_string(w, "left_out", t->why);
    else
        put_table(w, t);
    if (t->n_crcs) put_parts(w, t);
    json_close(w, '}');
}

// ---- reading

// A list of numbers of lo .. 2^32 - 1.
static int get_list(const struct json_value *v, const char *key, const char *what, int64_t lo, uint32_t **out,
                    struct err *e) {
    size_t n = json_size(v);
    if (!json_is_array(v)) return err_set(e, ERR_DATA, "%s: '%s' of a film is no list", what, key);
    *out = calloc(n ? n : 1, sizeof **out);
    if (!*out) return err_set(e, ERR_MEMORY, "no memory for a table of %zu frames", n);
    for (size_t i = 0; i < n; i++) {
        int64_t x;
        if (!json_as_int(json_at(v, i), &x) || x < lo || x > UINT32_MAX)
            return err_set(e, ERR_DATA, "%s: entry %zu of a film's '%s' is out of bounds", what, i, key);
        (*out)[i] = (uint32_t)x;
    }
    return 0;
}

static int get_steps(const struct json *doc, const struct json_value *v, const char *what,
                     struct film_table *t, struct err *e) {
    const struct json_value *list = json_get(v, "steps");
    int64_t step = 0, sum = 0;
    int rc = 0;
    if (json_get(v, "step")) rc = json_need_int(doc, v, "step", 1, UINT32_MAX, &step, e);
    t->step = (uint32_t)step;
    if (!rc && list) rc = get_list(list, "steps", what, 1, &t->steps, e);
    if (rc) return rc;
    if (list && (step || (int64_t)json_size(list) != t->frames - 1))
        return err_set(e, ERR_DATA, "%s: a film of %" PRId64 " frames has %zu steps", what, t->frames,
                       json_size(list));
    for (int64_t i = 0; t->steps && i < t->frames - 1; i++) sum += t->steps[i];
    if (!t->steps) sum = step ? step * (t->frames - 1) : t->frames == 1 ? 0 : t->last;
    if (sum != t->last)
        return err_set(e, ERR_DATA, "%s: a film's steps add up to %" PRId64 " ticks, not %" PRId64, what, sum,
                       t->last);
    return 0;
}

static int get_keys(const struct json *doc, const struct json_value *v, const char *what,
                    struct film_table *t, struct err *e) {
    const struct json_value *list = json_get(v, "keys");
    int rc = 0;
    if (json_get(v, "key_step")) rc = json_need_int(doc, v, "key_step", 1, FILM_FRAMES_MAX, &t->key_step, e);
    if (!rc && list) rc = get_list(list, "keys", what, 0, &t->keys, e);
    if (rc) return rc;
    t->n_keys = (int64_t)json_size(list);
    bool ok = !list || !t->key_step;
    for (int64_t i = 0; i < t->n_keys && ok; i++)
        ok = t->keys[i] < t->frames && (!i || t->keys[i] > t->keys[i - 1]);
    return ok ? 0 : err_set(e, ERR_DATA, "%s: 'keys' of a film are out of order", what);
}

static int get_head(const struct json *doc, const struct json_value *v, const char *what,
                    struct film_table *t, struct err *e) {
    int64_t width = 0, height = 0;
    const char *codec;
    int rc = json_need_string(doc, v, "codec", &codec, e);
    if (!rc && strlen(codec) != 4)
        rc = err_set(e, ERR_DATA, "%s: 'codec' of a film has no four letters", what);
    if (rc) return rc;
    memcpy(t->codec, codec, sizeof t->codec);
    rc = json_need_int(doc, v, "width", 1, UINT16_MAX, &width, e);
    if (!rc) rc = json_need_int(doc, v, "height", 1, UINT16_MAX, &height, e);
    if (!rc) rc = json_need_int(doc, v, "frames", 1, FILM_FRAMES_MAX, &t->frames, e);
    if (!rc) rc = json_need_int(doc, v, "timescale", 1, INT32_MAX, &t->timescale, e);
    if (!rc) rc = json_need_int(doc, v, "last", 0, TICKS_MAX, &t->last, e);
    if (!rc) rc = json_need_int(doc, v, "duration", t->last, TICKS_MAX, &t->duration, e);
    t->width = (int32_t)width;
    t->height = (int32_t)height;
    return rc;
}

// None in an index from before there were parts, and none that we know in one with blocks of another size.
static int get_parts(const struct json *doc, const struct json_value *v, const char *what,
                     struct film_table *t, struct err *e) {
    int64_t block = 0;
    const struct json_value *list = json_get(v, "crc32c");
    if (!json_get(v, "block")) return 0;
    int rc = json_need_int(doc, v, "block", 1, INT32_MAX, &block, e);
    if (rc || block != FILM_BLOCK) return rc;
    rc = json_need_int(doc, v, "lead", 8, TICKS_MAX, &t->lead, e);
    if (!rc) rc = json_need_int(doc, v, "moov_at", 8, TICKS_MAX, &t->moov_at, e);
    if (!rc) rc = json_need_int(doc, v, "moov_bytes", 8, (int64_t)FILM_HEADER_MAX + 16, &t->moov_bytes, e);
    if (!rc) rc = get_list(list, "crc32c", what, 0, &t->crcs, e);
    if (!rc) t->n_crcs = (int64_t)json_size(list);
    return rc;
}

int film_get(const struct json *doc, const struct json_value *v, const char *what, struct film_table *out,
             struct err *e) {
    const char *why;
    memset(out, 0, sizeof *out);
    if (json_as_string(json_get(v, "left_out"), &why)) {
        size_t n = strlen(why);
        if (!n || n >= sizeof out->why)
            return err_set(e, ERR_DATA, "%s: 'left_out' of a film has %zu bytes, not 1 .. %zu", what, n,
                           sizeof out->why - 1);
        memcpy(out->why, why, n + 1);
        return 0;
    }
    int rc = get_head(doc, v, what, out, e);
    if (!rc) rc = get_steps(doc, v, what, out, e);
    if (!rc) rc = get_keys(doc, v, what, out, e);
    return rc ? rc : get_parts(doc, v, what, out, e);
}
