// SPDX-License-Identifier: Apache-2.0
// A job: one task of orrery-rank on some ranks. Every verb that computes something runs one through job_run.
#ifndef ORRERY_LAUNCHER_JOB_H
#define ORRERY_LAUNCHER_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "base/log.h"
#include "launcher/debug.h"
#include "launcher/netif.h"
#include "launcher/place.h"
#include "launcher/rundir.h"
#include "launcher/sched.h"
#include "launcher/strv.h"

struct job_request {
    const struct config_file *config; // resolved
    const char *task; // a task of orrery-rank: "train", "evaluate", "rollout", "simulate", ...
    // The run folder: its logs/TASK-N gets the logs. NULL: a scratch folder (scratch.h).
    struct rundir *run;
    const char *config_path; // what the ranks read; NULL: the resolved config is written for them
    int64_t ranks;           // 0: what the surroundings say, launch.ranks, else two
    const char *hosts;       // "h1:2,h2:2" or "@FILE"; NULL: launch.hosts
    bool alone;              // the task needs no other ranks: one process, no mpirun
    int64_t resume_step;     // newest checkpoint there is, -1 none
    bool record; // this job is the run itself: keeps run.json, events.jsonl, the black boxes; restarts
    struct debug *debug;     // one rank under a tool; NULL: none
    const char *const *args; // key=value or --force, given to every rank
    size_t n_args;
};

// Starts it, watches it, restarts it where that helps (record only). Talks through `log`. Returns the exit
// status of the verb: 0, 75 when it stopped early and saved, else the failure's; or a negative code when it
// could not begin.
int job_run(const struct job_request *request, const struct log *log, struct err *e) ERR_CHECK;

// `asked`; when it is 0: what the surroundings say, launch.ranks, else two.
int64_t job_ranks(const struct config *c, int64_t asked);
// Where a job would run from here, and on how many ranks. `asked`: -n, 0: not given; `hosts`: --hosts, NULL:
// launch.hosts. place_fini also after a failure.
int job_place(const struct config *c, int64_t asked, const char *hosts, struct place *out,
              struct err *e) ERR_CHECK;
// One rank that needs no MPI?
bool job_is_single(const struct config *c, int64_t ranks);

// The argument vector that a run with this config would start here, and the threads of a rank; nothing is
// started. What does not exist before the start stands as a word: /dev/shm/orrery-UID-RANDOM. An error says
// why it would not start here; argv is filled as far as it is known.
int job_line(const struct config_file *config, int64_t ranks, struct strv *argv, int *threads,
             struct err *e) ERR_CHECK;

// ---- between job and supervisor: what one attempt starts.
struct job {
    const struct job_request *request;
    const struct config *config;
    const struct rundir *run; // the request's, or the scratch folder
    int ranks, threads;       // ranks: as many as are wanted; an attempt may have fewer
    bool mpi;
    bool failed;            // a verdict was told, by the last attempt
    struct openmpi openmpi; // mpirun's
    const struct sched *sched;
    struct hosts hosts; // none: this machine alone
    struct strv passed; // of a job with hosts: names of variables that reach every guard
    struct netif netif; // of a job with hosts: what the guards connect to
    char self[4096], program[4096], config_path[4096];
};

struct job_attempt {
    int number, ranks;
    const char *control, *token, *box_path, *log_path;
};

// On more than this machine: guards connect over the network and send their boxes.
static inline bool job_is_far(const struct job *j) {
    return j->hosts.n > 0;
}
// What all attempts have in common.
struct sched_request job_sched_request(const struct job *j);
// argv and environment of the process to start.
int job_command(const struct job *j, const struct job_attempt *a, struct strv *argv, struct strv *env,
                struct err *e) ERR_CHECK;

#endif
