// SPDX-License-Identifier: Apache-2.0
// orrery data: what lies in a data set, and whether it is whole.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/json.h"
#include "launcher/opts.h"
#include "launcher/proc.h"
#include "launcher/store_place.h"
#include "launcher/strv.h"
#include "launcher/units.h"
#include "storage/dataset.h"
#include "storage/dataset_schema.h"
#include "storage/store.h"

#define DRAW_MS    600000
#define JSON_FLUSH ((size_t)64 << 10)

struct data_args {
    const char *url, *number, *schema, *out;
    bool json, again;
    struct store_options store;
};

static const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

static int put_json(const struct buf *text) {
    fwrite(text->data, 1, text->len, stdout);
    putchar('\n');
    return 0;
}

// ---- index

static int read_schema(const char *path, struct dataset_schema *out, struct err *e) {
    struct buf text;
    buf_init(&text, DATASET_SCHEMA_BYTES_MAX);
    int rc = bytes_read_file(path, DATASET_SCHEMA_BYTES_MAX, &text, e);
    if (!rc) rc = dataset_schema_parse(out, text.data, text.len, path, e);
    buf_fini(&text);
    return rc;
}

static int data_index(const struct data_args *a, struct err *e) {
    struct store *s;
    struct dataset_schema schema;
    int rc = a->schema ? read_schema(a->schema, &schema, e) : 0;
    if (!rc) rc = store_open(&s, a->url, &a->store, e);
    if (rc) return rc;
    rc = dataset_index_all(s, a->again || a->schema, a->schema ? &schema : NULL, print_line, NULL, e);
    store_close(s);
    return rc;
}

// ---- check

static int data_check(const struct data_args *a, struct err *e) {
    struct dataset *d;
    struct dataset_check sum;
    char size[UNITS_BYTES];
    int rc = dataset_open(&d, a->url, &a->store, e);
    if (rc) return rc;
    rc = dataset_check(d, print_line, NULL, &sum, e);
    units_bytes(sum.bytes, size);
    if (a->json)
        printf("{\"shards\": %" PRId64 ", \"samples\": %" PRId64 ", \"bytes\": %" PRId64
               ", \"problems\": %" PRId64 "}\n",
               sum.shards, sum.samples, sum.bytes, sum.problems);
    else
        printf("%" PRId64 " shard%s, %" PRId64 " sample%s, %s checked: %" PRId64 " problem%s\n", sum.shards,
               plural(sum.shards), sum.samples, plural(sum.samples), size, sum.problems,
               plural(sum.problems));
    dataset_close(d);
    if (sum.problems > 1) return err_prefix(e, "the first of %" PRId64 " problems", sum.problems);
    return rc;
}

// ---- stat

static void shape_text(const struct stream_schema *s, char out[96]) {
    int n = snprintf(out, 96, "%s[", s->dtype);
    for (int i = 0; i < s->rank; i++)
        n += snprintf(out + n, 96 - (size_t)n, "%s%" PRId64, i ? "," : "", s->shape[i]);
    snprintf(out + n, 96 - (size_t)n, "]");
}

static void print_streams(const struct dataset *d) {
    const struct stream_schema *streams;
    int n = dataset_streams(d, &streams);
    if (!n) printf("\nno sample describes its streams; give --schema FILE to data index\n");
    for (int i = 0; i < n; i++) {
        char shape[96];
        shape_text(&streams[i], shape);
        if (!i)
            printf("\n%-10s %-16s %-16s %-18s %10s  %s\n", "modality", "stream", "member", "a step",
                   "rate Hz", "unit");
        printf("%-10s %-16s %-16s %-18s %10g  %s\n", streams[i].modality, streams[i].name, streams[i].member,
               shape, streams[i].rate_hz, streams[i].unit);
    }
}

// "640" or "320 .. 640".
static const char *range_text(double lo, double hi, char out[48]) {
    if (lo < hi)
        snprintf(out, 48, "%.6g .. %.6g", lo, hi);
    else
        snprintf(out, 48, "%.6g", lo);
    return out;
}

