// SPDX-License-Identifier: Apache-2.0
// orrery logs RUN: what the ranks of an attempt wrote; all ranks' lines folded into one view; or as they
// come.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "launcher/logfold.h"
#include "launcher/opts.h"
#include "launcher/rundir.h"

#define LOG_BYTES_MAX  (32 << 20)
#define RANKS_FOLLOWED 512
#define FOLLOW_MS      200

static bool copy_file(const char *path) {
    char piece[65536];
    struct stat st;
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode))
        while ((n = read(fd, piece, sizeof piece)) > 0) fwrite(piece, 1, (size_t)n, stdout);
    close(fd);
    return n == 0;
}

// The rotated part first.
static bool print_rank(const struct rundir *run, const char *folder, int rank, bool title) {
    char path[RUNDIR_PATH_BYTES + 256];
    struct stat st;
    snprintf(path, sizeof path, "%s/logs/%s/rank-%d.log", run->path, folder, rank);
    if (lstat(path, &st)) return false;
    if (title) printf("==> %s <==\n", path);
    size_t n = strlen(path);
    snprintf(path + n, sizeof path - n, ".1");
    copy_file(path);
    path[n] = 0;
    return copy_file(path);
}

static int print_ranks(const struct rundir *run, const char *folder, int64_t rank, struct err *e) {
    if (rank >= 0 && print_rank(run, folder, (int)rank, false)) return 0;
    if (rank >= 0)
        return err_set(e, ERR_MISSING, "no log of rank %lld in %s/logs/%s", (long long)rank, run->given,
                       folder);
    int n = 0;
    while (print_rank(run, folder, n, true)) n++;
    return n ? 0 : err_set(e, ERR_MISSING, "no logs in %s/logs/%s", run->given, folder);
}

// ---- folded

static int fold_ranks(const struct rundir *run, const char *folder, struct err *e) {
    struct logfold fold = {0};
    char path[RUNDIR_PATH_BYTES + 256];
    struct stat st;
    struct buf text;
    int rc = 0, n = 0;
    buf_init(&text, LOG_BYTES_MAX);
    for (; !rc; n++) {
        snprintf(path, sizeof path, "%s/logs/%s/rank-%d.log", run->path, folder, n);
        if (lstat(path, &st)) break;
        buf_clear(&text);
        if (S_ISREG(st.st_mode)) rc = bytes_read_file(path, LOG_BYTES_MAX, &text, e);
        bytes_blank_nul(text.data, text.len);
        if (!rc) rc = logfold_add(&fold, n, text.data ? text.data : "", e);
    }
    if (!rc && !n) rc = err_set(e, ERR_MISSING, "no logs in %s/logs/%s", run->given, folder);
    if (!rc) logfold_print(&fold, stdout);
    logfold_fini(&fold);
    buf_fini(&text);
    return rc;
}

// ---- followed

struct followed_log {
    int fd;
    int64_t at;
    bool fresh; // the next byte begins a line
};

// What a rank has written since; with many ranks each line says whose it is.
static bool show_more(struct followed_log *f, const char *path, int rank, bool named) {
    char piece[65536];
    struct stat st;
    bool any = false;
    if (f->fd < 0) f->fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st) || !S_ISREG(st.st_mode)) return false;
    for (ssize_t n; (n = pread(f->fd, piece, sizeof piece, f->at)) > 0; f->at += n, any = true) {
        for (ssize_t i = 0; i < n; i++) {
            if (f->fresh && named) printf("[%d] ", rank);
            putchar(piece[i]);
            f->fresh = piece[i] == '\n';
        }
    }
    // The file was turned over to rank-N.log.1: what follows is in a new one.
    struct stat now;
    if (!any && !lstat(path, &now) && now.st_ino != st.st_ino) {
        close(f->fd);
        *f = (struct followed_log){.fd = -1, .fresh = true};
    }
    return any;
}

// A supervisor that was killed leaves a record that says "running"; its lock tells, on its host.
static bool is_over(const struct rundir *run) {
    struct rundir_record record;
    struct err none = {0};
    char here[sizeof record.host];
    bool held = rundir_is_held(run); // before the record: a run that ends in between has written it
    if (rundir_read_record(run, &record, &none)) return none.code == ERR_MISSING; // the folder was removed
    process_host(here, sizeof here, "");
    return strcmp(record.state, "running") != 0 || (!held && !strcmp(record.host, here));
}

