// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/process.h"
#include "comm/grid.h"
#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/resume.h"

#define CHANGES_BYTES (1 << 18)

struct run_words {
    const char *config, *hosts;
    int64_t ranks;
    bool force, one_gpu;
    const char *debug_text;
    struct debug *debug; // NULL: none
};

// The first line: what will happen.
static void say_start(const struct log *log, const struct config *c, const struct place *place,
                      const struct rundir *run, const struct resume *resume) {
    char host[112], from[sizeof resume->url + 64];
    long long ranks = place->ranks;
    if (place->kind != PLACE_LOCAL)
        snprintf(host, sizeof host, "%s", place->name);
    else
        process_host(host, sizeof host, "this machine");
    if (resume->step >= 0)
        snprintf(from, sizeof from, "resume from step %lld of %s", (long long)resume->step, resume->url);
    else
        snprintf(from, sizeof from, "fresh start");
    int threads = machine_threads(c->train_threads, (int)ranks);
    char each[48] = "";
    if (!place->hosts.n) snprintf(each, sizeof each, " x %d thread%s", threads, threads == 1 ? "" : "s");
    log_info(log, "%s: %s, %lld rank%s%s on %s, %s %lld", from, run->given, ranks, ranks == 1 ? "" : "s",
             each, host, resume->step < c->train_steps ? "to step" : "evaluation alone: no step left of",
             (long long)c->train_steps);
}

static void say_changes(const struct log *log, const struct buf *changes) {
    for (const char *at = changes->data; at && *at;) {
        size_t n = strcspn(at, "\n");
        log_info(log, "%.*s", (int)n, at);
        at += n + (at[n] == '\n');
    }
}

// Everything was trained, evaluated and saved by an earlier command with the same goal.
static bool is_complete(const struct rundir *run, const struct config *c, const struct resume *resume) {
    struct rundir_record record;
    struct err none = {0};
    return resume->step >= c->train_steps && !rundir_read_record(run, &record, &none) &&
           !strcmp(record.state, "done");
}

static int run_in(struct rundir *run, const struct config_file *file, const struct run_words *words,
                  const struct log *log, struct err *e) {
    static const char *const force[] = {"--force"};
    const struct config *c = config_values(file);
    char config_path[RUNDIR_PATH_BYTES + 16];
    struct resume resume;
    struct buf changes;
    struct place place;
    buf_init(&changes, CHANGES_BYTES);
    int rc = job_place(c, words->ranks, words->hosts, &place, e);
    // Before the folder is made, which would be left behind.
    if (!rc) rc = grid_check_shards(c->comm_shards, place.ranks, e);
    if (!rc) rc = rundir_open(run, c->run_dir, true, e);
    if (!rc) rc = rundir_lock(run, e);
    if (!rc) rc = resume_find(c, run, &resume, e);
    if (!rc && resume.step >= 0) rc = resume_check_config(c, run, words->force, &changes, e);
    if (rc) goto out;
    if (is_complete(run, c, &resume)) {
        log_info(log, "complete: %s is at step %lld of %lld; raise train.steps to go on, or: orrery eval %s",
                 run->given, (long long)resume.step, (long long)c->train_steps, run->given);
        goto out;
    }
    say_start(log, c, &place, run, &resume);
    say_changes(log, &changes);
    rc = rundir_write_config(run, file, config_path, sizeof config_path, e);
    if (rc) goto out;
    struct job_request request = {.config = file,
                                  .task = "train",
                                  .run = run,
                                  .config_path = config_path,
                                  .ranks = words->ranks,
                                  .hosts = words->hosts,
                                  .resume_step = resume.step,
                                  .debug = words->debug,
                                  .args = force,
                                  .n_args = words->force,
                                  .record = true};
    rc = job_run(&request, log, e);
    if (rc == err_exit_code(ERR_SAVED)) log_info(log, "stopped early and saved; the same command goes on");
out:
    place_fini(&place);
    buf_fini(&changes);
    return rc;
}

// While somebody looks around in a rank, nothing counts as hung and nothing is tried again.
static int wait_for_people(struct strv *overrides, struct err *e) {
    static const char *const words[] = {"launch.hang_s=0", "launch.attempts=1", "comm.deadline_s=86400"};
    return strv_add_all(overrides, words, 3, e);
}

int cmd_run(const struct cmd *self, int argc, char **argv, struct err *e) {
    static const char *const shared_gpu[] = {"cuda.share=true"};
    struct run_words words = {0};
    struct debug debug;
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks to start (default: the scheduler's, launch.ranks, else 2)",
         &words.ranks, 1, 4096},
        {"force", 0, OPT_FLAG, NULL, "go on although keys of data or numbers have changed", &words.force, 0,
         0},
        {"hosts", 0, OPT_TEXT, "LIST", "machines to run on: h1:2,h2:2, or @FILE (default: launch.hosts)",
         &words.hosts, 0, 0},
        {"debug", 0, OPT_TEXT, "RANK[=TOOL]", "that rank under gdb, cuda-gdb, valgrind or compute-sanitizer",
         &words.debug_text, 0, 0},
        {"one-gpu", 0, OPT_FLAG, NULL, "all ranks of a machine on one GPU, in turns: cuda.share=true",
         &words.one_gpu, 0, 0},
    };
    struct opts_rest rest;
    struct strv overrides = {0};
    struct config_file *file = NULL;
    struct rundir run = {.lock_fd = -1};
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, NULL);
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (words.debug_text) rc = debug_parse(words.debug = &debug, words.debug_text, e);
    if (!rc && words.debug_text) rc = wait_for_people(&overrides, e);
    if (!rc && words.one_gpu) rc = strv_add_all(&overrides, shared_gpu, 1, e);
    if (!rc) rc = strv_add_all(&overrides, rest.overrides, rest.n_overrides, e);
    if (!rc) rc = load_config(&file, rest.words[0], (const char *const *)overrides.items, overrides.n, e);
    if (!rc) rc = run_in(&run, file, &words, &log, e);
    rundir_close(&run);
    config_close(file);
    strv_fini(&overrides);
    return rc;
}