static void print_films(const struct dataset *d) {
    struct film_sums films;
    char text[3][48];
    dataset_films(d, &films);
    for (int i = 0; i < films.n; i++) {
        const struct film_sum *s = &films.sum[i];
        if (!i)
            printf("\n%-24s %8s %12s %14s %14s %16s %10s\n", "films", "films", "pictures", "width", "height",
                   "rate Hz", "no table");
        printf("%-24s %8" PRId64 " %12" PRId64 " %14s %14s %16s %10" PRId64 "\n", s->member, s->films,
               s->frames, range_text((double)s->width[0], (double)s->width[1], text[0]),
               range_text((double)s->height[0], (double)s->height[1], text[1]),
               range_text(s->rate_hz[0], s->rate_hz[1], text[2]), s->left_out);
    }
}

static void print_stat(const struct dataset *d) {
    char size[UNITS_BYTES];
    printf("%-32s %10s %12s %12s\n", "shard", "samples", "frames", "size");
    for (int64_t i = 0; i < dataset_shards(d); i++) {
        struct dataset_shard s;
        dataset_shard(d, i, &s);
        printf("%-32s %10" PRId64 " %12" PRId64 " %12s\n", s.key, s.samples, s.frames,
               units_bytes(s.bytes, size));
    }
    char shards[40];
    snprintf(shards, sizeof shards, "%" PRId64 " shard%s", dataset_shards(d), plural(dataset_shards(d)));
    printf("%-32s %10" PRId64 " %12" PRId64 " %12s\n", shards, dataset_samples(d), dataset_frames(d),
           units_bytes(dataset_bytes(d), size));
    print_streams(d);
    print_films(d);
}

static int stat_json(const struct dataset *d, struct err *e) {
    const struct stream_schema *streams;
    struct film_sums films;
    struct json_writer w;
    struct buf out;
    int n = dataset_streams(d, &streams);
    buf_init(&out, 4 * JSON_FLUSH);
    json_begin(&w, &out);
    json_put_object(&w, NULL);
    json_put_string(&w, "url", dataset_url(d));
    json_put_int(&w, "samples", dataset_samples(d));
    json_put_int(&w, "frames", dataset_frames(d));
    json_put_int(&w, "bytes", dataset_bytes(d));
    sample_meta_put_streams(&w, "streams", streams, n);
    dataset_films(d, &films);
    film_sums_put(&w, &films);
    json_put_array(&w, "shards");
    for (int64_t i = 0; i < dataset_shards(d); i++) {
        struct dataset_shard s;
        dataset_shard(d, i, &s);
        json_put_object(&w, NULL);
        json_put_string(&w, "key", s.key);
        json_put_int(&w, "samples", s.samples);
        json_put_int(&w, "frames", s.frames);
        json_put_int(&w, "bytes", s.bytes);
        json_close(&w, '}');
        if (out.len < JSON_FLUSH) continue;
        fwrite(out.data, 1, out.len, stdout);
        buf_clear(&out);
    }
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) rc = put_json(&out);
    buf_fini(&out);
    return rc;
}

static int data_stat(const struct data_args *a, struct err *e) {
    struct dataset *d;
    int rc = dataset_open(&d, a->url, &a->store, e);
    if (rc) return rc;
    if (a->json)
        rc = stat_json(d, e);
    else
        print_stat(d);
    dataset_close(d);
    return rc;
}

// ---- show

static void print_film(const char *member, const struct film_table *t) {
    if (!t->frames) {
        printf("film %s: no table of frames: %s\n", member, t->why);
        return;
    }
    printf("film %s: %s, %d x %d (height x width), %" PRId64 " pictures in %.6g s, ", member, t->codec,
           t->height, t->width, t->frames, (double)t->duration / (double)t->timescale);
    printf(t->step ? "one every %.6g s" : "%.6g s apart on average",
           t->last > 0 ? 1 / film_rate_hz(t) : (double)t->duration / (double)t->timescale);
    if (t->key_step == 1)
        printf(", each a key frame\n");
    else if (t->key_step)
        printf(", key frame every %" PRId64 " pictures\n", t->key_step);
    else
        printf(", %" PRId64 " key frames\n", t->n_keys);
}

