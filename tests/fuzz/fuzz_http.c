// SPDX-License-Identifier: Apache-2.0
// The head of an HTTP reply on any bytes: status line and headers as libcurl hands them over, line by line,
// then what follows as a body. The readers are private to their file, so the file itself is included.
#include "storage/http.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_text(const char *text, size_t room) {
    size_t n = strnlen(text, room);
    if (n == room || memchr(text, '\n', n)) abort();
}

static void check(const struct http_exchange *x) {
    if (x->status < 0 || x->status > 999) abort();
    if (x->content_length < -1 || x->retry_after_s < 0) abort();
    check_text(x->etag, sizeof x->etag);
    check_text(x->content_range, sizeof x->content_range);
    check_text(x->date, sizeof x->date);
    check_text(x->region, sizeof x->region);
}

// A header line ends with its line feed; the empty one ends the head. Returns what the head took.
static size_t feed_head(struct transfer *t, char *text, size_t n) {
    size_t at = 0;
    while (at < n) {
        char *end = memchr(text + at, '\n', n - at);
        size_t length = end ? (size_t)(end - text) + 1 - at : n - at;
        if (on_header(text + at, 1, length, t) != length) break;
        at += length;
        if (length <= 2) break;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct http h = {0};
    struct buf body;
    char into[64], *text = malloc(n + 1);
    if (!text || n > ((size_t)1 << 20)) abort();
    memcpy(text, data, n);
    buf_init(&body, 256);
    struct http_exchange x = {.text = &body, .into = into, .capacity = sizeof into};
    struct transfer t = {.http = &h, .x = &x};
    begin_reply(&x, "", 0);
    size_t at = feed_head(&t, text, n);
    check(&x);
    if (at < n) (void)on_body(text + at, 1, n - at, &t);
    if (x.got > sizeof into || body.len > 256) abort();
    buf_fini(&body);
    free(text);
    return 0;
}
