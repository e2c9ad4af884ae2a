// SPDX-License-Identifier: Apache-2.0
#include "launcher/plan_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "launcher/units.h"

#define TEXT_BYTES ((size_t)8 << 20)
#define DEPTH_MAX  16

static double mib(int64_t bytes) {
    return (double)bytes / 1048576;
}

static struct estimate_load load_of(const struct plan_show *s) {
    const struct json_value *p = s->plan, *first = json_at(json_get(p, "memory"), 0);
    double share = (double)json_int_or(p, "sequences_per_rank_most", 0) /
                   (double)json_int_or(p, "sequences_per_step", 0);
    double weights = (double)json_int_or(first, "weights", 0);
    return (struct estimate_load){.precision = s->precision,
                                  .ranks = json_int_or(p, "ranks", 0),
                                  .flops = json_double_or(p, "flops_per_step", 0) * share,
                                  .state_bytes = 2 * weights + (double)json_int_or(first, "optimiser", 0),
                                  .bytes_sent = (double)json_int_or(p, "bytes_sent_per_step_and_rank", 0),
                                  .steps = json_int_or(p, "steps", 0)};
}

// ---- for people

static void show_layout(const struct plan_show *s) {
    const struct json_value *p = s->plan;
    int64_t least = json_int_or(p, "shards_per_rank_least", 0),
            most = json_int_or(p, "shards_per_rank_most", 0);
    int64_t ranks = json_int_or(p, "ranks", 0);
    printf("layout       %" PRId64 " rank%s x %d thread%s here; %" PRId64 " logical shards of the batch, ",
           ranks, ranks == 1 ? "" : "s", s->threads, s->threads == 1 ? "" : "s", json_int_or(p, "shards", 0));
    if (least == most)
        printf("%" PRId64 " a rank\n", most);
    else
        printf("%" PRId64 " or %" PRId64 " a rank: those with %" PRId64 " set the pace\n", least, most, most);
}

static void show_batch(const struct plan_show *s) {
    const struct json_value *p = s->plan;
    int64_t steps = json_int_or(p, "steps", 0), batch = json_int_or(p, "sequences_per_step", 0);
    printf("batch        %" PRId64 " sequences x %" PRId64 " frames x %" PRId64 " tokens = %" PRId64
           " tokens a step; micro-batch %" PRId64 ", at most %" PRId64 " sequences a rank\n",
           batch, json_int_or(p, "frames_per_sequence", 0), json_int_or(p, "tokens_per_frame", 0),
           json_int_or(p, "tokens_per_step", 0), json_int_or(p, "micro_batch", 0),
           json_int_or(p, "sequences_per_rank_most", 0));
    printf("training     %" PRId64 " steps = %" PRId64
           " sequences = %.4g tokens; %.4g floating-point operations a "
           "step, %.4g in all\n",
           steps, steps * batch, (double)steps * (double)json_int_or(p, "tokens_per_step", 0),
           json_double_or(p, "flops_per_step", 0), json_double_or(p, "flops_per_step", 0) * (double)steps);
}

static void show_model(const struct plan_show *s) {
    const struct json_value *p = s->plan, *senses = json_get(p, "modalities");
    printf("model        %" PRId64 " parameters in %" PRId64 " tensors; tokens a frame:",
           json_int_or(p, "parameters", 0), json_int_or(p, "tensors", 0));
    for (size_t i = 0; i < json_size(senses); i++) {
        const char *name = json_string_or(json_at(senses, i), "name", "?");
        printf("%s %s %" PRId64 " (%" PRId64 " values each)", i ? "," : "", name,
               json_int_or(json_at(senses, i), "tokens_per_frame", 0),
               json_int_or(json_at(senses, i), "values_per_token", 0));
    }
    printf("\n");
}

static const char *const parts[] = {"weights",       "optimiser",  "activations", "step_buffers",
                                    "snapshot_copy", "data_cache", "evaluation",  "program"};
static const char *const heads[] = {"weights",  "optimiser", "activ.", "step",
                                    "snapshot", "data",      "eval.",  "program"};
#define PARTS (sizeof parts / sizeof *parts)

