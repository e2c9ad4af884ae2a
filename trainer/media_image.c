// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_image.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "trainer/media_jpeg.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"

void media_image_fini(struct media_image *image) {
    if (!image) return;
    free(image->pixels);
    memset(image, 0, sizeof *image);
}

static bool starts_with(const void *bytes, size_t n, const char *magic, size_t length) {
    return n >= length && !memcmp(bytes, magic, length);
}

static int image_of_npy(const void *bytes, size_t n, size_t max_bytes, struct media_image *out,
                        struct err *e) {
    struct media_npy a;
    int64_t most = max_bytes > INT64_MAX / 8 ? INT64_MAX / 8 : (int64_t)max_bytes;
    int rc = media_npy_read(bytes, n, most, &a, e);
    if (rc) return rc;
    const int64_t *last = a.shape + a.rank - 3;
    if (a.rank != 3 && a.rank != 4) {
        rc = err_set(e, ERR_DATA, "an array of %d dimensions is no picture: [H, W, C] or [T, H, W, C]",
                     a.rank);
        goto out;
    }
    *out = (struct media_image){
        .height = a.rank == 4 ? a.shape[0] * last[0] : last[0], .width = last[1], .channels = last[2]};
    out->pixels = malloc((size_t)a.elems + 1);
    if (!out->pixels) rc = err_set(e, ERR_MEMORY, "no memory for a picture");
    for (int64_t i = 0; i < a.elems && !rc; i++) {
        if (!(a.data[i] >= 0 && a.data[i] <= 255))
            rc = err_set(e, ERR_DATA, "a pixel is %g, outside of 0 .. 255", (double)a.data[i]);
        else
            out->pixels[i] = (unsigned char)a.data[i];
    }
    if (rc) media_image_fini(out);
out:
    media_npy_fini(&a);
    return rc;
}

int media_image_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out, struct err *e) {
    memset(out, 0, sizeof *out);
    if (starts_with(bytes, n, "\x89PNG", 4)) return media_png_read(bytes, n, max_bytes, out, e);
    if (starts_with(bytes, n, "\xff\xd8\xff", 3)) return media_jpeg_read(bytes, n, max_bytes, out, e);
    if (starts_with(bytes, n, "\x93NUMPY", 6)) return image_of_npy(bytes, n, max_bytes, out, e);
    return err_set(e, ERR_DATA, "neither PNG nor JPEG nor .npy");
}
