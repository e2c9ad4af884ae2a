// SPDX-License-Identifier: Apache-2.0
// Field layout: POSIX.1-2017, pax, "ustar Interchange Format"; GNU's base-256 numbers and 'L' records from
// the tar manual's "Basic Tar Format".
#include "storage/tar.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META_MAX ((int64_t)256 << 10) // of one pax or long-name record

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
        version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a tar header is one block");

// ---- writing

static unsigned header_sum(const struct tar_header *h, bool as_signed) {
    const unsigned char *b = (const unsigned char *)h;
    size_t field = offsetof(struct tar_header, checksum);
    int sum = 0;
    for (size_t i = 0; i < sizeof *h; i++) {
        unsigned char c = i >= field && i < field + sizeof h->checksum ? ' ' : b[i];
        sum += as_signed ? (signed char)c : c;
    }
    return (unsigned)sum;
}

static void fill_header(struct tar_header *h, char type, uint64_t bytes) {
    memset(h, 0, sizeof *h);
    memcpy(h->mode, "0000644", 8);
    memcpy(h->uid, "0000000", 8);
    memcpy(h->gid, "0000000", 8);
    snprintf(h->size, sizeof h->size, "%011" PRIo64, bytes & 077777777777);
    memcpy(h->mtime, "00000000000", 12);
    h->type = type;
    memcpy(h->magic, "ustar", 6);
    memcpy(h->version, "00", 2);
}

static int append_header(struct buf *out, struct tar_header *h, struct err *e) {
    snprintf(h->checksum, sizeof h->checksum, "%06o", header_sum(h, false) & 0777777);
    h->checksum[7] = ' ';
    return buf_append(out, h, sizeof *h, e);
}

// A name of up to 100 bytes, or prefix/name split at a slash.
static bool fits_ustar(struct tar_header *h, const char *name) {
    size_t n = strlen(name);
    if (n <= sizeof h->name) {
        memcpy(h->name, name, n);
        return true;
    }
    for (size_t cut = n - 1; cut > 0; cut--) {
        if (name[cut] != '/' || cut > sizeof h->prefix || n - cut - 1 > sizeof h->name) continue;
        memcpy(h->prefix, name, cut);
        memcpy(h->name, name + cut + 1, n - cut - 1);
        return true;
    }
    return false;
}

// "LEN key=value\n", where LEN counts itself.
static int append_record(struct buf *out, const char *key, const char *value, struct err *e) {
    size_t rest = strlen(key) + strlen(value) + 3, n = rest;
    char digits[24];
    for (int i = 0; i < 3; i++) n = rest + (size_t)snprintf(digits, sizeof digits, "%zu", n);
    return buf_appendf(out, e, "%zu %s=%s\n", n, key, value);
}

static int append_pax(struct buf *out, const char *path, const char *size, struct err *e) {
    struct buf records;
    struct tar_header h;
    int rc = 0;
    buf_init(&records, 8192);
    if (path && (rc = append_record(&records, "path", path, e))) goto out;
    if (size && (rc = append_record(&records, "size", size, e))) goto out;
    fill_header(&h, 'x', records.len);
    memcpy(h.name, "PaxHeaders/member", 17);
    if ((rc = append_header(out, &h, e))) goto out;
    if ((rc = buf_append(out, records.data, records.len, e))) goto out;
    rc = tar_put_padding(out, e);
out:
    buf_fini(&records);
    return rc;
}

static int append_member(struct buf *out, const char *name, uint64_t bytes, struct err *e) {
    struct tar_header h;
    char size[24];
    fill_header(&h, '0', bytes);
    bool long_name = !fits_ustar(&h, name), large = bytes > 077777777777;
    if (long_name) memcpy(h.name, name, sizeof h.name); // cut: only for readers that know no pax
    if (large) snprintf(size, sizeof size, "%" PRIu64, bytes);
    int rc = long_name || large ? append_pax(out, long_name ? name : NULL, large ? size : NULL, e) : 0;
    return rc ? rc : append_header(out, &h, e);
}

