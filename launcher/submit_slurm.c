// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "launcher/submit.h"

#define WORDS   "._-" // accounts, partitions
#define PATHS   "/._-+@"
#define OPTIONS "._-=:,/+@[]"
#define MODULES "/._-+"
#define DIGITS  "0123456789"

// What happens after the header; the three words of the run stand before it.
static const char tail[] =
    "again=1 heard=1 code=1 early='' SECONDS=0\n"
    "# A run that has just begun may not listen yet.\n"
    "tell() {\n"
    "    heard=1\n"
    "    [ $SECONDS -gt 2 ] || sleep 1\n"
    "    kill -\"$1\" $! 2>/dev/null || early=$1\n"
    "}\n"
    "trap 'tell USR1' USR1           # the time limit is near: save, then run again\n"
    "trap 'again=0; tell USR1' USR2  # scancel --batch --signal=USR2: save, and stay away\n"
    "trap 'again=0; tell TERM' TERM  # scancel, or preempted without grace: Slurm decides\n"
    "\"${command[@]}\" &\n"
    "run=$!\n"
    "[ -z \"$early\" ] || tell \"$early\"\n"
    "while [ $heard = 1 ]; do # a signal ends the wait, not the run\n"
    "    heard=0\n"
    "    wait $run\n"
    "    got=$?\n"
    "    [ $got = 127 ] || code=$got\n"
    "done\n"
    "# Saved before it was done (preempted, or out of time): the same job again, from that very step.\n"
    "if [ $code = 75 ] && [ $again = 1 ]; then\n"
    "    scontrol requeue \"$SLURM_JOB_ID\" && sleep 60\n"
    "fi\n"
    "exit $code\n";

static int add_option(struct buf *out, const char *key, const char *option, const char *value,
                      const char *more, struct err *e) {
    if (!*value) return 0;
    int rc = submit_check(key, value, more, e);
    return rc ? rc : buf_appendf(out, e, "#SBATCH --%s=%s\n", option, value);
}

// Minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S, as sbatch takes it.
static bool is_time(const char *text) {
    size_t days = strspn(text, DIGITS);
    if (text[days] == '-' && days) text += days + 1;
    for (int fields = 1; fields <= 3; fields++) {
        size_t n = strspn(text, DIGITS);
        if (!n || !text[n]) return n > 0;
        if (text[n] != ':') return false;
        text += n + 1;
    }
    return false;
}

static int add_time(struct buf *out, const char *limit, struct err *e) {
    if (!*limit || is_time(limit)) return add_option(out, "slurm.time", "time", limit, ":-", e);
    return err_set(
        e, ERR_CONFIG,
        "slurm.time: '%.80s' is no time limit: minutes, or hours:minutes:seconds as in 4:00:00, or "
        "days-hours as in 2-12",
        limit);
}

static int add_number(struct buf *out, const char *option, int64_t value, struct err *e) {
    return value > 0 ? buf_appendf(out, e, "#SBATCH --%s=%" PRId64 "\n", option, value) : 0;
}

