// SPDX-License-Identifier: Apache-2.0
// orrery simulate: sets the keys of the section sim and runs the task simulate.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/proc.h"
#include "launcher/strv.h"

#define WORLDS_MS    5000
#define WORLDS_BYTES 65536

struct simulate_words {
    const char *out, *config, *split;
    int64_t episodes, first, frames, per_shard, seed, ranks;
};

// "name=value" without a dot is a knob of the world, with one a key of the config.
static int add_overrides(const struct opts_rest *rest, struct strv *into, struct err *e) {
    char knobs[CONFIG_TEXT_BYTES] = "";
    size_t used = 0;
    int rc = 0;
    for (size_t i = 0; i < rest->n_overrides && !rc; i++) {
        const char *text = rest->overrides[i];
        if (memchr(text, '.', strcspn(text, "="))) {
            rc = strv_add(into, text, e);
            continue;
        }
        used += (size_t)snprintf(knobs + used, sizeof knobs - used, "%s%s", used ? "," : "", text);
        if (used >= sizeof knobs)
            rc = err_set(e, ERR_USAGE, "too many knobs: more than %zu characters", sizeof knobs);
    }
    if (!rc && used) rc = strv_addf(into, e, "sim.knobs=%s", knobs);
    return rc;
}

static int add_number(struct strv *into, const char *key, int64_t value, struct err *e) {
    return value < 0 ? 0 : strv_addf(into, e, "%s=%lld", key, (long long)value);
}

static int make_overrides(const struct simulate_words *w, const struct opts_rest *rest, struct strv *into,
                          struct err *e) {
    int rc = strv_addf(into, e, "sim.world=%s", rest->words[0]);
    if (!rc) rc = strv_addf(into, e, "sim.out=%s", w->out);
    if (!rc) rc = add_number(into, "sim.episodes", w->episodes, e);
    if (!rc) rc = add_number(into, "sim.first", w->first, e);
    if (!rc) rc = add_number(into, "sim.frames", w->frames, e);
    if (!rc) rc = add_number(into, "sim.per_shard", w->per_shard, e);
    if (!rc) rc = add_number(into, "run.seed", w->seed, e);
    if (!rc && w->split) rc = strv_addf(into, e, "sim.split=%s", w->split);
    return rc ? rc : add_overrides(rest, into, e);
}

static int simulate(const struct simulate_words *w, const struct opts_rest *rest, struct err *e) {
    struct strv overrides = {0};
    struct config_file *file = NULL;
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, NULL);
    int rc = make_overrides(w, rest, &overrides, e);
    if (!rc) rc = load_config(&file, w->config, (const char *const *)overrides.items, overrides.n, e);
    if (!rc) {
        const struct config *c = config_values(file);
        struct job_request request = {
            .config = file, .task = "simulate", .ranks = job_ranks(c, w->ranks), .resume_step = -1};
        log_info(&log, "simulate %s: %lld episodes of %lld frames on %lld rank%s to %s", c->sim_world,
                 (long long)c->sim_episodes, (long long)c->sim_frames, (long long)request.ranks,
                 request.ranks == 1 ? "" : "s", c->sim_out);
        rc = job_run(&request, &log, e);
        if (!rc) log_info(&log, "complete: %lld episodes in %s", (long long)c->sim_episodes, c->sim_out);
    }
    config_close(file);
    strv_fini(&overrides);
    return rc;
}

// The worlds are orrery-rank's; where it is not installed, --help does without them.
static void print_worlds(void) {
    char program[4096];
    struct buf out, talk;
    struct err none = {0};
    int status = 1;
    buf_init(&out, WORLDS_BYTES);
    buf_init(&talk, WORLDS_BYTES);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, &none);
    char word[] = "--worlds", *command[] = {program, word, NULL};
    if (!rc) rc = proc_capture(command, WORLDS_MS, &out, &talk, &status, &none);
    if (!rc && !status && out.len) printf("\nworlds:\n%s", out.data);
    buf_fini(&out);
    buf_fini(&talk);
}

int cmd_simulate(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct simulate_words w = {.episodes = -1, .first = -1, .frames = -1, .per_shard = -1, .seed = -1};
    const int64_t most = INT64_C(9007199254740991);
    const struct opt table[] = {
        {"out", 0, OPT_TEXT, "URL", "where the shards go: a folder or s3://bucket/prefix", &w.out, 0, 0},
        {"episodes", 0, OPT_INT, "N", "episodes to make", &w.episodes, 1, 1000000000},
        {"first", 0, OPT_INT, "N", "number of the first episode", &w.first, 0, most},
        {"frames", 0, OPT_INT, "N", "frames per episode", &w.frames, 2, 1000000},
        {"per-shard", 0, OPT_INT, "N", "episodes per shard", &w.per_shard, 1, 1000000},
        {"split", 0, OPT_TEXT, "NAME", "name written into the samples: train, eval", &w.split, 0, 0},
        {"seed", 0, OPT_INT, "N", "seed of the world", &w.seed, 0, most},
        {"config", 0, OPT_TEXT, "FILE", "a config to start from", &w.config, 0, 0},
        {"ranks", 'n', OPT_INT, "N", "ranks that simulate in parallel", &w.ranks, 1, 4096},
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (!rc && rest.help) print_worlds();
    if (rc || rest.help) return rc;
    if (!w.out)
        return err_set(e, ERR_USAGE, "say where the shards go: orrery simulate %s --out data/sim",
                       rest.words[0]);
    return simulate(&w, &rest, e);
}
