// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "launcher/doctor.h"
#include "launcher/load.h"
#include "launcher/opts.h"

struct report {
    bool as_json;
    int warned;
    enum err_code worst; // of the first bad finding
    struct json_writer json;
    struct buf text;
};

static const char *const grade_words[] = {"good", "warn", "BAD"};

static void show(void *arg, const struct doctor_finding *f) {
    struct report *r = arg;
    r->warned += f->grade == DOCTOR_WARN;
    if (f->grade == DOCTOR_BAD && !r->worst) r->worst = f->code ? f->code : ERR_UNAVAILABLE;
    if (!r->as_json) {
        printf("%-4s  %-14s %s\n", grade_words[f->grade], f->name, f->text);
        if (f->cure[0]) printf("      %-14s cure: %s\n", "", f->cure);
        return;
    }
    json_put_object(&r->json, NULL);
    json_put_string(&r->json, "check", f->name);
    json_put_string(&r->json, "grade", f->grade == DOCTOR_BAD ? "bad" : grade_words[f->grade]);
    json_put_string(&r->json, "finding", f->text);
    json_put_string(&r->json, "cure", f->cure);
    json_close(&r->json, '}');
}

int cmd_doctor(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct report r = {0};
    const struct opt table[] = {{"json", 0, OPT_FLAG, NULL, "as JSON", &r.as_json, 0, 0}};
    struct opts_rest rest;
    struct config_file *file = NULL;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 0, 1, &rest, e);
    if (rc || rest.help) return rc;
    bool with_config = rest.n_words || rest.n_overrides;
    if (with_config)
        rc = load_config(&file, rest.n_words ? rest.words[0] : NULL, rest.overrides, rest.n_overrides, e);
    if (rc) return rc;
    buf_init(&r.text, 1 << 20);
    json_begin(&r.json, &r.text);
    json_put_array(&r.json, NULL);
    doctor_run(file ? config_values(file) : NULL, show, &r);
    json_close(&r.json, ']');
    rc = json_end(&r.json, e);
    if (!rc && r.as_json) printf("%s\n", r.text.data);
    buf_fini(&r.text);
    config_close(file);
    return rc ? rc : err_exit_code(r.worst);
}
