// SPDX-License-Identifier: Apache-2.0
// The readers of pictures, sound and arrays on any bytes: what they accept is within the caller's cap.
#include <stdlib.h>
#include <string.h>

#include "storage/npy_scan.h"
#include "trainer/media_audio.h"
#include "trainer/media_image.h"
#include "trainer/media_npy.h"

#define CAP 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void accept(int rc, const struct err *e, int64_t elems) {
    if (rc ? e->code != ERR_DATA && e->code != ERR_MEMORY : elems < 0 || elems > CAP) abort();
}

static void feed_npy(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct media_npy a;
    int rc = media_npy_read(data, n, CAP, &a, &e);
    accept(rc, &e, rc ? 0 : a.elems);
    media_npy_fini(&a);
}

// In pieces or at once it sees the same.
static void feed_scan(const uint8_t *data, size_t n) {
    static struct npy_scan whole, pieces;
    char why[200];
    struct stream_schema stream = {.rank = 1, .shape = {2}};
    npy_scan_init(&whole);
    npy_scan_feed(&whole, data, n);
    npy_scan_init(&pieces);
    for (size_t at = 0; at < n; at += 7) npy_scan_feed(&pieces, data + at, n - at < 7 ? n - at : 7);
    if (memcmp(&whole.shape, &pieces.shape, sizeof whole.shape) != 0 || whole.bad != pieces.bad) abort();
    if (npy_scan_is_bad(&whole, why) && !*why) abort();
    if (npy_shape_differs(&whole.shape, &stream, why) && !*why) abort();
}

static void feed_image(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct media_image a;
    int rc = media_image_read(data, n, CAP, &a, &e);
    accept(rc, &e, rc ? 0 : a.height * a.width * a.channels);
    media_image_fini(&a);
}

static void feed_sound(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct media_sound a;
    int rc = media_audio_read(data, n, CAP, &a, &e);
    accept(rc, &e, rc ? 0 : a.samples);
    media_sound_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    feed_npy(data, n);
    feed_scan(data, n);
    feed_image(data, n);
    feed_sound(data, n);
    return 0;
}
