// SPDX-License-Identifier: Apache-2.0
// Every op of ops.def, on every instruction set that this processor has; with ORRERY_TEST_DEVICE=cuda on a
// GPU instead, in bf16 and in fp32 - or on what ORRERY_CUDA_PLUGIN names, such as the emulator.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "trial.h"

struct check {
    const char *name;
    void (*run)(struct trial *t);
};

static const struct check checks[] = {
#define OP(name, doc) {#name, check_##name},
#include "kernels/ops.def"
#undef OP
};

// The machines: instruction sets, or a GPU's precisions.
static const char *const isas[] = {"portable", "avx2", "avx512", "cuda-bf16", "cuda-fp32"};

enum { CHECKS = sizeof checks / sizeof *checks, ISAS = sizeof isas / sizeof *isas, FIRST_GPU = 3 };

struct suite {
    struct device *device[ISAS][TRIAL_TEAMS]; // NULL: not on this processor
    uint64_t seed;
};

struct item {
    struct suite *suite;
    const struct check *check;
    int isa;
};

static void run_item(void **state) {
    const struct item *item = *state;
    struct trial t = {.op = item->check->name, .isa = isas[item->isa], .seed = item->suite->seed};
    if (item->suite->device[item->isa][0] == NULL) skip();
    memcpy(t.device, item->suite->device[item->isa], sizeof t.device);
    t.low = t.device[0]->compute;
    const char *largest = getenv("ORRERY_TEST_LARGEST"); // an emulator is slow
    t.largest = largest != NULL ? strtoll(largest, NULL, 10) : 0;
    for (int round = 0; round < TRIAL_ROUNDS; round++) {
        trial_begin(&t, round);
        item->check->run(&t);
        trial_end(&t);
    }
}

// On a GPU the three runs are one device's.
static int open_one(struct suite *s, int isa, int team, struct err *e) {
    struct device_gpu_options gpu = {.precision = isa == FIRST_GPU ? DEVICE_BF16 : DEVICE_FP32};
    if (isa < FIRST_GPU) return device_open_cpu(&s->device[isa][team], team + 1, e);
    if (team == 0) return device_open_gpu(&s->device[isa][0], &gpu, e);
    s->device[isa][team] = s->device[isa][0];
    return 0;
}

// False when a device that was asked for is not there.
static bool open_devices(struct suite *s, int first, int end) {
    for (int i = first; i < end; i++) {
        setenv("ORRERY_ISA", isas[i], 1);
        for (int team = 0; team < TRIAL_TEAMS; team++) {
            struct err e = {0};
            if (open_one(s, i, team, &e) == 0) continue;
            printf("%s\n", e.text);
            if (i >= FIRST_GPU) return false;
            s->device[i][team] = NULL;
        }
    }
    unsetenv("ORRERY_ISA");
    return true;
}

static void close_devices(struct suite *s) {
    for (int i = 0; i < ISAS; i++) {
        for (int team = 0; team < (i < FIRST_GPU ? TRIAL_TEAMS : 1); team++) device_close(s->device[i][team]);
    }
}

static uint64_t choose_seed(void) {
    const char *text = getenv("ORRERY_TEST_SEED");
    return text != NULL ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
}

// `test_ops gemm` runs the checks of that op only.
int main(int argc, char **argv) {
    struct suite suite = {.seed = choose_seed()};
    printf("ORRERY_TEST_SEED=%llu\n", (unsigned long long)suite.seed);
    const char *device = getenv("ORRERY_TEST_DEVICE");
    bool gpu = device != NULL && strcmp(device, "cuda") == 0;
    int first = gpu ? FIRST_GPU : 0, end = gpu ? ISAS : FIRST_GPU;
    if (!open_devices(&suite, first, end)) return 77;
    static struct item items[CHECKS * ISAS];
    static struct CMUnitTest tests[CHECKS * ISAS];
    static char names[CHECKS * ISAS][64];
    size_t n = 0;
    for (int i = first; i < end; i++) {
        for (int c = 0; c < CHECKS; c++) {
            if (argc > 1 && strcmp(argv[1], checks[c].name) != 0) continue;
            items[n] = (struct item){&suite, &checks[c], i};
            snprintf(names[n], sizeof names[n], "%s/%s", checks[c].name, isas[i]);
            tests[n] =
                (struct CMUnitTest){.name = names[n], .test_func = run_item, .initial_state = &items[n]};
            n++;
        }
    }
    int failed = _cmocka_run_group_tests("ops", tests, n, NULL, NULL);
    close_devices(&suite);
    return failed != 0;
}
