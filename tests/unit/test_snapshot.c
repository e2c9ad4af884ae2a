// SPDX-License-Identifier: Apache-2.0
// Saving and resuming on one rank: the same bits as without, and what a changed config may and may not be.
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_step.h"
#include "trainer/metrics.h"
#include "trainer/snapshot.h"

struct saved {
    struct fixture f;
    struct snapshot *snapshot;
};

static void open_saved(struct saved *s, const char *url, struct config_file *file) {
    struct err e = {0};
    open_fixture(&s->f, file);
    snprintf(s->f.rank.ckpt_url, sizeof s->f.rank.ckpt_url, "%s", url);
    if (snapshot_open(&s->snapshot, &s->f.rank, s->f.model, s->f.optim, &s->f.fault, &e))
        fail_msg("%s", e.text);
}

static void close_saved(struct saved *s) {
    snapshot_close(s->snapshot);
    close_fixture(&s->f);
}

static void run_steps(struct saved *s, int64_t lo, int64_t hi) {
    struct err e = {0};
    for (int64_t n = lo; n < hi; n++) {
        struct step_report r = {0};
        int64_t votes[STEP_VOTES] = {0};
        snapshot_say(s->snapshot, votes);
        s->f.batch.first = n * s->f.batch.count;
        if (step_run(s->f.step, &s->f.batch, n, votes, &r, &e)) fail_msg("%s", e.text);
        if (snapshot_hear(s->snapshot, votes, &e)) fail_msg("%s", e.text);
    }
}

static int begin(struct saved *s, int64_t step, struct err *e) {
    struct ckpt_state *state = calloc(1, sizeof *state);
    struct buf yaml;
    buf_init(&yaml, sizeof state->config_yaml - 1);
    *state = (struct ckpt_state){.step = step, .next_sample = step * 8, .seed = 1};
    memset(state->sample_sha256, '0', 64);
    assert_int_equal(config_write_values(s->f.rank.file, &yaml, e), 0);
    memcpy(state->config_yaml, yaml.data, yaml.len);
    int rc = snapshot_begin(s->snapshot, state, e);
    buf_fini(&yaml);
    free(state);
    return rc;
}

static int resume(struct saved *s, int64_t *step, struct err *e) {
    struct ckpt_state *state = calloc(1, sizeof *state);
    bool found = false;
    int rc = snapshot_resume(s->snapshot, &found, state, e);
    *step = found ? state->step : -1;
    free(state);
    return rc;
}

static bool same_bits(struct saved *a, struct saved *b) {
    const struct params *p = model_params(a->f.model);
    if (memcmp(model_weights(a->f.model), model_weights(b->f.model), (size_t)p->elems * sizeof(float)))
        return false;
    for (int i = 0; i < p->n; i++)
        for (int w = 0; w < OPTIM_STATES; w++) {
            const float *x = optim_state_of(a->f.optim, i, (enum optim_state)w);
            const float *y = optim_state_of(b->f.optim, i, (enum optim_state)w);
            if (!x != !y || (x && memcmp(x, y, (size_t)p->list[i].elems * sizeof(float)))) return false;
        }
    return true;
}

#define RUN SMALL, "comm.shards=2", "optim.ema=0.9", "train.steps=20"

static void resuming_gives_the_same_bits(void **state) {
    struct saved calm, first, second;
    struct err e = {0};
    int64_t step;
    open_saved(&calm, "mem:calm", fake_config(RUN));
    run_steps(&calm, 0, 9);
    open_saved(&first, "mem:resume", fake_config(RUN));
    assert_int_equal(resume(&first, &step, &e), 0);
    assert_int_equal(step, -1);
    run_steps(&first, 0, 5);
    assert_int_equal(begin(&first, 5, &e), 0);
    run_steps(&first, 5, 7); // while it is written
    assert_int_equal(snapshot_finish(first.snapshot, &e), 0);
    assert_int_equal(snapshot_newest(first.snapshot), 5);
    open_saved(&second, "mem:resume", fake_config(RUN));
    if (resume(&second, &step, &e)) fail_msg("%s", e.text);
    assert_int_equal(step, 5);
    assert_false(same_bits(&calm, &second));
    run_steps(&second, 5, 9);
    assert_true(same_bits(&calm, &second));
    close_saved(&second);
    close_saved(&first);
    close_saved(&calm);
}

