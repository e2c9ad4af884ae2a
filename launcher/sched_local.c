// SPDX-License-Identifier: Apache-2.0
// One machine: Open MPI's mpirun 4.1 or 5 with the shared-memory transport, or no mpirun at all for a single
// rank.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "launcher/machine.h"
#include "launcher/proc.h"
#include "launcher/sched.h"

#define VERSION_MS 10000

static int local_check(int ranks, bool mpi, struct err *e) {
    char path[4096];
    if (mpi && !proc_find("mpirun", path, sizeof path))
        return err_set(
            e, ERR_MISSING,
            "no mpirun in PATH, needed for %d ranks; install Open MPI (apt-get install openmpi-bin), or run "
            "one rank: -n 1",
            ranks);
    return 0;
}

// "mpirun (Open MPI) 4.1.4"
int sched_mpirun_version(int *major, int *minor, int *patch, struct err *e) {
    char *argv[] = {"mpirun", "--version", NULL};
    struct buf out;
    int status = 0;
    buf_init(&out, 65536);
    int rc = proc_capture(argv, VERSION_MS, &out, NULL, &status, e);
    const char *open_mpi = rc || !out.data ? NULL : strstr(out.data, "Open MPI) ");
    *major = *minor = *patch = 0;
    if (!rc && (!open_mpi || sscanf(open_mpi + 10, "%d.%d.%d", major, minor, patch) < 2))
        rc = err_set(e, ERR_UNAVAILABLE, "mpirun is not Open MPI's; Open MPI 4.1 or 5 is needed");
    buf_fini(&out);
    return rc;
}

bool sched_is_version_5(void) {
    int major = 4, minor, patch;
    struct err unknown = {0};
    return !sched_mpirun_version(&major, &minor, &patch, &unknown) && major >= 5;
}

static int add_mca(struct strv *argv, const char *flag, const char *name, const char *value, struct err *e) {
    int rc = strv_add(argv, flag, e);
    if (!rc) rc = strv_add(argv, name, e);
    return rc ? rc : strv_add(argv, value, e);
}

// The transport is named: probing for networks that one machine does not need costs a fifth of a second.
static int add_transport(struct strv *argv, bool version_5, const struct sched_request *r, struct err *e) {
    const char *shared = version_5 ? "btl_sm_backing_directory" : "btl_vader_backing_directory";
    int rc = add_mca(argv, "--mca", "pml", "ob1", e);
    if (!rc) rc = add_mca(argv, "--mca", "btl", version_5 ? "self,sm" : "self,vader", e);
    if (!rc) rc = add_mca(argv, "--mca", shared, r->tmp_dir, e);
    if (!rc && !version_5 && !machine_can_read_peers())
        rc = add_mca(argv, "--mca", "btl_vader_single_copy_mechanism", "none", e);
    if (!rc && r->ranks * r->threads > machine_cores())
        rc = add_mca(argv, "--mca", "mpi_yield_when_idle", "1", e);
    return rc;
}

static int add_mpirun(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = sched_is_version_5();
    const char *const head[] = {"mpirun", "--oversubscribe", "--bind-to", "none", "-np"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(argv, e, "%d", r->ranks);
    if (!rc && !version_5) rc = add_mca(argv, "--mca", "plm", "isolated", e);
    if (!rc && version_5) rc = add_mca(argv, "--prtemca", "prte_tmpdir_base", r->tmp_dir, e);
    if (!rc && !version_5) rc = add_mca(argv, "--mca", "orte_tmpdir_base", r->tmp_dir, e);
    if (!rc) rc = add_transport(argv, version_5, r, e);
    for (const char *const *name = r->pass_env; *name && !rc; name++) {
        rc = strv_add(argv, "-x", e);
        if (!rc) rc = strv_add(argv, *name, e);
    }
    return rc;
}

static int local_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    int rc = 0;
    if (r->mpi) rc = add_mpirun(r, argv, e);
    // Root is the usual user in a container; Open MPI wants to be told that it is meant.
    if (!rc && r->mpi && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT", "1");
    if (!rc && r->mpi && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    return rc ? rc : strv_add_all(argv, (const char *const *)r->guard->items, r->guard->n, e);
}

const struct sched sched_local = {
    .name = "local", .place = PLACE_LOCAL, .check = local_check, .command = local_command};