int tar_put_header(struct buf *out, const char *name, uint64_t bytes, struct err *e) {
    const char *flaw = tar_name_flaw(name, strlen(name));
    if (flaw) return err_set(e, ERR_BUG, "cannot put '%.200s' into a tar: its name %s", name, flaw);
    if (bytes > INT64_MAX) return err_set(e, ERR_BUG, "cannot put '%s' into a tar: too large", name);
    if (out->len % TAR_BLOCK) return err_set(e, ERR_BUG, "the tar in memory does not end at a block");
    size_t before = out->len;
    int rc = append_member(out, name, bytes, e);
    if (rc && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return rc;
}

int tar_put_padding(struct buf *out, struct err *e) {
    static const char zeros[TAR_BLOCK];
    return buf_append(out, zeros, (TAR_BLOCK - out->len % TAR_BLOCK) % TAR_BLOCK, e);
}

int tar_put_end(struct buf *out, struct err *e) {
    static const char zeros[2 * TAR_BLOCK];
    return buf_append(out, zeros, sizeof zeros, e);
}

// ---- reading

const char *tar_name_flaw(const char *name, size_t n) {
    if (!n) return "is empty";
    if (n > TAR_NAME_MAX) return "is longer than 1024 bytes";
    if (name[0] == '/') return "is absolute";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return "has a control character";
    if (!bytes_is_utf8(name, n)) return "is not UTF-8";
    for (size_t i = 0; i + 1 < n; i++) {
        bool starts = i == 0 || name[i - 1] == '/', ends = i + 2 == n || name[i + 2] == '/';
        if (starts && ends && name[i] == '.' && name[i + 1] == '.') return "has a '..' component";
    }
    return NULL;
}

void tar_scan_init(struct tar_scan *s, const struct tar_source *source) {
    memset(s, 0, sizeof *s);
    s->source = *source;
}

#define scan_error(s, offset, e, ...) scan_error_at((s), (offset), __LINE__, (e), __VA_ARGS__)
static int scan_error_at(const struct tar_scan *s, int64_t offset, int line, struct err *e, const char *fmt,
                         ...) __attribute__((format(printf, 5, 6)));
static int scan_error_at(const struct tar_scan *s, int64_t offset, int line, struct err *e, const char *fmt,
                         ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set_at(e, ERR_DATA, __FILE__, line, "%s: offset %" PRId64 ": %s", s->source.what, offset,
                      text);
}

static bool all_zero(const void *block, size_t n) {
    const char *b = block;
    return !n || (!b[0] && !memcmp(b, b + 1, n - 1));
}

// Octal digits ended by NUL, blank or the field's end; or GNU's base-256 with the top bit set.
static bool field_number(const char *field, size_t n, int64_t *out) {
    uint64_t v = 0;
    size_t i = 0;
    if ((unsigned char)field[0] & 0x80) {
        if ((unsigned char)field[0] != 0x80) return false; // negative, or beyond 2^88
        for (i = 1; i < n; i++) {
            if (v >> 55) return false;
            v = v << 8 | (unsigned char)field[i];
        }
        *out = (int64_t)v;
        return true;
    }
    while (i < n && field[i] == ' ') i++;
    size_t first = i;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
        if (v >> 59) return false;
        v = v << 3 | (uint64_t)(field[i] - '0');
    }
    if (i == first) return false;
    for (; i < n; i++)
        if (field[i] && field[i] != ' ') return false;
    *out = (int64_t)v;
    return true;
}

static bool checksum_ok(const struct tar_header *h) {
    int64_t want;
    if (!field_number(h->checksum, sizeof h->checksum, &want)) return false;
    return want == (int64_t)header_sum(h, false) || want == (int64_t)(int)header_sum(h, true);
}

// Behind the end mark only zeros may follow: anything else would be members that no reader sees.
static int check_tail(struct tar_scan *s, struct err *e) {
    char block[4096];
    while (s->at < s->source.bytes) {
        int64_t left = s->source.bytes - s->at;
        size_t n = left < (int64_t)sizeof block ? (size_t)left : sizeof block;
        int rc = s->source.read(s->source.arg, s->at, n, block, e);
        if (rc) return rc;
        if (!all_zero(block, n)) return scan_error(s, s->at, e, "data behind the end mark of the tar");
        s->at += (int64_t)n;
    }
    s->ended = true;
    return 0;
}

// What pax and GNU records say of the member that follows them.
struct overrides {
    bool has_path, has_size;
    char path[TAR_NAME_MAX + 1];
    int64_t size;
};

static int take_path(struct tar_scan *s, int64_t at, const char *value, size_t n, struct overrides *o,
                     struct err *e) {
    if (n > TAR_NAME_MAX) return scan_error(s, at, e, "a name of %zu bytes", n);
    if (memchr(value, 0, n)) return scan_error(s, at, e, "a name with a NUL inside");
    memcpy(o->path, value, n);
    o->path[n] = 0;
    o->has_path = true;
    return 0;
}

