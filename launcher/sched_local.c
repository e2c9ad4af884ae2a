// SPDX-License-Identifier: Apache-2.0
// One machine: Open MPI's mpirun 4.1 or 5 with the shared-memory transport, or no mpirun at all for a single
// rank.
#include "base/machine.h"
#include "launcher/proc.h"
#include "launcher/sched_mpirun.h"

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

// The transport is named: probing for networks that one machine does not need costs a fifth of a second.
static int add_transport(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *shared = version_5 ? "btl_sm_backing_directory" : "btl_vader_backing_directory";
    int rc = sched_mpirun_set(argv, "--mca", "pml", "ob1", e);
    if (!rc) rc = sched_mpirun_set(argv, "--mca", "btl", version_5 ? "self,sm" : "self,vader", e);
    if (!rc) rc = sched_mpirun_set(argv, "--mca", shared, r->tmp_dir, e);
    if (!rc && !machine_can_read_peers())
        rc = sched_mpirun_set(argv, "--mca", version_5 ? "smsc" : "btl_vader_single_copy_mechanism",
                              version_5 ? "^cma" : "none", e);
    if (!rc && r->ranks * r->threads > machine_cores())
        rc = sched_mpirun_set(argv, "--mca", "mpi_yield_when_idle", "1", e);
    return rc;
}

static int add_mpirun(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *const head[] = {"mpirun", "--oversubscribe", "--bind-to", "none", "-np"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(argv, e, "%d", r->ranks);
    if (!rc && !version_5) rc = sched_mpirun_set(argv, "--mca", "plm", "isolated", e);
    if (!rc && version_5) rc = sched_mpirun_set(argv, "--prtemca", "prte_tmpdir_base", r->tmp_dir, e);
    if (!rc && !version_5) rc = sched_mpirun_set(argv, "--mca", "orte_tmpdir_base", r->tmp_dir, e);
    return rc ? rc : add_transport(r, argv, e);
}

static int local_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    if (!r->mpi) return strv_add_all(argv, (const char *const *)r->guard->items, r->guard->n, e);
    int rc = add_mpirun(r, argv, e);
    return rc ? rc : sched_mpirun_guard(r, argv, env, e);
}

const struct sched sched_local = {
    .name = "local", .place = PLACE_LOCAL, .check = local_check, .command = local_command};
