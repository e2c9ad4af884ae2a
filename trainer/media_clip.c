// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_clip.h"

#include <string.h>

#include "base/bytes.h"
#include "trainer/media_image.h"
#include "trainer/media_mp4.h"

static int read_strip(const void *bytes, size_t n, const struct media_clip_want *want, media_picture_fn *each,
                      void *arg, struct err *e) {
    struct media_image strip;
    size_t picture = (size_t)(want->height * want->width * want->channels), most;
    if (!bytes_mul((size_t)want->max_pictures, picture, &most))
        return err_set(e, ERR_DATA, "video is too large");
    int rc = media_image_read(bytes, n, most, &strip, e);
    if (rc) return rc;
    if (strip.width != want->width || strip.channels != want->channels || strip.height % want->height != 0)
        rc = err_set(e, ERR_DATA,
                     "video is a strip of %lld x %lld x %lld, not of pictures of %lld x %lld x %lld",
                     (long long)strip.height, (long long)strip.width, (long long)strip.channels,
                     (long long)want->height, (long long)want->width, (long long)want->channels);
    int64_t pictures = rc ? 0 : strip.height / want->height;
    for (int64_t i = 0; i < pictures && !rc; i++)
        rc = each(arg, (double)i, strip.pixels + (size_t)i * picture, e);
    if (!rc) rc = each(arg, (double)pictures, NULL, e);
    media_image_fini(&strip);
    return rc < 0 ? rc : 0;
}

static int read_film(const void *bytes, size_t n, const struct media_clip_want *want, media_picture_fn *each,
                     void *arg, struct err *e) {
    struct media_mp4_want film = {.height = want->height,
                                  .width = want->width,
                                  .channels = want->channels,
                                  .rate_hz = want->rate_hz,
                                  .max_pixels = MEDIA_MP4_PIXELS_MAX,
                                  .max_pictures = MEDIA_MP4_PICTURES_MAX,
                                  .shown = want->shown,
                                  .n_shown = want->n_shown};
    return media_mp4_read(bytes, n, &film, each, arg, e);
}

// What a member begins with; anything else is for media_image_read to name.
static const struct {
    size_t offset;
    const char *magic;
    int (*read)(const void *bytes, size_t n, const struct media_clip_want *want, media_picture_fn *each,
                void *arg, struct err *e);
} formats[] = {{4, "ftyp", read_film}, {0, "", read_strip}};

int media_clip_read(const void *bytes, size_t n, const struct media_clip_want *want, media_picture_fn *each,
                    void *arg, struct err *e) {
    size_t i = 0;
    while (n < formats[i].offset + strlen(formats[i].magic) ||
           memcmp((const char *)bytes + formats[i].offset, formats[i].magic, strlen(formats[i].magic)) != 0) {
        if (!*formats[i].magic) break;
        i++;
    }
    return formats[i].read(bytes, n, want, each, arg, e);
}
