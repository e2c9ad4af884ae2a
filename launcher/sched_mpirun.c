// SPDX-License-Identifier: Apache-2.0
#include "launcher/sched_mpirun.h"

#include <stdlib.h>
#include <unistd.h>

int sched_mpirun_set(struct strv *argv, const char *flag, const char *name, const char *value,
                     struct err *e) {
    const char *const words[] = {flag, name, value};
    return strv_add_all(argv, words, 3, e);
}

int sched_mpirun_hosts(const struct sched_request *r, struct strv *argv, struct err *e) {
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

int sched_mpirun_transport(const struct sched_request *r, struct strv *argv, struct err *e) {
    bool version_5 = openmpi_is_5(&r->openmpi);
    const char *btl = getenv("OMPI_MCA_btl"); // a person's own choice wins
    int rc = sched_mpirun_set(argv, version_5 ? "--prtemca" : "--mca",
                              version_5 ? "prte_if_include" : "oob_tcp_if_include", r->network, e);
    if (!rc) rc = sched_mpirun_set(argv, "--mca", "pml", "ob1", e);
    if (!rc && !(btl && *btl))
        rc = sched_mpirun_set(argv, "--mca", "btl", version_5 ? "self,sm,tcp" : "self,vader,tcp", e);
    if (!rc) rc = sched_mpirun_set(argv, "--mca", "btl_tcp_if_include", r->network, e);
    return rc ? rc : sched_mpirun_set(argv, "--mca", "mpi_yield_when_idle", "1", e);
}

int sched_mpirun_guard(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    int rc = 0;
    for (const char *const *name = r->pass_env; *name && !rc; name++) {
        rc = strv_add(argv, "-x", e);
        if (!rc) rc = strv_add(argv, *name, e);
    }
    // Root is the usual user in a container; Open MPI wants to be told that it is meant.
    if (!rc && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT", "1");
    if (!rc && geteuid() == 0) rc = strv_set(env, e, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    return rc ? rc : strv_add_all(argv, (const char *const *)r->guard->items, r->guard->n, e);
}
