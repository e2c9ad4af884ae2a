// SPDX-License-Identifier: Apache-2.0
#include "base/config_rows.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A key of section `top` is named without it.
#define NAME(sec, key)                                                                                       \
    (#sec "." #key) + (sizeof #sec == 4 && #sec[0] == 't' && #sec[1] == 'o' && #sec[2] == 'p' ? 4 : 0)
#define WORD(with, word) #word,
#define COMMON(sec, key_, kind, change_, help_)                                                              \
    .section = #sec, .key = #key_, .name = NAME(sec, key_), .type = CONFIG_TYPE_##kind,                      \
    .offset = offsetof(struct config, sec##_##key_), .change = CHANGE_##change_, .help = help_

const struct config_row config_rows[CONFIG_ROW_COUNT] = {
#define CONFIG_SECTION(sec, help)
#define CONFIG_INT(sec, key, def, lo, hi, change, help)                                                      \
    {COMMON(sec, key, INT, change, help), .int_lo = lo, .int_hi = hi},
#define CONFIG_REAL(sec, key, def, lo, hi, change, help)                                                     \
    {COMMON(sec, key, REAL, change, help), .real_lo = lo, .real_hi = hi},
#define CONFIG_BOOL(sec, key, def, change, help) {COMMON(sec, key, BOOL, change, help)},
#define CONFIG_ENUM(sec, key, def, list, change, help)                                                       \
    {COMMON(sec, key, ENUM, change, help), .words = (const char *const[]){CONFIG_WORDS(WORD, , list) NULL}},
#define CONFIG_TEXT(sec, key, def, change, help) {COMMON(sec, key, TEXT, change, help)},
#include "configs/schema.def"
};

const struct config_section config_sections[CONFIG_SECTION_COUNT] = {
#define CONFIG_SECTION(sec, help) {#sec, help},
#define CONFIG_INT(sec, key, def, lo, hi, change, help)
#define CONFIG_REAL(sec, key, def, lo, hi, change, help)
#define CONFIG_BOOL(sec, key, def, change, help)
#define CONFIG_ENUM(sec, key, def, list, change, help)
#define CONFIG_TEXT(sec, key, def, change, help)
#include "configs/schema.def"
};

// ---- words of an enum

static int find_word(const char *const *words, const char *text) {
    for (int i = 0; words[i]; i++)
        if (!strcmp(words[i], text)) return i;
    return -1;
}

void config_rows_defaults(struct config *c) {
    memset(c, 0, sizeof *c);
#define CONFIG_SECTION(sec, help)
#define CONFIG_INT(sec, key, def, lo, hi, change, help)  c->sec##_##key = def;
#define CONFIG_REAL(sec, key, def, lo, hi, change, help) c->sec##_##key = def;
#define CONFIG_BOOL(sec, key, def, change, help)         c->sec##_##key = def;
#define CONFIG_ENUM(sec, key, def, list, change, help)   c->sec##_##key = CONFIG_##sec##_##key##_##def;
#define CONFIG_TEXT(sec, key, def, change, help)         memcpy(c->sec##_##key, def, sizeof def);
#include "configs/schema.def"
}

// ---- look-up

const struct config_row *config_rows_find(const char *section, const char *key) {
    if (!section) section = "top";
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++)
        if (!strcmp(config_rows[i].section, section) && !strcmp(config_rows[i].key, key))
            return &config_rows[i];
    return NULL;
}

const struct config_row *config_rows_named(const char *name) {
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++)
        if (!strcmp(config_rows[i].name, name)) return &config_rows[i];
    return NULL;
}

const struct config_section *config_rows_section(const char *name) {
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++)
        if (!strcmp(config_sections[i].name, name) && strcmp(name, "top")) return &config_sections[i];
    return NULL;
}