static int64_t signs_of_life(const struct saved *s) {
    const struct blackbox_page *p = blackbox_page(s->f.rank.box);
    int64_t n = 0;
    for (int b = 0; b < BLACKBOX_BUCKETS; b++) n += p->silences[PHASE_INIT][b];
    return n;
}

static void save_once(const char *url, struct config_file *file) {
    struct saved s;
    struct err e = {0};
    open_saved(&s, url, file);
    run_steps(&s, 0, 2);
    assert_int_equal(begin(&s, 2, &e), 0);
    if (snapshot_finish(s.snapshot, &e)) fail_msg("%s", e.text);
    close_saved(&s);
}

// A big checkpoint takes its time to read; a rank that does so is no hung one.
static void who_reads_a_checkpoint_lives(void **state) {
    struct saved s;
    struct err e = {0};
    int64_t step;
    save_once("mem:lives", fake_config(RUN));
    open_saved(&s, "mem:lives", fake_config(RUN));
    int64_t before = signs_of_life(&s);
    assert_int_equal(resume(&s, &step, &e), 0);
    assert_true(signs_of_life(&s) - before > model_params(s.f.model)->n);
    close_saved(&s);
}

static void expect_resume_by(bool force, const char *url, struct config_file *file, int want,
                             const char *word) {
    struct saved s;
    struct err e = {0};
    int64_t step = -1;
    open_saved(&s, url, file);
    s.f.rank.force = force;
    int rc = resume(&s, &step, &e);
    if (rc != want) fail_msg("%d: %s", rc, e.text);
    if (word && !strstr(e.text, word)) fail_msg("'%s' does not name %s", e.text, word);
    if (!want) assert_int_equal(step, 2);
    if (!want) run_steps(&s, 2, 3);
    close_saved(&s);
}

static void expect_resume(const char *url, struct config_file *file, int want, const char *word) {
    expect_resume_by(false, url, file, want, word);
}

static void changed_configs(void **state) {
    save_once("mem:changed", fake_config(RUN));
    expect_resume("mem:changed", fake_config(RUN, "optim.lr=0.001", "train.steps=40"), 0, NULL);
    expect_resume("mem:changed", fake_config(RUN, "data.train=elsewhere"), 0, NULL);
    expect_resume("mem:changed", fake_config(RUN, "optim.kind=adamw"), 0, NULL);
    expect_resume("mem:changed", fake_config(RUN, "optim.ema=0"), 0, NULL);
    expect_resume("mem:changed", fake_config(RUN, "model.layers=2"), -ERR_CONFIG, "model.layers");
    expect_resume("mem:changed", fake_config(RUN, "model.width=48"), -ERR_CONFIG, "model.width");
    expect_resume("mem:changed", fake_config(RUN, "comm.shards=4"), -ERR_CONFIG, "comm.shards");
    expect_resume("mem:changed", fake_config(RUN, "run.seed=9"), -ERR_CONFIG, "run.seed");
}

static void force_lets_data_and_numbers_change(void **state) {
    struct config_file *shapes = fake_config(RUN, "run.seed=9", "model.layers=2");
    save_once("mem:forced", fake_config(RUN));
    expect_resume("mem:forced", fake_config(RUN, "run.seed=9"), -ERR_CONFIG, "--force");
    expect_resume_by(true, "mem:forced", fake_config(RUN, "run.seed=9", "comm.shards=4"), 0, NULL);
    expect_resume_by(true, "mem:forced", shapes, -ERR_CONFIG,
                     "model.layers (saved 1, now 2); put these back, or");
}

static void an_average_can_begin_late(void **state) {
    save_once("mem:late", fake_config(SMALL, "comm.shards=2", "train.steps=20"));
    expect_resume("mem:late", fake_config(RUN), 0, NULL);
}

static void expect_zeros(struct saved *s) {
    const struct params *p = model_params(s->f.model);
    for (int i = 0; i < p->n; i++)
        for (int w = OPTIM_M; w <= OPTIM_V; w++) {
            const float *x = optim_state_of(s->f.optim, i, (enum optim_state)w);
            for (int64_t k = 0; x && p->list[i].group == PARAM_MATRIX && k < p->list[i].elems; k++)
                if (x[k] != 0) fail_msg("%s.%s begins at %g", optim_state_name(w), p->list[i].name, x[k]);
        }
}

