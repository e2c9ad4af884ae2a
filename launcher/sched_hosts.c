// SPDX-License-Identifier: Apache-2.0
// Hosts given by hand: Open MPI's mpirun, which starts one daemon on each through a launch agent (ssh, or
// what stands in for it), ranks filling the hosts in their order.
#include <string.h>

#include "launcher/sched_mpirun.h"

static int hosts_check(int ranks, bool mpi, struct err *e) {
    return sched_local.check(ranks, mpi, e);
}

static int add_agent(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *mca = version_5 ? "--prtemca" : "--mca";
    int rc = sched_mpirun_set(argv, mca, "plm", version_5 ? "ssh" : "rsh", e);
    // 4.1 would cut off the domain that the person wrote.
    if (!rc && !version_5) rc = sched_mpirun_set(argv, mca, "orte_keep_fqdn_hostnames", "1", e);
    return rc ? rc : sched_mpirun_set(argv, mca, version_5 ? "plm_ssh_agent" : "plm_rsh_agent", r->agent, e);
}

static int hosts_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    const char *const head[] = {
        "mpirun", "--oversubscribe", "--bind-to", r->bind ? r->bind : "none", "--map-by", "slot", "-np"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(argv, e, "%d", r->ranks);
    if (!rc) rc = sched_mpirun_hosts(r, argv, e);
    if (!rc) rc = add_agent(r, argv, e);
    if (!rc) rc = sched_mpirun_transport(r, argv, e);
    return rc ? rc : sched_mpirun_guard(r, argv, env, e);
}

// The agent may have arguments of its own: "ssh -p 2222".
static int hosts_probe(const struct sched_request *r, const char *host, struct strv *argv, struct err *e) {
    int rc = 0;
    for (const char *at = r->agent; *at && !rc;) {
        size_t n = strcspn(at, " ");
        if (n) rc = strv_addf(argv, e, "%.*s", (int)n, at);
        at += n + (at[n] == ' ');
    }
    if (!rc) rc = strv_add(argv, host, e);
    return rc ? rc : strv_add(argv, "true", e);
}

const struct sched sched_hosts = {.name = "hosts",
                                  .place = PLACE_HOSTS,
                                  .check = hosts_check,
                                  .command = hosts_command,
                                  .probe = hosts_probe};