// "--exclusive --constraint=h200", one line each.
static int add_more_options(struct buf *out, const char *options, struct err *e) {
    int rc = 0;
    for (const char *at = options; *at && !rc;) {
        char word[CONFIG_TEXT_BYTES];
        size_t n = strcspn(at, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        if (n && (strncmp(word, "--", 2) != 0 || !strncmp(word, "--wrap", 6)))
            return err_set(e, ERR_CONFIG, "slurm.options: '%.80s' is no long option of sbatch: --exclusive",
                           word);
        if (n) rc = submit_check("slurm.options", word + 2, OPTIONS, e);
        if (n && !rc) rc = buf_appendf(out, e, "#SBATCH %s\n", word);
        at += n + (at[n] == ' ');
    }
    return rc;
}

// Ranks: of -n or launch.ranks, else so many per node.
static int add_ranks(const struct submit_request *r, struct buf *out, struct err *e) {
    const struct config *c = r->config;
    int64_t each = c->slurm_ranks_per_node, ranks = r->ranks > 0 ? r->ranks : c->launch_ranks;
    if (each == 0 && ranks == 0) each = c->slurm_gpus_per_node > 0 ? c->slurm_gpus_per_node : 1;
    if (each && ranks && ranks != each * c->slurm_nodes)
        return err_set(e, ERR_CONFIG,
                       "%" PRId64 " ranks, but %" PRId64 " nodes with slurm.ranks_per_node=%" PRId64
                       " make %" PRId64 "; leave one of them out",
                       ranks, c->slurm_nodes, each, each * c->slurm_nodes);
    if (ranks && ranks < c->slurm_nodes)
        return err_set(e, ERR_CONFIG, "%" PRId64 " ranks on %" PRId64 " nodes; slurm.nodes=%" PRId64, ranks,
                       c->slurm_nodes, ranks);
    int rc = add_number(out, "nodes", c->slurm_nodes, e);
    return rc ? rc : add_number(out, each ? "ntasks-per-node" : "ntasks", each ? each : ranks, e);
}

static int add_header(const struct submit_request *r, struct buf *out, struct err *e) {
    const struct config *c = r->config;
    char name[64];
    submit_name(r->run_dir, name, sizeof name);
    int rc = buf_appendf(out, e,
                         "#!/bin/bash\n# Written by orrery submit --slurm. Submit it again: sbatch FILE\n"
                         "#SBATCH --job-name=%s\n",
                         name);
    if (!rc) rc = add_option(out, "slurm.partition", "partition", c->slurm_partition, WORDS ",", e);
    if (!rc) rc = add_option(out, "slurm.account", "account", c->slurm_account, WORDS, e);
    if (!rc) rc = add_option(out, "slurm.qos", "qos", c->slurm_qos, WORDS, e);
    if (!rc) rc = add_time(out, c->slurm_time, e);
    if (!rc) rc = add_ranks(r, out, e);
    if (!rc) rc = add_number(out, "gpus-per-node", c->slurm_gpus_per_node, e);
    if (!rc) rc = add_number(out, "cpus-per-task", c->slurm_cpus_per_rank, e);
    if (!rc) rc = add_option(out, "slurm.memory", "mem", c->slurm_memory, "", e);
    if (!rc) rc = submit_check("run.dir (sbatch's --output)", r->run_dir, PATHS, e);
    if (!rc)
        rc = buf_appendf(out, e, "#SBATCH --output=%s/slurm-%%j.out\n#SBATCH --open-mode=append\n",
                         r->run_dir);
    // A lost node must not end the job: the run goes on with the others (launch.min_ranks).
    if (!rc)
        rc =
            buf_appendf(out, e, "#SBATCH --requeue\n#SBATCH --no-kill\n#SBATCH --signal=B:USR1@%" PRId64 "\n",
                        c->slurm_warn_s);
    return rc ? rc : add_more_options(out, c->slurm_options, e);
}

static int add_modules(const char *modules, struct buf *out, struct err *e) {
    int rc = 0;
    for (const char *at = modules; *at && !rc;) {
        char word[CONFIG_TEXT_BYTES];
        size_t n = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        rc = submit_check("slurm.modules", word, MODULES, e);
        if (!rc) rc = buf_appendf(out, e, "module load %s || exit 69\n", word);
        at += n + (at[n] == ',');
    }
    return rc;
}

static int add_quoted(struct buf *out, const char *before, const char *what, const char *text,
                      const char *after, struct err *e) {
    int rc = buf_appends(out, before, e);
    if (!rc) rc = submit_quote(what, text, out, e);
    return rc ? rc : buf_appends(out, after, e);
}

static int add_command(const struct submit_request *r, struct buf *out, struct err *e) {
    int rc = add_quoted(out, "command=(", "the path of orrery", r->self, " run ", e);
    if (!rc) rc = submit_quote("the config's path", r->config_path, out, e);
    for (size_t i = 0; i < r->n_overrides && !rc; i++)
        rc = add_quoted(out, " ", "an override", r->overrides[i], "", e);
    return rc ? rc : buf_appends(out, ")\n", e);
}

int submit_slurm(const struct submit_request *r, struct buf *out, struct err *e) {
    const char *setup = r->config->slurm_setup;
    int rc = add_header(r, out, e);
    if (!rc) rc = add_quoted(out, "\ncd -- ", "the working folder", r->cwd, " || exit 66\n", e);
    if (!rc) rc = add_modules(r->config->slurm_modules, out, e);
    if (!rc && *setup == '-')
        rc = err_set(e, ERR_CONFIG, "slurm.setup: '%.80s' is no path; ./%.80s", setup, setup);
    if (!rc && *setup) rc = add_quoted(out, "source ", "slurm.setup", setup, " || exit 69\n", e);
    if (!rc) rc = add_command(r, out, e);
    return rc ? rc : buf_appends(out, tail, e);
}
