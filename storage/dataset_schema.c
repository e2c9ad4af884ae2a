// SPDX-License-Identifier: Apache-2.0
#include "storage/dataset_schema.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"

#define FRAMES_MAX ((int64_t)1 << 31)

static const struct stream_schema *stream_of(const struct dataset_schema *s, const char *member) {
    for (int i = 0; i < s->n_streams; i++)
        if (!strcmp(s->streams[i].member, member)) return &s->streams[i];
    return NULL;
}

// "mp4" and "cam.mp4", but not "xmp4".
static bool is_kind(const char *member, const char *kind) {
    size_t n = strlen(member), k = strlen(kind);
    return n >= k && !strcmp(member + n - k, kind) && (n == k || member[n - k - 1] == '.');
}

static int take_frames(struct dataset_schema *s, const struct json *doc, const char *what, struct err *e) {
    const struct json_value *root = json_root(doc);
    const char *from;
    if (json_get(root, "frames")) return json_need_int(doc, root, "frames", 1, FRAMES_MAX, &s->frames, e);
    if (!json_as_string(json_get(root, "frames_from"), &from))
        return err_set(e, ERR_DATA, "%s: 'frames' (a number) or 'frames_from' (a member) is missing", what);
    size_t n = strlen(from);
    if (n >= sizeof s->frames_from || !(is_kind(from, "npy") || is_kind(from, "mp4")) || !stream_of(s, from))
        return err_set(e, ERR_DATA, "%s: 'frames_from' is '%.100s', which is no stream's .npy or .mp4 member",
                       what, from);
    memcpy(s->frames_from, from, n + 1);
    return 0;
}

int dataset_schema_parse(struct dataset_schema *out, const char *text, size_t n, const char *what,
                         struct err *e) {
    struct json *doc = NULL;
    memset(out, 0, sizeof *out);
    int rc = json_parse(&doc, text, n, what, e);
    if (rc) return rc;
    const struct json_value *root = json_root(doc);
    if (!json_as_double(json_get(root, "rate_hz"), &out->rate_hz) ||
        !(out->rate_hz >= 1e-6 && out->rate_hz <= 1e9))
        rc = err_set(e, ERR_DATA, "%s: 'rate_hz' is missing or no rate", what);
    if (!rc)
        rc = sample_meta_get_streams(doc, json_get(root, "streams"), what, out->streams, &out->n_streams, e);
    if (!rc && !out->n_streams) rc = err_set(e, ERR_DATA, "%s: 'streams' is empty", what);
    if (!rc) rc = take_frames(out, doc, what, e);
    json_destroy(doc);
    return rc;
}

// The header is a Python dictionary: "'shape': (100, 2)," stands somewhere in it (NumPy's "npy format" page).
static int64_t npy_rows(const char *head, size_t n) {
    static const char key[] = "'shape': (";
    if (n < 10 || memcmp(head, "\x93NUMPY", 6)) return 0;
    const char *at = memmem(head, n, key, sizeof key - 1);
    if (!at) return 0;
    size_t i = (size_t)(at - head) + sizeof key - 1;
    int64_t rows = 0;
    for (; i < n && head[i] >= '0' && head[i] <= '9' && rows <= FRAMES_MAX; i++)
        rows = rows * 10 + (head[i] - '0');
    return i < n && rows <= FRAMES_MAX ? rows : 0;
}

static int64_t whole_frames(double frames) {
    frames = floor(frames + 1e-9);
    return frames < 1 || frames > (double)FRAMES_MAX ? 0 : (int64_t)frames;
}

int64_t dataset_schema_film_frames(const struct dataset_schema *s, const struct film_table *film) {
    const struct stream_schema *stream = stream_of(s, s->frames_from);
    if (s->frames) return s->frames;
    if (!stream || !film->frames) return 0;
    return whole_frames(((double)film->last / (double)film->timescale + 1 / stream->rate_hz) * s->rate_hz);
}

int64_t dataset_schema_frames(const struct dataset_schema *s, const char *head, size_t n) {
    const struct stream_schema *stream = stream_of(s, s->frames_from);
    if (s->frames) return s->frames;
    if (!stream || !n) return 0;
    return whole_frames((double)npy_rows(head, n) * s->rate_hz / stream->rate_hz);
}
