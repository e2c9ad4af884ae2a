// SPDX-License-Identifier: Apache-2.0
// A data set: tar shards, beside each one its index "SHARD.index.json" (member name, offset, size, CRC32C,
// table of frames of a film), and one manifest "dataset.json" (shards, sizes, CRCs, frames of every sample,
// stream schema). The manifest is enough to open a data set and to count; an index is read when a sample of
// its shard is first asked for, and kept within a budget. Every byte handed out has been checked against the
// index's CRC32C. Thread rule: an open dataset may be used from any thread.
#ifndef ORRERY_STORAGE_DATASET_H
#define ORRERY_STORAGE_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/film_json.h"
#include "storage/sample_meta.h"
#include "storage/store.h"

#define DATASET_MANIFEST     "dataset.json"
#define DATASET_INDEX_SUFFIX ".index.json"
#define DATASET_MEMBERS_MAX  32 // of one sample
#define DATASET_SAMPLE_MAX   ((int64_t)1 << 30)

struct dataset;

struct dataset_sample {
    int64_t shard;  // number in the manifest
    int64_t row;    // number in the shard
    int64_t frames; // time steps at the base rate; 0: the sample has no metadata
};

#define DATASET_SOURCES_MAX 64
struct dataset_item {
    char url[512]; // empty: nothing stood between two commas
    double weight;
    bool weighted; // a number stood behind the URL
};
// One item of "URL [WEIGHT], URL [WEIGHT], ..." (comma and blank); false after the last.
bool dataset_list_next(const char **at, struct dataset_item *out);
bool dataset_is_list(const char *text);   // has it a comma and a blank, or a weight?
bool dataset_is_remote(const char *text); // the URL, or one of the list

// `url` may be a list: its data sets, with the same streams, are one whose samples follow one another.
// MISSING when there is no manifest (the message names the command that makes it).
int dataset_open(struct dataset **out, const char *url, const struct store_options *options,
                 struct err *e) ERR_CHECK;
void dataset_close(struct dataset *d);
const char *dataset_url(const struct dataset *d);
int64_t dataset_samples(const struct dataset *d);
int64_t dataset_shards(const struct dataset *d);
int64_t dataset_bytes(const struct dataset *d);  // of all shards
int64_t dataset_frames(const struct dataset *d); // of all samples
void dataset_sample(const struct dataset *d, int64_t i, struct dataset_sample *out);
int dataset_streams(const struct dataset *d, const struct stream_schema **out); // count
double
dataset_rate_hz(const struct dataset *d); // of frames, where a schema has told; else 0: the samples tell

// The data sets of a list, in its order: their samples, and the weights (0 where none of them has one).
int dataset_sources(const struct dataset *d);
void dataset_source(const struct dataset *d, int i, int64_t *first, int64_t *samples, double *weight);

struct dataset_shard {
    const char *key; // borrowed from the dataset
    int64_t bytes, first, samples, frames;
    uint32_t crc32c;
};
void dataset_shard(const struct dataset *d, int64_t shard, struct dataset_shard *out);
const char *dataset_shard_key(const struct dataset *d, int64_t shard);

// The films of all samples, as the manifest tells of them; none where it was made without.
void dataset_films(const struct dataset *d, struct film_sums *out);
// The table of frames of a sample's member, out of the index: a zeroed one where it has none, whatever the
// reason. The caller frees it.
int dataset_film(struct dataset *d, int64_t sample, const char *member, struct film_table *out,
                 struct err *e) ERR_CHECK;

// Samples that were read from the store are kept in this folder, for all processes of the node
// (storage/cache.h). Before the first read.
int dataset_use_cache(struct dataset *d, const char *folder, int64_t max_bytes, struct err *e) ERR_CHECK;

// Reads one sample's members in one ranged GET and verifies them. DATA names shard, member and offset.
struct sample_member {
    const char *name; // "video.png"
    const void *data;
    size_t bytes;
    int64_t offset; // in the shard
    uint32_t crc32c;
};
struct sample { // owns everything it points to
    int64_t number;
    char *block;
    const char *stem;
    int n;
    struct sample_member members[DATASET_MEMBERS_MAX];
};
int dataset_read(struct dataset *d, int64_t i, struct sample *out, struct err *e) ERR_CHECK;
// The same without one member, whose bytes are not read: in two GETs where it lies between others.
int dataset_read_without(struct dataset *d, int64_t i, const char *member, struct sample *out,
                         struct err *e) ERR_CHECK;
void sample_fini(struct sample *s);
const struct sample_member *sample_find(const struct sample *s, const char *name); // NULL: it has none

// Bytes lo .. hi (-1: its end) of a film whose table has crcs, verified: the blocks in which they lie, in one
// ranged GET. DATA names shard, film and bytes. The caller frees it.
struct dataset_part {
    int64_t offset; // of the film in the shard
    int64_t at;     // of the first byte in the film
    size_t n;
    char *data;
};
int dataset_read_part(struct dataset *d, int64_t sample, const char *member, int64_t lo, int64_t hi,
                      struct dataset_part *out, struct err *e) ERR_CHECK;
void dataset_part_fini(struct dataset_part *p); // also of a zeroed one

// ---- writing. Ranks write shards in parallel with dataset_put_shard; when all have returned, one of them
// writes the manifest. The bytes depend on the shards alone, not on who wrote them.

// The index of one finished tar in memory.
int dataset_index_tar(const char *shard_key, const void *tar, size_t bytes, struct buf *out,
                      struct err *e) ERR_CHECK;
// Puts the tar, then its index beside it. `key` ends in ".tar".
int dataset_put_shard(struct store *s, const char *key, const void *tar, size_t bytes,
                      struct err *e) ERR_CHECK;
// Writes the manifest from the indices of these shards in this order; `keys` NULL: of all indices in the
// store, in the order of their keys.
int dataset_write_manifest(struct store *s, const char *const *keys, size_t n, struct err *e) ERR_CHECK;

struct dataset_schema; // storage/dataset_schema.h
// What was done or found, one line per call, for people.
typedef void dataset_report_fn(void *arg, const char *line);
// Scans the tars of a store (all keys ending in .tar), writes the indices that are missing or do not fit the
// tar's size (all when `again`), and the manifest. `schema`: of samples that do not describe themselves, or
// NULL.
int dataset_index_all(struct store *s, bool again, const struct dataset_schema *schema,
                      dataset_report_fn *report, void *arg, struct err *e) ERR_CHECK;
struct dataset_check {
    int64_t shards, samples, bytes, problems;
};
// Reads every byte of every shard and compares it with index and manifest, and .npy members with what their
// streams say; their floats must be finite. Every problem is reported; DATA holds the first.
int dataset_check(struct dataset *d, dataset_report_fn *report, void *arg, struct dataset_check *out,
                  struct err *e) ERR_CHECK;

#endif
