// SPDX-License-Identifier: Apache-2.0
// The config table at run time, shared by config*.c and nobody else: one row per key of configs/schema.def,
// look-up with suggestions, and the way between a value and its text. Thread rule: the table is constant.
#ifndef ORRERY_BASE_CONFIG_ROWS_H
#define ORRERY_BASE_CONFIG_ROWS_H

#include "base/config.h"

#define CONFIG_NAME_BYTES  64
#define CONFIG_VALUE_BYTES (CONFIG_TEXT_BYTES + BYTES_F64_BYTES)
#define CONFIG_MAX_ERRORS  100

enum config_type { CONFIG_TYPE_INT, CONFIG_TYPE_REAL, CONFIG_TYPE_BOOL, CONFIG_TYPE_ENUM, CONFIG_TYPE_TEXT };

struct config_row {
    const char *section, *key;
    const char *name; // "train.steps"; "device" for a key without a section
    enum config_type type;
    size_t offset; // of the value in struct config
    int64_t int_lo, int_hi;
    double real_lo, real_hi;
    const char *const *words; // of an enum, NULL-terminated
    enum config_change change;
    const char *help;
};

struct config_section {
    const char *name, *help;
};

enum {
#define CONFIG_SECTION(sec, help)
#define CONFIG_INT(sec, key, def, lo, hi, change, help)  CONFIG_ROW_##sec##_##key,
#define CONFIG_REAL(sec, key, def, lo, hi, change, help) CONFIG_ROW_##sec##_##key,
#define CONFIG_BOOL(sec, key, def, change, help)         CONFIG_ROW_##sec##_##key,
#define CONFIG_ENUM(sec, key, def, words, change, help)  CONFIG_ROW_##sec##_##key,
#define CONFIG_TEXT(sec, key, def, change, help)         CONFIG_ROW_##sec##_##key,
#include "configs/schema.def"
    CONFIG_ROW_COUNT
};

enum {
#define CONFIG_SECTION(sec, help) CONFIG_SECTION_##sec,
#define CONFIG_INT(sec, key, def, lo, hi, change, help)
#define CONFIG_REAL(sec, key, def, lo, hi, change, help)
#define CONFIG_BOOL(sec, key, def, change, help)
#define CONFIG_ENUM(sec, key, def, words, change, help)
#define CONFIG_TEXT(sec, key, def, change, help)
#include "configs/schema.def"
    CONFIG_SECTION_COUNT
};

extern const struct config_row config_rows[CONFIG_ROW_COUNT];
extern const struct config_section config_sections[CONFIG_SECTION_COUNT];

void config_rows_defaults(struct config *c);
// NULL when there is none. Without a section: a key of section `top`.
const struct config_row *config_rows_find(const char *section, const char *key);
const struct config_row *config_rows_named(const char *name);       // "train.steps", "device"
const struct config_section *config_rows_section(const char *name); // not `top`

// "; did you mean 'train'?" or, where a file has a dotted name, "; did you mean 'train: {steps: ...}'?" into
// out, or the empty string. section NULL: the name stands at the top level of
// a file; "": it is a dotted name from the command line or a look-up.
void config_rows_suggest(const char *section, const char *name, char *out, size_t size);

// "a whole number from 1 to 8".
void config_rows_wants(const struct config_row *row, char *out, size_t size);
// Sets the value from its text, NUL-terminated (plain: written without quotes). On refusal says why, with the
// name.
bool config_rows_parse(const struct config_row *row, struct config *c, const char *text, size_t n, bool plain,
                       char *why, size_t size);
bool config_rows_is_null(const char *text); // YAML 1.2's null, when written plain
// The value's text; reads back bit for bit.
const char *config_rows_format(const struct config_row *row, const struct config *c,
                               char *out); // CONFIG_VALUE_BYTES
// Foreign text made fit for a message: bounded, printable.
const char *config_rows_show(const char *text, size_t n, char *out, size_t size);

// ---- collecting errors (config.c)

struct config_errors {
    struct buf *messages;
    int count;
    bool full; // CONFIG_MAX_ERRORS reached or no memory left: stop reading
};
void config_errors_add(struct config_errors *errors, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct config_file {
    struct config values;
    char *origin[CONFIG_ROW_COUNT]; // NULL: defaults
};

// ---- config_yaml.c: fills values and origins from YAML text; `path` is the name in messages.
int config_yaml_read(struct config_file *f, const char *path, const char *text, size_t n,
                     struct config_errors *errors, struct err *e) ERR_CHECK;
int config_set_origin(struct config_file *f, const struct config_row *row, const char *where,
                      struct err *e) ERR_CHECK;

// ---- config_preset.c: the values of model.preset for those keys whose origin (NULL: defaults) yields to it.
typedef bool config_yields_fn(const char *origin);
int config_preset_apply(struct config_file *f, config_yields_fn *yields, struct err *e) ERR_CHECK;

#endif
