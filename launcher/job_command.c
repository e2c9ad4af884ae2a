// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_command.h"

#include <stdlib.h>
#include <string.h>

#include "launcher/guard.h"

#define GUARD_LOG_MB_DEFAULT 16

extern char **environ;

static const char *const passed_names[] = {
    GUARD_CONTROL,    GUARD_TOKEN,       GUARD_WORLD,       GUARD_BOXES,  GUARD_LOGS, "ORRERY_ATTEMPT",
    "ORRERY_RUN_DIR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", GUARD_LOG_MB, DEBUG_ENV,  NULL};
static const char *const far_names[] = {
    GUARD_CONTROL,    GUARD_TOKEN,       GUARD_WORLD,       GUARD_FAR_MS, GUARD_LOGS, "ORRERY_ATTEMPT",
    "ORRERY_RUN_DIR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", GUARD_LOG_MB, DEBUG_ENV,  NULL};

// Of variables that ranks on other hosts need as well: credentials and settings of stores, which may stand in
// the environment of `orrery run` alone. mpirun gets their names; values travel as the job's token does.
static const char *const far_prefixes[] = {"AWS_", "ORRERY_STORE_", NULL};

bool job_by_srun(const struct config *c) {
    return c->launch_starter == CONFIG_launch_starter_srun;
}

// A file of Apptainer's, which runs in any surroundings; other images are for Slurm's Pyxis.
static bool is_apptainer(const char *image) {
    size_t n = strlen(image);
    return n > 4 && !strcmp(image + n - 4, ".sif");
}

// "apptainer exec --bind X,Y IMAGE": what stands before a guard whose rank runs in a container.
static int enter_container(const struct config *c, struct strv *out, struct err *e) {
    const char *const head[] = {"apptainer", "exec", "--nv"};
    int rc = strv_add_all(out, head, c->top_device != CONFIG_top_device_cpu ? 3 : 2, e);
    if (!rc && *c->launch_mounts) rc = strv_add(out, "--bind", e);
    if (!rc && *c->launch_mounts) rc = strv_add(out, c->launch_mounts, e);
    return rc ? rc : strv_add(out, c->launch_container, e);
}

int job_check_container(const struct job *j, struct err *e) {
    const char *image = j->config->launch_container, *mounts = j->config->launch_mounts;
    if (job_by_srun(j->config) && job_is_far(j) && j->sched != &sched_slurm)
        return err_set(e, ERR_CONFIG, "launch.starter=srun is for Slurm allocations; leave it out here");
    if (*image == '-' || *mounts == '-')
        return err_set(e, ERR_CONFIG, "launch.container and launch.mounts do not begin with '-'");
    if (!*image || is_apptainer(image) || (job_by_srun(j->config) && j->sched == &sched_slurm)) return 0;
    return err_set(
        e, ERR_CONFIG,
        "launch.container: '%.80s' is no FILE.sif; other images need Slurm's Pyxis, several nodes and "
        "launch.starter=srun",
        image);
}

static int guard_command(const struct job *j, struct strv *out, struct err *e) {
    bool contained = *j->config->launch_container != 0; // then both programs are the image's
    const char *const head[] = {contained ? "orrery" : j->self,
                                "guard",
                                contained ? "orrery-rank" : j->program,
                                "--config",
                                j->config_path,
                                "--task",
                                j->request->task};
    int rc = is_apptainer(j->config->launch_container) ? enter_container(j->config, out, e) : 0;
    if (!rc) rc = strv_add_all(out, head, sizeof head / sizeof *head, e);
    return rc ? rc : strv_add_all(out, j->request->args, j->request->n_args, e);
}

