// SPDX-License-Identifier: Apache-2.0
#include "launcher/hosts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"

#define FILE_BYTES  (1 << 20)
#define LABEL_BYTES 63
#define SLOTS_MAX   4096

static bool plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool hosts_name_is_fine(const char *name) {
    size_t n = strnlen(name, HOSTS_NAME_BYTES), label = 0;
    if (n == 0 || n >= HOSTS_NAME_BYTES || !plain(name[0]) || !plain(name[n - 1])) return false;
    for (size_t i = 0; i < n; i++) {
        bool dot = name[i] == '.';
        if (!dot && !plain(name[i]) && name[i] != '-') return false;
        if (dot && (!plain(name[i - 1]) || !plain(name[i + 1]))) return false;
        label = dot ? 0 : label + 1;
        if (label > LABEL_BYTES) return false;
    }
    return true;
}

static int add(struct hosts *h, const char *name, int64_t slots, const char *where, struct err *e) {
    if (!hosts_name_is_fine(name))
        return err_set(e, ERR_CONFIG, "%s: '%.80s' is no host name; letters, digits, '-' and '.'", where,
                       name);
    if (slots < 1 || slots > SLOTS_MAX)
        return err_set(e, ERR_CONFIG, "%s: host %s with %lld slots; from 1 to %d", where, name,
                       (long long)slots, SLOTS_MAX);
    for (int i = 0; i < h->n; i++)
        if (!strcasecmp(h->list[i].name, name))
            return err_set(e, ERR_CONFIG, "%s: host %s is named twice", where, name);
    if (h->n == HOSTS_MAX) return err_set(e, ERR_CONFIG, "%s: more than %d hosts", where, HOSTS_MAX);
    struct host *list = realloc(h->list, (size_t)(h->n + 1) * sizeof *list);
    if (!list) return err_set(e, ERR_MEMORY, "no memory for %d hosts", h->n + 1);
    h->list = list;
    list[h->n] = (struct host){.slots = (int)slots};
    snprintf(list[h->n].name, sizeof list[h->n].name, "%s", name);
    h->n++;
    return 0;
}

// "h1:2" or "h1"; the text is [at, at + n).
static int take_word(struct hosts *h, const char *at, size_t n, const char *where, struct err *e) {
    char word[HOSTS_NAME_BYTES + 16];
    int64_t slots = 1;
    if (n >= sizeof word || memchr(at, 0, n))
        return err_set(e, ERR_CONFIG, "%s: '%.40s...' is no host name", where, at);
    memcpy(word, at, n);
    word[n] = 0;
    char *colon = strchr(word, ':');
    if (colon && !bytes_parse_i64(colon + 1, &slots))
        return err_set(e, ERR_CONFIG, "%s: '%.80s': a number of slots is expected behind the colon", where,
                       word);
    if (colon) *colon = 0;
    return add(h, word, slots, where, e);
}

// "h1 slots=2   # comment"
static int take_line(struct hosts *h, const char *at, size_t n, const char *where, struct err *e) {
    char line[HOSTS_NAME_BYTES + 64];
    int64_t slots = 0;
    const char *comment = memchr(at, '#', n);
    if (comment) n = (size_t)(comment - at);
    while (n && isspace((unsigned char)at[n - 1])) n--;
    while (n && isspace((unsigned char)*at)) at++, n--;
    if (!n) return 0;
    if (n >= sizeof line) return err_set(e, ERR_CONFIG, "%s: the line is too long", where);
    memcpy(line, at, n);
    line[n] = 0;
    if (!strpbrk(line, " \t")) return take_word(h, line, n, where, e);
    char *gap = line + strcspn(line, " \t");
    char *rest = gap + strspn(gap, " \t");
    if (strncmp(rest, "slots=", 6) != 0 || !bytes_parse_i64(rest + 6, &slots))
        return err_set(e, ERR_CONFIG, "%s: '%.80s' is not of the form 'h1 slots=2'", where, line);
    *gap = 0;
    return add(h, line, slots, where, e);
}

static int read_file(struct hosts *h, const char *path, struct err *e) {
    struct buf text;
    buf_init(&text, FILE_BYTES);
    int rc = bytes_read_file(path, FILE_BYTES, &text, e), line = 1;
    for (const char *at = text.data; !rc && at && *at; line++) {
        char where[4096];
        size_t n = strcspn(at, "\n");
        snprintf(where, sizeof where, "%.4000s:%d", path, line);
        rc = take_line(h, at, n, where, e);
        at += n + (at[n] == '\n');
    }
    buf_fini(&text);
    if (!rc && !h->n) rc = err_set(e, ERR_CONFIG, "%s names no host", path);
    return rc;
}

int hosts_parse(struct hosts *h, const char *text, struct err *e) {
    int rc = 0;
    if (*text == '@') return read_file(h, text + 1, e);
    while (!rc) {
        size_t n = strcspn(text, ",");
        rc = take_word(h, text, n, "hosts", e);
        if (!text[n]) break;
        text += n + 1;
    }
    return rc;
}

void hosts_fini(struct hosts *h) {
    free(h->list);
    *h = (struct hosts){0};
}

int hosts_slots(const struct hosts *h) {
    int slots = 0;
    for (int i = 0; i < h->n; i++)
        if (!h->list[i].out) slots += h->list[i].slots;
    return slots;
}

int hosts_of_rank(const struct hosts *h, int rank) {
    for (int i = 0; i < h->n; i++) {
        if (h->list[i].out) continue;
        if (rank < h->list[i].slots) return i;
        rank -= h->list[i].slots;
    }
    return -1;
}

int hosts_first_rank(const struct hosts *h, int host) {
    int first = 0;
    for (int i = 0; i < host; i++)
        if (!h->list[i].out) first += h->list[i].slots;
    return first;
}
