// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_config.h"
#include "trainer/schedule.h"

static void near(double got, double want) {
    if (!(fabs(got - want) <= 1e-12)) fail_msg("%.15g, not %.15g", got, want);
}

static void warm_up_flat_decay(void **state) {
    struct config_file *f = fake_config("train.steps=1000", "train.warmup=100", "train.decay=0.4",
                                        "train.floor=0.02", "optim.lr=0.01");
    const struct config *c = config_values(f);
    near(schedule_rate(c, 0), 0.0001);
    near(schedule_rate(c, 49), 0.005);
    near(schedule_rate(c, 99), 0.01);
    near(schedule_rate(c, 600), 0.01);
    near(schedule_rate(c, 800), 0.005);
    near(schedule_rate(c, 999), 0.01 * 0.02);
    config_close(f);
}

static void without_warm_up_or_decay(void **state) {
    struct config_file *f = fake_config("train.steps=10", "train.warmup=0", "train.decay=0", "optim.lr=0.5");
    for (int64_t n = 0; n < 10; n++) near(schedule_rate(config_values(f), n), 0.5);
    config_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_flat_decay),
        cmocka_unit_test(without_warm_up_or_decay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
