// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/config_rows.h"
#include "base/json.h"

static char path[64];

static int make_file(void **state) {
    snprintf(path, sizeof path, "/tmp/orrery-config-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    return unlink(path);
}

static void write_file(const char *text, size_t n) {
    struct err e = {0};
    assert_int_equal(bytes_write_file(path, text, n, &e), 0);
}

static struct config_file *load(const char *text, const char *const *overrides, size_t n) {
    struct err e = {0};
    struct config_file *f;
    write_file(text, strlen(text));
    if (config_load(&f, path, overrides, n, &e)) fail_msg("%s", e.text);
    return f;
}

// Every line of `want` ("4:3 part of the message") must be found; so many messages, and no more.
static void refuse_bytes(const char *text, size_t n, const char *const *overrides, size_t n_overrides,
                         const char *const *want, size_t n_want) {
    struct err e = {0};
    struct config_file *f;
    struct buf messages;
    write_file(text, n);
    buf_init(&messages, (size_t)1 << 20);
    assert_int_equal(config_load_all(&f, &messages, path, overrides, n_overrides, &e), -ERR_CONFIG);
    assert_null(f);
    assert_non_null(strstr(e.text, "error: "));
    size_t lines = 0;
    for (const char *p = messages.data; (p = strchr(p, '\n')); p++) lines++;
    for (size_t i = 0; i < n_want; i++) {
        char line[300];
        const char *rest = strchr(want[i], ' ') + 1;
        bool from_file = want[i][0] >= '0' && want[i][0] <= '9';
        snprintf(line, sizeof line, "%s%s%.*s: error: %s", from_file ? path : "", from_file ? ":" : "",
                 (int)(rest - want[i] - 1), from_file ? want[i] : "", rest);
        if (!from_file) snprintf(line, sizeof line, "%s", want[i]);
        if (!strstr(messages.data, line)) fail_msg("no '%s' in:\n%s", line, messages.data);
    }
    if (lines != n_want) fail_msg("%zu messages, not %zu:\n%s", lines, n_want, messages.data);
    buf_fini(&messages);
}

#define REFUSE(text, ...)                                                                                    \
    do {                                                                                                     \
        const char *const want[] = {__VA_ARGS__};                                                            \
        refuse_bytes(text, strlen(text), NULL, 0, want, sizeof want / sizeof *want);                         \
    } while (0)

#define REFUSE_OVERRIDE(override, ...)                                                                       \
    do {                                                                                                     \
        const char *const want[] = {__VA_ARGS__}, *const overrides[] = {override};                           \
        refuse_bytes("", 0, overrides, 1, want, sizeof want / sizeof *want);                                 \
    } while (0)

#define ACCEPT(yaml)                                                                                         \
    do {                                                                                                     \
        struct err why = {0};                                                                                \
        struct config_file *good = NULL;                                                                     \
        if (config_parse(&good, "test", yaml, strlen(yaml), &why)) fail_msg("%s", why.text);                 \
        config_close(good);                                                                                  \
    } while (0)

// ---- values

static void defaults_are_whole(void **state) {
    struct err e = {0};
    struct config_file *f;
    assert_int_equal(config_load(&f, NULL, NULL, 0, &e), 0);
    const struct config *c = config_values(f);
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        char text[CONFIG_VALUE_BYTES], why[CONFIG_TEXT_BYTES];
        struct config copy = *c;
        bool plain = config_rows[i].type != CONFIG_TYPE_TEXT;
        config_rows_format(&config_rows[i], c, text);
        if (!config_rows_parse(&config_rows[i], &copy, text, strlen(text), plain, why, sizeof why))
            fail_msg("default of %s: %s", config_rows[i].name, why);
        assert_string_equal(config_origin(f, config_rows[i].name), "defaults");
        assert_true(strlen(config_rows[i].name) < CONFIG_NAME_BYTES);
        assert_ptr_equal(config_rows_named(config_rows[i].name), &config_rows[i]);
    }
    assert_string_equal(config_enum_word("device", c->top_device), "auto");
    assert_string_equal(config_enum_word("comm.reduce", c->comm_reduce), "exact");
    config_close(f);
    config_close(NULL);
}

