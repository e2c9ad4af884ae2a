// SPDX-License-Identifier: Apache-2.0
// What the samples of a data set hold, said once for all of them: for shards of another program's making,
// whose samples do not describe themselves. The frames of a sample are a fixed number, or follow from the
// first dimension of one of its .npy members, or from when one of its .mp4 members shows its pictures.
#ifndef ORRERY_STORAGE_DATASET_SCHEMA_H
#define ORRERY_STORAGE_DATASET_SCHEMA_H

#include "storage/film.h"
#include "storage/sample_meta.h"

#define DATASET_SCHEMA_BYTES_MAX ((size_t)1 << 20)
#define DATASET_NPY_HEAD         4096 // bytes of a member in which its shape must stand

struct dataset_schema {
    double rate_hz;
    int64_t frames;       // 0: from a member
    char frames_from[96]; // the member, one of the streams'
    int n_streams;
    struct stream_schema streams[DATASET_STREAMS_MAX];
};

// {"rate_hz": 10, "frames": 100, "streams": [...]}, or "frames_from": "action.npy" in place of "frames". The
// streams are as in a sample's metadata. DATA names `what` and the key.
int dataset_schema_parse(struct dataset_schema *out, const char *text, size_t n, const char *what,
                         struct err *e) ERR_CHECK;
// Frames of a sample whose frames_from member begins with these bytes; 0 when its shape cannot be read.
int64_t dataset_schema_frames(const struct dataset_schema *s, const char *head, size_t n);
// The same of a film: from its first picture to a step of the stream behind its last one.
int64_t dataset_schema_film_frames(const struct dataset_schema *s, const struct film_table *film);

#endif
