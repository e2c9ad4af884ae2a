// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define PIPE_WAIT_MS 5000

bool bytes_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

bool bytes_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

// ---- buf

void buf_init(struct buf *b, size_t max_bytes) {
    memset(b, 0, sizeof *b);
    b->max = max_bytes;
}

void buf_fini(struct buf *b) {
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

void buf_clear(struct buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

int buf_reserve(struct buf *b, size_t total, struct err *e) {
    if (total > b->max || total == SIZE_MAX)
        return err_set(e, ERR_DATA, "%zu bytes are more than the %zu allowed here", total, b->max);
    if (b->data && total <= b->cap) return 0;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < total) cap = cap > SIZE_MAX / 2 ? total : cap * 2;
    if (cap > b->max) cap = b->max > total ? b->max : total;
    if (cap == SIZE_MAX) cap--;
    char *grown = realloc(b->data, cap + 1);
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for a buffer of %zu bytes", cap);
    if (!b->data) grown[0] = 0;
    b->data = grown;
    b->cap = cap;
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t n, struct err *e) {
    size_t total;
    if (!bytes_add(b->len, n, &total)) return err_set(e, ERR_DATA, "a buffer's size overflows");
    int rc = buf_reserve(b, total, e);
    if (rc) return rc;
    if (n) memcpy(b->data + b->len, data, n);
    b->len = total;
    b->data[total] = 0;
    return 0;
}

int buf_appends(struct buf *b, const char *text, struct err *e) {
    return buf_append(b, text, strlen(text), e);
}

int buf_appendf(struct buf *b, struct err *e, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    size_t total;
    int rc = 0;
    if (n < 0)
        rc = err_set(e, ERR_BUG, "cannot format '%s'", fmt);
    else if (!bytes_add(b->len, (size_t)n, &total))
        rc = err_set(e, ERR_DATA, "a buffer's size overflows");
    else
        rc = buf_reserve(b, total, e);
    if (!rc) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return rc;
}

char *buf_take(struct buf *b) {
    char *data = b->data;
    b->data = NULL;
    b->len = b->cap = 0;
    return data;
}

// ---- little endian, hex

uint16_t bytes_le16(const void *p) {
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t bytes_le32(const void *p) {
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t bytes_le64(const void *p) {
    const uint8_t *b = p;
    return (uint64_t)bytes_le32(b) | (uint64_t)bytes_le32(b + 4) << 32;
}

void bytes_put_le16(void *p, uint16_t v) {
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

void bytes_put_le32(void *p, uint32_t v) {
    uint8_t *b = p;
    for (int i = 0; i < 4; i++) b[i] = (uint8_t)(v >> (8 * i));
}

void bytes_put_le64(void *p, uint64_t v) {
    uint8_t *b = p;
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> (8 * i));
}

void bytes_hex(const void *data, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = data;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[b[i] >> 4];
        out[2 * i + 1] = digits[b[i] & 15];
    }
    out[2 * n] = 0;
}

// ---- numbers as text

bool bytes_parse_i64(const char *text, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits)) return false;
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno) return false;
    *out = v;
    return true;
}

bool bytes_parse_f64(const char *text, double *out) {
    // The character set keeps out what strtod would take besides: blanks, hexadecimal, inf, nan.
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
    char *end;
    double v = strtod(text, &end);
    if (*end || end == text || !isfinite(v)) return false;
    *out = v;
    return true;
}

const char *bytes_format_f64(double v, char *out) {
    // Every decimal of up to 15 digits survives the way through a normal double; subnormals hold fewer.
    int digits = fabs(v) < DBL_MIN ? 1 : 15;
    for (; digits <= 17; digits++) {
        snprintf(out, BYTES_F64_BYTES, "%.*g", digits, v);
        if (strtod(out, NULL) == v) break;
    }
    return out;
}

bool bytes_is_utf8(const void *data, size_t n) {
    const uint8_t *p = data, *end = p + n;
    while (p < end) {
        uint32_t c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - p < more) return false;
        c &= 0x3fu >> more;
        for (int i = 0; i < more; i++, p++) {
            if ((*p & 0xc0) != 0x80) return false;
            c = c << 6 | (*p & 0x3fu);
        }
        if ((more == 2 && c < 0x800) || (more == 3 && c < 0x10000)) return false;
        if ((c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff) return false;
    }
    return true;
}

// ---- files

void bytes_defuse(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

void bytes_blank_nul(char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!text[i]) text[i] = ' ';
}

// Of a descriptor that does not block: true when there is something to read.
static bool wait_readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, PIPE_WAIT_MS) > 0;
}

static int read_all(int fd, const char *path, size_t max_bytes, struct buf *out, struct err *e) {
    size_t got = 0;
    for (;;) {
        char block[65536];
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && wait_readable(fd)))) continue;
        if (n < 0 && errno == EAGAIN)
            return err_set(e, ERR_TIMEOUT, "%s is a pipe that nobody writes into", path);
        if (n < 0) return err_errno(e, errno, "cannot read %s", path);
        if (n == 0) return 0;
        if ((size_t)n > max_bytes - got)
            return err_set(e, ERR_DATA, "%s is larger than the %zu bytes allowed", path, max_bytes);
        int rc = buf_append(out, block, (size_t)n, e);
        if (rc) return rc;
        got += (size_t)n;
    }
}

