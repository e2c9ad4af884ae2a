// SPDX-License-Identifier: Apache-2.0
// The manifest of a data set, in memory and as JSON. Inside storage only: dataset.h is the door. Memory is
// proportional to the document, not to the number of samples it claims.
#ifndef ORRERY_STORAGE_DATASET_MANIFEST_H
#define ORRERY_STORAGE_DATASET_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "storage/dataset_index.h"
#include "storage/sample_meta.h"

#define DATASET_MANIFEST_MAX ((size_t)64 << 20)
#define DATASET_SAMPLES_MAX  ((int64_t)1 << 28)

struct manifest_shard {
    char *key;
    int64_t bytes, index_bytes;
    uint32_t crc32c, index_crc32c;
    int64_t first, samples, frames; // first: number of its first sample
    size_t first_run;               // its part of `runs`
    int source;                     // which data set of a list
};

// Successive samples of one shard with the same number of frames.
struct manifest_run {
    int64_t first, frames;
};

struct dataset_manifest {
    size_t n_shards, cap_shards, n_runs, cap_runs;
    struct manifest_shard *shards;
    struct manifest_run *runs;
    int64_t samples, frames, bytes;
    double rate_hz; // of frames, where a schema has told; else 0
    struct film_sums films;
    int n_streams;
    struct stream_schema streams[DATASET_STREAMS_MAX];
};

void dataset_manifest_init(struct dataset_manifest *m);
void dataset_manifest_fini(struct dataset_manifest *m);
// Adds a shard from its parsed index; `index_json` is the index object's bytes. DATA when its streams are not
// those of the shards before it.
int dataset_manifest_add(struct dataset_manifest *m, const char *key, const struct dataset_index *x,
                         const void *index_json, size_t n, struct err *e) ERR_CHECK;
// Adds the shards of another manifest, as those of `source`. DATA when its streams or its rate are others.
int dataset_manifest_append(struct dataset_manifest *m, const struct dataset_manifest *from, int source,
                            const char *what, struct err *e) ERR_CHECK;
// Writing, piece by piece, for who does not hold all shards: head, each shard, tail.
void dataset_manifest_put_head(struct json_writer *w);
void dataset_manifest_put_shard(struct json_writer *w, const struct dataset_manifest *m, size_t i);
int dataset_manifest_put_tail(struct json_writer *w, const struct dataset_manifest *m,
                              struct err *e) ERR_CHECK;
void dataset_manifest_forget_shards(struct dataset_manifest *m); // the sums stay
int dataset_manifest_parse(struct dataset_manifest *m, const char *text, size_t n, const char *what,
                           struct err *e) ERR_CHECK;
// The shard of sample i; its frames.
size_t dataset_manifest_shard(const struct dataset_manifest *m, int64_t i);
int64_t dataset_manifest_frames(const struct dataset_manifest *m, int64_t i);
// Does the index fit this shard of the manifest? DATA says what does not.
int dataset_manifest_fits(const struct dataset_manifest *m, size_t shard, const struct dataset_index *x,
                          struct err *e) ERR_CHECK;

// An open data set from the inside, and one shard's index read and checked against the manifest.
struct dataset;
struct store;
struct store *dataset_store(struct dataset *d, size_t shard);
const struct dataset_manifest *dataset_manifest_of(const struct dataset *d);
int dataset_load_index(struct store *store, const struct dataset_manifest *m, size_t shard,
                       struct dataset_index *x, struct err *e) ERR_CHECK;

// Whole objects that no checksum is known of (a manifest; an index before it stands in one): two reads in a
// row must agree.
int dataset_get_agreed(struct store *s, const char *key, size_t max_bytes, struct buf *out,
                       struct err *e) ERR_CHECK;

#endif
