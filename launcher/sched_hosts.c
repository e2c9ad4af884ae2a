// SPDX-License-Identifier: Apache-2.0
// Hosts given by hand: Open MPI's mpirun, which starts one daemon on each through a launch agent (ssh, or
// what stands in for it), ranks filling the hosts in their order.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/hosts.h"
#include "launcher/proc.h"
#include "launcher/sched.h"

static int hosts_check(int ranks, bool mpi, struct err *e) {
    return sched_local.check(ranks, mpi, e);
}

int sched_add_three(struct strv *argv, const char *a, const char *b, const char *c, struct err *e) {
    const char *const words[] = {a, b, c};
    return strv_add_all(argv, words, 3, e);
}

// "h1:2,h2:1": only hosts that are in, only as many slots as there are ranks.
int sched_add_hosts(const struct sched_request *r, struct strv *argv, struct err *e) {
    struct buf text;
    int left = r->ranks, rc = 0;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < r->hosts->n && left > 0 && !rc; i++) {
        const struct host *h = &r->hosts->list[i];
        int used = h->slots < left ? h->slots : left;
        if (h->out) continue;
        rc = buf_appendf(&text, e, "%s%s:%d", text.len ? "," : "", h->name, used);
        left -= used;
    }
    if (!rc && left > 0) rc = err_set(e, ERR_CONFIG, "%d more ranks than the hosts have slots", left);
    if (!rc) rc = strv_add(argv, "--host", e);
    if (!rc) rc = strv_add(argv, text.data, e);
    buf_fini(&text);
    return rc;
}

int sched_add_transport(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *btl = getenv("OMPI_MCA_btl"); // a person's own choice wins
    int rc = sched_add_three(argv, version_5 ? "--prtemca" : "--mca",
                             version_5 ? "prte_if_include" : "oob_tcp_if_include", r->network, e);
    if (!rc) rc = sched_add_three(argv, "--mca", "pml", "ob1", e);
    if (!rc && !(btl && *btl))
        rc = sched_add_three(argv, "--mca", "btl", version_5 ? "self,sm,tcp" : "self,vader,tcp", e);
    if (!rc) rc = sched_add_three(argv, "--mca", "btl_tcp_if_include", r->network, e);
    return rc ? rc : sched_add_three(argv, "--mca", "mpi_yield_when_idle", "1", e);
}

int sched_add_guard(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    int rc = 0;
    for (const char *const *name = r->pass_env; *name && !rc; name++) {
        rc = strv_add(argv, "-x", e);
        if (!rc) rc = strv_add(argv, *name, e);
    }
    if (!rc && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT", "1");
    if (!rc && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    return rc ? rc : strv_add_all(argv, (const char *const *)r->guard->items, r->guard->n, e);
}

static int add_agent(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *mca = version_5 ? "--prtemca" : "--mca";
    int rc = sched_add_three(argv, mca, "plm", version_5 ? "ssh" : "rsh", e);
    // 4.1 would cut off the domain that the person wrote.
    if (!rc && !version_5) rc = sched_add_three(argv, mca, "orte_keep_fqdn_hostnames", "1", e);
    return rc ? rc : sched_add_three(argv, mca, version_5 ? "plm_ssh_agent" : "plm_rsh_agent", r->agent, e);
}

static int hosts_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    const char *const head[] = {
        "mpirun", "--oversubscribe", "--bind-to", r->bind ? r->bind : "none", "--map-by", "slot", "-np"};
    int rc = strv_add_all(argv, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(argv, e, "%d", r->ranks);
    if (!rc) rc = sched_add_hosts(r, argv, e);
    if (!rc) rc = add_agent(r, argv, e);
    if (!rc) rc = sched_add_transport(r, argv, e);
    return rc ? rc : sched_add_guard(r, argv, env, e);
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

// Pods of the MPI operator: hosts from its host file, sshd in each.
const struct sched sched_k8s = {
    .name = "k8s", .place = PLACE_K8S, .check = hosts_check, .command = hosts_command, .probe = hosts_probe};
