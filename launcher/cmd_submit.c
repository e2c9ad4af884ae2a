// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/proc.h"
#include "launcher/rundir.h"
#include "launcher/strv.h"
#include "launcher/submit.h"

#define FILE_BYTES (1 << 20)
#define SUBMIT_MS  60000

struct submit_words {
    bool slurm, k8s, dry_run;
    int64_t ranks;
};

struct target {
    const char *file; // in the run folder
    const char *program;
    int (*make)(const struct submit_request *r, struct buf *out, struct err *e);
    const char *const *argv; // ends with NULL; the file's path follows
};

static const char *const sbatch_words[] = {"sbatch", "--parsable", NULL};
static const char *const kubectl_words[] = {"kubectl", "create", "-f", NULL};
static const struct target targets[] = {{"slurm.sh", "sbatch", submit_slurm, sbatch_words},
                                        {"mpijob.yaml", "kubectl", submit_k8s, kubectl_words}};

// Gives the file to the scheduler, and its answer to stdout.
static int hand_over(const struct target *t, const char *path, struct err *e) {
    struct strv argv = {0};
    struct buf out, talk;
    int status = 0, rc = 0;
    buf_init(&out, 65536);
    buf_init(&talk, 65536);
    for (const char *const *word = t->argv; *word && !rc; word++) rc = strv_add(&argv, *word, e);
    if (!rc) rc = strv_add(&argv, path, e);
    if (!rc) rc = proc_capture(argv.items, SUBMIT_MS, &out, &talk, &status, e);
    if (!rc && status)
        rc = err_set(e, ERR_UNAVAILABLE, "%s refused %s: %.700s", t->program, path,
                     talk.data ? talk.data : "");
    if (!rc && out.data) fputs(out.data, stdout);
    buf_fini(&out);
    buf_fini(&talk);
    strv_fini(&argv);
    return rc;
}

static int submit(const struct target *t, const struct submit_request *r, bool dry_run, struct err *e) {
    struct rundir run = {.lock_fd = -1};
    struct buf text;
    char path[RUNDIR_PATH_BYTES + 16];
    buf_init(&text, FILE_BYTES);
    int rc = t->make(r, &text, e);
    if (!rc && dry_run) fputs(text.data, stdout);
    if (rc || dry_run) goto out;
    if (!proc_find(t->program, path, sizeof path))
        rc = err_set(e, ERR_UNAVAILABLE,
                     "no %s in PATH: submit from a machine that has it, or look at the file: --dry-run",
                     t->program);
    if (!rc) rc = rundir_open(&run, r->config->run_dir, true, e);
    if (!rc) rc = rundir_join(&run, t->file, path, sizeof path, e);
    if (!rc) rc = bytes_write_file(path, text.data, text.len, e);
    if (!rc) rc = hand_over(t, path, e);
    if (!rc) fprintf(stderr, "submitted %s; watch it: orrery why %s\n", path, r->config->run_dir);
out:
    rundir_close(&run);
    buf_fini(&text);
    return rc;
}

// The folder may not be there yet.
static int absolute(const char *cwd, const char *path, char *out, size_t out_bytes, struct err *e) {
    int n =
        *path == '/' ? snprintf(out, out_bytes, "%s", path) : snprintf(out, out_bytes, "%s/%s", cwd, path);
    return n < (int)out_bytes ? 0 : err_set(e, ERR_CONFIG, "%.200s...: the path is too long", path);
}

static int prepare(const struct submit_words *words, const struct opts_rest *rest,
                   const struct config_file *file, struct err *e) {
    char self[PATH_MAX], cwd[PATH_MAX], config_path[PATH_MAX], run_dir[PATH_MAX];
    int rc = process_path(self, sizeof self, e);
    if (rc) return rc;
    if (!getcwd(cwd, sizeof cwd)) return err_errno(e, errno, "cannot tell the working folder");
    if (!realpath(rest->words[0], config_path)) return err_errno(e, errno, "cannot find %s", rest->words[0]);
    rc = rundir_check_name(config_values(file)->run_dir, e);
    if (!rc) rc = absolute(cwd, config_values(file)->run_dir, run_dir, sizeof run_dir, e);
    struct submit_request request = {.config = config_values(file),
                                     .self = self,
                                     // Pods have a file system of their own: the path is one of theirs.
                                     .config_path = words->k8s ? rest->words[0] : config_path,
                                     .cwd = cwd,
                                     .run_dir = run_dir,
                                     .ranks = words->ranks,
                                     .overrides = rest->overrides,
                                     .n_overrides = rest->n_overrides};
    return rc ? rc : submit(&targets[words->k8s], &request, words->dry_run, e);
}

int cmd_submit(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct submit_words words = {0};
    const struct opt table[] = {
        {"slurm", 0, OPT_FLAG, NULL, "to Slurm: RUN/slurm.sh, by sbatch (keys: slurm.*)", &words.slurm, 0, 0},
        {"k8s", 0, OPT_FLAG, NULL, "to Kubernetes: RUN/mpijob.yaml, by kubectl (keys: k8s.*)", &words.k8s, 0,
         0},
        {"ranks", 'n', OPT_INT, "N", "ranks (default: launch.ranks, else nodes x ranks per node)",
         &words.ranks, 1, 1048576},
        {"dry-run", 0, OPT_FLAG, NULL, "print the job file, submit nothing", &words.dry_run, 0, 0},
    };
    struct opts_rest rest;
    struct config_file *file = NULL;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (words.slurm == words.k8s) return err_set(e, ERR_USAGE, "say where to: --slurm or --k8s");
    rc = load_config(&file, rest.words[0], rest.overrides, rest.n_overrides, e);
    if (!rc) rc = prepare(&words, &rest, file, e);
    config_close(file);
    return rc;
}
