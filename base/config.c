// SPDX-License-Identifier: Apache-2.0
#include "base/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_rows.h"

#define MAX_FILE_BYTES    ((size_t)1 << 20)
#define MAX_MESSAGE_BYTES ((size_t)1 << 20)

static const char command_line[] = "command line"; // an origin

// ---- errors, all at once

void config_errors_add(struct config_errors *errors, const char *where, const char *fmt, ...) {
    char what[1024];
    if (errors->full) return;
    if (errors->count == CONFIG_MAX_ERRORS) {
        where = "config";
        snprintf(what, sizeof what, "more than %d errors; the rest is not shown", CONFIG_MAX_ERRORS);
        errors->full = true;
    } else {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(what, sizeof what, fmt, ap);
        va_end(ap);
    }
    errors->count++;
    if (buf_appendf(errors->messages, NULL, "%s: error: %s\n", where, what)) errors->full = true;
}

// The messages joined by "; ", as many as fit whole into an err's one line.
static int errors_to_err(const struct config_errors *errors, struct err *e) {
    char text[ERR_TEXT_BYTES - 64] = "";
    size_t used = 0;
    int shown = 0;
    const char *line = errors->messages->data ? errors->messages->data : "";
    for (; *line; shown++) {
        size_t length = strcspn(line, "\n");
        size_t needs = length + (shown ? 2 : 0);
        if (shown && used + needs >= sizeof text) break;
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", shown ? "; " : "", (int)length, line);
        if (used >= sizeof text) used = sizeof text - 1;
        line += length + (line[length] == '\n');
    }
    if (shown < errors->count) return err_set(e, ERR_CONFIG, "%s; and %d more", text, errors->count - shown);
    return err_set(e, ERR_CONFIG, "%s", text);
}

// ---- origins

int config_set_origin(struct config_file *f, const struct config_row *row, const char *where, struct err *e) {
    char *copy = strdup(where);
    if (!copy) return err_set(e, ERR_MEMORY, "no memory for the config");
    free(f->origin[row - config_rows]);
    f->origin[row - config_rows] = copy;
    return 0;
}

static const char *origin_of(const struct config_file *f, const struct config_row *row) {
    const char *origin = f->origin[row - config_rows];
    return origin ? origin : "defaults";
}

const char *config_origin(const struct config_file *f, const char *dotted_key) {
    const struct config_row *row = config_rows_named(dotted_key);
    return row ? origin_of(f, row) : NULL;
}

// ---- loading

static int read_file(struct config_file *f, const char *path, struct config_errors *errors, struct err *e) {
    struct buf text;
    struct err why = {0};
    buf_init(&text, MAX_FILE_BYTES);
    int rc = bytes_read_file(path, MAX_FILE_BYTES, &text, &why);
    if (rc == -ERR_DATA) {
        config_errors_add(errors, path, "%s", why.text);
        rc = 0;
    } else if (rc)
        rc = err_set(e, why.code, "%s", why.text);
    else
        rc = config_yaml_read(f, path, text.data, text.len, errors, e);
    buf_fini(&text);
    return rc;
}

static int apply_override(struct config_file *f, const char *text, struct config_errors *errors,
                          struct err *e) {
    char name[CONFIG_NAME_BYTES], why[CONFIG_TEXT_BYTES], hint[2 * CONFIG_NAME_BYTES];
    const char *equals = strchr(text, '=');
    config_rows_show(text, equals ? (size_t)(equals - text) : strlen(text), name, sizeof name);
    if (!equals) {
        config_errors_add(errors, command_line, "'%s' is no override; write key=value, as in train.steps=100",
                          name);
        return 0;
    }
    const struct config_row *row = config_rows_named(name);
    if (!row) {
        config_rows_suggest("", name, hint, sizeof hint);
        config_errors_add(errors, command_line, "unknown key '%s'%s", name, hint);
        return 0;
    }
    const char *value = equals + 1;
    bool plain = row->type != CONFIG_TYPE_TEXT; // a shell has no quotes left: text is taken as it stands
    if (config_rows_parse(row, &f->values, value, strlen(value), plain, why, sizeof why))
        return config_set_origin(f, row, command_line, e);
    config_errors_add(errors, command_line, "%s", why);
    return 0;
}

// ---- the preset: it stands where model.preset is written, and what is written there too or later wins

static bool is_default(const char *origin) {
    return origin == NULL;
}

static bool is_earlier_than_overrides(const char *origin) {
    return origin == NULL || strcmp(origin, command_line) != 0;
}

static int apply_preset(struct config_file *f, struct err *e) {
    const char *origin = f->origin[CONFIG_ROW_model_preset];
    return config_preset_apply(f, is_earlier_than_overrides(origin) ? is_default : is_earlier_than_overrides,
                               e);
}

// ---- what must hold between keys

// Of two keys that contradict each other, where the one stands that was said last: the command line goes
// before the file, and that before the defaults.
static const char *origin_of_either(const struct config_file *f, const char *a, const char *b) {
    const char *first = config_origin(f, a), *second = config_origin(f, b);
    bool second_wins = !f->origin[config_rows_named(a) - config_rows] || !strcmp(second, command_line);
    return second_wins && strcmp(first, command_line) != 0 ? second : first;
}

static void check_multiple(const struct config_file *f, const char *key, int64_t value, const char *of,
                           int64_t step, struct config_errors *errors) {
    if (step > 0 && value % step == 0) return;
    config_errors_add(errors, origin_of_either(f, key, of),
                      "'%s' is %lld, which is no multiple of '%s' (%lld)", key, (long long)value, of,
                      (long long)step);
}