// ---- suggestions

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static bool same_letter(char a, char b) {
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

// Edits (insert, delete, replace, swap of neighbours) from a to b; case does not count; both shorter than
// CONFIG_NAME_BYTES.
static size_t distance(const char *a, const char *b) {
    size_t before[CONFIG_NAME_BYTES], last[CONFIG_NAME_BYTES], row[CONFIG_NAME_BYTES];
    size_t na = strlen(a), nb = strlen(b);
    for (size_t j = 0; j <= nb; j++) last[j] = j;
    memcpy(before, last, sizeof before);
    for (size_t i = 1; i <= na; i++) {
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            row[j] = least(least(last[j], row[j - 1]) + 1, last[j - 1] + !same_letter(a[i - 1], b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        memcpy(before, last, sizeof before);
        memcpy(last, row, sizeof last);
    }
    return last[nb];
}

struct nearest {
    const char *wanted, *best;
    size_t edits;
};

static void consider(struct nearest *n, const char *candidate) {
    size_t edits = distance(n->wanted, candidate);
    if (edits >= n->edits) return;
    n->edits = edits;
    n->best = candidate;
}

// The same key in another section is the likeliest meaning.
static const char *elsewhere(const char *key) {
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++)
        if (!strcmp(config_rows[i].key, key)) return config_rows[i].name;
    return NULL;
}

static const char *nearest_to(const char *section, const char *name) {
    const char *dot = strrchr(name, '.');
    struct nearest n = {.wanted = name, .edits = (strlen(name) + 5) / 3};
    bool dotted = section && !*section;
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        bool top = !strcmp(row->section, "top");
        if (dotted || (!section && top))
            consider(&n, row->name);
        else if (section && !strcmp(section, row->section))
            consider(&n, row->key);
    }
    for (size_t i = 0; i < CONFIG_SECTION_COUNT && !section; i++)
        if (config_rows_section(config_sections[i].name)) consider(&n, config_sections[i].name);
    const char *same = elsewhere(dotted && dot ? dot + 1 : name);
    return same && n.edits > 1 ? same : n.best;
}

void config_rows_suggest(const char *section, const char *name, char *out, size_t size) {
    out[0] = 0;
    size_t length = strlen(name);
    if (length == 0 || length >= CONFIG_NAME_BYTES) return;
    bool nested = strchr(name, '.') && !(section && !*section); // in a file, where sections hold their keys
    const char *best = nearest_to(nested ? "" : section, name);
    const struct config_row *row = nested && best && strchr(best, '.') ? config_rows_named(best) : NULL;
    if (row)
        snprintf(out, size, "; did you mean '%s: {%s: ...}'?", row->section, row->key);
    else if (best)
        snprintf(out, size, "; did you mean '%s'?", best);
}

// ---- text and values

const char *config_rows_show(const char *text, size_t n, char *out, size_t size) {
    size_t room = size - 4, used = least(n, room);
    bool whole = bytes_is_utf8(text, n);
    while (whole && used < n && used > 0 && ((unsigned char)text[used] & 0xc0) == 0x80) used--;
    for (size_t i = 0; i < used; i++) {
        unsigned char c = (unsigned char)text[i];
        out[i] = c < 0x20 || c == 0x7f || (c >= 0x80 && !whole) ? '?' : text[i];
    }
    memcpy(out + used, used < n ? "..." : "", used < n ? 4 : 1);
    return out;
}

static void list_words(const char *const *words, char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; words[i] && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", words[i]);
}

void config_rows_wants(const struct config_row *row, char *out, size_t size) {
    char a[BYTES_F64_BYTES], b[BYTES_F64_BYTES], words[256];
    switch (row->type) {
    case CONFIG_TYPE_INT:
        snprintf(out, size, "a whole number from %" PRId64 " to %" PRId64, row->int_lo, row->int_hi);
        return;
    case CONFIG_TYPE_REAL:
        snprintf(out, size, "a number from %s to %s", bytes_format_f64(row->real_lo, a),
                 bytes_format_f64(row->real_hi, b));
        return;
    case CONFIG_TYPE_BOOL: snprintf(out, size, "true or false"); return;
    case CONFIG_TYPE_ENUM:
        list_words(row->words, words, sizeof words);
        snprintf(out, size, "one of %s", words);
        return;
    case CONFIG_TYPE_TEXT:
        snprintf(out, size, "text of at most %d bytes on one line", CONFIG_TEXT_BYTES - 1);
        return;
    }
}

// YAML 1.2's core schema also has 0o17 and 0xff.
static bool parse_int(const char *text, int64_t *out) {
    int base = !strncmp(text, "0x", 2) ? 16 : !strncmp(text, "0o", 2) ? 8 : 10;
    if (base == 10) return bytes_parse_i64(text, out);
    const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "01234567";
    size_t length = strlen(text + 2);
    if (length == 0 || length > 15 || strspn(text + 2, digits) != length) return false;
    *out = (int64_t)strtoll(text + 2, NULL, base);
    return true;
}

static bool parse_bool(const char *text, bool *out) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE", NULL};
    int i = find_word(words, text);
    if (i >= 0) *out = i < 3;
    return i >= 0;
}