static void values_come_from_the_file(void **state) {
    struct config_file *f = load("# a comment\n"
                                 "device: cpu\n"
                                 "run:\n"
                                 "  seed: 0x10\n"
                                 "  dir: 'it''s here'\n"
                                 "train: {steps: +20, \"decay\": .25, batch: 0o10}\n"
                                 "store:\n"
                                 "  path_style: False\n"
                                 "eval:\n"
                                 "data:\n"
                                 "  train: 2026\n"
                                 "  eval: \"\"\n",
                                 NULL, 0);
    const struct config *c = config_values(f);
    assert_string_equal(config_enum_word("device", c->top_device), "cpu");
    assert_int_equal(c->run_seed, 16);
    assert_string_equal(c->run_dir, "it's here");
    assert_int_equal(c->train_steps, 20);
    assert_true(c->train_decay == 0.25);
    assert_int_equal(c->train_batch, 8);
    assert_false(c->store_path_style);
    assert_string_equal(c->data_train, "2026");
    char want[100];
    snprintf(want, sizeof want, "%s:6:9", path);
    assert_string_equal(config_origin(f, "train.steps"), want);
    assert_string_equal(config_origin(f, "train.warmup"), "defaults");
    assert_null(config_origin(f, "train.nonsense"));
    assert_string_equal(config_enum_word("train.on_nan", CONFIG_train_on_nan_rollback), "rollback");
    assert_string_equal(config_enum_word("model.preset", CONFIG_model_preset_14b), "14b");
    assert_null(config_enum_word("device", 3));
    assert_null(config_enum_word("device", -1));
    assert_null(config_enum_word("train.steps", 0));
    config_close(f);
}

static void empty_files_are_the_defaults(void **state) {
    static const char *const empty[] = {"",     "# nothing\n", "---\n",       "---\n...\n",
                                        "{}\n", "~\n",         "\xef\xbb\xbf"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) config_close(load(empty[i], NULL, 0));
}

static void overrides_win_and_the_last_one_most(void **state) {
    const char *const overrides[] = {"train.steps=7", "run.dir=a=b # c", "train.steps=9", "device=cpu",
                                     "data.eval="};
    struct config_file *f = load("train: {steps: 5}\ndata: {eval: x}\n", overrides, 5);
    const struct config *c = config_values(f);
    assert_int_equal(c->train_steps, 9);
    assert_string_equal(c->run_dir, "a=b # c");
    assert_string_equal(c->data_eval, "");
    assert_string_equal(config_origin(f, "train.steps"), "command line");
    assert_string_equal(config_origin(f, "device"), "command line");
    config_close(f);
}

// What is written beside the preset or later wins over it; what was written earlier does not.
static void presets_stand_where_they_are_written(void **state) {
    static const char *const on_top[] = {"model.preset=xl", "model.layers=2"};
    struct config_file *f = load("model: {preset: b, layers: 5}\n", NULL, 0);
    const struct config *c = config_values(f);
    assert_int_equal(c->model_width, 768);
    assert_int_equal(c->model_layers, 5);
    assert_string_equal(config_origin(f, "model.width"), "preset b");
    config_close(f);
    f = load("model: {width: 96, layers: 3, head_dim: 32}\n", on_top, 2);
    c = config_values(f);
    assert_int_equal(c->model_width, 2048);
    assert_int_equal(c->model_kv_heads, 4);
    assert_int_equal(c->model_layers, 2);
    config_close(f);
    REFUSE("model: {preset: b, kv_heads: 5}\n",
           "1:20 'model.kv_heads' is 5, which does not divide the 12 heads (model.width / model.head_dim)");
    REFUSE("model: {preset: huge}\n", "1:17 'model.preset' wants one of none, demo, s, b, l, xl, 14b");
}