static int print_sample_films(struct dataset *d, const struct sample *s, struct err *e) {
    int rc = 0, films = 0;
    for (int i = 0; i < s->n && !rc; i++) {
        struct film_table t;
        rc = dataset_film(d, s->number, s->members[i].name, &t, e);
        if (rc || !(t.frames || *t.why)) continue;
        if (!films++) putchar('\n');
        print_film(s->members[i].name, &t);
        film_fini(&t);
    }
    return rc;
}

static void print_sample(const struct dataset *d, const struct sample *s) {
    struct dataset_sample row;
    dataset_sample(d, s->number, &row);
    printf("sample %" PRId64 ": %s/%s, '%s', %" PRId64 " frames\n\n", s->number, dataset_url(d),
           dataset_shard_key(d, row.shard), s->stem, row.frames);
    printf("%-24s %12s %12s  %s\n", "member", "offset", "bytes", "crc32c");
    for (int i = 0; i < s->n; i++)
        printf("%-24s %12" PRId64 " %12zu  %08" PRIx32 "\n", s->members[i].name, s->members[i].offset,
               s->members[i].bytes, s->members[i].crc32c);
}

static int print_all(struct dataset *d, const struct sample *s, struct err *e) {
    print_sample(d, s);
    int rc = print_sample_films(d, s, e);
    const struct sample_member *meta = sample_find(s, "json");
    if (meta) printf("\n%.*s%s", (int)meta->bytes, (const char *)meta->data, "\n");
    return rc;
}

static int put_film(struct json_writer *w, struct dataset *d, int64_t sample, const char *member,
                    struct err *e) {
    struct film_table t;
    int rc = dataset_film(d, sample, member, &t, e);
    if (!rc && (t.frames || *t.why)) film_put(w, "film", &t);
    film_fini(&t);
    return rc;
}

static int put_members(struct json_writer *w, struct dataset *d, const struct sample *s, struct err *e) {
    int rc = 0;
    json_put_array(w, "members");
    for (int i = 0; i < s->n; i++) {
        char crc[16];
        snprintf(crc, sizeof crc, "%08" PRIx32, s->members[i].crc32c);
        json_put_object(w, NULL);
        json_put_string(w, "name", s->members[i].name);
        json_put_int(w, "offset", s->members[i].offset);
        json_put_int(w, "bytes", (int64_t)s->members[i].bytes);
        json_put_string(w, "crc32c", crc);
        if (!rc) rc = put_film(w, d, s->number, s->members[i].name, e);
        json_close(w, '}');
    }
    json_close(w, ']');
    return rc;
}

static int show_json(struct dataset *d, const struct sample *s, struct err *e) {
    struct dataset_sample row;
    struct json_writer w;
    struct json *meta = NULL;
    struct buf out;
    int rc = 0;
    const struct sample_member *m = sample_find(s, "json");
    dataset_sample(d, s->number, &row);
    buf_init(&out, (size_t)16 << 20);
    if (m && (rc = json_parse(&meta, m->data, m->bytes, m->name, e))) goto out;
    json_begin(&w, &out);
    json_put_object(&w, NULL);
    json_put_int(&w, "sample", s->number);
    json_put_string(&w, "shard", dataset_shard_key(d, row.shard));
    json_put_string(&w, "stem", s->stem);
    json_put_int(&w, "frames", row.frames);
    if ((rc = put_members(&w, d, s, e))) goto out;
    if (m && (rc = buf_appendf(&out, e, ",\"metadata\":%.*s", (int)m->bytes, (const char *)m->data)))
        goto out;
    json_close(&w, '}');
    rc = json_end(&w, e);
    if (!rc) rc = put_json(&out);
out:
    json_destroy(meta);
    buf_fini(&out);
    return rc;
}

