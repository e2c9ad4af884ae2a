// SPDX-License-Identifier: Apache-2.0
// What a sample says of itself: the ".json" member of a sample, read with every field checked, and written.
// One stream per sense; a data set's manifest repeats the streams that all its samples share.
#ifndef ORRERY_STORAGE_SAMPLE_META_H
#define ORRERY_STORAGE_SAMPLE_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

// One stream of a sample as its metadata and the manifest describe it.
struct stream_schema {
    char modality[32]; // "video", "audio", "touch", "action", ...
    char name[64];     // stream name, for people
    char member[96];   // "video.png": the member is STEM.video.png
    char dtype[16];    // "u8", "f32", "i16"
    int rank;
    int64_t shape[4]; // of one time step: video [H, W, C], touch [channels], action [width], audio []
    double rate_hz, t0;
    char unit[32];
    double scale; // asinh scale or quantile range; 0: not given
};
#define DATASET_STREAMS_MAX 16

struct sample_meta {
    char id[128], embodiment[64], split[32], licence[64];
    int64_t frames; // time steps at rate_hz
    double rate_hz;
    int n_streams;
    struct stream_schema streams[DATASET_STREAMS_MAX];
};

#define SAMPLE_META_BYTES_MAX ((size_t)1 << 20)

// Reads and checks the metadata; unknown members are ignored. *known is false, and *out empty, for a JSON
// object of somebody else's making (one without "streams"). DATA names `what`, the member and the value.
int sample_meta_parse(struct sample_meta *out, bool *known, const char *text, size_t n, const char *what,
                      struct err *e) ERR_CHECK;
// `simulator`: NULL, or a JSON object as text (the simulator's parameters), written as it is.
int sample_meta_write(const struct sample_meta *m, const char *simulator, struct buf *out,
                      struct err *e) ERR_CHECK;

// The array of streams alone, as the index and the manifest hold it.
void sample_meta_put_streams(struct json_writer *w, const char *key, const struct stream_schema *streams,
                             int n);
int sample_meta_get_streams(const struct json *doc, const struct json_value *array, const char *what,
                            struct stream_schema out[DATASET_STREAMS_MAX], int *n, struct err *e) ERR_CHECK;
// Same streams in the same order? If not, `why` says what differs.
bool sample_meta_same_streams(const struct stream_schema *a, int na, const struct stream_schema *b, int nb,
                              char why[160]);

#endif
