// SPDX-License-Identifier: Apache-2.0
// What the machine itself gives: processors, memory, disk, limits, clock.
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include "base/machine.h"
#include "launcher/doctor_impl.h"

#define SHM_LEAST_BYTES     (64 << 20)
#define TMP_LEAST_BYTES     (64 << 20)
#define MEM_LEAST_BYTES     (INT64_C(2) << 30)
#define MEMLOCK_LEAST_BYTES (INT64_C(64) << 20)
#define FILES_LEAST         1024

void doctor_cores(const struct config *c, struct doctor_finding *f) {
    int cores = machine_cores();
    doctor_say(f, "%d processor%s to use", cores, cores == 1 ? "" : "s");
    if (c && c->launch_ranks > cores)
        doctor_cure(f, DOCTOR_WARN, ERR_OK,
                    "%lld ranks share %d cores and take turns: launch.ranks=%d is faster",
                    (long long)c->launch_ranks, cores, cores);
}

void doctor_memory(const struct config *c, struct doctor_finding *f) {
    int64_t bytes = machine_memory_bytes();
    doctor_say(f, "%.1f GiB of memory to use", (double)bytes / DOCTOR_GIB);
    if (bytes >= 0 && bytes < MEM_LEAST_BYTES)
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "small models only; see what a config needs: orrery plan CONFIG");
}

void doctor_shm(const struct config *c, struct doctor_finding *f) {
    int64_t bytes = machine_free_bytes("/dev/shm");
    doctor_say(f, bytes < 0 ? "no /dev/shm" : "%.2f GiB free in /dev/shm", (double)bytes / DOCTOR_GIB);
    if (bytes < 0)
        doctor_cure(f, DOCTOR_WARN, ERR_OK,
                    "black boxes and shared memory go to $TMPDIR or /tmp, which may be slow: mount /dev/shm");
    else if (bytes < SHM_LEAST_BYTES)
        doctor_cure(
            f, DOCTOR_BAD, ERR_IO,
            "ranks on one machine talk through /dev/shm: free it, or start the container with --shm-size=1g");
}

void doctor_tmp(const struct config *c, struct doctor_finding *f) {
    const char *tmp = getenv("TMPDIR");
    const char *path = tmp && *tmp ? tmp : "/tmp";
    int64_t bytes = machine_free_bytes(path);
    bool may_write = access(path, W_OK | X_OK) == 0;
    doctor_say(f, "%.1f GiB free in %.300s%s", bytes < 0 ? 0 : (double)bytes / DOCTOR_GIB, path,
               may_write ? "" : ", not writable");
    if (!may_write)
        doctor_cure(f, DOCTOR_BAD, ERR_DENIED,
                    "MPI and tools need a place for small files: export TMPDIR=/a/folder");
    else if (bytes < TMP_LEAST_BYTES)
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "free some space there, or export TMPDIR=/another/folder");
}

void doctor_files(const struct config *c, struct doctor_finding *f) {
    struct rlimit files, core, size;
    if (getrlimit(RLIMIT_NOFILE, &files) || getrlimit(RLIMIT_CORE, &core) || getrlimit(RLIMIT_FSIZE, &size))
        return;
    doctor_say(f, "%llu open files per process; core files %s", (unsigned long long)files.rlim_cur,
               core.rlim_cur ? "on" : "off (ulimit -c unlimited turns them on)");
    if (size.rlim_cur != RLIM_INFINITY)
        doctor_cure(
            f, DOCTOR_WARN, ERR_OK,
            "no file may have more than %llu bytes, checkpoints and MPI's own included: ulimit -f unlimited",
            (unsigned long long)size.rlim_cur);
    else if (files.rlim_cur < FILES_LEAST)
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "object stores and many ranks need more: ulimit -n %d",
                    FILES_LEAST);
}

// Network cards with their own memory access, and GPUs, pin pages.
static bool pins_memory(void) {
    return access("/sys/class/infiniband", F_OK) == 0 || access("/dev/nvidiactl", F_OK) == 0;
}

void doctor_memlock(const struct config *c, struct doctor_finding *f) {
    struct rlimit lock;
    if (getrlimit(RLIMIT_MEMLOCK, &lock)) return;
    bool pins = pins_memory();
    if (lock.rlim_cur == RLIM_INFINITY)
        doctor_say(f, "as much memory as there is may be locked");
    else
        doctor_say(f, "%.1f MiB of memory may be locked%s", (double)lock.rlim_cur / 1048576,
                   pins ? "" : "; nothing here pins memory (no InfiniBand, no GPU)");
    if (pins && lock.rlim_cur != RLIM_INFINITY && (int64_t)lock.rlim_cur < MEMLOCK_LEAST_BYTES)
        doctor_cure(
            f, DOCTOR_BAD, ERR_DEVICE,
            "InfiniBand and GPUs pin memory: ulimit -l unlimited (limits.conf; docker --ulimit memlock=-1; "
            "slurm.conf PropagateResourceLimitsExcept=MEMLOCK)");
}

void doctor_clock(const struct config *c, struct doctor_finding *f) {
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    bool steady = state >= 0 && state != TIME_ERROR && !(t.status & STA_UNSYNC);
    doctor_say(f, steady ? "synchronised with a time server" : "nobody keeps the clock right");
    if (!steady)
        doctor_cure(
            f, DOCTOR_WARN, ERR_OK,
            "S3 refuses requests of clocks that are 15 minutes off, and logs of hosts cannot be compared: "
            "timedatectl set-ntp true, or start chrony (a container has its host's clock)");
}