static void every_preset_word_has_its_row(void **state) {
    static const char *const rows[] = {
#define CONFIG_PRESET(name, width, layers, head_dim, kv_heads, cond_width) #name,
#include "configs/presets.def"
    };
    const int n = sizeof rows / sizeof *rows;
    for (int i = 0; i < n; i++) assert_string_equal(config_enum_word("model.preset", i + 1), rows[i]);
    assert_null(config_enum_word("model.preset", n + 1));
}

// ---- refusals

static void unknown_keys_get_a_suggestion(void **state) {
    REFUSE("trian:\n  steps: 5\n", "1:1 unknown key 'trian'; did you mean 'train'?");
    REFUSE("train:\n  stpes: 5\n", "2:3 unknown key 'stpes' in train; did you mean 'steps'?");
    REFUSE("train:\n  lr: 5\n", "2:3 unknown key 'lr' in train; did you mean 'optim.lr'?");
    REFUSE("steps: 5\n", "1:1 unknown key 'steps'; did you mean 'train.steps'?");
    REFUSE("train.steps: 5\n", "1:1 unknown key 'train.steps'; did you mean 'train: {steps: ...}'?");
    REFUSE("trian.stpes: 5\n", "1:1 unknown key 'trian.stpes'; did you mean 'train: {steps: ...}'?");
    REFUSE("train:\n  optim.lr: 5\n",
           "2:3 unknown key 'optim.lr' in train; did you mean 'optim: {lr: ...}'?");
    REFUSE("top.device: cpu\n", "1:1 unknown key 'top.device'; did you mean 'device'?");
    REFUSE("top: {device: cpu}\n", "1:1 unknown key 'top'\n");
    REFUSE("devise: cpu\n", "1:1 unknown key 'devise'; did you mean 'device'?");
    REFUSE("zzzzzzzz: {a: [b, {c: d}]}\n", "1:1 unknown key 'zzzzzzzz'\n");
    REFUSE("\"\": 5\n", "1:1 unknown key ''\n");
    REFUSE("\"a\\nb\\e[31m\": 5\n", "1:1 unknown key 'a?b?[31m'");
    REFUSE_OVERRIDE("trian.steps=3",
                    "command line: error: unknown key 'trian.steps'; did you mean 'train.steps'?");
    REFUSE_OVERRIDE("seed=3", "command line: error: unknown key 'seed'; did you mean 'run.seed'?");
    REFUSE_OVERRIDE("top.device=cpu",
                    "command line: error: unknown key 'top.device'; did you mean 'device'?");
    REFUSE_OVERRIDE("train.steps", "command line: error: 'train.steps' is no override; write key=value");
    REFUSE_OVERRIDE("=3", "command line: error: unknown key ''");
    REFUSE_OVERRIDE("train=3", "command line: error: unknown key 'train'");
}

