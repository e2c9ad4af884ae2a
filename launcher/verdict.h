// SPDX-License-Identifier: Apache-2.0
// The verdict on an attempt that failed: the first failure, apart from its victims, and what follows from it.
// A pure function of what guards and black boxes said.
#ifndef ORRERY_LAUNCHER_VERDICT_H
#define ORRERY_LAUNCHER_VERDICT_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "launcher/crew.h"
#include "launcher/watch.h"

// LAUNCH: the job never came to life. HOST: a machine is gone with all ranks on it.
// DISCORD: the ranks do not call the same collectives.
enum verdict_kind { VERDICT_CRASH, VERDICT_HANG, VERDICT_LAUNCH, VERDICT_HOST, VERDICT_DISCORD };

struct verdict {
    enum verdict_kind kind;
    int rank, world, attempt; // rank -1: nobody in particular
    int64_t pid;
    int signal, exit_code; // of the rank; 0, 0: it did not end by itself
    enum err_code code;    // ERR_OK: unknown
    enum err_class cls;    // what the launcher acts on
    int64_t step;          // -1: unknown
    int64_t heard_ns;
    int64_t silent_ms; // HANG, HOST: how long nothing was heard; 0: not silence
    char host[64], phase[24], place[192], log_path[4096];
    char error[600];             // the rank's own words
    char others[512];            // what the other ranks were at
    char cause[1280];            // one line
    char lines[WIRE_TEXT_BYTES]; // of the rank's log, or of mpirun's
};

// Has some rank failed, so that the attempt cannot go on?
bool verdict_needed(const struct crew *crew);
// True when a failure seen so far may be a victim only, so that a little patience may show the true cause.
bool verdict_is_doubtful(const struct crew *crew);
// Is the first failure an exit code that the rank's black box has no words for?
bool verdict_is_wordless(const struct crew *crew, const struct watch *w);
// Did a guard vanish before all had come? mpirun ends those it has when one does not start.
bool verdict_is_premature(const struct crew *crew);
// Did the first failure come from outside: a signal, a guard that vanished?
bool verdict_is_external(const struct crew *crew);
void verdict_of_crash(struct verdict *v, const struct crew *crew, struct watch *w, int attempt,
                      const char *log_dir);
void verdict_of_hang(struct verdict *v, const struct watch_hang *hang, const struct crew *crew,
                     struct watch *w, int attempt, const char *log_dir);
// Ranks [rank, rank + n) are on a machine that has not been heard for silent_ms, or whose guards have all
// vanished at once (0).
void verdict_of_host(struct verdict *v, int rank, int n, int64_t silent_ms, const struct crew *crew,
                     struct watch *w, int attempt, const char *log_dir);
// A start that failed: what verdict_of_launch and verdict_of_late are told of it.
struct verdict_start {
    const char *starter; // "mpirun", or whatever stands for it
    int world, attempt;
    bool again; // an earlier attempt had all its ranks, so this one's failure may pass
    const char *log_path;
};

// What starts the ranks ended without them.
void verdict_of_launch(struct verdict *v, const struct verdict_start *start, int wait_status);
// It still runs, but some guards have not come within waited_s.
void verdict_of_late(struct verdict *v, const struct verdict_start *start, const struct crew *crew,
                     int64_t waited_s);

int verdict_exit_status(const struct verdict *v); // of `orrery run` when it gives up
bool verdict_may_retry(const struct verdict *v);
#define VERDICT_CAUSE "see the cause"
// The block for the terminal, cause last. An error of the log's last lines that the cause quotes stands there
// alone.
int verdict_text(const struct verdict *v, struct buf *out, struct err *e) ERR_CHECK;
void verdict_json(const struct verdict *v, struct json_writer *w); // members of an open object
void verdict_from_json(struct verdict *v, const struct json_value *o);

#endif
