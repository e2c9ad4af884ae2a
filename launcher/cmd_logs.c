// SPDX-License-Identifier: Apache-2.0
// orrery logs RUN: what the ranks of an attempt wrote.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/opts.h"
#include "launcher/rundir.h"

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

int cmd_logs(const struct cmd *self, int argc, char **argv, struct err *e) {
    int64_t rank = -1, attempt = 0;
    const char *task = "attempt";
    char folder[96];
    const struct opt table[] = {
        {"rank", 'r', OPT_INT, "R", "one rank only", &rank, 0, 1048576},
        {"attempt", 'a', OPT_INT, "N", "that attempt (default: the newest)", &attempt, 1, INT32_MAX},
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
    if (!attempt) attempt = rundir_last_attempt(&run, task);
    if (!attempt) return err_set(e, ERR_MISSING, "%s has no logs yet", run.given);
    snprintf(folder, sizeof folder, "%s-%lld", task, (long long)attempt);
    return print_ranks(&run, folder, rank, e);
}