static int take_record(struct tar_scan *s, int64_t at, const char *key, size_t key_n, const char *value,
                       size_t n, bool global, struct overrides *o, struct err *e) {
    bool path = key_n == 4 && !memcmp(key, "path", 4), size = key_n == 4 && !memcmp(key, "size", 4);
    if (key_n >= 10 && !memcmp(key, "GNU.sparse", 10)) return scan_error(s, at, e, "a sparse file");
    if (!path && !size) return 0;
    if (global) return scan_error(s, at, e, "a name or size for all members");
    if (path) return take_path(s, at, value, n, o, e);
    char digits[24];
    if (n >= sizeof digits) return scan_error(s, at, e, "a size of %zu digits", n);
    memcpy(digits, value, n);
    digits[n] = 0;
    if (digits[0] < '0' || !bytes_parse_i64(digits, &o->size) || o->size < 0)
        return scan_error(s, at, e, "the pax size is no number");
    o->has_size = true;
    return 0;
}

// One "LEN key=value\n"; *used gets LEN.
static int parse_record(struct tar_scan *s, int64_t at, const char *text, size_t left, bool global,
                        struct overrides *o, size_t *used, struct err *e) {
    size_t length = 0, i = 0;
    for (; i < left && i < 9 && text[i] >= '0' && text[i] <= '9'; i++)
        length = length * 10 + (size_t)(text[i] - '0');
    if (!i || i >= left || text[i] != ' ' || length > left || length < i + 4 || text[length - 1] != '\n')
        return scan_error(s, at, e, "a malformed pax record");
    const char *key = text + i + 1, *end = text + length - 1;
    const char *equals = memchr(key, '=', (size_t)(end - key));
    if (!equals) return scan_error(s, at, e, "a pax record without '='");
    *used = length;
    return take_record(s, at, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1), global, o,
                       e);
}

static int parse_pax(struct tar_scan *s, int64_t at, const char *text, size_t n, bool global,
                     struct overrides *o, struct err *e) {
    for (size_t done = 0, used = 0; done < n && text[done]; done += used) {
        int rc = parse_record(s, at + (int64_t)done, text + done, n - done, global, o, &used, e);
        if (rc) return rc;
    }
    return 0;
}