static int attempt_environment(const struct job *j, const struct job_attempt *a, struct strv *env,
                               struct err *e) {
    int rc = 0;
    for (char **at = environ; *at && !rc; at++) rc = strv_add(env, *at, e);
    if (!rc) rc = strv_set(env, e, GUARD_CONTROL, "%s", a->control);
    if (!rc) rc = strv_set(env, e, GUARD_TOKEN, "%s", a->token);
    if (!rc) rc = strv_set(env, e, GUARD_WORLD, "%d", a->ranks);
    // Twice what the supervisor waits, so that it judges first.
    if (!rc && job_is_far(j))
        rc = strv_set(env, e, GUARD_FAR_MS, "%lld", 2000 * (long long)j->config->launch_lost_s);
    else if (!rc)
        rc = strv_set(env, e, GUARD_BOXES, "%s", a->box_path);
    if (!rc && !getenv(GUARD_LOG_MB)) rc = strv_set(env, e, GUARD_LOG_MB, "%d", GUARD_LOG_MB_DEFAULT);
    const struct debug *d = j->request->debug;
    if (!rc && d) rc = strv_set(env, e, DEBUG_ENV, "%d=%s", d->rank, d->tool->name);
    if (!rc && !d) rc = strv_set(env, e, DEBUG_ENV, "%s", "");
    if (!rc) rc = strv_set(env, e, GUARD_LOGS, "%s", a->log_path);
    if (!rc) rc = strv_set(env, e, "ORRERY_ATTEMPT", "%d", a->number);
    if (!rc) rc = strv_set(env, e, "ORRERY_RUN_DIR", "%s", j->run->path);
    if (!rc) rc = strv_set(env, e, "OMP_NUM_THREADS", "%d", j->threads);
    // Threads that spin at a barrier while another process has the core cost a hundredfold on a busy machine.
    const char *policy = getenv("OMP_WAIT_POLICY");
    if (!rc) rc = strv_set(env, e, "OMP_WAIT_POLICY", "%s", policy ? policy : "passive");
    return rc;
}

// The name's length when the variable is one of those with far_prefixes, else 0.
static size_t far_name(const char *variable) {
    size_t n = strspn(variable, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    bool named = false;
    for (const char *const *at = far_prefixes; *at; at++)
        named = named || !strncmp(variable, *at, strlen(*at));
    return named && variable[n] == '=' ? n : 0;
}

int job_list_passed(struct job *j, struct err *e) {
    int rc = 0;
    for (const char *const *name = far_names; *name && !rc; name++) rc = strv_add(&j->passed, *name, e);
    for (char **at = environ; *at && !rc; at++) {
        size_t n = far_name(*at);
        if (n) rc = strv_addf(&j->passed, e, "%.*s", (int)n, *at);
    }
    return rc;
}

static const char *const *passed_of(const struct job *j) {
    if (!job_is_far(j)) return passed_names;
    return j->passed.items ? (const char *const *)j->passed.items : far_names;
}

struct sched_request job_sched_request(const struct job *j) {
    return (struct sched_request){
        .ranks = j->ranks,
        .threads = j->threads,
        .mpi = j->mpi,
        .openmpi = j->openmpi,
        .pass_env = passed_of(j),
        .hosts = job_is_far(j) ? &j->hosts : NULL,
        .agent = j->config->launch_agent,
        .network = j->netif.network,
        .bind = config_enum_word("launch.bind", j->config->launch_bind),
        .self = j->self,
        .by_srun = job_by_srun(j->config),
        .container = is_apptainer(j->config->launch_container) ? "" : j->config->launch_container,
        .mounts = j->config->launch_mounts};
}

int job_command(const struct job *j, const struct job_attempt *a, struct strv *argv, struct strv *env,
                struct err *e) {
    struct strv guard = {0};
    int rc = guard_command(j, &guard, e);
    if (!rc) rc = attempt_environment(j, a, env, e);
    struct sched_request request = job_sched_request(j);
    request.ranks = a->ranks;
    request.tmp_dir = a->box_path;
    request.guard = &guard;
    if (!rc) rc = j->sched->command(&request, argv, env, e);
    strv_fini(&guard);
    return rc;
}
