// SPDX-License-Identifier: Apache-2.0
// A stand-in for orrery-rank, for tests of the launcher: real MPI, a real black box, real fault injection; no
// training. Each step is a short sleep and an all-reduce; its checkpoint is the file RUN/fake-ckpt.
// Environment: FAKE_STEP_MS, FAKE_SPAM (bytes printed per step), FAKE_IGNORE_TERM, FAKE_CHILD (leaves a child
// of its own), FAKE_BARRIER_FILE (gets a byte when rank 0 is past the first barrier).
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/blackbox.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/config.h"
#include "trainer/fault.h"

static volatile sig_atomic_t stop_asked;

struct fake {
    struct config_file *file;
    const struct config *config;
    struct blackbox *box;
    struct fault fault;
    char save_path[4096];
    int rank, world, attempt;
    bool mpi;
};

static void on_stop(int number) {
    stop_asked = number;
}

static long env_long(const char *name, long def) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : def;
}

static int64_t load_step(const struct fake *f) {
    struct buf text;
    struct err e = {0};
    int64_t step = 0;
    buf_init(&text, 64);
    if (!bytes_read_file(f->save_path, 64, &text, &e) && !bytes_parse_i64(text.data, &step)) step = 0;
    buf_fini(&text);
    return step;
}

static int save_step(struct fake *f, int64_t step, struct err *e) {
    char text[32];
    blackbox_set_phase(f->box, PHASE_CHECKPOINT, "fake-ckpt");
    if (fault_at(&f->fault, step, PHASE_CHECKPOINT) == FAULT_ENOSPC)
        return err_set(e, ERR_IO, "cannot write fake-ckpt: No space left on device; free some space");
    int n = snprintf(text, sizeof text, "%lld", (long long)step);
    int rc = f->rank == 0 ? bytes_write_file(f->save_path, text, (size_t)n, e) : 0;
    if (!rc) blackbox_page(f->box)->checkpoint_step = step;
    return rc;
}

static int agree(struct fake *f, int mine) {
    int all = mine;
    blackbox_coll_begin(f->box, "all-reduce gradients", 4200000, 4200000);
    blackbox_coll_wait(f->box, "all-reduce gradients", blackbox_page(f->box)->coll_seq, 4200000);
    if (f->mpi) MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    blackbox_coll_end(f->box);
    return all;
}

static void spam(long bytes) {
    for (long i = 0; i < bytes; i++) putchar(i % 80 == 79 ? '\n' : 'x');
}

static int one_step(struct fake *f, int64_t step, struct err *e) {
    struct blackbox_page *page = blackbox_page(f->box);
    blackbox_set_step(f->box, step);
    blackbox_set_phase(f->box, PHASE_FORWARD, NULL);
    if (fault_at(&f->fault, step, PHASE_FORWARD) == FAULT_NAN)
        return err_set(e, ERR_DATA, "the loss of step %lld is not a number", (long long)step);
    clock_sleep_ms(env_long("FAKE_STEP_MS", 5));
    blackbox_set_phase(f->box, PHASE_BACKWARD, NULL);
    fault_at(&f->fault, step, PHASE_BACKWARD);
    blackbox_set_phase(f->box, PHASE_COLLECTIVE, NULL);
    page->loss = 1.0 / (double)(step + 1);
    page->samples_seen = step * 12;
    page->samples_per_s = 100;
    printf("rank %d step %lld\n", f->rank, (long long)step);
    spam(env_long("FAKE_SPAM", 0));
    fflush(stdout);
    return 0;
}

static int train(struct fake *f, struct err *e) {
    struct blackbox_page *page = blackbox_page(f->box);
    int64_t every = f->config->checkpoint_every;
    int rc = 0;
    page->total_steps = f->config->train_steps;
    for (int64_t step = load_step(f) + 1; step <= page->total_steps && !rc; step++) {
        rc = one_step(f, step, e);
        int stop = rc ? 0 : agree(f, stop_asked != 0);
        if (!rc && (stop || (every && step % every == 0) || step == page->total_steps))
            rc = save_step(f, step, e);
        if (!rc && stop) return err_set(e, ERR_SAVED, "stopped at step %lld and saved", (long long)step);
    }
    return rc;
}

static void first_barrier(const struct fake *f) {
    const char *path = getenv("FAKE_BARRIER_FILE");
    struct err e = {0};
    if (f->mpi) MPI_Barrier(MPI_COMM_WORLD);
    if (path && f->rank == 0 && bytes_write_file(path, "1", 1, &e)) fprintf(stderr, "%s\n", e.text);
}

static int begin(struct fake *f, const char *config_path, const char *task, struct err *e) {
    f->attempt = (int)env_long("ORRERY_ATTEMPT", 0);
    f->world = (int)env_long("ORRERY_WORLD", 1);
    f->rank = (int)env_long("ORRERY_RANK", 0);
    snprintf(f->save_path, sizeof f->save_path, "%s/fake-ckpt", getenv("ORRERY_RUN_DIR"));
    int rc = config_load(&f->file, config_path, NULL, 0, e);
    if (!rc) f->config = config_values(f->file);
    if (!rc) rc = blackbox_create(&f->box, getenv("ORRERY_BLACKBOX"), f->rank, f->world, f->attempt, task, e);
    return rc ? rc : fault_init(&f->fault, f->config->fault_inject, f->rank, f->world, f->attempt, e);
}

static int print_version(void) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    if (MPI_Get_library_version(mpi, &n)) mpi[0] = 0;
    return printf("orrery-rank " ORRERY_VERSION "\n%.*s\n", (int)strcspn(mpi, ",\n"), mpi) < 0;
}

int main(int argc, char **argv) {
    struct fake f = {0};
    struct err e = {0};
    const char *config_path = NULL, *task = "train";
    signal(SIGTERM, env_long("FAKE_IGNORE_TERM", 0) ? SIG_IGN : on_stop);
    for (int i = 1; i + 1 < argc; i++) {
        if (!strcmp(argv[i], "--config")) config_path = argv[i + 1];
        if (!strcmp(argv[i], "--task")) task = argv[i + 1];
    }
    if (argc > 1 && !strcmp(argv[1], "--version")) return print_version();
    f.mpi = getenv("OMPI_COMM_WORLD_SIZE") != NULL;
    if (f.mpi) MPI_Init(&argc, &argv);
    int rc = begin(&f, config_path, task, &e);
    if (!rc && env_long("FAKE_CHILD", 0) && fork() == 0) execlp("sleep", "sleep", "600", (char *)NULL);
    if (!rc) first_barrier(&f);
    if (!rc) rc = train(&f, &e);
    if (rc && f.box) blackbox_set_err(f.box, &e);
    if (rc) fprintf(stderr, "rank %d: error: %s\n", f.rank, e.text);
    if (f.box && !rc) blackbox_set_phase(f.box, PHASE_DONE, NULL);
    blackbox_close(f.box);
    config_close(f.file);
    // A rank that failed does not wait for its peers.
    if (f.mpi && (!rc || e.code == ERR_SAVED)) MPI_Finalize();
    _exit(rc ? err_exit_code(e.code) : 0);
}
