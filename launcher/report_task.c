// SPDX-License-Identifier: Apache-2.0
#include "launcher/report_task.h"

#include <stdio.h>
#include <unistd.h>

#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/strv.h"

#define FILE_MAX ((size_t)64 << 20)

// The run's resolved config, its folder wherever it lies now, then the person's own changes.
static int load(struct config_file **file, const struct rundir *run, const struct opts_rest *rest,
                struct err *e) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct strv overrides = {0};
    int rc = rundir_join(run, "config.yaml", path, sizeof path, e);
    if (!rc && access(path, R_OK))
        rc = err_set(e, ERR_MISSING,
                     "%s has no config.yaml: it is no run folder, or nothing has run in it yet", run->given);
    if (!rc) rc = strv_addf(&overrides, e, "run.dir=%s", run->path);
    for (size_t i = 0; i < rest->n_overrides && !rc; i++) rc = strv_add(&overrides, rest->overrides[i], e);
    if (!rc) rc = load_config(file, path, (const char *const *)overrides.items, overrides.n, e);
    strv_fini(&overrides);
    return rc;
}

int report_task_run(const char *task, const struct opts_rest *rest, int64_t ranks, struct err *e) {
    struct rundir run = {.lock_fd = -1};
    struct config_file *file = NULL;
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, NULL);
    int rc = rundir_open(&run, rest->words[0], false, e);
    if (!rc) rc = load(&file, &run, rest, e);
    if (!rc) {
        struct job_request request = {.config = file,
                                      .task = task,
                                      .run = &run,
                                      .ranks = job_ranks(config_values(file), ranks),
                                      .resume_step = -1};
        log_info(&log, "%s %s on %lld rank%s", task, run.given, (long long)request.ranks,
                 request.ranks == 1 ? "" : "s");
        rc = job_run(&request, &log, e);
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
