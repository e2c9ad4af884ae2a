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

static const char *const grade_words[] = {
    [DOCTOR_GOOD] = "good", [DOCTOR_WARN] = "warn", [DOCTOR_BAD] = "BAD"};

static void show(void *arg, const struct doctor_finding *f) {
    struct report *r = arg;
    r->warned += f->grade == DOCTOR_WARN;
    if (f->grade == DOCTOR_BAD && !r->worst) r->worst = f->code ? f->code : ERR_UNAVAILABLE;
    if (!r->as_json) {
        printf("%-4s  %-15s %s%s%s\n", grade_words[f->grade], f->name, f->host, f->host[0] ? ": " : "",
               f->text);
        if (f->cure[0]) printf("      %-15s cure: %s\n", "", f->cure);
        fflush(stdout);
        return;
    }
    json_put_object(&r->json, NULL);
    json_put_string(&r->json, "host", f->host);
    json_put_string(&r->json, "check", f->name);
    json_put_string(&r->json, "grade", f->grade == DOCTOR_BAD ? "bad" : grade_words[f->grade]);
    json_put_string(&r->json, "finding", f->text);
    json_put_string(&r->json, "cure", f->cure);
    json_close(&r->json, '}');
}

struct doctor_words {
    bool as_json, probe;
    const char *hosts, *agent;
};

static int over_hosts(const struct doctor_words *words, const struct config_file *file, struct report *r,
                      struct err *e) {
    const struct config *c = file ? config_values(file) : NULL;
    struct hosts hosts = {0};
    struct doctor_hosts_options o = {.hosts = &hosts,
                                     .agent = words->agent ? words->agent
                                              : c          ? c->launch_agent
                                                           : "ssh",
                                     .interface = c ? c->launch_interface : "",
                                     .config = file};
    int rc = hosts_parse(&hosts, words->hosts, e);
    if (!rc) rc = doctor_hosts(&o, show, r, e);
    hosts_fini(&hosts);
    return rc;
}

static int examine(struct doctor_words *words, const struct config_file *file, struct report *r,
                   struct err *e) {
    const struct config *c = file ? config_values(file) : NULL;
    if (!words->hosts && c && *c->launch_hosts) words->hosts = c->launch_hosts;
    if (words->hosts) return over_hosts(words, file, r, e);
    doctor_run(c, false, show, r);
    return 0;
}

int cmd_doctor(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct report r = {0};
    struct doctor_words words = {0};
    const struct opt table[] = {
        {"hosts", 0, OPT_TEXT, "LIST", "these machines, h1,h2 or @FILE (default: launch.hosts)", &words.hosts,
         0, 0},
        {"agent", 0, OPT_TEXT, "AGENT", "starts a command on another host (default: launch.agent, ssh)",
         &words.agent, 0, 0},
        {"probe", 0, OPT_FLAG, NULL, "answer another machine's doctor; for programs", &words.probe, 0, 0},
        {"json", 0, OPT_FLAG, NULL, "as JSON", &words.as_json, 0, 0},
    };
    struct opts_rest rest;
    struct config_file *file = NULL;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 0, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (words.probe) return doctor_probe(e);
    bool with_config = rest.n_words || rest.n_overrides;
    if (with_config)
        rc = load_config(&file, rest.n_words ? rest.words[0] : NULL, rest.overrides, rest.n_overrides, e);
    if (rc) return rc;
    r.as_json = words.as_json;
    buf_init(&r.text, 4 << 20);
    json_begin(&r.json, &r.text);
    json_put_array(&r.json, NULL);
    rc = examine(&words, file, &r, e);
    json_close(&r.json, ']');
    if (!rc) rc = json_end(&r.json, e);
    if (!rc && r.as_json) printf("%s\n", r.text.data);
    buf_fini(&r.text);
    config_close(file);
    return rc ? rc : err_exit_code(r.worst);
}
