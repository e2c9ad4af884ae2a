// SPDX-License-Identifier: Apache-2.0
// What is generated from the table: the resolved YAML, the explanations, the JSON schema, the reference page.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/config_rows.h"
#include "base/json.h"

static bool is_top(const char *section) {
    return !strcmp(section, "top");
}

static const char *change_words(enum config_change change) {
    static const char *const words[] = {
        [CHANGE_MODEL] = "refused: shapes differ",
        [CHANGE_DATA] = "refused: numbers differ",
        [CHANGE_RUN] = "allowed, logged",
        [CHANGE_FREE] = "allowed",
    };
    return words[change];
}

// ---- resolved YAML

// Code points that YAML does not let stand in a file, or folds as line breaks.
static bool needs_escape(uint32_t c) {
    return (c >= 0x7f && c <= 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe ||
           c == 0xffff;
}

static int append_quoted(struct buf *out, const char *text, struct err *e) {
    int rc = buf_append(out, "\"", 1, e);
    for (const unsigned char *p = (const unsigned char *)text; *p && !rc;) {
        size_t length = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
        uint32_t c = length == 1 ? *p : *p & (0x3fu >> (length - 1));
        for (size_t i = 1; i < length; i++) c = c << 6 | (p[i] & 0x3fu);
        if (*p == '"' || *p == '\\')
            rc = buf_appendf(out, e, "\\%c", *p);
        else if (needs_escape(c))
            rc = buf_appendf(out, e, "\\u%04" PRIx32, c);
        else
            rc = buf_append(out, p, length, e);
        p += length;
    }
    return rc ? rc : buf_append(out, "\"", 1, e);
}

static int append_value(struct buf *out, const struct config_row *row, const struct config *c,
                        struct err *e) {
    char value[CONFIG_VALUE_BYTES];
    config_rows_format(row, c, value);
    return row->type == CONFIG_TYPE_TEXT ? append_quoted(out, value, e) : buf_appends(out, value, e);
}

// A path may hold bytes that YAML refuses even in a comment.
static int append_origin(struct buf *out, const char *origin, struct err *e) {
    int rc = buf_appends(out, "  # ", e);
    for (; *origin && !rc; origin++) {
        bool plain = *origin >= 0x20 && *origin < 0x7f;
        rc = buf_append(out, plain ? origin : "?", 1, e);
    }
    return rc ? rc : buf_appends(out, "\n", e);
}

static int write_row(const struct config_file *f, const struct config_row *row, bool origins, struct buf *out,
                     struct err *e) {
    int rc = buf_appendf(out, e, "%s%s: ", is_top(row->section) ? "" : "  ", row->key);
    if (!rc) rc = append_value(out, row, &f->values, e);
    if (rc) return rc;
    return origins ? append_origin(out, config_origin(f, row->name), e) : buf_append(out, "\n", 1, e);
}

static int write_rows(const struct config_file *f, bool origins, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t s = 0; s < CONFIG_SECTION_COUNT && !rc; s++) {
        const char *section = config_sections[s].name;
        if (!is_top(section)) rc = buf_appendf(out, e, "%s:\n", section);
        for (size_t i = 0; i < CONFIG_ROW_COUNT && !rc; i++)
            if (!strcmp(config_rows[i].section, section)) rc = write_row(f, &config_rows[i], origins, out, e);
    }
    return rc;
}

int config_write(const struct config_file *f, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "# Resolved configuration; behind each value stands where it came from.\n", e);
    return rc ? rc : write_rows(f, true, out, e);
}

int config_write_values(const struct config_file *f, struct buf *out, struct err *e) {
    return write_rows(f, false, out, e);
}

// ---- explanations

static int explain_row(const struct config_row *row, const struct config *defaults, struct buf *out,
                       struct err *e) {
    char wants[320], value[CONFIG_VALUE_BYTES];
    config_rows_wants(row, wants, sizeof wants);
    config_rows_format(row, defaults, value);
    return buf_appendf(out, e, "%s\n    %s\n    %s; default %s; when a run resumes, a change is %s\n",
                       row->name, row->help, wants, *value ? value : "empty", change_words(row->change));
}

static int explain_section(const struct config_section *section, const struct config *defaults,
                           struct buf *out, struct err *e) {
    int rc = buf_appendf(out, e, "%s: %s\n\n", section->name, section->help);
    for (size_t i = 0; i < CONFIG_ROW_COUNT && !rc; i++)
        if (!strcmp(config_rows[i].section, section->name))
            rc = explain_row(&config_rows[i], defaults, out, e);
    return rc ? rc : buf_appends(out, "\n", e);
}

int config_explain(const char *dotted_key, struct buf *out, struct err *e) {
    struct config defaults;
    char hint[2 * CONFIG_NAME_BYTES], shown[CONFIG_NAME_BYTES];
    int rc = 0;
    config_rows_defaults(&defaults);
    if (!dotted_key) {
        for (size_t s = 0; s < CONFIG_SECTION_COUNT && !rc; s++)
            rc = explain_section(&config_sections[s], &defaults, out, e);
        return rc;
    }
    const struct config_section *section = config_rows_section(dotted_key);
    if (section) return explain_section(section, &defaults, out, e);
    const struct config_row *row = config_rows_named(dotted_key);
    if (row) return explain_row(row, &defaults, out, e);
    config_rows_show(dotted_key, strlen(dotted_key), shown, sizeof shown);
    config_rows_suggest(strchr(shown, '.') ? "" : NULL, shown, hint, sizeof hint);
    return err_set(e, ERR_USAGE, "unknown key '%s'%s", shown, hint);
}