static void wrong_values_name_what_is_wanted(void **state) {
    REFUSE("train:\n  steps: many\n",
           "2:10 'train.steps' wants a whole number from 1 to 1000000000, got 'many'");
    REFUSE("train:\n  steps: 0\n", "2:10 'train.steps' wants a whole number from 1 to 1000000000, got '0'");
    REFUSE("train:\n  steps: 1.5\n", "2:10 'train.steps' wants a whole number");
    REFUSE("train:\n  steps: 99999999999999999999\n", "2:10 'train.steps' wants a whole number");
    REFUSE("train:\n  steps: \"5\"\n",
           "2:10 'train.steps' wants a whole number from 1 to 1000000000, got the text \"5\"");
    REFUSE("train:\n  steps:\n", "2:9 'train.steps' wants a whole number from 1 to 1000000000, got nothing");
    REFUSE("train:\n  decay: 1.01\n", "2:10 'train.decay' wants a number from 0 to 1, got '1.01'");
    REFUSE("train:\n  decay: .nan\n", "2:10 'train.decay' wants a number from 0 to 1, got '.nan'");
    REFUSE("train:\n  decay: .inf\n", "2:10 'train.decay' wants a number");
    REFUSE("train:\n  decay: 1e400\n", "2:10 'train.decay' wants a number");
    REFUSE("store:\n  path_style: yes\n", "2:15 'store.path_style' wants true or false, got 'yes'");
    REFUSE("device: gpu\n", "1:9 'device' wants one of auto, cpu, cuda, got 'gpu'");
    REFUSE("train:\n  steps: [5]\n",
           "2:10 'train.steps' wants a whole number from 1 to 1000000000, got a list");
    REFUSE("train:\n  steps: {a: 5}\n",
           "2:10 'train.steps' wants a whole number from 1 to 1000000000, got a mapping");
    REFUSE("run:\n  dir: [a, b]\n", "2:8 'run.dir' wants text of at most 511 bytes on one line, got a list");
    REFUSE("run:\n  dir: ~\n", "2:8 'run.dir' wants text of at most 511 bytes on one line, got nothing");
    REFUSE("run:\n  dir: \"a\\nb\"\n",
           "2:8 'run.dir' wants text of at most 511 bytes on one line, got 'a?b'");
    REFUSE("run:\n  dir: \"a\\0b\"\n", "2:8 'run.dir' wants text");
    REFUSE("run: 5\n", "1:6 'run' is a section: its keys stand indented below it");
    REFUSE("run: [5]\n", "1:6 'run' is a section: its keys stand indented below it");
    REFUSE("device: {}\n", "1:9 'device' wants one of auto, cpu, cuda, got a mapping");
    REFUSE_OVERRIDE("run.dir=\xff\xfe", "command line: error: 'run.dir' wants text");
    REFUSE_OVERRIDE("train.steps= 5", "command line: error: 'train.steps' wants a whole number");
}

static void longest_text_fits_and_longer_is_refused(void **state) {
    char text[CONFIG_TEXT_BYTES + 20];
    int n = snprintf(text, sizeof text, "run.dir=");
    memset(text + n, 'x', CONFIG_TEXT_BYTES);
    text[n + CONFIG_TEXT_BYTES] = 0;
    REFUSE_OVERRIDE(text, "command line: error: 'run.dir' wants text of at most 511 bytes");
    text[n + CONFIG_TEXT_BYTES - 1] = 0;
    const char *const overrides[] = {text};
    struct config_file *f = load("", overrides, 1);
    assert_int_equal(strlen(config_values(f)->run_dir), CONFIG_TEXT_BYTES - 1);
    config_close(f);
}

static void yaml_s_odd_corners_are_refused(void **state) {
    REFUSE("run: &a {seed: 1}\n", "1:6 anchors and aliases are not allowed");
    REFUSE("run: {seed: &a 1}\ntrain: {steps: *a}\n", "1:13 anchors and aliases are not allowed",
           "2:16 anchors and aliases are not allowed");
    REFUSE("run: {seed: !!int 1}\n", "1:13 tags are not allowed");
    REFUSE("run: !x {seed: 1}\n", "1:6 tags are not allowed");
    REFUSE("train:\n  steps: 1\n  steps: 2\n", "3:3 duplicate key 'steps'; it stands in line 2 already");
    REFUSE("run: {}\ntrain: {}\nrun: {seed: 1}\n", "3:1 duplicate key 'run'; it stands in line 1 already");
    REFUSE("device: cpu\ndevice: cpu\n", "2:1 duplicate key 'device'; it stands in line 1 already");
    REFUSE("run: {}\n---\ntrain: {}\n", "2:1 a config is one YAML document");
    REFUSE("- a\n- b\n", "1:1 a config is a mapping of sections");
    REFUSE("text\n", "1:1 a config is a mapping of sections");
    REFUSE("? [a]\n: b\n", "1:3 a key must be a word");
    REFUSE("train:\n  steps: 5\n bad\n",
           "3:2 not valid YAML: while parsing a block mapping: did not find expected key");
    REFUSE("train:\n\tsteps: 5\n", "2:1 not valid YAML");
    REFUSE("run: {dir: \"\\q\"}\n", "1:13 not valid YAML");
    REFUSE("run:\n  dir: \xff\n", "2:8 not valid YAML");
    REFUSE("run: {dir: \"x\n", "2:1 not valid YAML");
    static const char *const nul[] = {"1:5 not a text file in UTF-8"}, *const utf16[] = {
                                                                           "1:1 not a text file"};
    refuse_bytes("run:\0 x", 7, NULL, 0, nul, 1);
    refuse_bytes("\xff\xfe\x72\0", 4, NULL, 0, utf16, 1);
}

