// SPDX-License-Identifier: Apache-2.0
// The YAML side of the config: libyaml's events, walked without recursion below the two levels that a config
// has. libyaml looks at most 1024 characters ahead of the event it hands out, so stopping at the depth cap
// also bounds the time it spends on nested brackets.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config_rows.h"

#define MAX_DEPTH 16

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; // the current one
    bool holds_event;
    int depth; // of open mappings and sequences
    struct config_file *file;
    struct config_errors *errors;
    const char *path;
    const char *text;
    size_t row_line[CONFIG_ROW_COUNT]; // 1-based; 0: not seen yet
    size_t section_line[CONFIG_SECTION_COUNT];
};

struct key {
    char text[CONFIG_NAME_BYTES]; // shown form when the key is odd, which then matches nothing
    yaml_mark_t mark;
};

static void complain(struct reader *r, yaml_mark_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void complain(struct reader *r, yaml_mark_t at, const char *fmt, ...) {
    char where[4200], what[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%s:%zu:%zu", r->path, at.line + 1, at.column + 1);
    config_errors_add(r->errors, where, "%s", what);
}

static yaml_mark_t mark_of_offset(const char *text, size_t offset) {
    yaml_mark_t m = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        m.column = text[i] == '\n' ? 0 : m.column + 1;
        m.line += text[i] == '\n';
    }
    return m;
}

// Is the line indented by a tab?
static bool has_tab(const struct reader *r, size_t line) {
    const char *at = r->text;
    for (; at && line; line--) at = (at = strchr(at, '\n')) ? at + 1 : NULL;
    return at && at[strspn(at, " ")] == '\t';
}

static void complain_syntax(struct reader *r) {
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "it cannot be parsed";
    yaml_mark_t at = p->problem_mark;
    if (p->error == YAML_READER_ERROR) at = mark_of_offset(r->text, p->problem_offset);
    complain(r, at, "not valid YAML: %s%s%s%s", p->context ? p->context : "", p->context ? ": " : "", problem,
             has_tab(r, at.line) ? " (YAML takes no tabs)" : "");
}

static void refuse_decoration(struct reader *r) {
    const yaml_event_t *v = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (v->type == YAML_SCALAR_EVENT) anchor = v->data.scalar.anchor, tag = v->data.scalar.tag;
    if (v->type == YAML_MAPPING_START_EVENT)
        anchor = v->data.mapping_start.anchor, tag = v->data.mapping_start.tag;
    if (v->type == YAML_SEQUENCE_START_EVENT)
        anchor = v->data.sequence_start.anchor, tag = v->data.sequence_start.tag;
    if (anchor || v->type == YAML_ALIAS_EVENT)
        complain(r, v->start_mark, "anchors and aliases are not allowed; write the value out");
    if (tag) complain(r, v->start_mark, "tags are not allowed; the key says which type its value has");
}

// Moves to the next event. False ends the reading: broken YAML, too deep, or too many errors.
static bool advance(struct reader *r) {
    if (r->holds_event) yaml_event_delete(&r->event);
    r->holds_event = yaml_parser_parse(&r->parser, &r->event);
    if (!r->holds_event) {
        complain_syntax(r);
        return false;
    }
    yaml_event_type_t type = r->event.type;
    r->depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
    r->depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
    if (r->depth > MAX_DEPTH) {
        complain(r, r->event.start_mark, "nested deeper than %d levels", MAX_DEPTH);
        return false;
    }
    refuse_decoration(r);
    return !r->errors->full;
}

// Consumes the rest of the node whose first event is the current one.
static bool skip_node(struct reader *r) {
    yaml_event_type_t type = r->event.type;
    if (type != YAML_MAPPING_START_EVENT && type != YAML_SEQUENCE_START_EVENT) return true;
    int outside = r->depth - 1;
    while (r->depth > outside)
        if (!advance(r)) return false;
    return true;
}

static bool is_null_scalar(const yaml_event_t *v) {
    if (v->type != YAML_SCALAR_EVENT || v->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return false;
    return config_rows_is_null((const char *)v->data.scalar.value);
}

// ---- leaves

static bool keep_origin(struct reader *r, const struct config_row *row, yaml_mark_t at) {
    char where[4200];
    snprintf(where, sizeof where, "%s:%zu:%zu", r->path, at.line + 1, at.column + 1);
    if (!config_set_origin(r->file, row, where, NULL)) return true;
    r->errors->full = true;
    return false;
}

static bool read_value(struct reader *r, const struct config_row *row, yaml_mark_t key_mark) {
    const yaml_event_t *v = &r->event;
    char why[CONFIG_TEXT_BYTES];
    if (v->type == YAML_ALIAS_EVENT) return true; // already refused
    if (v->type != YAML_SCALAR_EVENT) {
        char wants[320];
        config_rows_wants(row, wants, sizeof wants);
        complain(r, v->start_mark, "'%s' wants %s, got a %s", row->name, wants,
                 v->type == YAML_SEQUENCE_START_EVENT ? "list" : "mapping");
        return skip_node(r);
    }
    if (config_rows_parse(row, &r->file->values, (const char *)v->data.scalar.value, v->data.scalar.length,
                          v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE, why, sizeof why))
        return keep_origin(r, row, key_mark);
    complain(r, v->start_mark, "%s", why);
    return true;
}

static bool is_duplicate(struct reader *r, size_t *line, const struct key *key) {
    if (*line) {
        complain(r, key->mark, "duplicate key '%s'; it stands in line %zu already", key->text, *line);
        return true;
    }
    *line = key->mark.line + 1;
    return false;
}

// ---- mappings

enum step { STEP_KEY, STEP_END, STEP_FAILED };

// Moves to the next key of the open mapping, or to its end.
static enum step next_key(struct reader *r, struct key *key) {
    for (;;) {
        if (!advance(r)) return STEP_FAILED;
        if (r->event.type == YAML_MAPPING_END_EVENT) return STEP_END;
        key->mark = r->event.start_mark;
        if (r->event.type == YAML_SCALAR_EVENT) break;
        if (r->event.type != YAML_ALIAS_EVENT) complain(r, key->mark, "a key must be a word");
        if (!skip_node(r) || !advance(r) || !skip_node(r)) return STEP_FAILED;
    }
    const char *text = (const char *)r->event.data.scalar.value;
    config_rows_show(text, r->event.data.scalar.length, key->text, sizeof key->text);
    return STEP_KEY;
}

static bool read_unknown(struct reader *r, const char *section, const struct key *key) {
    char hint[2 * CONFIG_NAME_BYTES];
    config_rows_suggest(section, key->text, hint, sizeof hint);
    complain(r, key->mark, "unknown key '%s'%s%s%s", key->text, section ? " in " : "", section ? section : "",
             hint);
    return advance(r) && skip_node(r);
}

static bool read_row(struct reader *r, const struct config_row *row, const struct key *key) {
    if (!advance(r)) return false;
    if (is_duplicate(r, &r->row_line[row - config_rows], key)) return skip_node(r);
    return read_value(r, row, key->mark);
}

static bool read_section(struct reader *r, const struct config_section *section,
                         const struct key *section_key) {
    if (!advance(r)) return false;
    if (is_duplicate(r, &r->section_line[section - config_sections], section_key)) return skip_node(r);
    if (is_null_scalar(&r->event)) return true;
    if (r->event.type != YAML_MAPPING_START_EVENT) {
        complain(r, r->event.start_mark, "'%s' is a section: its keys stand indented below it",
                 section->name);
        return skip_node(r);
    }
    struct key key;
    enum step step;
    while ((step = next_key(r, &key)) == STEP_KEY) {
        const struct config_row *row = config_rows_find(section->name, key.text);
        if (!(row ? read_row(r, row, &key) : read_unknown(r, section->name, &key))) return false;
    }
    return step == STEP_END;
}

static bool read_root(struct reader *r) {
    struct key key;
    enum step step;
    if (is_null_scalar(&r->event)) return true;
    if (r->event.type != YAML_MAPPING_START_EVENT) {
        complain(r, r->event.start_mark,
                 "a config is a mapping of sections, as in 'train:' with 'steps: 100' below");
        return skip_node(r);
    }
    while ((step = next_key(r, &key)) == STEP_KEY) {
        const struct config_section *section = config_rows_section(key.text);
        const struct config_row *row = config_rows_find(NULL, key.text);
        bool good = section ? read_section(r, section, &key)
                    : row   ? read_row(r, row, &key)
                            : read_unknown(r, NULL, &key);
        if (!good) return false;
    }
    return step == STEP_END;
}

static void read_stream(struct reader *r) {
    bool first = true;
    while (advance(r)) {
        if (r->event.type == YAML_STREAM_END_EVENT) return;
        if (r->event.type != YAML_DOCUMENT_START_EVENT) continue;
        if (!first) {
            complain(r, r->event.start_mark, "a config is one YAML document; a second one starts here");
            return;
        }
        first = false;
        if (!advance(r) || !read_root(r)) return;
    }
}

// libyaml would also take UTF-16, and stops silently at a NUL.
static bool is_plain_text(struct reader *r, const char *text, size_t n) {
    bool utf16 = n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2));
    const char *nul = memchr(text, 0, n);
    if (!nul && !utf16) return true;
    complain(r, mark_of_offset(text, utf16 ? 0 : (size_t)(nul - text)), "not a text file in UTF-8");
    return false;
}

int config_yaml_read(struct config_file *f, const char *path, const char *text, size_t n,
                     struct config_errors *errors, struct err *e) {
    struct reader *r = calloc(1, sizeof *r);
    if (!r || !yaml_parser_initialize(&r->parser)) {
        free(r);
        return err_set(e, ERR_MEMORY, "no memory to read %s", path);
    }
    r->file = f;
    r->errors = errors;
    r->path = path;
    r->text = text;
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, n);
    if (is_plain_text(r, text, n)) read_stream(r);
    if (r->holds_event) yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
    free(r);
    return 0;
}