static void show_memory(const struct plan_show *s) {
    const struct json_value *rows = json_get(s->plan, "memory");
    printf("memory, MiB  %6s", "rank");
    for (size_t k = 0; k < PARTS; k++) printf(" %9s", heads[k]);
    printf(" %9s\n", "total");
    for (size_t i = 0; i < json_size(rows); i++) {
        const struct json_value *row = json_at(rows, i);
        bool jump = i && json_int_or(row, "rank", 0) > json_int_or(json_at(rows, i - 1), "rank", 0) + 1;
        if (jump) printf("             %6s\n", "...");
        printf("             %6" PRId64, json_int_or(row, "rank", 0));
        for (size_t k = 0; k < PARTS; k++) printf(" %9.1f", mib(json_int_or(row, parts[k], 0)));
        printf(" %9.1f\n", mib(json_int_or(row, "total", 0)));
    }
    if (!json_bool_or(s->plan, "data_known", true))
        printf("             the data set is not asked: its cache is taken as full (data.memory_mb)\n");
}

// The plan for the named GPU's generation.
static const struct json_value *gpu_plan(const struct plan_show *s) {
    const struct json_value *plans = json_get(s->plan, "gpu_memory");
    for (size_t i = 0; i < json_size(plans); i++)
        if (json_int_or(json_at(plans, i), "compute", 0) == s->gpu->compute) return json_at(plans, i);
    return NULL;
}

static void show_gpu_row(const struct json_value *row) {
    const char *key = NULL;
    const struct json_value *v;
    int64_t bytes;
    printf("             rank %" PRId64 ": %.1f in all =", json_int_or(row, "rank", 0),
           mib(json_int_or(row, "total", 0)));
    const char *plus = "";
    while (json_next(row, &key, &v)) {
        if (!strcmp(key, "rank") || !strcmp(key, "total") || !json_as_int(v, &bytes) || bytes == 0) continue;
        printf("%s %s %.1f", plus, key, mib(bytes));
        plus = " +";
    }
    printf("\n");
}

static void show_gpu_memory(const struct plan_show *s) {
    if (!s->gpu) return;
    const struct json_value *plan = gpu_plan(s), *rows = json_get(plan, "ranks");
    int64_t most = 0;
    printf("GPU's, MiB   %s, %.0f GiB; NCCL's and the context's are allowances\n", s->gpu->model,
           s->gpu->memory_gib);
    for (size_t i = 0; i < json_size(rows); i++) {
        show_gpu_row(json_at(rows, i));
        if (json_int_or(json_at(rows, i), "total", 0) > most)
            most = json_int_or(json_at(rows, i), "total", 0);
    }
    if (mib(most) > 1024 * s->gpu->memory_gib)
        printf("             too much: %s\n", json_string_or(plan, "advice", ""));
}

// What the kernels of the named GPU do not know is refused here already.
int plan_show_refusal(const struct plan_show *s, struct err *e) {
    const char *text = s->gpu ? json_string_or(gpu_plan(s), "refusal", "") : "";
    return text[0] ? err_set(e, ERR_CONFIG, "%s: %s", s->gpu->model, text) : 0;
}

static void show_checkpoints(const struct plan_show *s) {
    const struct json_value *p = s->plan;
    char one[UNITS_BYTES], all[UNITS_BYTES];
    int64_t bytes = json_int_or(p, "checkpoint_bytes", 0), keep = json_int_or(p, "checkpoint_keep", 0);
    int64_t every = json_int_or(p, "checkpoint_every", 0), steps = json_int_or(p, "steps", 0);
    int64_t made = every > 0 ? (steps + every - 1) / every : 1;
    printf("checkpoint   %s, %" PRId64 " made, the newest %" PRId64 " kept: up to %s\n",
           units_bytes(bytes, one), made, keep, units_bytes(bytes * ((made < keep ? made : keep) + 1), all));
    printf("network      %s sent by a rank in a step\n",
           units_bytes(json_int_or(p, "bytes_sent_per_step_and_rank", 0), one));
}

static void show_time(double seconds) {
    if (seconds >= 3600)
        printf("%.3g h", seconds / 3600);
    else if (seconds >= 60)
        printf("%.3g min", seconds / 60);
    else
        printf("%.3g s", seconds);
}

static void show_estimate(const struct plan_show *s) {
    if (!s->gpu) {
        printf("step time    not estimated for this machine; for a GPU: --gpu h100\n");
        return;
    }
    struct estimate_load load = load_of(s);
    struct estimate est;
    estimate_step(s->gpu, &load, &est);
    printf("step time    estimate, nothing measured, for %s in %s: %.3g to %.3g ms (", s->gpu->model,
           config_enum_word("cuda.precision", (int)s->precision), est.step_ms[0], est.step_ms[1]);
    show_time(1e-3 * est.step_ms[0] * (double)load.steps);
    printf(" to ");
    show_time(1e-3 * est.step_ms[1] * (double)load.steps);
    printf(")\n             computing %.3g to %.3g ms (half to a fifth of the peak), update %.3g ms, network "
           "%.3g ms; "
           "small models are slower: kernel starts are not counted\n",
           est.compute_ms[0], est.compute_ms[1], est.update_ms, est.network_ms);
}

