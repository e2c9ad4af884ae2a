// SPDX-License-Identifier: Apache-2.0
// Where a command finds itself: on one machine, with hosts given, in a Slurm allocation, or beside a host
// file as Kubernetes' MPI operator mounts it; and how many ranks go where. A function of what it is shown
// (variables, flags, files), so that every surrounding can be a test. Surroundings that contradict each other
// are errors with a cure, never a guess: a guess would be a silent world of one rank.
#ifndef ORRERY_LAUNCHER_PLACE_H
#define ORRERY_LAUNCHER_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "launcher/hosts.h"

enum place_kind { PLACE_LOCAL, PLACE_HOSTS, PLACE_SLURM, PLACE_K8S };

// What is looked at. Callbacks get `arg`.
struct place_view {
    const char *(*variable)(void *arg, const char *name); // NULL: not set
    bool (*is_file)(void *arg, const char *path);
    // State of a Slurm job, "RUNNING"; false: cannot be found out.
    bool (*job_state)(void *arg, const char *job_id, char *state, int state_bytes);
    void *arg;
    const char *host;     // this machine's name
    const char *hosts;    // --hosts or launch.hosts; "": none
    int64_t flag_ranks;   // -n; 0: not given
    int64_t config_ranks; // launch.ranks; 0: not given
};

struct place {
    enum place_kind kind;
    struct hosts hosts; // none: this machine alone
    int64_t ranks;      // that the surroundings or the flags ask for; 0: they do not say
    char job_id[24];    // SLURM
    char name[64 + 24]; // "Slurm job 17", for messages
    int restarts;       // how often Slurm has requeued the job
};

// place_fini also after a failure.
int place_find(const struct place_view *view, struct place *out, struct err *e) ERR_CHECK;
void place_fini(struct place *p);

// The view of this process.
void place_view_here(struct place_view *view, char *host, int host_bytes);

#define PLACE_HOSTFILE "/etc/mpi/hostfile" // where the MPI operator mounts it

#endif