static void all_errors_come_at_once(void **state) {
    REFUSE("TRAIN:\n  steps: 1\n", "1:1 unknown key 'TRAIN'; did you mean 'train'?");
    REFUSE("trian: {}\ntrain:\n  steps: 0\n  x: 1\nrun:\n  seed: -1\n", "1:1 unknown key 'trian'",
           "3:10 'train.steps' wants", "4:3 unknown key 'x' in train", "6:9 'run.seed' wants");
}

static void relations_between_keys_are_checked(void **state) {
    REFUSE("train:\n  batch: 10\n", "2:3 'train.batch' is 10, which is no multiple of 'comm.shards' (4)");
    REFUSE("model:\n  width: 100\n",
           "2:3 'model.width' is 100, which is no multiple of 'model.head_dim' (32)");
    REFUSE("video:\n  patch: 5\n", "2:3 'video.height' is 32, which is no multiple of 'video.patch' (5)",
           "2:3 'video.width' is 32, which is no multiple of 'video.patch' (5)");
    REFUSE("mix: {forward: 0, independent: 0, inverse: 0, policy: 0, cross: 0}\n",
           "1:7 the shares of 'mix' add up to 0");
    REFUSE_OVERRIDE("comm.shards=5",
                    "command line: error: 'train.batch' is 12, which is no multiple of 'comm.shards' (5)");
}

static void what_ranks_cannot_do_is_told_before_they_start(void **state) {
    REFUSE("comm:\n  tp: 2\n  pp: 3\n", "2:3 comm.tp is 2: tensor parallelism is not supported yet",
           "3:3 comm.pp is 3: pipeline parallelism");
    REFUSE("comm:\n  cp: 2\n", "2:3 comm.cp is 2: context parallelism");
    REFUSE("device: cpu\ncomm:\n  backend: nccl\n", "3:3 comm.backend nccl moves what is on GPUs");
    ACCEPT("comm:\n  zero: 2\n  reduce: exact\n");
    ACCEPT("comm:\n  backend: nccl\n");
}

static char *repeat(const char *piece, size_t times) {
    size_t n = strlen(piece);
    char *text = malloc(n * times + 1);
    assert_non_null(text);
    for (size_t i = 0; i < times; i++) memcpy(text + i * n, piece, n);
    text[n * times] = 0;
    return text;
}

static void hostile_files_are_refused_at_once(void **state) {
    char *text = repeat("[", 200000);
    REFUSE(text, "1:1 a config is a mapping", "1:17 nested deeper than 16 levels");
    free(text);
    text = repeat("{a: ", 200000);
    REFUSE(text, "1:2 unknown key 'a'", "1:65 nested deeper than 16 levels");
    free(text);
    text = repeat("- ", 200000);
    REFUSE(text, "1:1 a config is a mapping", "1:33 nested deeper than 16 levels");
    free(text);
    text = repeat("? ", 200000);
    REFUSE(text, "1:3 a key must be a word", "1:33 nested deeper than 16 levels");
    free(text);
    text = repeat("#", ((size_t)1 << 20) + 1);
    static const char *const large[] = {": error: "};
    refuse_bytes(text, strlen(text), NULL, 0, large, 1);
    text[(size_t)1 << 20] = 0;
    config_close(load(text, NULL, 0)); // one byte less is a long comment
    free(text);
}

static void errors_are_bounded(void **state) {
    struct err e = {0};
    struct config_file *f;
    struct buf messages;
    struct buf text;
    buf_init(&messages, (size_t)1 << 20);
    buf_init(&text, (size_t)1 << 20);
    for (int i = 0; i < 60000; i++) assert_int_equal(buf_appendf(&text, &e, "k%d: 1\n", i), 0);
    write_file(text.data, text.len);
    assert_int_equal(config_load_all(&f, &messages, path, NULL, 0, &e), -ERR_CONFIG);
    assert_non_null(strstr(messages.data, ":100:1: error: unknown key 'k99'"));
    assert_null(strstr(messages.data, "'k100'"));
    assert_non_null(strstr(messages.data, "more than 100 errors"));
    assert_non_null(strstr(e.text, " more"));
    buf_fini(&text);
    buf_fini(&messages);
}

