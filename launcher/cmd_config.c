// SPDX-License-Identifier: Apache-2.0
// orrery config show|explain|schema|reference: the resolved config with origins, and what the table of keys
// knows.
#include <stdio.h>
#include <string.h>

#include "launcher/load.h"
#include "launcher/opts.h"

#define TEXT_BYTES (4 << 20)

static int print_all(struct buf *text, int rc) {
    if (!rc && text->len) fwrite(text->data, 1, text->len, stdout);
    buf_fini(text);
    return rc;
}

static int show(const struct opts_rest *rest, struct err *e) {
    struct config_file *file = NULL;
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    const char *path = opts_word(rest, 1);
    int rc = load_config(&file, path, rest->overrides, rest->n_overrides, e);
    if (!rc) rc = config_write(file, &text, e);
    config_close(file);
    return print_all(&text, rc);
}

static int explain(const struct opts_rest *rest, struct err *e) {
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    return print_all(&text, config_explain(opts_word(rest, 1), &text, e));
}

static int schema(const struct opts_rest *rest, struct err *e) {
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    return print_all(&text, config_schema_json(&text, e));
}

static int reference(const struct opts_rest *rest, struct err *e) {
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    return print_all(&text, config_reference_md(&text, e));
}

int cmd_config(const struct cmd *self, int argc, char **argv, struct err *e) {
    static const struct {
        const char *name;
        int (*run)(const struct opts_rest *rest, struct err *e);
    } parts[] = {{"show", show}, {"explain", explain}, {"schema", schema}, {"reference", reference}};
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, NULL, 0, 1, 2, &rest, e);
    if (rc || rest.help) return rc;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strcmp(rest.words[0], parts[i].name)) return parts[i].run(&rest, e);
    return err_set(e, ERR_USAGE,
                   "unknown '%s'; one of show, explain, schema, reference: orrery config show CONFIG",
                   rest.words[0]);
}
