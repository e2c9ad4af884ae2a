// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_jpeg.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// jpeglib.h needs stdio.h and stddef.h before it
#include <jerror.h>
#include <jpeglib.h>

#include "base/bytes.h"

#define SCANS_MAX 64 // of a progressive picture: each costs a pass over all of it

// libjpeg reports failures by a call that must not return. What is owned lives in this struct, so nothing is
// lost in a register by the jump.
struct jpeg_source {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    size_t max_bytes;
    struct media_image image;
    char why[JMSG_LENGTH_MAX];
    jmp_buf back;
};

static void jpeg_fail(j_common_ptr jpeg) {
    struct jpeg_source *s = jpeg->client_data;
    if (!s->why[0]) jpeg->err->format_message(jpeg, s->why);
    longjmp(s->back, 1);
}

static void jpeg_stop(struct jpeg_source *s, const char *why) {
    snprintf(s->why, sizeof s->why, "%s", why);
    longjmp(s->back, 1);
}

// Level -1 is a warning: the data are damaged, and libjpeg would go on with a guess.
static void jpeg_message(j_common_ptr jpeg, int level) {
    if (level < 0) jpeg_fail(jpeg);
}

static void jpeg_scan(j_common_ptr jpeg) {
    struct jpeg_source *s = jpeg->client_data;
    if (s->jpeg.input_scan_number > SCANS_MAX) jpeg_stop(s, "too many scans");
}

static void jpeg_make_room(struct jpeg_source *s) {
    size_t row, bytes;
    struct jpeg_decompress_struct *j = &s->jpeg;
    j->out_color_space = j->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_calc_output_dimensions(j);
    s->image.height = j->output_height;
    s->image.width = j->output_width;
    s->image.channels = j->output_components;
    if (!bytes_mul(j->output_width, (size_t)j->output_components, &row) ||
        !bytes_mul(row, j->output_height, &bytes) || bytes > s->max_bytes)
        jpeg_stop(s, "larger than expected");
    s->image.pixels = malloc(bytes);
    if (!s->image.pixels) jpeg_stop(s, "no memory");
}

static void jpeg_read_all(struct jpeg_source *s, const void *bytes, size_t n) {
    struct jpeg_decompress_struct *j = &s->jpeg;
    jpeg_create_decompress(j);
    j->client_data = s;
    j->progress = &s->progress;
    s->progress.progress_monitor = jpeg_scan;
    jpeg_mem_src(j, bytes, (unsigned long)n);
    (void)jpeg_read_header(j, TRUE);
    jpeg_make_room(s);
    j->dct_method = JDCT_ISLOW; // the same bits on every machine
    (void)jpeg_start_decompress(j);
    size_t row = (size_t)s->image.width * (size_t)s->image.channels;
    while (j->output_scanline < j->output_height) {
        JSAMPROW at = s->image.pixels + (size_t)j->output_scanline * row;
        (void)jpeg_read_scanlines(j, &at, 1);
    }
    (void)jpeg_finish_decompress(j);
}

int media_jpeg_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out, struct err *e) {
    struct jpeg_source *s = calloc(1, sizeof *s);
    memset(out, 0, sizeof *out);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a JPEG reader");
    s->max_bytes = max_bytes;
    s->jpeg.err = jpeg_std_error(&s->errors);
    s->jpeg.client_data = s;
    s->errors.error_exit = jpeg_fail;
    s->errors.emit_message = jpeg_message;
    bool whole = false;
    if (!setjmp(s->back)) {
        jpeg_read_all(s, bytes, n);
        whole = true;
    }
    jpeg_destroy_decompress(&s->jpeg);
    int rc = 0;
    if (whole)
        *out = s->image;
    else
        free(s->image.pixels);
    if (!whole) rc = err_set(e, ERR_DATA, "broken JPEG: %s", s->why);
    free(s);
    return rc;
}
