// SPDX-License-Identifier: Apache-2.0
#include "launcher/doctor.h"

#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "launcher/machine.h"
#include "launcher/proc.h"
#include "launcher/sched.h"
#include "storage/store.h"

#define GIB              1073741824.0
#define SHM_LEAST_BYTES  (64 << 20)
#define DISK_LEAST_BYTES (INT64_C(1) << 30)
#define MEM_LEAST_BYTES  (INT64_C(2) << 30)
#define FILES_LEAST      1024
#define ASK_MS           5000

static void good(struct doctor_finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void cure(struct doctor_finding *f, enum doctor_grade grade, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void good(struct doctor_finding *f, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
}

static void cure(struct doctor_finding *f, enum doctor_grade grade, enum err_code code, const char *fmt,
                 ...) {
    va_list ap;
    f->grade = grade;
    f->code = code;
    va_start(ap, fmt);
    vsnprintf(f->cure, sizeof f->cure, fmt, ap);
    va_end(ap);
}

static void check_cores(const struct config *c, struct doctor_finding *f) {
    int cores = machine_cores();
    good(f, "%d processor%s to use", cores, cores == 1 ? "" : "s");
    if (c && c->launch_ranks > cores)
        cure(f, DOCTOR_WARN, ERR_OK, "%lld ranks share %d cores and take turns: launch.ranks=%d is faster",
             (long long)c->launch_ranks, cores, cores);
}

static void check_memory(const struct config *c, struct doctor_finding *f) {
    int64_t bytes = machine_memory_bytes();
    good(f, "%.1f GiB of memory to use", (double)bytes / GIB);
    if (bytes >= 0 && bytes < MEM_LEAST_BYTES)
        cure(f, DOCTOR_WARN, ERR_OK, "small models only; see what a config needs: orrery plan CONFIG");
}

static void check_shm(const struct config *c, struct doctor_finding *f) {
    int64_t bytes = machine_free_bytes("/dev/shm");
    good(f, bytes < 0 ? "no /dev/shm" : "%.2f GiB free in /dev/shm", (double)bytes / GIB);
    if (bytes < 0)
        cure(f, DOCTOR_WARN, ERR_OK,
             "black boxes and shared memory go to $TMPDIR or /tmp, which may be slow: mount /dev/shm");
    else if (bytes < SHM_LEAST_BYTES)
        cure(
            f, DOCTOR_BAD, ERR_IO,
            "ranks on one machine talk through /dev/shm: free it, or start the container with --shm-size=1g");
}

static void check_mpirun(const struct config *c, struct doctor_finding *f) {
    int major, minor, patch;
    struct err e = {0};
    if (sched_mpirun_version(&major, &minor, &patch, &e)) {
        good(f, "%s", e.text);
        cure(f, DOCTOR_BAD, ERR_MISSING,
             "apt-get install openmpi-bin; one rank works without it: orrery run CONFIG -n 1");
        return;
    }
    good(f, "Open MPI %d.%d.%d", major, minor, patch);
    if (major < 4 || (major == 4 && minor < 1))
        cure(f, DOCTOR_BAD, ERR_UNAVAILABLE, "Open MPI 4.1 or 5 is needed: apt-get install openmpi-bin");
}

static void check_surroundings(const struct config *c, struct doctor_finding *f) {
    struct err e = {0};
    int rc = sched_find()->check(2, true, &e);
    good(f, "%s", rc ? e.text : "no other job's variables in the environment");
    if (rc && e.code != ERR_MISSING) cure(f, DOCTOR_BAD, e.code, "start from a fresh shell");
}

static void check_rank(const struct config *c, struct doctor_finding *f) {
    char program[4096];
    char *argv[] = {program, "--version", NULL};
    struct err e = {0};
    struct buf out;
    int status = 0;
    buf_init(&out, 65536);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, &e);
    if (!rc) rc = proc_capture(argv, ASK_MS, &out, NULL, &status, &e);
    bool same = !rc && !status && out.data && strstr(out.data, ORRERY_VERSION);
    if (out.data) out.data[strcspn(out.data, "\n")] = 0;
    good(f, "%s%s%s", rc ? e.text : program, rc ? "" : ": ", rc || !out.data ? "" : out.data);
    if (!same)
        cure(f, DOCTOR_BAD, ERR_MISSING,
             "orrery-rank of version " ORRERY_VERSION " must stand beside orrery: build both");
    buf_fini(&out);
}

static void check_host(const struct config *c, struct doctor_finding *f) {
    char host[256] = "?";
    struct addrinfo *found = NULL;
    if (gethostname(host, sizeof host - 1)) snprintf(host, sizeof host, "?");
    int rc = getaddrinfo(host, NULL, NULL, &found);
    good(f, "host name %s %s", host, rc ? "has no address" : "has an address");
    if (rc)
        cure(f, DOCTOR_WARN, ERR_OK, "some MPI builds wait for it: add '127.0.1.1 %s' to /etc/hosts", host);
    if (!rc) freeaddrinfo(found);
}

static void check_limits(const struct config *c, struct doctor_finding *f) {
    struct rlimit files, core;
    if (getrlimit(RLIMIT_NOFILE, &files) || getrlimit(RLIMIT_CORE, &core)) return;
    good(f, "%llu open files per process", (unsigned long long)files.rlim_cur);
    if (files.rlim_cur < FILES_LEAST)
        cure(f, DOCTOR_WARN, ERR_OK, "object stores and many ranks need more: ulimit -n %d", FILES_LEAST);
}

// The nearest folder above `path` that exists.
static void existing_parent(const char *path, char *out, size_t out_bytes) {
    struct stat st;
    snprintf(out, out_bytes, "%s", path);
    while (stat(out, &st)) {
        char *slash = strrchr(out, '/');
        if (!slash || slash == out) {
            snprintf(out, out_bytes, "%s", slash ? "/" : ".");
            return;
        }
        *slash = 0;
    }
}

static void check_run_dir(const struct config *c, struct doctor_finding *f) {
    char parent[CONFIG_TEXT_BYTES];
    existing_parent(c->run_dir, parent, sizeof parent);
    int64_t bytes = machine_free_bytes(parent);
    bool may_write = access(parent, W_OK | X_OK) == 0;
    good(f, "run.dir %s: %.1f GiB free, %s", c->run_dir, (double)bytes / GIB,
         may_write ? "writable" : "not writable");
    if (!may_write)
        cure(f, DOCTOR_BAD, ERR_DENIED, "no right to write in %s: change its owner, or name another run.dir",
             parent);
    else if (bytes >= 0 && bytes < DISK_LEAST_BYTES)
        cure(f, DOCTOR_WARN, ERR_OK, "checkpoints may not fit: free some space, or set checkpoint.url");
}

static void ask_store(const struct config *c, const char *key, const char *url, bool must_hold,
                      struct doctor_finding *f) {
    struct store *store = NULL;
    struct store_listing listing = {0};
    struct err e = {0};
    struct store_options options = {.endpoint = c->store_endpoint,
                                    .region = c->store_region,
                                    .path_style = c->store_path_style,
                                    .deadline_ms = ASK_MS,
                                    .connections = 1};
    if (!*url) {
        good(f, "%s is not set", key);
        if (must_hold)
            cure(f, DOCTOR_BAD, ERR_CONFIG, "set it: %s=data/demo/train, made by: orrery simulate table",
                 key);
        return;
    }
    int rc = store_open(&store, url, &options, &e);
    if (!rc) rc = store_list(store, "", "/", &listing, &e);
    bool empty = !rc && !listing.n && !listing.n_prefixes;
    good(f, "%s %s: %s", key, url, rc ? e.text : empty ? "nothing there" : "reachable");
    if (rc)
        cure(f, DOCTOR_BAD, e.code,
             "check the address, the network and the rights (store.endpoint, AWS_ACCESS_KEY_ID)");
    else if (empty && must_hold)
        cure(f, DOCTOR_BAD, ERR_MISSING, "make shards: orrery simulate table --out %s --episodes 100", url);
    store_listing_fini(&listing);
    store_close(store);
}

static void check_train_data(const struct config *c, struct doctor_finding *f) {
    ask_store(c, "data.train", c->data_train, true, f);
}

static void check_eval_data(const struct config *c, struct doctor_finding *f) {
    ask_store(c, "data.eval", c->data_eval, *c->data_eval, f);
}

static void check_checkpoints(const struct config *c, struct doctor_finding *f) {
    if (*c->checkpoint_url)
        ask_store(c, "checkpoint.url", c->checkpoint_url, false, f);
    else
        good(f, "checkpoints go to the run folder");
}

void doctor_run(const struct config *c, doctor_each_fn *each, void *arg) {
    static const struct {
        const char *name;
        bool needs_config;
        void (*check)(const struct config *c, struct doctor_finding *f);
    } rows[] = {
        {"processors", false, check_cores},         {"memory", false, check_memory},
        {"shared memory", false, check_shm},        {"mpirun", false, check_mpirun},
        {"environment", false, check_surroundings}, {"orrery-rank", false, check_rank},
        {"host name", false, check_host},           {"limits", false, check_limits},
        {"run folder", true, check_run_dir},        {"training data", true, check_train_data},
        {"held-out data", true, check_eval_data},   {"checkpoints", true, check_checkpoints},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct doctor_finding f = {.name = rows[i].name};
        if (rows[i].needs_config && !c) continue;
        rows[i].check(c, &f);
        each(arg, &f);
    }
}