struct run_logs {
    const struct rundir *run;
    const char *task;
    int64_t rank; // -1: all
    int attempt;
    bool fixed; // that attempt and no other
    struct followed_log *all;
    int most;
};

static void from_the_beginning(struct run_logs *f) {
    for (int i = 0; i < f->most; i++) {
        if (f->all[i].fd >= 0) close(f->all[i].fd);
        f->all[i] = (struct followed_log){.fd = -1, .fresh = true};
    }
}

static bool show_more_of_all(struct run_logs *f) {
    char path[RUNDIR_PATH_BYTES + 256], name[96];
    int first = f->rank < 0 ? 0 : (int)f->rank;
    struct err too_long = {0};
    bool any = false;
    for (int i = 0; i < f->most; i++) {
        snprintf(name, sizeof name, "logs/%.32s-%d/rank-%d.log", f->task, f->attempt, first + i);
        if (rundir_join(f->run, name, path, sizeof path, &too_long)) break;
        if (show_more(&f->all[i], path, first + i, f->rank < 0)) any = true;
        if (f->all[i].fd < 0) break;
    }
    return any;
}

// A run that was restarted writes elsewhere.
static bool next_attempt(struct run_logs *f) {
    struct err unread = {0};
    int newest = f->fixed ? 0 : rundir_last_attempt(f->run, f->task, &unread);
    if (newest <= f->attempt) return false;
    f->attempt++;
    from_the_beginning(f);
    fflush(stdout);
    fprintf(stderr, "==> %s/logs/%s-%d <==\n", f->run->given, f->task, f->attempt);
    return true;
}

// Until the run has ended and all is shown, or Ctrl-C.
static int follow(struct run_logs *f, struct err *e) {
    f->most = f->rank < 0 ? RANKS_FOLLOWED : 1;
    f->all = calloc((size_t)f->most, sizeof *f->all);
    if (!f->all) return err_set(e, ERR_MEMORY, "no memory to follow %d logs", f->most);
    for (int i = 0; i < f->most; i++) f->all[i].fd = -1;
    from_the_beginning(f);
    for (bool over = false, any = true; any || !over;) {
        over = is_over(f->run);
        any = show_more_of_all(f);
        if (!any) any = next_attempt(f);
        struct pollfd reader = {.fd = STDOUT_FILENO};
        if (fflush(stdout) || ferror(stdout)) break;
        if (!any && !over && poll(&reader, 1, FOLLOW_MS) > 0) break; // it is gone
    }
    from_the_beginning(f); // closes what is open
    free(f->all);
    return 0;
}

int cmd_logs(const struct cmd *self, int argc, char **argv, struct err *e) {
    int64_t rank = -1, attempt = 0;
    bool fold = false, following = false;
    const char *task = "attempt";
    char folder[96];
    const struct opt table[] = {
        {"rank", 'r', OPT_INT, "R", "one rank only", &rank, 0, 1048576},
        {"attempt", 'a', OPT_INT, "N", "that attempt (default: the newest)", &attempt, 1, INT32_MAX},
        {"fold", 0, OPT_FLAG, NULL, "all ranks in one view: equal lines once, 'ranks 1-7: ...'", &fold, 0, 0},
        {"follow", 'f', OPT_FLAG, NULL, "go on as they write, until the run ends", &following, 0, 0},
        {"task", 0, OPT_TEXT, "TASK", "another task than training: evaluate, rollout", &task, 0, 0},
    };
    struct opts_rest rest;
    struct rundir run;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (strchr(task, '/') || strlen(task) > 32) return err_set(e, ERR_USAGE, "'%s' is no task", task);
    if (!strcmp(task, "train")) task = "attempt";
    rc = rundir_open(&run, rest.words[0], false, e);
    if (rc) return rc;
    bool fixed = attempt > 0;
    if (!attempt) attempt = rundir_last_attempt(&run, task, e);
    if (attempt < 0) return (int)attempt;
    if (!attempt) return err_set(e, ERR_MISSING, "%s has no logs yet", run.given);
    snprintf(folder, sizeof folder, "%s-%lld", task, (long long)attempt);
    struct run_logs f = {.run = &run, .task = task, .attempt = (int)attempt, .rank = rank, .fixed = fixed};
    if (following) return follow(&f, e);
    if (fold && rank < 0) return fold_ranks(&run, folder, e);
    return print_ranks(&run, folder, rank, e);
}
