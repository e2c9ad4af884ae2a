// SPDX-License-Identifier: Apache-2.0
// The header is a Python dictionary: "'descr': '<f4'," and "'shape': (100, 2)," stand somewhere in it
// (NumPy's "npy format" page).
#include "storage/npy_scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

void npy_scan_init(struct npy_scan *s) {
    memset(s, 0, sizeof *s);
    s->shape.rank = -1;
    s->bad = -1;
}

// ---- the header

static const char *behind(const char *text, size_t n, const char *key) {
    const char *at = memmem(text, n, key, strlen(key));
    return at ? at + strlen(key) : NULL;
}

static void read_shape(struct npy_scan *s, const char *at, const char *end) {
    struct npy_shape found = {0};
    while (at < end && *at != ')') {
        int64_t v = 0;
        if (*at < '0' || *at > '9' || found.rank == NPY_RANK_MAX) return;
        for (; at < end && *at >= '0' && *at <= '9'; at++) {
            if (v > (INT64_MAX - 9) / 10) return;
            v = v * 10 + (*at - '0');
        }
        found.dim[found.rank++] = v;
        while (at < end && (*at == ',' || *at == ' ')) at++;
    }
    if (at < end) s->shape = found;
}

static void read_header(struct npy_scan *s) {
    const char *end = s->head + s->header;
    const char *type = behind(s->head, s->header, "'descr': '"),
               *shape = behind(s->head, s->header, "'shape': (");
    if (shape) read_shape(s, shape, end);
    if (type && end - type >= 3 && type[0] == '<' && type[1] == 'f') s->width = (size_t)(type[2] - '0');
    s->dull = s->width != 4 && s->width != 8;
}

// Bytes of the header, once they are told; 0: not yet.
static size_t header_bytes(struct npy_scan *s) {
    const unsigned char *p = (const unsigned char *)s->head;
    if (s->n_head < 12) return 0;
    size_t n = p[6] == 1 ? 10 + (size_t)bytes_le16(p + 8) : 12 + (size_t)bytes_le32(p + 8);
    s->dull = memcmp(p, "\x93NUMPY", 6) != 0 || p[6] < 1 || p[6] > 3 || n > NPY_HEAD_MAX;
    return s->dull ? 0 : n;
}

// Takes of the piece what belongs to the header.
static size_t take_head(struct npy_scan *s, const char *p, size_t n) {
    size_t used = 0;
    while (used < n && !s->dull && (!s->header || s->n_head < s->header)) {
        size_t want = (s->header ? s->header : 12) - s->n_head, piece = n - used < want ? n - used : want;
        memcpy(s->head + s->n_head, p + used, piece);
        s->n_head += piece;
        used += piece;
        if (!s->header) s->header = header_bytes(s);
        if (s->header && s->n_head >= s->header) {
            read_header(s);
            break;
        }
    }
    return used;
}

// ---- the numbers

// All bits of the exponent are set: infinite, or no number.
static bool is_wild(const unsigned char *p, size_t width) {
    if (width == 4) return (bytes_le32(p) & 0x7f800000u) == 0x7f800000u;
    return (bytes_le64(p) & 0x7ff0000000000000u) == 0x7ff0000000000000u;
}

static void look(struct npy_scan *s, const unsigned char *p, size_t count) {
    for (size_t i = 0; i < count && s->bad < 0; i++)
        if (is_wild(p + i * s->width, s->width)) s->bad = s->seen + (int64_t)i;
    s->seen += (int64_t)count;
}

void npy_scan_feed(struct npy_scan *s, const void *bytes, size_t n) {
    size_t at = !s->header || s->n_head < s->header ? take_head(s, bytes, n) : 0;
    const unsigned char *p = bytes;
    if (s->dull || !s->width) return;
    while (s->n_part && at < n) {
        s->part[s->n_part++] = p[at++];
        if (s->n_part < s->width) continue;
        look(s, s->part, 1);
        s->n_part = 0;
    }
    size_t whole = (n - at) / s->width;
    look(s, p + at, whole);
    for (at += whole * s->width; at < n; at++) s->part[s->n_part++] = p[at];
}

// ---- what is wrong

static size_t put_dims(char *out, size_t room, const char *first, const int64_t *dim, int n) {
    size_t used = (size_t)snprintf(out, room, "[%s", first);
    for (int i = 0; i < n && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%" PRId64, i || *first ? ", " : "", dim[i]);
    if (used < room) used += (size_t)snprintf(out + used, room - used, "]");
    return used < room ? used : room - 1;
}

bool npy_shape_differs(const struct npy_shape *shape, const struct stream_schema *stream, char why[200]) {
    char is[80], says[80];
    if (shape->rank < 0) return false;
    bool same = shape->rank == stream->rank + 1;
    for (int i = 0; same && i < stream->rank; i++) same = shape->dim[i + 1] == stream->shape[i];
    if (same) return false;
    put_dims(is, sizeof is, "", shape->dim, shape->rank);
    put_dims(says, sizeof says, "steps", stream->shape, stream->rank);
    snprintf(why, 200, "is %s, its stream says %s", is, says);
    return true;
}

bool npy_scan_is_bad(const struct npy_scan *s, char why[200]) {
    int64_t row = 1;
    if (s->bad < 0) return false;
    for (int i = 1; i < s->shape.rank && row <= s->bad; i++) // beyond it: the first row, whatever the rest
        row = s->shape.dim[i] > s->bad ? s->bad + 1 : row * (s->shape.dim[i] ? s->shape.dim[i] : 1);
    snprintf(why, 200, "row %" PRId64 " holds a number that is not finite", s->bad / row);
    return true;
}
