// SPDX-License-Identifier: Apache-2.0
// Every op of ops.def, on every instruction set that this processor has.
#include <setjmp.h>
#include <stdarg.h>
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

static const char *const isas[] = {"portable", "avx2", "avx512"};

enum { CHECKS = sizeof checks / sizeof *checks, ISAS = sizeof isas / sizeof *isas };

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
    for (int round = 0; round < TRIAL_ROUNDS; round++) {
        trial_begin(&t, round);
        item->check->run(&t);
        trial_end(&t);
    }
}

static void open_devices(struct suite *s) {
    for (int i = 0; i < ISAS; i++) {
        setenv("ORRERY_ISA", isas[i], 1);
        for (int team = 0; team < TRIAL_TEAMS; team++) {
            struct err e = {0};
            if (device_open_cpu(&s->device[i][team], team + 1, &e) != 0) {
                printf("%s\n", e.text);
                s->device[i][team] = NULL;
            }
        }
    }
    unsetenv("ORRERY_ISA");
}

static void close_devices(struct suite *s) {
    for (int i = 0; i < ISAS; i++) {
        for (int team = 0; team < TRIAL_TEAMS; team++) device_close(s->device[i][team]);
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
    open_devices(&suite);
    static struct item items[CHECKS * ISAS];
    static struct CMUnitTest tests[CHECKS * ISAS];
    static char names[CHECKS * ISAS][64];
    size_t n = 0;
    for (int i = 0; i < ISAS; i++) {
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
