// SPDX-License-Identifier: Apache-2.0
#include "launcher/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/process.h"
#include "launcher/nodelist.h"
#include "launcher/proc.h"

#define SPECIAL_STEP 0xfffffff0 // steps from here on are Slurm's own: batch, interactive, extern
#define STATE_MS     10000

static const char *look(const struct place_view *v, const char *name) {
    const char *value = v->variable(v->arg, name);
    return value && *value ? value : NULL;
}

// -1: not set, or no number.
static int64_t look_number(const struct place_view *v, const char *name) {
    const char *text = look(v, name);
    int64_t value;
    return text && bytes_parse_i64(text, &value) && value >= 0 ? value : -1;
}

// ---- contradictions that no place can mend

// Variables of a job that we would be part of: mpirun below us would join it instead of starting its own.
static int check_no_mpi_job(const struct place_view *v, struct err *e) {
    static const char *const names[] = {"PMIX_RANK", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_SIZE", "PMI_RANK",
                                        "PRTE_LAUNCHED"};
    int64_t tasks = look_number(v, "SLURM_STEP_NUM_TASKS"), step = look_number(v, "SLURM_STEP_ID");
    if (tasks > 1 && step >= 0 && step < SPECIAL_STEP)
        return err_set(
            e, ERR_CONFIG,
            "srun has started this command %lld times (SLURM_STEP_NUM_TASKS); start it once, without "
            "srun: it starts its own ranks",
            (long long)tasks);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (look(v, names[i]))
            return err_set(e, ERR_CONFIG,
                           "%s is set: this shell belongs to another MPI job; run 'unset %s', or start from "
                           "a fresh shell",
                           names[i], names[i]);
    return 0;
}

// The number of ranks, when flag or config and the surroundings both speak.
static int settle_ranks(const struct place_view *v, struct place *p, const char *source, int64_t theirs,
                        struct err *e) {
    int64_t ours = v->flag_ranks > 0 ? v->flag_ranks : v->config_ranks;
    p->ranks = theirs;
    if (ours <= 0 || ours == theirs) return 0;
    return err_set(e, ERR_CONFIG,
                   "%s says %lld ranks, %s says %lld; leave %s out, or ask Slurm for %lld (--ntasks=%lld)",
                   source, (long long)theirs, v->flag_ranks > 0 ? "-n" : "launch.ranks", (long long)ours,
                   v->flag_ranks > 0 ? "-n" : "launch.ranks", (long long)ours, (long long)ours);
}

// ---- Slurm

static int check_slurm(const struct place_view *v, struct place *p, struct err *e) {
    char state[32];
    int64_t job = look_number(v, "SLURM_JOB_ID");
    snprintf(p->job_id, sizeof p->job_id, "%lld", (long long)job);
    snprintf(p->name, sizeof p->name, "Slurm job %s", p->job_id);
    if (job < 1) return err_set(e, ERR_CONFIG, "SLURM_JOB_ID is no number; start from a fresh shell");
    if (*v->hosts)
        return err_set(e, ERR_CONFIG,
                       "hosts are given, but this is Slurm job %s, which has its own nodes; leave --hosts "
                       "(launch.hosts) out",
                       p->job_id);
    if (look_number(v, "SLURM_HET_SIZE") > 1)
        return err_set(e, ERR_CONFIG, "job %s is heterogeneous; use a job with one kind of node", p->job_id);
    if (v->job_state(v->arg, p->job_id, state, sizeof state) && strcmp(state, "RUNNING") != 0)
        return err_set(e, ERR_CONFIG,
                       "SLURM_JOB_ID is %s, but that allocation is over (%s); 'exit' its shell, or: unset "
                       "SLURM_JOB_ID",
                       p->job_id, state);
    return 0;
}

// Ranks over nodes when only their number is known: as even as can be, the first ones get one more.
static void spread(struct hosts *h, int64_t ranks) {
    for (int i = 0; i < h->n; i++) h->list[i].slots = (int)(ranks / h->n + (i < ranks % h->n));
    while (h->n && h->list[h->n - 1].slots == 0) h->n--;
}

// Slurm was not told a number of tasks: -n, else one rank per GPU, else one per node.
static int spread_free(const struct place_view *v, struct place *p, struct err *e) {
    int64_t asked = v->flag_ranks > 0 ? v->flag_ranks : v->config_ranks;
    int64_t gpus = look_number(v, "SLURM_GPUS_ON_NODE");
    int64_t ranks = asked > 0 ? asked : p->hosts.n * (gpus > 0 ? gpus : 1);
    if (ranks > (int64_t)p->hosts.n * HOSTS_MAX)
        return err_set(e, ERR_CONFIG, "%lld ranks on %d nodes", (long long)ranks, p->hosts.n);
    p->ranks = ranks;
    spread(&p->hosts, ranks);
    return 0;
}

static int find_slurm(const struct place_view *v, struct place *p, struct err *e) {
    const char *nodes = look(v, "SLURM_JOB_NODELIST"), *each = look(v, "SLURM_TASKS_PER_NODE");
    int64_t tasks = look_number(v, "SLURM_NTASKS"), restarts = look_number(v, "SLURM_RESTART_COUNT");
    p->kind = PLACE_SLURM;
    p->restarts = restarts > 0 && restarts < 1 << 30 ? (int)restarts : 0;
    int rc = check_slurm(v, p, e);
    if (!rc && !nodes)
        rc = err_set(e, ERR_CONFIG,
                     "SLURM_JOB_ID is set without SLURM_JOB_NODELIST: the left-over of a job; run 'unset "
                     "SLURM_JOB_ID', or start from a shell of the job");
    if (!rc) rc = nodelist_parse(&p->hosts, nodes, e);
    if (!rc && tasks < 1) return spread_free(v, p, e);
    if (!rc && each) rc = nodelist_slots(&p->hosts, "SLURM_TASKS_PER_NODE", each, e);
    if (!rc && !each) spread(&p->hosts, tasks);
    // A shrunk allocation may hold fewer tasks than were asked for, never more.
    if (!rc && each && hosts_slots(&p->hosts) != tasks)
        rc = err_set(
            e, ERR_CONFIG,
            "SLURM_NTASKS is %lld, SLURM_TASKS_PER_NODE (%s) makes %d; start from a fresh shell of the job",
            (long long)tasks, each, hosts_slots(&p->hosts));
    return rc ? rc : settle_ranks(v, p, "SLURM_NTASKS", tasks, e);
}