// Of matrices, which are all that the two optimisers treat differently.
static void another_optimiser_starts_anew(void **state) {
    static const char *const kinds[] = {"optim.kind=muon", "optim.kind=adamw"};
    static const char *const urls[] = {"mem:muon", "mem:adamw"};
    for (int k = 0; k < 2; k++) {
        struct saved s;
        struct err e = {0};
        int64_t step;
        save_once(urls[k], fake_config(RUN, kinds[k]));
        open_saved(&s, urls[k], fake_config(RUN, kinds[!k]));
        if (resume(&s, &step, &e)) fail_msg("%s", e.text);
        expect_zeros(&s);
        close_saved(&s);
    }
}

static void a_full_disk_fails_the_save_alone(void **state) {
    struct saved s;
    struct err e = {0};
    int64_t step;
    save_once("mem:full", fake_config(RUN));
    open_saved(&s, "mem:full", fake_config(RUN, "fault.inject=enospc:step=3"));
    assert_int_equal(resume(&s, &step, &e), 0);
    run_steps(&s, 2, 3);
    assert_int_equal(begin(&s, 3, &e), 0);
    assert_int_equal(snapshot_finish(s.snapshot, &e), -ERR_IO);
    assert_non_null(strstr(e.text, "No space left"));
    close_saved(&s);
    expect_resume("mem:full", fake_config(RUN), 0, NULL);
}

static void weights_that_are_no_numbers_are_not_saved(void **state) {
    static const float bad[] = {NAN, INFINITY};
    save_once("mem:nan", fake_config(RUN));
    for (int i = 0; i < 2; i++) {
        struct saved s;
        struct err e = {0};
        open_saved(&s, "mem:nan", fake_config(RUN));
        model_weights(s.f.model)[model_params(s.f.model)->list[3].offset + 2] = bad[i];
        assert_int_equal(begin(&s, 3, &e), 0);
        assert_int_equal(snapshot_finish(s.snapshot, &e), -ERR_DATA);
        assert_non_null(strstr(e.text, model_params(s.f.model)->list[3].name));
        close_saved(&s);
    }
    expect_resume("mem:nan", fake_config(RUN), 0, NULL); // from step 2
}

// Steps 1 to 4 are saved; `want` of them are there in the end, from 4 on down.
static void expect_kept(const char *url, const char *inside, size_t want) {
    struct saved s;
    struct err e = {0};
    open_saved(&s, url, fake_config(RUN, "checkpoint.keep=2"));
    for (int64_t n = 1; n <= 4; n++) {
        run_steps(&s, n - 1, n);
        assert_int_equal(begin(&s, n, &e), 0);
    }
    if (snapshot_finish(s.snapshot, &e)) fail_msg("%s", e.text);
    assert_int_equal(snapshot_newest(s.snapshot), 4);
    struct store *store = NULL;
    struct ckpt_entry *list = NULL;
    size_t count = 0;
    assert_int_equal(store_open(&store, inside, &s.f.rank.store, &e), 0);
    assert_int_equal(ckpt_list(store, &list, &count, &e), 0);
    assert_int_equal(count, want);
    for (size_t i = 0; i < count; i++) assert_int_equal(list[i].step, 4 - i);
    free(list);
    store_close(store);
    close_saved(&s);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    return remove(path);
}

