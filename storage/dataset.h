// SPDX-License-Identifier: Apache-2.0
// A data set: tar shards, beside each one index (member name, offset, size, CRC32C), and one manifest
// "dataset.json" (shards, sizes, CRCs, sample counts, stream schema). The index is enough to open a data set
// without listing or reading it. Every byte handed out has been checked against the index's CRC32C.
// Thread rule: an open dataset is read-only and may be used from any thread.
#ifndef ORRERY_STORAGE_DATASET_H
#define ORRERY_STORAGE_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/store.h"

// One stream of a sample as its metadata and the manifest describe it.
struct stream_schema {
    char modality[32]; // "video", "audio", "touch", "action", ...
    char name[64];     // stream name, the member is STEM.NAME.EXT
    char member[96];   // "video.png"
    char dtype[16];    // "u8", "f32", "i16"
    int rank;
    int64_t shape[4]; // of one time step: video [H, W, C], touch [channels], action [width], audio []
    double rate_hz, t0;
    char unit[32];
    double scale; // asinh scale or quantile range; 0: not given
};
#define DATASET_STREAMS_MAX 16

struct dataset;

struct dataset_sample {
    int64_t shard;    // number in the manifest
    const char *stem; // borrowed from the dataset
    int64_t frames;   // time steps at the base rate
};

int dataset_open(struct dataset **out, const char *url, const struct store_options *options,
                 struct err *e) ERR_CHECK;
void dataset_close(struct dataset *d);
int64_t dataset_samples(const struct dataset *d);
int64_t dataset_shards(const struct dataset *d);
int64_t dataset_bytes(const struct dataset *d);
void dataset_sample(const struct dataset *d, int64_t i, struct dataset_sample *out);
int dataset_streams(const struct dataset *d, const struct stream_schema **out); // count
const char *dataset_shard_key(const struct dataset *d, int64_t shard);

// Reads one sample's members in one ranged GET and verifies them. DATA names shard, member and offset.
struct sample_member {
    const char *name; // "video.png"; borrowed from the dataset
    const void *data; // into the sample's own block
    size_t bytes;
};
struct sample {
    int64_t number;
    char *block;
    int n;
    struct sample_member members[DATASET_STREAMS_MAX + 1];
};
int dataset_read(struct dataset *d, int64_t i, struct sample *out, struct err *e) ERR_CHECK;
void sample_fini(struct sample *s);
const struct sample_member *sample_find(const struct sample *s, const char *name);

// ---- writing. The index object "SHARD.index.json" of one finished tar (scanned from memory).
int dataset_index_tar(const char *shard_key, const void *tar, size_t bytes, struct buf *out,
                      struct err *e) ERR_CHECK;
// Scans the tars of a URL (all keys ending in .tar), writes missing indices and the manifest. `checked` also
// compares existing ones with the bytes.
int dataset_index_url(const char *url, const struct store_options *options, struct err *e) ERR_CHECK;
int dataset_check_url(const char *url, const struct store_options *options, int64_t *samples,
                      struct err *e) ERR_CHECK;

#endif
