// SPDX-License-Identifier: Apache-2.0
// What the films of a data set have in common, member by member.
#include <inttypes.h>
#include <string.h>

#include "storage/film_json.h"

#define COUNT_MAX ((int64_t)1 << 53)
#define RATE_MAX  4294967296.0

static struct film_sum *find(struct film_sums *s, const char *member) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->sum[i].member, member)) return &s->sum[i];
    if (s->n == FILM_SUMS_MAX || strlen(member) >= sizeof s->sum->member) return NULL;
    struct film_sum *new = &s->sum[s->n++];
    memset(new, 0, sizeof *new);
    memcpy(new->member, member, strlen(member) + 1);
    return new;
}

static void widen(int64_t range[2], const int64_t from[2], bool first) {
    if (first || from[0] < range[0]) range[0] = from[0];
    if (first || from[1] > range[1]) range[1] = from[1];
}

static void merge(struct film_sum *into, const struct film_sum *x) {
    bool first = into->films == into->left_out;
    into->films += x->films;
    into->left_out += x->left_out;
    into->frames += x->frames;
    if (x->films == x->left_out) return;
    widen(into->width, x->width, first);
    widen(into->height, x->height, first);
    if (first || x->rate_hz[0] < into->rate_hz[0]) into->rate_hz[0] = x->rate_hz[0];
    if (first || x->rate_hz[1] > into->rate_hz[1]) into->rate_hz[1] = x->rate_hz[1];
}

void film_sums_add(struct film_sums *s, const char *member, const struct film_table *t) {
    struct film_sum *into = find(s, member);
    double rate = film_rate_hz(t);
    const struct film_sum x = {.films = 1,
                               .left_out = t->frames == 0,
                               .frames = t->frames,
                               .width = {t->width, t->width},
                               .height = {t->height, t->height},
                               .rate_hz = {rate, rate}};
    if (into) merge(into, &x);
}

void film_sums_merge(struct film_sums *s, const struct film_sums *from) {
    for (int i = 0; i < from->n; i++) {
        struct film_sum *into = find(s, from->sum[i].member);
        if (into) merge(into, &from->sum[i]);
    }
}

// ---- as JSON

static void put_range(struct json_writer *w, const char *key, const int64_t range[2]) {
    json_put_array(w, key);
    for (int i = 0; i < 2; i++) json_put_int(w, NULL, range[i]);
    json_close(w, ']');
}

void film_sums_put(struct json_writer *w, const struct film_sums *s) {
    if (!s->n) return;
    json_put_array(w, "films");
    for (int i = 0; i < s->n; i++) {
        const struct film_sum *x = &s->sum[i];
        json_put_object(w, NULL);
        json_put_string(w, "member", x->member);
        json_put_int(w, "films", x->films);
        json_put_int(w, "left_out", x->left_out);
        json_put_int(w, "frames", x->frames);
        put_range(w, "width", x->width);
        put_range(w, "height", x->height);
        json_put_array(w, "rate_hz");
        for (int k = 0; k < 2; k++) json_put_double(w, NULL, x->rate_hz[k]);
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, ']');
}

static bool get_range(const struct json_value *v, int64_t out[2]) {
    return json_size(v) == 2 && json_as_int(json_at(v, 0), &out[0]) && json_as_int(json_at(v, 1), &out[1]) &&
           out[0] >= 0 && out[0] <= out[1] && out[1] <= UINT16_MAX;
}

static bool get_rates(const struct json_value *v, double out[2]) {
    return json_size(v) == 2 && json_as_double(json_at(v, 0), &out[0]) &&
           json_as_double(json_at(v, 1), &out[1]) && out[0] >= 0 && out[0] <= out[1] && out[1] <= RATE_MAX;
}

static int get_sum(const struct json *doc, const struct json_value *v, const char *what, struct film_sums *s,
                   struct err *e) {
    struct film_sum x = {.films = 0};
    const char *member;
    int rc = json_need_string(doc, v, "member", &member, e);
    if (!rc) rc = json_need_int(doc, v, "films", 1, COUNT_MAX, &x.films, e);
    if (!rc) rc = json_need_int(doc, v, "left_out", 0, x.films, &x.left_out, e);
    if (!rc) rc = json_need_int(doc, v, "frames", 0, COUNT_MAX, &x.frames, e);
    if (rc) return rc;
    int before = s->n;
    struct film_sum *new = find(s, member);
    if (!new || s->n == before || !get_range(json_get(v, "width"), x.width) ||
        !get_range(json_get(v, "height"), x.height) || !get_rates(json_get(v, "rate_hz"), x.rate_hz))
        return err_set(e, ERR_DATA, "%s: entry %d of 'films' does not describe films", what, before);
    memcpy(x.member, new->member, sizeof x.member);
    *new = x;
    return 0;
}

int film_sums_get(const struct json *doc, const struct json_value *root, const char *what,
                  struct film_sums *out, struct err *e) {
    const struct json_value *list = json_get(root, "films");
    int rc = 0;
    out->n = 0;
    if (list && !json_is_array(list)) return err_set(e, ERR_DATA, "%s: 'films' is no list", what);
    for (size_t i = 0, n = json_size(list); i < n && !rc; i++)
        rc = get_sum(doc, json_at(list, i), what, out, e);
    return rc;
}