// Room for its own copies is not enough: the other ranks of the node keep as many.
static void copies_in_memory_need_room_for_all_ranks(void **state) {
    const char *const ranks[] = {"1", "1000000000"}, *const urls[] = {"mem:fits", "mem:full-node"};
    for (int k = 0; k < 2; k++) {
        char dir[] = "/dev/shm/orrery-test-XXXXXX", box[64], copies[64];
        assert_non_null(mkdtemp(dir));
        snprintf(box, sizeof box, "%s/rank-0", dir);
        snprintf(copies, sizeof copies, "%s/ckpt", dir);
        setenv("ORRERY_BLACKBOX", box, 1);
        setenv("OMPI_COMM_WORLD_LOCAL_SIZE", ranks[k], 1);
        save_once(urls[k], fake_config(RUN, "checkpoint.memory=on"));
        assert_int_equal(access(copies, F_OK) == 0, k == 0);
        nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
    unsetenv("ORRERY_BLACKBOX");
    unsetenv("OMPI_COMM_WORLD_LOCAL_SIZE");
}

static void old_ones_go(void **state) {
    expect_kept("mem:old", "mem:old", 2);
}

// The save is complete all the same.
static void old_ones_that_may_not_be_deleted_stay(void **state) {
    expect_kept("fault:nodelete=100%:mem:stay", "mem:stay", 4);
}

// ---- metrics.jsonl

static void write_steps(const char *dir, int64_t keep, int64_t lo, int64_t hi) {
    struct metrics *m = NULL;
    struct err e = {0};
    struct modality_set set = {0};
    struct step_report r = {.loss = 0.5};
    if (metrics_open(&m, dir, keep, &e)) fail_msg("%s", e.text);
    for (int64_t n = lo; n <= hi; n++) {
        struct metrics_line line = {.step = n, .set = &set, .report = &r};
        assert_int_equal(metrics_write(m, &line, &e), 0);
    }
    metrics_close(m);
}

static int count_lines(const char *path, const char *word) {
    struct buf text;
    struct err e = {0};
    int n = 0;
    buf_init(&text, 1 << 20);
    if (bytes_read_file(path, 1 << 20, &text, &e)) fail_msg("%s", e.text);
    for (const char *at = text.data; (at = strstr(at, word)); at++) n++;
    buf_fini(&text);
    return n;
}

static void metrics_are_cut_where_a_run_resumes(void **state) {
    char dir[] = "/tmp/orrery-metrics-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    write_steps(dir, 0, 1, 9);
    FILE *f = fopen(path, "a");
    fputs("{\"step\":10,\"lo", f); // a kill in mid-line
    fclose(f);
    write_steps(dir, 6, 7, 8);
    assert_int_equal(count_lines(path, "\n"), 8);
    assert_int_equal(count_lines(path, "\"step\":7,"), 1);
    assert_int_equal(count_lines(path, "\"step\":9,"), 0);
    write_steps(dir, 0, 1, 1); // a fresh start
    assert_int_equal(count_lines(path, "\n"), 1);
    unlink(path);
    rmdir(dir);
}

// More than a gigabyte, most of it a hole; there are lines wherever one piece that is read meets the next.
static void large_metrics_are_cut_from_the_end(void **state) {
    char dir[] = "/tmp/orrery-metrics-XXXXXX", path[64];
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    write_steps(dir, 0, 1, 3);
    assert_int_equal(truncate(path, ((off_t)1 << 30) + 4095), 0);
    FILE *f = fopen(path, "a");
    fputs("\n", f);
    for (int n = 4; n < 9000; n++)
        fprintf(f, "{\"step\":%d,\"loss\":0.25,\"more\":[%*d]}\n", n, 1 + 31 * n % 97, 1);
    fputs("{\"step\":9000,\"lo", f);
    fclose(f);
    for (int keep = 9000; keep > 3; keep -= 1799) {
        struct metrics *m = NULL;
        struct err e = {0};
        char last[256] = "", want[32];
        if (metrics_open(&m, dir, keep, &e)) fail_msg("%s", e.text);
        metrics_close(m);
        f = fopen(path, "r");
        fseek(f, -200, SEEK_END);
        while (fgets(last, sizeof last, f)) {
        }
        fclose(f);
        snprintf(want, sizeof want, "{\"step\":%d,", keep < 8999 ? keep : 8999);
        if (strncmp(last, want, strlen(want)) != 0) fail_msg("keep %d: %s", keep, last);
        assert_int_equal(last[strlen(last) - 1], '\n');
    }
    write_steps(dir, 3, 4, 4); // the lines behind the hole go
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 1 << 20);
    assert_int_equal(count_lines(path, "\n"), 4);
    unlink(path);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resuming_gives_the_same_bits),
        cmocka_unit_test(who_reads_a_checkpoint_lives),
        cmocka_unit_test(changed_configs),
        cmocka_unit_test(force_lets_data_and_numbers_change),
        cmocka_unit_test(an_average_can_begin_late),
        cmocka_unit_test(another_optimiser_starts_anew),
        cmocka_unit_test(a_full_disk_fails_the_save_alone),
        cmocka_unit_test(weights_that_are_no_numbers_are_not_saved),
        cmocka_unit_test(copies_in_memory_need_room_for_all_ranks),
        cmocka_unit_test(old_ones_go),
        cmocka_unit_test(old_ones_that_may_not_be_deleted_stay),
        cmocka_unit_test(metrics_are_cut_where_a_run_resumes),
        cmocka_unit_test(large_metrics_are_cut_from_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
