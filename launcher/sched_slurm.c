// SPDX-License-Identifier: Apache-2.0
// A Slurm allocation of several nodes: Open MPI's mpirun, whose daemons srun starts. Slurm warns of a
// preemption by SIGTERM at every process of a step, and a daemon would end its ranks for that: mpirun and the
// daemons run shielded (see cmd_shield.c), so that only guards and ranks hear of it.
#include <stdlib.h>
#include <string.h>

#include "launcher/proc.h"
#include "launcher/sched_mpirun.h"

static int slurm_check(int ranks, bool mpi, struct err *e) {
    char path[4096];
    if (!proc_find("srun", path, sizeof path))
        return err_set(e, ERR_MISSING,
                       "SLURM_JOB_ID is set, but there is no srun in PATH; add Slurm's bin folder");
    return sched_local.check(ranks, mpi, e);
}

// Open MPI splits this one value at blanks.
static int add_shielded_daemon(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *self = r->self;
    int rc = strv_add(argv, version_5 ? "--prtemca" : "--mca", e);
    if (strchr(self, ' '))
        return err_set(e, ERR_CONFIG, "the path of orrery holds a blank (%s), which mpirun cannot take",
                       self);
    if (!rc) rc = strv_add(argv, version_5 ? "prte_launch_agent" : "orte_launch_agent", e);
    return rc ? rc : strv_addf(argv, e, "%s shield %s", self, version_5 ? "prted" : "orted");
}

// The daemons get all of a node's cores and memory, whatever the batch step already holds.
static int set_step(struct strv *env, struct err *e) {
    int rc = strv_set(env, e, "SLURM_OVERLAP", "1");
    if (!rc) rc = strv_set(env, e, "SLURM_WHOLE", "1");
    return rc ? rc : strv_set(env, e, "SLURM_CPU_BIND", "none");
}

static int by_mpirun(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    const char *const head[] = {r->self,    "shield", "mpirun", "--oversubscribe", "--bind-to", r->bind,
                                "--map-by", "slot",   "-np"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(argv, e, "%d", r->ranks);
    if (!rc) rc = sched_mpirun_hosts(r, argv, e);
    if (!rc)
        rc = sched_mpirun_set(argv, openmpi_is_5(&r->openmpi) ? "--prtemca" : "--mca", "plm", "slurm", e);
    if (!rc) rc = add_shielded_daemon(r, argv, e);
    if (!rc) rc = sched_mpirun_transport(r, argv, e);
    if (!rc) rc = set_step(env, e);
    return rc ? rc : sched_mpirun_guard(r, argv, env, e);
}

// "n0,n0,n1": a node once per rank, which `--distribution=arbitrary` takes as it stands.
static int add_nodes(const struct sched_request *r, struct strv *argv, struct err *e) {
    struct buf text;
    int left = r->ranks, nodes = 0, rc = 0;
    buf_init(&text, 1 << 21);
    for (int i = 0; i < r->hosts->n && left > 0 && !rc; i++) {
        const struct host *h = &r->hosts->list[i];
        if (h->out) continue;
        nodes++;
        for (int k = 0; k < h->slots && left > 0 && !rc; k++, left--)
            rc = buf_appendf(&text, e, "%s%s", text.len ? "," : "", h->name);
    }
    if (!rc) rc = strv_addf(argv, e, "--nodes=%d", nodes);
    if (!rc) rc = strv_addf(argv, e, "--ntasks=%d", r->ranks);
    if (!rc) rc = strv_addf(argv, e, "--nodelist=%s", text.data ? text.data : "");
    buf_fini(&text);
    return rc;
}

// mpirun's words on transports, as the variables that ranks read by themselves.
static int set_transport(const struct sched_request *r, struct strv *env, struct err *e) {
    const char *btl = getenv("OMPI_MCA_btl");
    int rc = strv_set(env, e, "OMPI_MCA_pml", "ob1");
    if (!rc && !(btl && *btl))
        rc = strv_set(env, e, "OMPI_MCA_btl", openmpi_is_5(&r->openmpi) ? "self,sm,tcp" : "self,vader,tcp");
    if (!rc) rc = strv_set(env, e, "OMPI_MCA_btl_tcp_if_include", "%s", r->network);
    return rc ? rc : strv_set(env, e, "OMPI_MCA_mpi_yield_when_idle", "1");
}

static int by_srun(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    const char *const head[] = {r->self,
                                "shield",
                                "srun",
                                "--mpi=pmix",
                                "--overlap",
                                "--distribution=arbitrary",
                                "--cpu-bind=none",
                                "--kill-on-bad-exit=0",
                                "--wait=0",
                                "--no-kill"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = add_nodes(r, argv, e);
    if (!rc && *r->container) rc = strv_addf(argv, e, "--container-image=%s", r->container);
    if (!rc && *r->container && *r->mounts) rc = strv_addf(argv, e, "--container-mounts=%s", r->mounts);
    if (!rc) rc = set_transport(r, env, e);
    if (!rc) rc = strv_set(env, e, "SLURM_WHOLE", "1");
    return rc ? rc : strv_add_all(argv, (const char *const *)r->guard->items, r->guard->n, e);
}

static int slurm_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    return r->by_srun ? by_srun(r, argv, env, e) : by_mpirun(r, argv, env, e);
}

static int slurm_probe(const struct sched_request *r, const char *host, struct strv *argv, struct err *e) {
    const char *const head[] = {"srun",      "--quiet",    "--overlap",  "--input=none", "--immediate=3",
                                "--nodes=1", "--ntasks=1", "--mpi=none", "--nodelist"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    (void)r;
    if (!rc) rc = strv_add(argv, host, e);
    return rc ? rc : strv_add(argv, "true", e);
}

const struct sched sched_slurm = {.name = "slurm",
                                  .place = PLACE_SLURM,
                                  .check = slurm_check,
                                  .command = slurm_command,
                                  .probe = slurm_probe};