// Decoders live in orrery-rank: it draws, and prints the paths.
static int draw(const struct data_args *a, int64_t number, struct err *e) {
    char program[4096];
    struct strv command = {NULL};
    struct buf out, talk;
    int status = 0;
    buf_init(&out, (size_t)1 << 20);
    buf_init(&talk, (size_t)1 << 20);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, e);
    const char *const head[] = {program, "--task", "show"};
    if (!rc) rc = strv_add_all(&command, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_addf(&command, e, "data.train=%s", a->url);
    if (!rc) rc = strv_addf(&command, e, "show.sample=%" PRId64, number);
    if (!rc) rc = strv_addf(&command, e, "show.out=%s", a->out);
    if (!rc && a->store.endpoint) rc = strv_addf(&command, e, "store.endpoint=%s", a->store.endpoint);
    if (!rc && a->store.region) rc = strv_addf(&command, e, "store.region=%s", a->store.region);
    if (!rc) rc = proc_capture(command.items, DRAW_MS, &out, &talk, &status, e);
    if (!rc && out.len) fwrite(out.data, 1, out.len, stdout);
    if (!rc && status) {
        const char *why = talk.len ? strstr(talk.data, "error: ") : NULL;
        enum err_code code = err_from_exit_code(status);
        rc = err_set(e, code ? code : ERR_BUG, "%.*s", why ? (int)strcspn(why + 7, "\n") : 18,
                     why ? why + 7 : "orrery-rank failed");
    }
    strv_fini(&command);
    buf_fini(&out);
    buf_fini(&talk);
    return rc;
}

static int data_show(const struct data_args *a, struct err *e) {
    struct dataset *d;
    struct sample s = {.n = 0};
    int64_t number = 0;
    if (a->number && (!bytes_parse_i64(a->number, &number) || number < 0))
        return err_set(e, ERR_USAGE, "'%s' is no number of a sample", a->number);
    int rc = dataset_open(&d, a->url, &a->store, e);
    if (rc) return rc;
    if (number >= dataset_samples(d))
        rc = err_set(e, ERR_USAGE, "%s has samples 0 .. %" PRId64 ", not %" PRId64, a->url,
                     dataset_samples(d) - 1, number);
    if (!rc) rc = dataset_read(d, number, &s, e);
    if (!rc && a->out)
        rc = draw(a, number, e);
    else if (!rc && a->json)
        rc = show_json(d, &s, e);
    else if (!rc)
        rc = print_all(d, &s, e);
    sample_fini(&s);
    dataset_close(d);
    return rc;
}

// ---- the verb

// A mistyped path. URLs are for their store to find.
static int check_folder(const char *path, struct err *e) {
    struct stat st;
    if (strchr(path, ':')) return 0;
    if (stat(path, &st))
        return errno == ENOENT
                   ? err_set(e, ERR_MISSING,
                             "there is no folder %s (paths count from where orrery is started)", path)
                   : 0;
    if (S_ISDIR(st.st_mode)) return 0;
    return err_set(e, ERR_USAGE, "%s is a file; give the folder that holds it", path);
}

static const struct {
    const char *name;
    int (*run)(const struct data_args *a, struct err *e);
} actions[] = {{"index", data_index}, {"check", data_check}, {"stat", data_stat}, {"show", data_show}};

int cmd_data(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct data_args a = {.store = {.path_style = true}};
    const struct opt table[] = {
        {"json", 0, OPT_FLAG, NULL, "check, stat, show: as JSON", &a.json, 0, 0},
        {"again", 0, OPT_FLAG, NULL, "index: scan shards that have an index, too", &a.again, 0, 0},
        {"out", 0, OPT_TEXT, "FOLDER", "show: draw it: frames as PNG, curves as SVG", &a.out, 0, 0},
        {"schema", 0, OPT_TEXT, "FILE", "index: JSON that describes samples which do not describe themselves",
         &a.schema, 0, 0},
        STORE_PLACE_ENDPOINT(&a.store),
        STORE_PLACE_REGION(&a.store),
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 3, &rest, e);
    if (rc || rest.help) return rc;
    a.url = rest.words[1];
    a.number = opts_word(&rest, 2);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(rest.words[0], actions[i].name) != 0) continue;
        if (a.number && actions[i].run != data_show)
            return err_set(e, ERR_USAGE, "'orrery data %s' takes one URL", actions[i].name);
        rc = check_folder(a.url, e);
        return rc ? rc : actions[i].run(&a, e);
    }
    return err_set(e, ERR_USAGE, "'orrery data %s'? Write: orrery data index|check|stat|show URL",
                   rest.words[0]);
}
