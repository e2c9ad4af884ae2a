// SPDX-License-Identifier: Apache-2.0
// Tables of frames as an index holds them, and what a data set's films have in common, as its manifest holds
// it. Inside storage only, but for film_sum, which dataset.h hands out.
#ifndef ORRERY_STORAGE_FILM_JSON_H
#define ORRERY_STORAGE_FILM_JSON_H

#include "base/json.h"
#include "storage/film.h"

// {"codec":"avc1","width":64,"height":48,"frames":40,"timescale":1000,"last":3900,"duration":4000,"step":100,
// "key_step":12}; "steps" and "keys" are lists where one number does not tell it all; and where parts can be
// read, "lead":48,"moov_at":81920,"moov_bytes":1200,"block":65536,"crc32c":[3735928559,...];
// {"left_out":"why"}.
void film_put(struct json_writer *w, const char *key, const struct film_table *t);
// DATA: what does not hold together. The caller frees *out, in any case.
int film_get(const struct json *doc, const struct json_value *v, const char *what, struct film_table *out,
             struct err *e) ERR_CHECK;

// The films of one member's name.
struct film_sum {
    char member[96];
    int64_t films, left_out, frames; // left_out: films without a table
    int64_t width[2], height[2];     // least and most
    double rate_hz[2];
};
#define FILM_SUMS_MAX 16 // names beyond are not counted

struct film_sums {
    int n;
    struct film_sum sum[FILM_SUMS_MAX];
};
void film_sums_add(struct film_sums *s, const char *member, const struct film_table *t);
void film_sums_merge(struct film_sums *s, const struct film_sums *from);
void film_sums_put(struct json_writer *w, const struct film_sums *s); // nothing where there are none
int film_sums_get(const struct json *doc, const struct json_value *root, const char *what,
                  struct film_sums *out, struct err *e) ERR_CHECK;

#endif