static void a_missing_file_is_named(void **state) {
    struct err e = {0};
    struct config_file *f;
    assert_int_equal(config_load(&f, "/nonexistent/demo.yaml", NULL, 0, &e), -ERR_MISSING);
    assert_non_null(strstr(e.text, "/nonexistent/demo.yaml"));
    err_clear(&e);
    assert_int_equal(config_load(&f, "/tmp", NULL, 0, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "/tmp: error: /tmp is a folder"));
}

// ---- writing

static void what_is_written_reads_back_bit_for_bit(void **state) {
    const char *const overrides[] = {
        "run.dir=a \"b\" \\ \xc3\xa9 # \xe2\x80\xa8 \xc2\x85 \xf0\x9f\x98\x80 '~'",
        "slurm.partition=null",
        "data.train=",
        "optim.lr=0.30000000000000004",
        "video.weight=5e-324",
        "mix.tau_mean=-0",
        "device=cuda",
        "store.path_style=false",
        "run.seed=9007199254740991"};
    struct err e = {0};
    struct buf out;
    struct config_file *f = load("train: {steps: 5}\n", overrides, 9), *again;
    buf_init(&out, (size_t)1 << 20);
    assert_int_equal(config_write(f, &out, &e), 0);
    assert_non_null(strstr(out.data, "  lr: 0.30000000000000004  # command line\n"));
    char want[100];
    snprintf(want, sizeof want, "  steps: 5  # %s:1:9\n", path);
    assert_non_null(strstr(out.data, want));
    again = load(out.data, NULL, 0);
    assert_memory_equal(config_values(f), config_values(again), sizeof(struct config));
    assert_true(config_hash(config_values(f)) == config_hash(config_values(again)));
    config_close(again);
    buf_clear(&out);
    assert_int_equal(config_write_values(f, &out, &e), 0);
    assert_null(strstr(out.data, "command line"));
    assert_null(strstr(out.data, path));
    again = load(out.data, NULL, 0);
    assert_memory_equal(config_values(f), config_values(again), sizeof(struct config));
    config_close(again);
    config_close(f);
    buf_fini(&out);
}

static void a_full_buffer_is_an_error(void **state) {
    struct err e = {0};
    struct buf out;
    struct config_file *f = load("", NULL, 0);
    buf_init(&out, 1000);
    assert_int_equal(config_write(f, &out, &e), -ERR_DATA);
    buf_fini(&out);
    config_close(f);
}

// ---- comparing

struct seen {
    int n, model, data, run;
    char last[64], a[64], b[64];
};

static void see(void *arg, const char *key, const char *a, const char *b, enum config_change change) {
    struct seen *s = arg;
    s->n++;
    s->model += change == CHANGE_MODEL;
    s->data += change == CHANGE_DATA;
    s->run += change == CHANGE_RUN;
    snprintf(s->last, sizeof s->last, "%s", key);
    snprintf(s->a, sizeof s->a, "%s", a);
    snprintf(s->b, sizeof s->b, "%s", b);
}

static void differences_are_told_with_what_they_mean(void **state) {
    struct seen s = {0};
    const char *const overrides[] = {"optim.lr=0.5", "model.layers=4", "run.seed=2", "loss.weighting=ramp"};
    struct config_file *a = load("", NULL, 0), *b = load("", overrides, 4);
    config_diff(config_values(a), config_values(a), see, &s);
    assert_int_equal(s.n, 0);
    config_diff(config_values(a), config_values(b), see, &s);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.model, 1);
    assert_int_equal(s.data, 1);
    assert_int_equal(s.run, 2);
    assert_string_equal(s.last, "optim.lr");
    assert_string_equal(s.a, "0.006");
    assert_string_equal(s.b, "0.5");
    config_close(a);
    config_close(b);
}

