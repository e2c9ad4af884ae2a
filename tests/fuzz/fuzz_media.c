// SPDX-License-Identifier: Apache-2.0
// The readers of pictures, sound and arrays on any bytes: what they accept is within the caller's cap.
#include <stdlib.h>
#include <string.h>

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
    feed_image(data, n);
    feed_sound(data, n);
    return 0;
}