static void check_groups(const struct config_file *f, int64_t heads, struct config_errors *errors) {
    int64_t shared = f->values.model_kv_heads;
    if (heads % shared == 0) return;
    config_errors_add(
        errors, origin_of(f, config_rows_named("model.kv_heads")),
        "'model.kv_heads' is %lld, which does not divide the %lld heads (model.width / model.head_dim)",
        (long long)shared, (long long)heads);
}

static void check_ranks(const struct config_file *f, struct config_errors *errors) {
    const struct config *c = &f->values;
    const struct {
        const char *key, *words;
        int64_t size;
    } sizes[] = {{"comm.tp", "tensor", c->comm_tp},
                 {"comm.cp", "context", c->comm_cp},
                 {"comm.pp", "pipeline", c->comm_pp}};
    for (int i = 0; i < 3; i++)
        if (sizes[i].size > 1)
            config_errors_add(errors, config_origin(f, sizes[i].key),
                              "%s is %lld: %s parallelism is not supported yet, leave it at 1", sizes[i].key,
                              (long long)sizes[i].size, sizes[i].words);
    if (c->comm_backend == CONFIG_comm_backend_nccl && c->top_device == CONFIG_top_device_cpu)
        config_errors_add(errors, origin_of_either(f, "comm.backend", "device"),
                          "comm.backend nccl moves what is on GPUs, but device is cpu: use auto");
}

static void check_relations(const struct config_file *f, struct config_errors *errors) {
    const struct config *c = &f->values;
    check_multiple(f, "train.batch", c->train_batch, "comm.shards", c->comm_shards, errors);
    check_multiple(f, "model.width", c->model_width, "model.head_dim", c->model_head_dim, errors);
    if (c->model_kv_heads > 0 && c->model_width % c->model_head_dim == 0)
        check_groups(f, c->model_width / c->model_head_dim, errors);
    check_multiple(f, "video.height", c->video_height, "video.patch", c->video_patch, errors);
    check_multiple(f, "video.width", c->video_width, "video.patch", c->video_patch, errors);
    if (!(c->mix_forward + c->mix_independent + c->mix_inverse + c->mix_policy + c->mix_cross > 0))
        config_errors_add(errors, origin_of(f, config_rows_named("mix.forward")),
                          "the shares of 'mix' add up to 0; at least one must be positive");
    check_ranks(f, errors);
}

// ---- public

int config_load_all(struct config_file **out, struct buf *messages, const char *path,
                    const char *const *overrides, size_t n_overrides, struct err *e) {
    struct config_errors errors = {.messages = messages};
    int rc = 0;
    *out = NULL;
    struct config_file *f = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_MEMORY, "no memory for the config");
    config_rows_defaults(&f->values);
    if (path) rc = read_file(f, path, &errors, e);
    for (size_t i = 0; i < n_overrides && !rc; i++) rc = apply_override(f, overrides[i], &errors, e);
    if (!rc) rc = apply_preset(f, e);
    if (rc) goto out;
    if (!errors.count) check_relations(f, &errors);
    if (errors.count)
        rc = errors_to_err(&errors, e);
    else if (errors.full)
        rc = err_set(e, ERR_MEMORY, "no memory for the config");
    if (rc) goto out;
    *out = f;
    f = NULL;
out:
    config_close(f);
    return rc;
}

int config_load(struct config_file **out, const char *path, const char *const *overrides, size_t n_overrides,
                struct err *e) {
    struct buf messages;
    buf_init(&messages, MAX_MESSAGE_BYTES);
    int rc = config_load_all(out, &messages, path, overrides, n_overrides, e);
    buf_fini(&messages);
    return rc;
}

int config_parse(struct config_file **out, const char *what, const char *text, size_t n, struct err *e) {
    struct buf messages;
    *out = NULL;
    struct config_file *f = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_MEMORY, "no memory for the config");
    buf_init(&messages, MAX_MESSAGE_BYTES);
    struct config_errors errors = {.messages = &messages};
    config_rows_defaults(&f->values);
    int rc = config_yaml_read(f, what, text, n, &errors, e);
    if (!rc && errors.count) rc = errors_to_err(&errors, e);
    if (!rc) rc = apply_preset(f, e);
    buf_fini(&messages);
    if (rc)
        config_close(f);
    else
        *out = f;
    return rc;
}

void config_close(struct config_file *f) {
    if (!f) return;
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) free(f->origin[i]);
    free(f);
}

const struct config *config_values(const struct config_file *f) {
    return &f->values;
}

const char *config_enum_word(const char *dotted_key, int value) {
    const struct config_row *row = config_rows_named(dotted_key);
    if (!row || row->type != CONFIG_TYPE_ENUM) return NULL;
    for (int i = 0; row->words[i]; i++)
        if (i == value) return row->words[i];
    return NULL;
}

void config_diff(const struct config *a, const struct config *b, config_diff_fn *each, void *arg) {
    char text_a[CONFIG_VALUE_BYTES], text_b[CONFIG_VALUE_BYTES];
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        config_rows_format(row, a, text_a);
        config_rows_format(row, b, text_b);
        if (strcmp(text_a, text_b)) each(arg, row->name, text_a, text_b, row->change);
    }
}

static uint64_t fnv1a(uint64_t h, const char *text) {
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return (h ^ 0xff) * 0x100000001b3u; // a byte that no text has: fields cannot run together
}

uint64_t config_hash(const struct config *c) {
    char text[CONFIG_VALUE_BYTES];
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        if (row->change != CHANGE_MODEL && row->change != CHANGE_DATA) continue;
        h = fnv1a(fnv1a(h, row->name), config_rows_format(row, c, text));
    }
    return h;
}