int bytes_read_file(const char *path, size_t max_bytes, struct buf *out, struct err *e) {
    int rc = 0;
    size_t before = out->len;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); // a pipe: no wait for its other end
    if (fd < 0) return err_errno(e, errno, "cannot open %s", path);
    if (fstat(fd, &st))
        rc = err_errno(e, errno, "cannot stat %s", path);
    else if (S_ISDIR(st.st_mode))
        rc = err_set(e, ERR_DATA, "%s is a folder, not a file", path);
    else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max_bytes)
        rc = err_set(e, ERR_DATA, "%s has %lld bytes, more than the %zu allowed", path, (long long)st.st_size,
                     max_bytes);
    else
        rc = read_all(fd, path, max_bytes, out, e);
    close(fd);
    if (!rc) return buf_reserve(out, out->len, e); // data is set even for an empty file
    out->len = before;
    if (out->data) out->data[before] = 0;
    return rc;
}

// `at` below 0: where the descriptor stands.
static size_t write_from(int fd, const char *data, size_t n, int64_t at) {
    size_t done = 0;
    while (done < n) {
        ssize_t now =
            at < 0 ? write(fd, data + done, n - done) : pwrite(fd, data + done, n - done, at + (int64_t)done);
        if (now < 0 && errno == EINTR) continue;
        if (!now) errno = EIO;
        if (now <= 0) break;
        done += (size_t)now;
    }
    return done;
}

size_t bytes_write_whole(int fd, const void *data, size_t n) {
    return write_from(fd, data, n, -1);
}

size_t bytes_pwrite_whole(int fd, const void *data, size_t n, int64_t at) {
    return write_from(fd, data, n, at);
}

ssize_t bytes_pread_whole(int fd, void *into, size_t n, int64_t at) {
    size_t done = 0;
    while (done < n) {
        ssize_t now = pread(fd, (char *)into + done, n - done, at + (int64_t)done);
        if (now < 0 && errno == EINTR) continue;
        if (now < 0) return -1;
        if (!now) break;
        done += (size_t)now;
    }
    return (ssize_t)done;
}

int bytes_read_at(int fd, void *into, size_t n, int64_t at, const char *what, struct err *e) {
    ssize_t got = bytes_pread_whole(fd, into, n, at);
    if (got < 0) return err_errno(e, errno, "cannot read %s", what);
    if ((size_t)got < n) return err_set(e, ERR_DATA, "%s became shorter while it was read", what);
    return 0;
}

static int open_beside(const char *path, char **temporary, struct err *e) {
    for (int attempt = 0; attempt < 100; attempt++) {
        char *name;
        if (asprintf(&name, "%s.tmp-%d-%llx", path, (int)getpid(), (unsigned long long)clock_monotonic_ns()) <
            0)
            return err_set(e, ERR_MEMORY, "no memory for a file name");
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd >= 0) {
            *temporary = name;
            return fd;
        }
        free(name);
        if (errno != EEXIST) return err_errno(e, errno, "cannot create a file beside %s", path);
    }
    return err_set(e, ERR_IO, "cannot find a free temporary name beside %s", path);
}

int bytes_sync_folder_of(const char *path, struct err *e) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) return err_set(e, ERR_MEMORY, "no memory for a path");
    int rc = 0;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        rc = err_errno(e, errno, "cannot open folder %s", folder);
    else if (fsync(fd) && errno != EINVAL && errno != EROFS)
        rc = err_errno(e, errno, "cannot sync %s", folder);
    if (fd >= 0) close(fd);
    free(folder);
    return rc;
}

int bytes_write_file(const char *path, const void *data, size_t n, struct err *e) {
    char *temporary = NULL;
    int fd = open_beside(path, &temporary, e);
    if (fd < 0) return fd;
    int rc = bytes_write_whole(fd, data, n) < n ? err_errno(e, errno, "cannot write %s", path) : 0;
    if (!rc && fsync(fd)) rc = err_errno(e, errno, "cannot sync %s", path);
    if (close(fd) && !rc) rc = err_errno(e, errno, "cannot close %s", path);
    if (!rc && rename(temporary, path)) rc = err_errno(e, errno, "cannot rename %s to %s", temporary, path);
    if (rc) unlink(temporary);
    free(temporary);
    return rc ? rc : bytes_sync_folder_of(path, e);
}

static int make_dir(const char *path, struct err *e) {
    struct stat st;
    if (!mkdir(path, 0777)) return 0;
    int saved = errno;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) return 0;
    if (saved == EEXIST || saved == ENOTDIR)
        return err_set(e, ERR_IO, "cannot create folder %s: something else has that name", path);
    return err_errno(e, saved, "cannot create folder %s", path);
}

int bytes_make_dirs(const char *path, struct err *e) {
    if (!*path) return err_set(e, ERR_USAGE, "cannot create a folder with an empty name");
    // It would become a folder called "s3:".
    if (strstr(path, "://"))
        return err_set(e, ERR_USAGE, "%.300s is a URL, and a folder is wanted; name one on this machine",
                       path);
    char *partial = strdup(path);
    if (!partial) return err_set(e, ERR_MEMORY, "no memory for a path");
    int rc = 0;
    for (char *p = partial + 1; *p && !rc; p++) {
        if (*p != '/') continue;
        *p = 0;
        rc = make_dir(partial, e);
        *p = '/';
    }
    if (!rc) rc = make_dir(partial, e);
    free(partial);
    return rc;
}
