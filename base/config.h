// SPDX-License-Identifier: Apache-2.0
// The run's configuration: one struct made from configs/schema.def, filled from a YAML file and overrides,
// every value with its origin. Reports all errors at once. No YAML type leaves config_yaml.c.
// YAML: a mapping of mappings, scalars only at the leaves, YAML 1.2 core scalars; anchors, aliases, tags,
// duplicate keys, more than 1 MiB or 16 levels are refused.
#ifndef ORRERY_BASE_CONFIG_H
#define ORRERY_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

// What a change of the key means for a run that resumes.
enum config_change {
    CHANGE_MODEL, // shapes differ: refused
    CHANGE_DATA,  // sequence or numbers differ: refused unless --force is given
    CHANGE_RUN,   // allowed and logged
    CHANGE_FREE,  // allowed, not worth a line
};

// schema.def rows: (section, key, default, ..., change, "help"). A top-level key has section `top`.
//   CONFIG_INT (sec, key, def, lo, hi, change, help)      int64_t sec_key
//   CONFIG_REAL(sec, key, def, lo, hi, change, help)      double  sec_key
//   CONFIG_BOOL(sec, key, def, change, help)              bool    sec_key
//   CONFIG_ENUM(sec, key, def, (a, b), change, help)      int     sec_key: CONFIG_sec_key_a, CONFIG_sec_key_b
//   CONFIG_TEXT(sec, key, def, change, help)              char    sec_key[CONFIG_TEXT_BYTES]
//   CONFIG_SECTION(sec, help)                             documentation only
#define CONFIG_TEXT_BYTES 512

struct config {
#define CONFIG_SECTION(sec, help)
#define CONFIG_INT(sec, key, def, lo, hi, change, help)  int64_t sec##_##key;
#define CONFIG_REAL(sec, key, def, lo, hi, change, help) double sec##_##key;
#define CONFIG_BOOL(sec, key, def, change, help)         bool sec##_##key;
#define CONFIG_ENUM(sec, key, def, words, change, help)  int sec##_##key;
#define CONFIG_TEXT(sec, key, def, change, help)         char sec##_##key[CONFIG_TEXT_BYTES];
#include "configs/schema.def"
};

// each(with, word) for every word of an enum's list, at most 8.
#define CONFIG_WORDS(each, with, list) CONFIG_WORDS_(each, with, CONFIG_BARE list)
#define CONFIG_BARE(...)               __VA_ARGS__
#define CONFIG_WORDS_(each, with, ...)                                                                       \
    CONFIG_COUNTED(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, )(each, with, __VA_ARGS__)
#define CONFIG_COUNTED(a, b, c, d, e, f, g, h, n, ...) CONFIG_##n
#define CONFIG_1(each, with, word)                     each(with, word)
#define CONFIG_2(each, with, word, ...)                each(with, word) CONFIG_1(each, with, __VA_ARGS__)
#define CONFIG_3(each, with, word, ...)                each(with, word) CONFIG_2(each, with, __VA_ARGS__)
#define CONFIG_4(each, with, word, ...)                each(with, word) CONFIG_3(each, with, __VA_ARGS__)
#define CONFIG_5(each, with, word, ...)                each(with, word) CONFIG_4(each, with, __VA_ARGS__)
#define CONFIG_6(each, with, word, ...)                each(with, word) CONFIG_5(each, with, __VA_ARGS__)
#define CONFIG_7(each, with, word, ...)                each(with, word) CONFIG_6(each, with, __VA_ARGS__)
#define CONFIG_8(each, with, word, ...)                each(with, word) CONFIG_7(each, with, __VA_ARGS__)

// The words of enums as constants, so that no other file counts them: CONFIG_train_on_nan_stop is 0, ...
#define CONFIG_WORD(name, word) CONFIG_##name##_##word,
#define CONFIG_SECTION(sec, help)
#define CONFIG_INT(sec, key, def, lo, hi, change, help)
#define CONFIG_REAL(sec, key, def, lo, hi, change, help)
#define CONFIG_BOOL(sec, key, def, change, help)
#define CONFIG_ENUM(sec, key, def, list, change, help) enum { CONFIG_WORDS(CONFIG_WORD, sec##_##key, list) };
#define CONFIG_TEXT(sec, key, def, change, help)
#include "configs/schema.def"

struct config_file; // a struct config plus the origin of every value

// Loads `path` (NULL: defaults only), then the overrides "a.b=c" in order. Every error found is in e->text,
// one after the other separated by "; " where they fit: each is
// "demo.yaml:7:3: error: unknown key 'trian'; did you mean 'train'?". Code CONFIG; MISSING if no such file.
// An override wins over the file, a later override over an earlier one; text is taken as it stands.
int config_load(struct config_file **out, const char *path, const char *const *overrides, size_t n_overrides,
                struct err *e) ERR_CHECK;
// The same from YAML text in memory; `what` names it in messages.
int config_parse(struct config_file **out, const char *what, const char *text, size_t n,
                 struct err *e) ERR_CHECK;
void config_close(struct config_file *f);
const struct config *config_values(const struct config_file *f);
// The same, and appends every message of a failure to `messages`, one line each.
int config_load_all(struct config_file **out, struct buf *messages, const char *path,
                    const char *const *overrides, size_t n_overrides, struct err *e) ERR_CHECK;

// "defaults", "demo.yaml:7:3", "command line"; NULL for a key that is not in the table.
const char *config_origin(const struct config_file *f, const char *dotted_key);
// The resolved YAML, a comment with its origin behind each value. config_load reads it back to the same
// values.
int config_write(const struct config_file *f, struct buf *out, struct err *e) ERR_CHECK;
// The same without origins, which may be long paths: for what is kept with weights.
int config_write_values(const struct config_file *f, struct buf *out, struct err *e) ERR_CHECK;
// The values as a JSON object of objects, keys without a section first.
struct json_writer;
void config_put_json(struct json_writer *w, const char *key, const struct config *c);
// Generated from the table: one key (or all, key NULL) for people; JSON schema; Markdown reference.
int config_explain(const char *dotted_key, struct buf *out, struct err *e) ERR_CHECK;
int config_schema_json(struct buf *out, struct err *e) ERR_CHECK;
int config_reference_md(struct buf *out, struct err *e) ERR_CHECK;
const char *config_enum_word(const char *dotted_key, int value); // NULL when there is none

// Calls `each` for every key whose values differ: key, both values as text, and what the change means.
typedef void config_diff_fn(void *arg, const char *dotted_key, const char *a, const char *b,
                            enum config_change change);
void config_diff(const struct config *a, const struct config *b, config_diff_fn *each, void *arg);
// Hash over the MODEL and DATA keys: what a checkpoint must agree on.
uint64_t config_hash(const struct config *c);

#endif