static int64_t padded(int64_t n) {
    return (n + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

// A record that describes others: pax ('x', 'g') or GNU's long name ('L'). s->at is behind its header.
static int read_record(struct tar_scan *s, char type, int64_t bytes, struct overrides *o, struct err *e) {
    if (bytes > META_MAX) return scan_error(s, s->at, e, "a name record of %" PRId64 " bytes", bytes);
    char *text = malloc((size_t)bytes + 1);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for %" PRId64 " bytes of a tar header", bytes);
    int rc = s->source.read(s->source.arg, s->at, (size_t)bytes, text, e);
    if (rc) goto out;
    text[bytes] = 0;
    if (type == 'L')
        rc = take_path(s, s->at, text, strlen(text), o, e);
    else
        rc = parse_pax(s, s->at, text, (size_t)bytes, type == 'g', o, e);
    s->at += padded(bytes);
out:
    free(text);
    return rc;
}

static int read_header(struct tar_scan *s, struct tar_header *h, int64_t *bytes, struct err *e) {
    if (s->source.bytes - s->at < TAR_BLOCK) {
        const char *why = s->at ? "the tar ends without an end mark: is it cut short?" : "no tar: too short";
        return scan_error(s, s->at, e, "%s", why);
    }
    int rc = s->source.read(s->source.arg, s->at, sizeof *h, h, e);
    if (rc) return rc;
    if (all_zero(h, sizeof *h)) {
        s->at += TAR_BLOCK;
        rc = check_tail(s, e);
        return rc;
    }
    if (!checksum_ok(h)) return scan_error(s, s->at, e, "the tar header's checksum is wrong");
    if (!field_number(h->size, sizeof h->size, bytes))
        return scan_error(s, s->at, e, "the size is no number");
    return 0;
}

static const char *refused_type(char type) {
    switch (type) {
    case '0':
    case 0:
    case '7':
    case '5': return NULL;
    case '1': return "a hard link";
    case '2':
    case 'K': return "a symbolic link";
    case '3':
    case '4': return "a device";
    case '6': return "a named pipe";
    case 'S': return "a sparse file";
    default: return "a member of unknown type";
    }
}

// ustar's name, or the long one that stood before it; "./" in front is dropped.
static int member_name(struct tar_scan *s, const struct tar_header *h, const struct overrides *o, char *out,
                       struct err *e) {
    char joined[sizeof h->prefix + sizeof h->name + 2];
    bool ustar = !memcmp(h->magic, "ustar", 6);
    int np = ustar ? (int)strnlen(h->prefix, sizeof h->prefix) : 0;
    int nn = (int)strnlen(h->name, sizeof h->name);
    snprintf(joined, sizeof joined, "%.*s%s%.*s", np, h->prefix, np ? "/" : "", nn, h->name);
    const char *name = o->has_path ? o->path : joined;
    while (name[0] == '.' && name[1] == '/') {
        name += 2;
        while (*name == '/') name++;
    }
    size_t n = strlen(name);
    while (h->type == '5' && n > 1 && name[n - 1] == '/') n--;
    const char *flaw = h->type == '5' && (!n || !strcmp(name, ".")) ? NULL : tar_name_flaw(name, n);
    if (flaw) {
        char shown[64];
        snprintf(shown, sizeof shown, "%.60s", bytes_is_utf8(name, strlen(name)) ? name : "?");
        return scan_error(s, s->at, e, "the name '%s' %s", shown, flaw);
    }
    memcpy(out, name, n);
    out[n] = 0;
    return 0;
}

// The member whose header was read at s->at; 1 when it is a file, 0 for a folder (passed over).
static int finish_member(struct tar_scan *s, struct tar_header *h, int64_t bytes, const struct overrides *o,
                         struct tar_member *out, struct err *e) {
    const char *refused = refused_type(h->type);
    if (refused) return scan_error(s, s->at, e, "%s (type '%c')", refused, h->type > 0x20 ? h->type : '?');
    int rc = member_name(s, h, o, out->name, e);
    if (rc) return rc;
    if (o->has_size) bytes = o->size;
    bool slash = *out->name && out->name[strlen(out->name) - 1] == '/';
    bool folder =
        h->type == '5' || (!h->type && slash && !bytes); // the second: before ustar had a type for it
    if (slash && !folder) return scan_error(s, s->at, e, "file '%.200s' is named like a folder", out->name);
    if (folder) bytes = 0;
    int64_t room = s->source.bytes - s->at - TAR_BLOCK;
    if (bytes > room)
        return scan_error(s, s->at, e, "member '%.200s' has %" PRId64 " bytes, the tar only %" PRId64 " more",
                          out->name, bytes, room);
    out->offset = s->at + TAR_BLOCK;
    out->bytes = bytes;
    int64_t end = out->offset + padded(bytes);
    s->at = end < s->source.bytes ? end : s->source.bytes;
    return folder ? 0 : 1;
}

int tar_scan_next(struct tar_scan *s, struct tar_member *out, struct err *e) {
    struct overrides o = {.has_path = false};
    while (!s->ended) {
        struct tar_header h = {0};
        int64_t bytes = 0;
        int rc = read_header(s, &h, &bytes, e);
        if (rc || s->ended) return rc;
        if (h.type == 'x' || h.type == 'g' || h.type == 'L') {
            if (bytes > s->source.bytes - s->at - TAR_BLOCK)
                return scan_error(s, s->at, e, "a header record of %" PRId64 " bytes goes beyond the end",
                                  bytes);
            s->at += TAR_BLOCK;
            if ((rc = read_record(s, h.type, bytes, &o, e))) return rc;
            continue;
        }
        if ((rc = finish_member(s, &h, bytes, &o, out, e))) return rc;
        o = (struct overrides){.has_path = false};
    }
    return 0;
}

// ---- a tar in memory

static int read_memory(void *arg, int64_t offset, size_t n, void *into, struct err *e) {
    const struct tar_memory *m = arg;
    if (offset < 0 || (uint64_t)offset > m->bytes || n > m->bytes - (size_t)offset)
        return err_set(e, ERR_BUG, "a tar read beyond its end");
    if (n) memcpy(into, m->data + offset, n);
    return 0;
}

struct tar_source tar_memory_source(struct tar_memory *m, const char *what) {
    return (struct tar_source){read_memory, m, (int64_t)m->bytes, what};
}