// What a person types for it.
static int quote_run(const struct plan_show *s, struct buf *out, struct err *e) {
    struct strv words = {0};
    const char *const head[] = {"orrery", "run", s->config_path, "-n"};
    int rc = strv_add_all(&words, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(&words, e, "%" PRId64, json_int_or(s->plan, "ranks", 0));
    if (!rc) rc = strv_add_all(&words, s->overrides, s->n_overrides, e);
    if (!rc) rc = strv_quote(&words, out, e);
    strv_fini(&words);
    return rc;
}

int plan_show_people(const struct plan_show *s, struct err *e) {
    struct buf line, run;
    buf_init(&line, TEXT_BYTES);
    buf_init(&run, TEXT_BYTES);
    int rc = strv_quote(s->command, &line, e);
    if (!rc) rc = quote_run(s, &run, e);
    if (!rc) {
        show_layout(s);
        show_batch(s);
        show_model(s);
        show_memory(s);
        show_gpu_memory(s);
        show_checkpoints(s);
        show_estimate(s);
        printf("command      %s, which starts here:\n             %s\n", run.data,
               line.len ? line.data : "(nothing)");
        if (s->warning[0]) printf("not yet here %s\n", s->warning);
    }
    buf_fini(&line);
    buf_fini(&run);
    return rc;
}

// ---- as JSON

static void copy_value(struct json_writer *w, const char *key, const struct json_value *v, int depth);

static void copy_members(struct json_writer *w, const struct json_value *o, int depth) {
    const char *key = NULL;
    const struct json_value *v;
    while (json_next(o, &key, &v)) copy_value(w, key, v, depth);
}

static void copy_value(struct json_writer *w, const char *key, const struct json_value *v, int depth) {
    const char *text;
    int64_t whole;
    double real;
    bool truth;
    if (depth > DEPTH_MAX) return;
    if (json_is_object(v)) {
        json_put_object(w, key);
        copy_members(w, v, depth + 1);
        json_close(w, '}');
    } else if (json_is_array(v)) {
        json_put_array(w, key);
        for (size_t i = 0; i < json_size(v); i++) copy_value(w, NULL, json_at(v, i), depth + 1);
        json_close(w, ']');
    } else if (json_as_string(v, &text)) {
        json_put_string(w, key, text);
    } else if (json_as_bool(v, &truth)) {
        json_put_bool(w, key, truth);
    } else if (json_as_int(v, &whole)) {
        json_put_int(w, key, whole);
    } else if (json_as_double(v, &real)) {
        json_put_double(w, key, real);
    } else {
        json_put_null(w, key);
    }
}

static void put_estimate(struct json_writer *w, const struct plan_show *s) {
    if (!s->gpu) {
        json_put_null(w, "estimate");
        return;
    }
    struct estimate_load load = load_of(s);
    struct estimate est;
    estimate_step(s->gpu, &load, &est);
    json_put_object(w, "estimate");
    json_put_string(w, "gpu", s->gpu->model);
    json_put_string(w, "precision", config_enum_word("cuda.precision", (int)s->precision));
    json_put_bool(w, "measured", false);
    json_put_double(w, "step_ms_least", est.step_ms[0]);
    json_put_double(w, "step_ms_most", est.step_ms[1]);
    json_put_double(w, "compute_ms_least", est.compute_ms[0]);
    json_put_double(w, "compute_ms_most", est.compute_ms[1]);
    json_put_double(w, "update_ms", est.update_ms);
    json_put_double(w, "network_ms", est.network_ms);
    json_close(w, '}');
}

int plan_show_json(const struct plan_show *s, struct err *e) {
    struct json_writer w;
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    copy_members(&w, s->plan, 0);
    json_put_int(&w, "threads_per_rank_here", s->threads);
    put_estimate(&w, s);
    json_put_array(&w, "command");
    for (size_t i = 0; i < s->command->n; i++) json_put_string(&w, NULL, s->command->items[i]);
    json_close(&w, ']');
    json_put_string(&w, "not_yet_here", s->warning);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) printf("%s\n", text.data);
    buf_fini(&text);
    return rc;
}
