// SPDX-License-Identifier: Apache-2.0
// A data set of one sample whose video is this film, "cam.mp4" between two other members, at 10 Hz from 0.2 s
// on. After cmocka.h.
#ifndef ORRERY_TESTS_MP4_SET_H
#define ORRERY_TESTS_MP4_SET_H

#include <stdio.h>

#include "storage/dataset.h"
#include "storage/shard.h"

static inline void mp4_set(const char *url, const char *film, size_t n, int frames, int side) {
    struct store *s;
    struct err e = {0};
    struct buf tar;
    char meta[600];
    int bytes = snprintf(
        meta, sizeof meta,
        "{\"id\": \"a\", \"embodiment\": \"eye\", \"split\": \"train\", \"licence\": \"CC0-1.0\","
        "\"frames\": %d, \"rate_hz\": 10, \"streams\": [{\"modality\": \"video\", \"name\": \"cam\","
        "\"member\": \"cam.mp4\", \"dtype\": \"u8\", \"shape\": [%d, %d, 3], \"rate_hz\": 10, \"t0\": 0.2,"
        "\"unit\": \"of 255\", \"scale\": 0}], \"simulator\": {}}",
        frames, side, side);
    buf_init(&tar, (size_t)64 << 20);
    const char *key = "part.tar";
    if (store_open(&s, url, NULL, &e) || shard_append(&tar, "a", "json", meta, (size_t)bytes, &e) ||
        shard_append(&tar, "a", "cam.mp4", film, n, &e) || shard_append(&tar, "a", "z.txt", "z", 1, &e) ||
        shard_finish(&tar, &e) || dataset_put_shard(s, key, tar.data, tar.len, &e) ||
        dataset_write_manifest(s, &key, 1, &e))
        fail_msg("%s", e.text);
    buf_fini(&tar);
    store_close(s);
}

#endif
