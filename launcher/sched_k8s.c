// SPDX-License-Identifier: Apache-2.0
// Pods of Kubernetes' MPI operator: their names come from its host file, and each runs an sshd, so that they
// are hosts like any others.
#include "launcher/sched.h"

static int k8s_check(int ranks, bool mpi, struct err *e) {
    return sched_hosts.check(ranks, mpi, e);
}

static int k8s_command(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e) {
    return sched_hosts.command(r, argv, env, e);
}

static int k8s_probe(const struct sched_request *r, const char *host, struct strv *argv, struct err *e) {
    return sched_hosts.probe(r, host, argv, e);
}

const struct sched sched_k8s = {
    .name = "k8s", .place = PLACE_K8S, .check = k8s_check, .command = k8s_command, .probe = k8s_probe};