static bool is_one_line(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) return false;
    return bytes_is_utf8(text, n);
}

bool config_rows_is_null(const char *text) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    return find_word(words, text) >= 0;
}

static bool parse_text(const char *text, size_t n, bool plain, char *out) {
    if (n >= CONFIG_TEXT_BYTES || !is_one_line(text, n) || (plain && config_rows_is_null(text))) return false;
    memset(out, 0, CONFIG_TEXT_BYTES);
    memcpy(out, text, n);
    return true;
}

static bool parse_plain(const struct config_row *row, void *at, const char *text) {
    int64_t whole;
    double real;
    int word;
    switch (row->type) {
    case CONFIG_TYPE_INT:
        if (!parse_int(text, &whole) || whole < row->int_lo || whole > row->int_hi) return false;
        *(int64_t *)at = whole;
        return true;
    case CONFIG_TYPE_REAL:
        if (!bytes_parse_f64(text, &real) || !(real >= row->real_lo && real <= row->real_hi)) return false;
        *(double *)at = real;
        return true;
    case CONFIG_TYPE_BOOL: return parse_bool(text, at);
    case CONFIG_TYPE_ENUM:
        word = find_word(row->words, text);
        if (word >= 0) *(int *)at = word;
        return word >= 0;
    case CONFIG_TYPE_TEXT: break;
    }
    return false;
}

bool config_rows_parse(const struct config_row *row, struct config *c, const char *text, size_t n, bool plain,
                       char *why, size_t size) {
    void *at = (char *)c + row->offset;
    bool number = row->type != CONFIG_TYPE_TEXT && row->type != CONFIG_TYPE_ENUM;
    bool whole = !memchr(text, 0, n) && n < CONFIG_TEXT_BYTES;
    bool good = row->type == CONFIG_TYPE_TEXT ? parse_text(text, n, plain, at)
                                              : whole && (plain || !number) && parse_plain(row, at, text);
    if (good) return true;
    char wants[320], shown[64];
    config_rows_wants(row, wants, sizeof wants);
    if (plain && config_rows_is_null(text))
        snprintf(why, size, "'%s' wants %s, got nothing%s", row->name, wants,
                 number || row->words ? "" : " (\"\" is empty text)");
    else if (number && !plain)
        snprintf(why, size, "'%s' wants %s, got the text \"%s\" (take the quotes away)", row->name, wants,
                 config_rows_show(text, n, shown, sizeof shown));
    else
        snprintf(why, size, "'%s' wants %s, got '%s'", row->name, wants,
                 config_rows_show(text, n, shown, sizeof shown));
    return false;
}

const char *config_rows_format(const struct config_row *row, const struct config *c, char *out) {
    const void *at = (const char *)c + row->offset;
    switch (row->type) {
    case CONFIG_TYPE_INT: snprintf(out, CONFIG_VALUE_BYTES, "%" PRId64, *(const int64_t *)at); break;
    case CONFIG_TYPE_REAL: bytes_format_f64(*(const double *)at, out); break;
    case CONFIG_TYPE_BOOL:
        snprintf(out, CONFIG_VALUE_BYTES, "%s", *(const bool *)at ? "true" : "false");
        break;
    case CONFIG_TYPE_ENUM: snprintf(out, CONFIG_VALUE_BYTES, "%s", row->words[*(const int *)at]); break;
    case CONFIG_TYPE_TEXT: snprintf(out, CONFIG_VALUE_BYTES, "%s", (const char *)at); break;
    }
    return out;
}