// ---- host files, hosts given

static const char *hostfile(const struct place_view *v) {
    static const char *const names[] = {"OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (look(v, names[i])) return look(v, names[i]);
    return v->is_file(v->arg, PLACE_HOSTFILE) ? PLACE_HOSTFILE : NULL;
}

// As many ranks as asked for, up to the slots there are.
static int settle_slots(const struct place_view *v, struct place *p, struct err *e) {
    int64_t asked = v->flag_ranks > 0 ? v->flag_ranks : v->config_ranks;
    int slots = hosts_slots(&p->hosts);
    p->ranks = asked > 0 ? asked : slots;
    if (asked <= slots) return 0;
    return err_set(e, ERR_CONFIG, "%lld ranks, but %s has %d slots; -n %d, or more slots: h1:4",
                   (long long)asked, p->name, slots, slots);
}

static int find_hostfile(const struct place_view *v, const char *path, struct place *p, struct err *e) {
    char at_path[4096];
    p->kind = PLACE_K8S;
    snprintf(p->name, sizeof p->name, "host file %.60s", path);
    if (*v->hosts)
        return err_set(e, ERR_CONFIG,
                       "hosts are given, but so is a host file (%s); leave --hosts (launch.hosts) out", path);
    if (!v->is_file(v->arg, path))
        return err_set(e, ERR_CONFIG,
                       "the host file %s is not there; are the workers up? else unset its variable", path);
    snprintf(at_path, sizeof at_path, "@%s", path);
    int rc = hosts_parse(&p->hosts, at_path, e);
    return rc ? rc : settle_slots(v, p, e);
}

static int find_given(const struct place_view *v, struct place *p, struct err *e) {
    p->kind = PLACE_HOSTS;
    snprintf(p->name, sizeof p->name, "%.80s", v->hosts);
    int rc = hosts_parse(&p->hosts, v->hosts, e);
    return rc ? rc : settle_slots(v, p, e);
}

// ---- the decision

static bool is_this_machine(const struct place_view *v, const char *name) {
    size_t n = strcspn(name, "."), m = strcspn(v->host, ".");
    return !strcmp(name, "localhost") || (n == m && !strncmp(name, v->host, n));
}

int place_find(const struct place_view *view, struct place *out, struct err *e) {
    *out = (struct place){.kind = PLACE_LOCAL, .name = "this machine"};
    const char *file = hostfile(view);
    bool slurm = look(view, "SLURM_JOB_ID") != NULL;
    int rc = check_no_mpi_job(view, e);
    if (rc) return rc;
    if (slurm && file)
        return err_set(
            e, ERR_CONFIG,
            "this is Slurm job %s, and there is a host file (%s); unset the variables of one of them",
            look(view, "SLURM_JOB_ID"), file);
    if (slurm)
        rc = find_slurm(view, out, e);
    else if (file)
        rc = find_hostfile(view, file, out, e);
    else if (*view->hosts)
        rc = find_given(view, out, e);
    else
        out->ranks = view->flag_ranks > 0 ? view->flag_ranks : view->config_ranks;
    // One node, and it is this one: no network, no daemons.
    if (!rc && out->hosts.n == 1 && is_this_machine(view, out->hosts.list[0].name)) hosts_fini(&out->hosts);
    return rc;
}

void place_fini(struct place *p) {
    hosts_fini(&p->hosts);
}

// ---- this process's own view

static const char *variable_here(void *arg, const char *name) {
    (void)arg;
    return getenv(name);
}

static bool is_file_here(void *arg, const char *path) {
    (void)arg;
    return access(path, R_OK) == 0;
}

static bool job_state_here(void *arg, const char *job_id, char *state, int state_bytes) {
    char *argv[] = {"squeue", "--noheader", "--format=%T", "--jobs", strdup(job_id), NULL};
    struct buf out, talk;
    struct err ignored = {0};
    int status = 0;
    (void)arg;
    buf_init(&out, 4096);
    buf_init(&talk, 4096);
    bool known = argv[4] && !proc_capture(argv, STATE_MS, &out, &talk, &status, &ignored);
    if (known && status == 0) {
        const char *text = out.data ? out.data : "";
        snprintf(state, (size_t)state_bytes, "%.*s", (int)strcspn(text, "\n"), text);
        if (!*state) snprintf(state, (size_t)state_bytes, "not in the queue");
    } else if (known) {
        // What is long over is not known any more; a controller that does not answer is another matter.
        known = talk.data && strstr(talk.data, "Invalid job id");
        snprintf(state, (size_t)state_bytes, "unknown to Slurm");
    }
    buf_fini(&out);
    buf_fini(&talk);
    free(argv[4]);
    return known;
}

void place_view_here(struct place_view *view, char *host, int host_bytes) {
    process_host(host, (size_t)host_bytes, "localhost");
    *view = (struct place_view){.variable = variable_here,
                                .is_file = is_file_here,
                                .job_state = job_state_here,
                                .host = host,
                                .hosts = ""};
}
