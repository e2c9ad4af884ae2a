// SPDX-License-Identifier: Apache-2.0
#include "trainer/rank.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/machine.h"

// How the kernels count cuda.precision.
_Static_assert((int)DEVICE_BF16 == (int)CONFIG_cuda_precision_bf16 &&
                   (int)DEVICE_FP32 == (int)CONFIG_cuda_precision_fp32 &&
                   (int)DEVICE_TF32 == (int)CONFIG_cuda_precision_tf32,
               "configs/schema.def and kernels/device.h name the precisions in one order");

int rank_take_signals(struct rank *r, struct err *e) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    if (sigprocmask(SIG_BLOCK, &set, NULL)) return err_errno(e, errno, "block signals");
    r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return r->signal_fd < 0 ? err_errno(e, errno, "signalfd") : 0;
}

bool rank_stop_asked(struct rank *r) {
    struct signalfd_siginfo info;
    if (r->signal_fd >= 0 && read(r->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (!r->stop_asked) blackbox_event(r->box, "signal %u: stop asked", info.ssi_signo);
        r->stop_asked = true;
    }
    return r->stop_asked;
}

void rank_slip(struct rank *r, enum fault_action action) {
    if (action == FAULT_SKIP_COLLECTIVE) coll_slip(r->coll, COLL_SLIP_SKIP);
    if (action == FAULT_MISMATCH) coll_slip(r->coll, COLL_SLIP_MISMATCH);
}

static int64_t number_from(const char *variable, int64_t fallback) {
    const char *text = getenv(variable);
    int64_t value;
    return text && bytes_parse_i64(text, &value) ? value : fallback;
}

// ---- the config's say

static bool has_peers(void) {
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

bool rank_talks_by_nccl(const struct config *c, bool peers) {
    return c->comm_backend == CONFIG_comm_backend_nccl ||
           (c->comm_backend == CONFIG_comm_backend_auto && peers);
}

// Several ranks on one GPU: NCCL where it can, else MPI and pinned memory (options of coll_open).
static enum coll_kind kind_of(const struct config *c, bool alone, bool on_gpu) {
    if (alone || c->comm_backend == CONFIG_comm_backend_self) return COLL_SELF;
    if (c->comm_backend == CONFIG_comm_backend_mpi) return COLL_MPI;
    if (rank_talks_by_nccl(c, on_gpu && has_peers())) return COLL_NCCL;
    return has_peers() ? COLL_MPI : COLL_SELF;
}

static int fill_paths(struct rank *r, struct err *e) {
    const struct config *c = r->config;
    snprintf(r->run_dir, sizeof r->run_dir, "%s", c->run_dir);
    r->store = store_config_options(c);
    return store_config_checkpoints(c, c->run_dir, r->ckpt_url, sizeof r->ckpt_url, e);
}

// ---- device and peers

static void notify(void *arg, const struct coll_note *note) {
    struct rank *r = arg;
    switch (note->moment) {
    case COLL_BEGINS: blackbox_coll_begin(r->box, note->name, note->bytes, note->shape); break;
    case COLL_WAITS: blackbox_coll_wait(r->box, note->name, note->seq, note->bytes); break;
    case COLL_ENDS: blackbox_coll_end(r->box); break;
    }
}

static void say(void *arg, const char *text) {
    struct rank *r = arg;
    if (r->number == 0) log_info(&r->log, "%s", text);
}

int64_t rank_local_world(void) {
    const char *step = getenv("SLURM_STEP_TASKS_PER_NODE"); // "4(x2),3"
    int64_t slurm = step ? strtol(step, NULL, 10) : 1, n = number_from("OMPI_COMM_WORLD_LOCAL_SIZE", slurm);
    return n > 0 && n < INT_MAX ? n : 1;
}

// A person's word counts as it stands. The launcher's is a share of the cores that it saw itself, of which
// this rank may be bound to fewer.
static int threads_for(const struct config *c) {
    int64_t omp = number_from("OMP_NUM_THREADS", 0);
    if (c->train_threads > 0 || omp <= 0) return machine_threads(c->train_threads, (int)rank_local_world());
    int most = getenv("ORRERY_ATTEMPT") ? machine_cores() : INT_MAX;
    return omp < most ? (int)omp : most;
}

// Of this rank among those on its host, before there are peers to ask.
static int local_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"};
    for (int i = 0; i < 3; i++) {
        int64_t n = number_from(names[i], -1);
        if (n >= 0 && n < 65536) return (int)n;
    }
    return 0;
}

// The driver's own file, on Linux or on Linux within Windows; or somebody says which plug-in to use.
static bool driver_is_there(void) {
    return !access("/dev/nvidiactl", F_OK) || !access("/dev/dxg", F_OK) || getenv("ORRERY_CUDA_PLUGIN");
}

// With device auto a machine without the driver does not load the plug-in: its libraries take 200 MB. A GPU
// that is there and does not work is told.
static int open_device(struct rank *r, bool alone, struct err *e) {
    const struct config *c = r->config;
    struct device_gpu_options gpu = {.local_rank = local_rank(),
                                     .precision = (enum device_precision)c->cuda_precision};
    struct err why = {0};
    if (c->top_device == CONFIG_top_device_cuda && !alone) return device_open_gpu(&r->device, &gpu, e);
    if (alone || c->top_device == CONFIG_top_device_cpu || !driver_is_there())
        return device_open_cpu(&r->device, threads_for(c), e);
    int rc = device_open_gpu(&r->device, &gpu, &why);
    if (!rc) return 0;
    if (why.code != ERR_ABSENT) return err_set(e, why.code, "%s", why.text);
    log_warn(&r->log, "on the CPU, since the GPU is of no use: %s", why.text);
    return device_open_cpu(&r->device, threads_for(c), e);
}

// All ranks on GPUs or none, and no two on one GPU by accident.
static int compare_devices(const struct rank *r, struct err *e) {
    uint64_t mine = r->device->identity, *all;
    int gpus = 0, rc;
    if (r->world == 1) return 0;
    all = calloc((size_t)r->world, sizeof *all);
    if (!all) return err_set(e, ERR_MEMORY, "no memory to compare %d devices", r->world);
    rc = coll_gather_all(r->coll, "devices", &mine, sizeof mine, all, e);
    for (int i = 0; !rc && i < r->world; i++) {
        gpus += all[i] != 0;
        if (!mine || i == r->number || all[i] != mine || r->config->cuda_share) continue;
        rc = err_set(e, ERR_CONFIG,
                     "ranks %d and %d have the same GPU: start one rank per GPU, or allow it with "
                     "cuda.share=true",
                     r->number < i ? r->number : i, r->number < i ? i : r->number);
    }
    if (!rc && gpus > 0 && gpus < r->world)
        rc = err_set(e, ERR_ABSENT, "%d of %d ranks have a GPU; set device=cpu, or give every rank one", gpus,
                     r->world);
    free(all);
    return rc;
}

static int open_peers(struct rank *r, bool alone, struct err *e) {
    const struct config *c = r->config;
    struct coll_options options = {.kind = kind_of(c, alone, !r->device->host_memory),
                                   .deadline_ms = c->comm_deadline_s * 1000,
                                   .device = r->device,
                                   .notify = notify,
                                   .say = say,
                                   .share = c->cuda_share,
                                   .or_mpi = c->comm_backend == CONFIG_comm_backend_auto,
                                   .reach = c->comm_reach,
                                   .notify_arg = r};
    int rc = coll_open(&r->coll, &options, e);
    if (rc) return rc;
    r->number = coll_rank(r->coll);
    r->world = coll_size(r->coll);
    int64_t expected = alone ? 1 : number_from("ORRERY_WORLD", r->world);
    if (expected != r->world)
        return err_set(e, ERR_UNAVAILABLE,
                       "the launcher started %lld ranks, but MPI sees %d; look at the MPI set-up",
                       (long long)expected, r->world);
    rc = grid_init(&r->grid, r->world, 1, 1, 1, e);
    if (!rc) r->place = grid_place_of(&r->grid, r->number);
    return rc;
}

static void tell_device(const struct rank *r) {
    struct device_info info;
    device_describe(r->device, &info);
    log_info(&r->log, "on %s, %.1f of %.1f GiB free; collectives: %s", info.model,
             (double)info.free_bytes / (1 << 30), (double)info.memory_bytes / (1 << 30), coll_name(r->coll));
}

int rank_open(struct rank *r, struct config_file *file, const char *task, bool alone, struct err *e) {
    r->file = file;
    r->config = config_values(file);
    r->attempt = (int)number_from("ORRERY_ATTEMPT", 1);
    r->world = (int)number_from("ORRERY_WORLD", number_from("OMPI_COMM_WORLD_SIZE", 1));
    r->number = (int)number_from("ORRERY_RANK", number_from("OMPI_COMM_WORLD_RANK", 0));
    log_init(&r->log, STDERR_FILENO, LOG_INFO, "");
    int rc = blackbox_create(&r->box, getenv("ORRERY_BLACKBOX"), r->number, r->world, r->attempt, task, e);
    if (!rc) rc = fill_paths(r, e);
    if (!rc) rc = open_device(r, alone, e);
    if (!rc) rc = open_peers(r, alone, e);
    if (!rc) rc = compare_devices(r, e);
    if (!rc && !r->device->host_memory && r->number == 0) tell_device(r);
    char prefix[32];
    snprintf(prefix, sizeof prefix, "rank %d: ", r->number);
    if (r->world > 1) log_init(&r->log, STDERR_FILENO, LOG_INFO, prefix);
    return rc;
}

void rank_close(struct rank *r, bool failed) {
    if (r->coll) coll_close(r->coll, failed);
    device_close(r->device);
    blackbox_close(r->box);
    config_close(r->file);
    if (r->signal_fd >= 0) close(r->signal_fd);
    *r = (struct rank){.signal_fd = -1};
}
