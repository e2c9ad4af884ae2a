// SPDX-License-Identifier: Apache-2.0
#include "launcher/report_task.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/strv.h"
#include "storage/hash.h"

#define FILE_MAX ((size_t)64 << 20)

// The run's resolved config, its folder wherever it lies now, then the person's own changes.
static int load(struct config_file **file, const struct rundir *run, const char *const *changes, size_t n,
                const char *more, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct strv overrides = {0};
    int rc = rundir_join(run, "config.yaml", path, sizeof path, e);
    if (!rc && access(path, R_OK))
        rc = err_set(e, ERR_MISSING,
                     "%s has no config.yaml: it is no run folder, or nothing has run in it yet", run->given);
    if (!rc) rc = strv_addf(&overrides, e, "run.dir=%s", run->path);
    if (!rc) rc = strv_add_all(&overrides, changes, n, e);
    if (!rc && more) rc = strv_add(&overrides, more, e);
    if (!rc) rc = load_config(file, path, (const char *const *)overrides.items, overrides.n, e);
    strv_fini(&overrides);
    return rc;
}

struct changes {
    struct buf text; // one line per key
    bool named;      // eval.name is one of them
    int rc;
    struct err err;
};

static void note_change(void *arg, const char *key, const char *was, const char *now,
                        enum config_change change) {
    struct changes *c = arg;
    c->named = c->named || !strcmp(key, "eval.name");
    if (!c->rc) c->rc = buf_appendf(&c->text, &c->err, "%s=%s\n", key, now);
}

// With other values than the run's its own evaluation must stay: loads the config again, with another name.
static int name_apart(struct config_file **file, const struct rundir *run, const struct opts_rest *rest,
                      struct err *e) {
    struct config_file *own = NULL;
    struct changes c = {.named = false};
    unsigned char digest[32];
    char hex[65], more[32];
    buf_init(&c.text, FILE_MAX);
    int rc = load(&own, run, NULL, 0, NULL, e);
    if (!rc) config_diff(config_values(own), config_values(*file), note_change, &c);
    if (!rc && c.rc) rc = err_set(e, c.err.code, "%s", c.err.text);
    if (!rc && c.text.len && !c.named) {
        hash_sha256_of(c.text.data, c.text.len, digest);
        bytes_hex(digest, sizeof digest, hex);
        snprintf(more, sizeof more, "eval.name=eval-%.8s", hex);
        config_close(*file);
        *file = NULL;
        rc = load(file, run, rest->overrides, rest->n_overrides, more, e);
    }
    config_close(own);
    buf_fini(&c.text);
    return rc;
}

int report_task_run(const char *task, const struct opts_rest *rest, int64_t ranks,
                    char name[REPORT_NAME_BYTES], struct err *e) {
    struct rundir run = {.lock_fd = -1};
    struct config_file *file = NULL;
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, NULL);
    int rc = rundir_open(&run, rest->words[0], false, e);
    if (!rc) rc = load(&file, &run, rest->overrides, rest->n_overrides, NULL, e);
    if (!rc && name) rc = name_apart(&file, &run, rest, e);
    if (!rc) {
        struct job_request request = {.config = file,
                                      .task = task,
                                      .run = &run,
                                      .ranks = job_ranks(config_values(file), ranks),
                                      .resume_step = -1};
        log_info(&log, "%s %s on %lld rank%s", task, run.given, (long long)request.ranks,
                 request.ranks == 1 ? "" : "s");
        if (name) snprintf(name, REPORT_NAME_BYTES, "%s", config_values(file)->eval_name);
        rc = job_run(&request, &log, e);
        if (rc == err_exit_code(ERR_SAVED)) log_info(&log, "stopped early; the same command begins again");
        if (!rc && name && strcmp(name, "eval") != 0)
            log_info(&log, "in %s/%s.json and .txt, beside the run's own eval.json", run.given, name);
    }
    config_close(file);
    rundir_close(&run);
    return rc;
}

int report_task_print(const char *run_dir, const char *name, struct err *e) {
    char path[4096];
    struct buf text;
    if (snprintf(path, sizeof path, "%s/%s", run_dir, name) >= (int)sizeof path)
        return err_set(e, ERR_USAGE, "the run folder's path is too long");
    buf_init(&text, FILE_MAX);
    int rc = bytes_read_file(path, FILE_MAX, &text, e);
    if (!rc) fwrite(text.data, 1, text.len, stdout);
    buf_fini(&text);
    return rc;
}
