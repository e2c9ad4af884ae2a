// SPDX-License-Identifier: Apache-2.0
// orrery-rank: one process of a job. The launcher starts it; by hand it runs alone or under mpirun.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"
#include "trainer/debugger.h"
#include "trainer/rank.h"
#include "trainer/task.h"
#include "trainer/worlds/world.h"

struct arguments {
    const char *config, *task;
    char device[64]; // "device=NAME" of --device
    const char **overrides;
    size_t n_overrides;
    bool help, force;
};

static int usage(FILE *to) {
    fprintf(to, "usage: orrery-rank --config FILE [--task NAME] [--device NAME] [--force] [key=value ...]\n\n"
                "tasks (without one: train):\n");
    for (int i = 0; task_at(i); i++) fprintf(to, "  %-12s %s\n", task_at(i)->name, task_at(i)->help);
    return to == stdout ? 0 : err_exit_code(ERR_USAGE);
}

static void print_knob(const struct world_knob *k) {
    printf("  %-13s %-5g  %g .. %g%s  %s\n", k->name, k->value, k->lo, k->hi, k->whole ? ", whole" : "",
           k->help);
}

// For `orrery simulate --help`.
static int print_worlds(void) {
    for (size_t i = 0; world_at(i); i++) {
        const struct world *w = world_at(i);
        printf("%s: %s; its knobs, with default and range:\n", w->name, w->help);
        for (size_t k = 0; k < w->n_knobs; k++) print_knob(&w->knobs[k]);
    }
    return 0;
}

static int print_version(void) {
    char mpi[128];
    coll_mpi_version(mpi, sizeof mpi);
    return printf("orrery-rank %s\n%s\n", ORRERY_VERSION, mpi) < 0;
}

static bool wants_value(const char *arg) {
    return !strcmp(arg, "--config") || !strcmp(arg, "--task") || !strcmp(arg, "--device");
}

static int parse(struct arguments *a, int argc, char **argv, struct err *e) {
    for (int i = 1; i < argc; i++) {
        if (wants_value(argv[i]) && i + 1 == argc)
            return err_set(e, ERR_USAGE, "%s needs a value; see orrery-rank --help", argv[i]);
        if (!strcmp(argv[i], "--help"))
            a->help = true;
        else if (!strcmp(argv[i], "--force"))
            a->force = true;
        else if (!strcmp(argv[i], "--config"))
            a->config = argv[++i];
        else if (!strcmp(argv[i], "--task"))
            a->task = argv[++i];
        else if (!strcmp(argv[i], "--device")) {
            snprintf(a->device, sizeof a->device, "device=%s", argv[++i]);
            a->overrides[a->n_overrides++] = a->device;
        } else if (argv[i][0] != '-' && strchr(argv[i], '='))
            a->overrides[a->n_overrides++] = argv[i];
        else
            return err_set(e, ERR_USAGE, "unknown argument '%s'; see orrery-rank --help", argv[i]);
    }
    return 0;
}

static int run(struct rank *r, const struct arguments *a, struct err *e) {
    struct config_file *file = NULL;
    int rc = config_load(&file, a->config, a->overrides, a->n_overrides, e);
    if (rc) return rc;
    const struct task *task = task_find(a->task);
    if (!task) {
        rc = err_set(e, ERR_USAGE, "unknown task '%.64s'; see orrery-rank --help", a->task);
        config_close(file);
        return rc;
    }
    if (task->graceful) rc = rank_take_signals(r, e);
    if (rc) {
        config_close(file);
        return rc;
    }
    r->force = a->force;
    rc = rank_open(r, file, task->name, task->alone, e);
    return rc ? rc : task->run(r, e);
}

int main(int argc, char **argv) {
    const char *overrides[1024];
    struct arguments a = {.task = "train", .overrides = overrides};
    struct rank r = {.signal_fd = -1};
    struct err e = {0};
    process_begin();
    if (argc == 2 && !strcmp(argv[1], "--version")) return print_version();
    if (argc == 2 && !strcmp(argv[1], "--worlds")) return print_worlds();
    if (argc > (int)(sizeof overrides / sizeof *overrides)) return usage(stderr);
    log_init(&r.log, STDERR_FILENO, LOG_INFO, "");
    debugger_wait(&r.log);
    int rc = parse(&a, argc, argv, &e);
    if (!rc && a.help) return usage(stdout);
    if (!rc) rc = run(&r, &a, &e);
    bool orderly = rc == 0 || e.code == ERR_SAVED;
    if (r.box && orderly) blackbox_set_phase(r.box, PHASE_DONE, NULL);
    if (r.box && !orderly) blackbox_set_err(r.box, &e);
    if (rc) log_at(&r.log, orderly ? LOG_INFO : LOG_ERROR, "%s", e.text);
    int code = rc ? err_exit_code(e.code) : 0;
    bool lost = r.device && r.device->lost;
    rank_close(&r, !orderly);
    if (lost) _exit(code); // what libraries do at an exit would wait for the GPU's queues
    return code;
}
