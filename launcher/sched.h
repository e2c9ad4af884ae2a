// SPDX-License-Identifier: Apache-2.0
// Schedulers: how a job's ranks come to life in the surroundings we are in. One sched_*.c and one row in
// sched.c each. A scheduler makes an argument vector and an environment; the supervisor starts it, and from
// then on talks to the guards.
#ifndef ORRERY_LAUNCHER_SCHED_H
#define ORRERY_LAUNCHER_SCHED_H

#include <stdbool.h>

#include "base/err.h"
#include "launcher/hosts.h"
#include "launcher/openmpi.h"
#include "launcher/place.h"
#include "launcher/strv.h"

// One attempt: `ranks` times the command `guard`, spread over what the scheduler has.
struct sched_request {
    int ranks, threads;
    bool mpi;                    // false: one rank that needs no MPI
    struct openmpi openmpi;      // mpirun's; unknown is taken for 4.1
    const char *tmp_dir;         // private folder for MPI's own files
    const struct strv *guard;    // argument vector of one guard
    const char *const *pass_env; // names of variables that must reach every guard, NULL-terminated
    // Of a job on more than this machine, else NULL:
    const struct hosts *hosts;
    const char *agent;   // starts a command on another host: AGENT HOST COMMAND
    const char *network; // "10.0.0.0/24": what MPI may use
    const char *bind;    // what mpirun binds a rank to: "none", "core", "numa", "socket"
    // Of Slurm, else ignored:
    const char *self;               // path of orrery
    bool by_srun;                   // srun starts the guards, not mpirun
    const char *container, *mounts; // for Pyxis; "": none
};

struct sched {
    const char *name;
    enum place_kind place; // where it starts ranks
    // Contradictory surroundings, missing programs: an error with the cure.
    int (*check)(int ranks, bool mpi, struct err *e);
    // Appends to argv, sets what else is needed in env.
    int (*command)(const struct sched_request *r, struct strv *argv, struct strv *env, struct err *e);
    // A command that ends with 0 when the host can take ranks; NULL: there are no other hosts.
    int (*probe)(const struct sched_request *r, const char *host, struct strv *argv, struct err *e);
};

// For a job at this place; the local one when no other host takes part.
const struct sched *sched_find(const struct place *place);

extern const struct sched sched_local, sched_hosts, sched_k8s, sched_slurm;

#endif
