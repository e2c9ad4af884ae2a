// SPDX-License-Identifier: Apache-2.0
// The index of one shard, in memory and as JSON. Inside storage only: dataset.h is the door.
#ifndef ORRERY_STORAGE_DATASET_INDEX_H
#define ORRERY_STORAGE_DATASET_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/dataset_schema.h"
#include "storage/film_json.h"
#include "storage/sample_meta.h"
#include "storage/tar.h"

#define DATASET_INDEX_MAX        ((size_t)64 << 20) // bytes of an index object
#define DATASET_FILM_NUMBERS_MAX ((int64_t)1 << 19) // steps and keys that one index lists
#define DATASET_FILM_CRCS_MAX    ((int64_t)1 << 20) // and blocks: 64 GiB of films

struct index_member {
    uint32_t name; // place in `text`
    uint32_t crc32c;
    int64_t offset, bytes;
};

struct index_sample {
    uint32_t stem;     // place in `text`
    uint32_t first, n; // members
    int64_t frames;
};

struct index_film {
    uint32_t member;
    struct film_table table;
};

struct dataset_index {
    int64_t bytes; // of the shard
    uint32_t crc32c;
    size_t n_samples, cap_samples, n_members, cap_members;
    struct index_sample *samples;
    struct index_member *members;
    size_t n_films, cap_films;
    struct index_film *films; // in the order of their members
    int64_t film_numbers;     // in their lists
    int64_t film_crcs;
    struct buf text; // names and stems, each NUL-terminated
    double rate_hz;  // of frames, where a schema has told; else 0
    int n_streams;
    struct stream_schema streams[DATASET_STREAMS_MAX];
};

void dataset_index_init(struct dataset_index *x);
void dataset_index_fini(struct dataset_index *x);
const char *dataset_index_text(const struct dataset_index *x, uint32_t place);
size_t dataset_index_memory(const struct dataset_index *x);

// The table of a member; NULL: it is no film, or the index was made without tables.
const struct film_table *dataset_index_film(const struct dataset_index *x, uint32_t member);

// Building, in the order of the shard: samples, each one's members, each one's film. `shard` and its offsets
// are for messages.
int dataset_index_add_sample(struct dataset_index *x, const char *stem, size_t n, struct err *e) ERR_CHECK;
int dataset_index_add_member(struct dataset_index *x, const char *shard, const char *name, size_t n,
                             int64_t offset, int64_t bytes, uint32_t crc, struct err *e) ERR_CHECK;
// Takes the table over, in any case. Lists that an index has no room for are left out: the rest is kept.
int dataset_index_add_film(struct dataset_index *x, uint32_t member, struct film_table *t,
                           struct err *e) ERR_CHECK;
// A stem that comes twice would be two samples of one name: WebDataset readers and we would disagree on them.
int dataset_index_check_stems(const struct dataset_index *x, const char *shard, struct err *e) ERR_CHECK;

// Scans a tar front to back, once. `schema`: of samples that do not describe themselves, or NULL.
int dataset_index_scan(struct dataset_index *x, const struct tar_source *source,
                       const struct dataset_schema *schema, struct err *e) ERR_CHECK;

// dataset_index_json.c
int dataset_index_write(const struct dataset_index *x, const char *shard, struct buf *out,
                        struct err *e) ERR_CHECK;
// Every offset and size is inside the shard, samples and members are in order and do not overlap.
int dataset_index_parse(struct dataset_index *x, const char *text, size_t n, const char *shard,
                        struct err *e) ERR_CHECK;

// Shared with the manifest: a CRC32C as eight hex digits; "format" and "version" at the head of a document;
// the rate of frames, where it is known, and the streams.
void dataset_index_put_crc(struct json_writer *w, const char *key, uint32_t crc);
bool dataset_index_crc(const struct json_value *v, uint32_t *out);
int dataset_index_head(const struct json *doc, const char *format, const char *what, struct err *e) ERR_CHECK;
void dataset_index_put_streams(struct json_writer *w, double rate_hz, const struct stream_schema *streams,
                               int n);
int dataset_index_streams(const struct json *doc, const char *what, double *rate_hz,
                          struct stream_schema *streams, int *n, struct err *e) ERR_CHECK;

#endif