static uint64_t hash_with(const char *override) {
    struct config_file *f = load("", &override, 1);
    uint64_t h = config_hash(config_values(f));
    config_close(f);
    return h;
}

static void the_hash_covers_model_and_data_only(void **state) {
    uint64_t base = hash_with("train.steps=1000");
    assert_true(hash_with("optim.lr=0.5") == base);
    assert_true(hash_with("run.dir=elsewhere") == base);
    assert_true(hash_with("model.layers=4") != base);
    assert_true(hash_with("run.seed=2") != base);
    assert_true(hash_with("model.modalities=video") != base);
}

// ---- generated pages

static void every_key_is_explained(void **state) {
    struct err e = {0};
    struct buf all, page, schema, one;
    struct json *doc;
    struct config_file *f = load("", NULL, 0);
    buf_init(&all, (size_t)1 << 20);
    buf_init(&page, (size_t)1 << 20);
    buf_init(&schema, (size_t)1 << 20);
    buf_init(&one, (size_t)1 << 20);
    assert_int_equal(config_explain(NULL, &all, &e), 0);
    assert_int_equal(config_reference_md(&page, &e), 0);
    assert_int_equal(config_schema_json(&schema, &e), 0);
    assert_int_equal(json_parse(&doc, schema.data, schema.len, "schema", &e), 0);
    const struct json_value *top = json_get(json_root(doc), "properties");
    for (size_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        bool is_top = !strchr(row->name, '.');
        assert_non_null(strstr(all.data, row->help));
        assert_non_null(strstr(page.data, row->help));
        const struct json_value *v = is_top ? top : json_get(json_get(top, row->section), "properties");
        assert_true(json_is_object(json_get(v, row->key)));
        assert_int_equal(config_explain(row->name, &one, &e), 0);
    }
    buf_clear(&one);
    assert_int_equal(config_explain("train.batch", &one, &e), 0);
    assert_string_equal(one.data,
                        "train.batch\n    sequences per step over all ranks\n    a whole number from 1 to "
                        "1048576; default 12; when a run resumes, a change is refused: numbers differ\n");
    buf_clear(&one);
    assert_int_equal(config_explain("mix", &one, &e), 0);
    assert_non_null(strstr(one.data, "mix.forward"));
    assert_null(strstr(one.data, "train.steps"));
    assert_int_equal(config_explain("train.stpes", &one, &e), -ERR_USAGE);
    assert_string_equal(e.text, "unknown key 'train.stpes'; did you mean 'train.steps'?");
    json_destroy(doc);
    config_close(f);
    buf_fini(&all);
    buf_fini(&page);
    buf_fini(&schema);
    buf_fini(&one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_whole),
        cmocka_unit_test(values_come_from_the_file),
        cmocka_unit_test(empty_files_are_the_defaults),
        cmocka_unit_test(presets_stand_where_they_are_written),
        cmocka_unit_test(every_preset_word_has_its_row),
        cmocka_unit_test(overrides_win_and_the_last_one_most),
        cmocka_unit_test(unknown_keys_get_a_suggestion),
        cmocka_unit_test(wrong_values_name_what_is_wanted),
        cmocka_unit_test(longest_text_fits_and_longer_is_refused),
        cmocka_unit_test(yaml_s_odd_corners_are_refused),
        cmocka_unit_test(all_errors_come_at_once),
        cmocka_unit_test(relations_between_keys_are_checked),
        cmocka_unit_test(what_ranks_cannot_do_is_told_before_they_start),
        cmocka_unit_test(hostile_files_are_refused_at_once),
        cmocka_unit_test(errors_are_bounded),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(what_is_written_reads_back_bit_for_bit),
        cmocka_unit_test(a_full_buffer_is_an_error),
        cmocka_unit_test(differences_are_told_with_what_they_mean),
        cmocka_unit_test(the_hash_covers_model_and_data_only),
        cmocka_unit_test(every_key_is_explained),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