// ---- values as JSON

static void put_value(struct json_writer *w, const struct config_row *row, const struct config *c) {
    const void *at = (const char *)c + row->offset;
    switch (row->type) {
    case CONFIG_TYPE_INT: json_put_int(w, row->key, *(const int64_t *)at); break;
    case CONFIG_TYPE_REAL: json_put_double(w, row->key, *(const double *)at); break;
    case CONFIG_TYPE_BOOL: json_put_bool(w, row->key, *(const bool *)at); break;
    case CONFIG_TYPE_ENUM: json_put_string(w, row->key, row->words[*(const int *)at]); break;
    case CONFIG_TYPE_TEXT: json_put_string(w, row->key, at); break;
    }
}

static void put_section(struct json_writer *w, const char *section, const struct config *c) {
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++)
        if (!strcmp(config_rows[i].section, section)) put_value(w, &config_rows[i], c);
}

void config_put_json(struct json_writer *w, const char *key, const struct config *c) {
    json_put_object(w, key);
    put_section(w, "top", c);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        if (is_top(config_sections[s].name)) continue;
        json_put_object(w, config_sections[s].name);
        put_section(w, config_sections[s].name, c);
        json_close(w, '}');
    }
    json_close(w, '}');
}

// ---- JSON schema

static void schema_type(struct json_writer *w, const struct config_row *row, const struct config *defaults) {
    const void *at = (const char *)defaults + row->offset;
    switch (row->type) {
    case CONFIG_TYPE_INT:
        json_put_string(w, "type", "integer");
        json_put_int(w, "minimum", row->int_lo);
        json_put_int(w, "maximum", row->int_hi);
        json_put_int(w, "default", *(const int64_t *)at);
        break;
    case CONFIG_TYPE_REAL:
        json_put_string(w, "type", "number");
        json_put_double(w, "minimum", row->real_lo);
        json_put_double(w, "maximum", row->real_hi);
        json_put_double(w, "default", *(const double *)at);
        break;
    case CONFIG_TYPE_BOOL:
        json_put_string(w, "type", "boolean");
        json_put_bool(w, "default", *(const bool *)at);
        break;
    case CONFIG_TYPE_ENUM:
        json_put_array(w, "enum");
        for (int i = 0; row->words[i]; i++) json_put_string(w, NULL, row->words[i]);
        json_close(w, ']');
        json_put_string(w, "default", row->words[*(const int *)at]);
        break;
    case CONFIG_TYPE_TEXT:
        json_put_string(w, "type", "string");
        json_put_int(w, "maxLength", CONFIG_TEXT_BYTES - 1);
        json_put_string(w, "default", at);
        break;
    }
}

static void schema_rows(struct json_writer *w, const char *section, const struct config *defaults) {
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        if (strcmp(row->section, section)) continue;
        json_put_object(w, row->key);
        json_put_string(w, "description", row->help);
        schema_type(w, row, defaults);
        json_close(w, '}');
    }
}

static void schema_section(struct json_writer *w, const struct config_section *section,
                           const struct config *defaults) {
    json_put_object(w, section->name);
    json_put_string(w, "description", section->help);
    json_put_string(w, "type", "object");
    json_put_bool(w, "additionalProperties", false);
    json_put_object(w, "properties");
    schema_rows(w, section->name, defaults);
    json_close(w, '}');
    json_close(w, '}');
}

int config_schema_json(struct buf *out, struct err *e) {
    struct json_writer w;
    struct config defaults;
    config_rows_defaults(&defaults);
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "$schema", "http://json-schema.org/draft-07/schema#");
    json_put_string(&w, "title", "Orrery run configuration");
    json_put_string(&w, "type", "object");
    json_put_bool(&w, "additionalProperties", false);
    json_put_object(&w, "properties");
    schema_rows(&w, "top", &defaults);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++)
        if (!is_top(config_sections[s].name)) schema_section(&w, &config_sections[s], &defaults);
    json_close(&w, '}');
    json_close(&w, '}');
    int rc = json_end(&w, e);
    return rc ? rc : buf_appends(out, "\n", e);
}

// ---- reference page

static int reference_row(const struct config_row *row, const struct config *defaults, struct buf *out,
                         struct err *e) {
    char wants[320], value[CONFIG_VALUE_BYTES];
    config_rows_wants(row, wants, sizeof wants);
    config_rows_format(row, defaults, value);
    return buf_appendf(out, e, "| `%s` | %s | %s | %s%s%s | %s |\n", row->name, row->help, wants,
                       *value ? "`" : "", *value ? value : "empty", *value ? "`" : "",
                       change_words(row->change));
}

int config_reference_md(struct buf *out, struct err *e) {
    struct config defaults;
    config_rows_defaults(&defaults);
    int rc = buf_appends(
        out, "# Configuration reference\n\nMade from `configs/schema.def` by `orrery config`.\n", e);
    for (size_t s = 0; s < CONFIG_SECTION_COUNT && !rc; s++) {
        const struct config_section *section = &config_sections[s];
        rc = buf_appendf(out, e,
                         "\n## %s\n\n%s\n\n| key | meaning | value | default | change on resume |\n"
                         "| --- | --- | --- | --- | --- |\n",
                         is_top(section->name) ? "Top level" : section->name, section->help);
        for (size_t i = 0; i < CONFIG_ROW_COUNT && !rc; i++)
            if (!strcmp(config_rows[i].section, section->name))
                rc = reference_row(&config_rows[i], &defaults, out, e);
    }
    return rc;
}
