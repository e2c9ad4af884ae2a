// SPDX-License-Identifier: Apache-2.0
#include "storage/dataset.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/dataset_index.h"
#include "storage/dataset_manifest.h"
#include "storage/loader.h"
#include "storage/shard.h"

#define META                                                                                                 \
    "{\"id\":\"e%d\",\"embodiment\":\"table\",\"split\":\"train\",\"licence\":\"CC0-1.0\",\"frames\":%d,"    \
    "\"rate_hz\":10,\"streams\":[{\"modality\":\"touch\",\"name\":\"tactile\",\"member\":\"touch.npy\","     \
    "\"dtype\":\"f32\","                                                                                     \
    "\"shape\":[%d],\"rate_hz\":20,\"t0\":0,\"unit\":\"N\",\"scale\":0.5}]}"

static struct store *open_store(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    int rc = store_open(&s, url, NULL, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    return s;
}

static struct dataset *open_set(const char *url) {
    struct err e = {ERR_OK};
    struct dataset *d;
    int rc = dataset_open(&d, url, NULL, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    return d;
}

static void add_episode(struct buf *tar, int number, int frames, int channels) {
    char stem[32], meta[700], touch[64];
    struct err e = {ERR_OK};
    snprintf(stem, sizeof stem, "ep%06d", number);
    int n = snprintf(meta, sizeof meta, META, number, frames, channels);
    assert_int_equal(shard_append(tar, stem, "json", meta, (size_t)n, &e), 0);
    n = snprintf(touch, sizeof touch, "touch of episode %d", number);
    assert_int_equal(shard_append(tar, stem, "touch.npy", touch, (size_t)n, &e), 0);
    assert_int_equal(shard_append(tar, stem, "empty.bin", "", 0, &e), 0);
}

static struct buf make_tar(int first, int count) {
    struct buf tar;
    struct err e = {ERR_OK};
    buf_init(&tar, 1 << 20);
    for (int i = 0; i < count; i++) add_episode(&tar, first + i, i == 1 ? 90 : 100, 2);
    assert_int_equal(shard_finish(&tar, &e), 0);
    return tar;
}

static void put_shard(struct store *s, const char *key, int first, int count) {
    struct err e = {ERR_OK};
    struct buf tar = make_tar(first, count);
    assert_int_equal(dataset_put_shard(s, key, tar.data, tar.len, &e), 0);
    buf_fini(&tar);
}

// Three shards of 4, 4 and 2 samples, kept alive by the store that is returned.
static struct store *make_set(const char *url) {
    struct err e = {ERR_OK};
    struct store *s = open_store(url);
    put_shard(s, "train-000001.tar", 4, 4); // in another order than the keys'
    put_shard(s, "train-000000.tar", 0, 4);
    put_shard(s, "train-000002.tar", 8, 2);
    assert_int_equal(dataset_write_manifest(s, NULL, 0, &e), 0);
    return s;
}

static void get(struct store *s, const char *key, struct buf *out) {
    struct err e = {ERR_OK};
    buf_init(out, 1 << 22);
    assert_int_equal(store_get(s, key, 1 << 22, out, &e), 0);
}

static void put(struct store *s, const char *key, const void *data, size_t n) {
    struct err e = {ERR_OK};
    assert_int_equal(store_put(s, key, data, n, false, &e), 0);
}

static void flip(struct store *s, const char *key, size_t offset) {
    struct buf b;
    get(s, key, &b);
    assert_true(offset < b.len);
    b.data[offset] = (char)(b.data[offset] ^ 4);
    put(s, key, b.data, b.len);
    buf_fini(&b);
}

// ---- tests

static void writes_and_reads(void **state) {
    (void)state;
    struct store *s = make_set("mem:reads");
    struct dataset *d = open_set("mem:reads");
    assert_int_equal(dataset_samples(d), 10);
    assert_int_equal(dataset_shards(d), 3);
    assert_int_equal(dataset_frames(d), 10 * 100 - 3 * 10);
    const struct stream_schema *streams;
    assert_int_equal(dataset_streams(d, &streams), 1);
    assert_string_equal(streams[0].modality, "touch");
    assert_string_equal(streams[0].member, "touch.npy");
    assert_int_equal(streams[0].rank, 1);
    assert_int_equal(streams[0].shape[0], 2);
    assert_true(streams[0].rate_hz == 20 && streams[0].scale == 0.5);
    for (int i = 0; i < 10; i++) {
        struct err e = {ERR_OK};
        struct dataset_sample row;
        struct sample sample;
        char want[64];
        dataset_sample(d, i, &row);
        assert_int_equal(row.shard, i / 4);
        assert_int_equal(row.row, i % 4);
        assert_int_equal(row.frames, i % 4 == 1 ? 90 : 100);
        assert_int_equal(dataset_read(d, i, &sample, &e), 0);
        snprintf(want, sizeof want, "touch of episode %d", i);
        const struct sample_member *m = sample_find(&sample, "touch.npy");
        assert_non_null(m);
        assert_int_equal(m->bytes, strlen(want));
        assert_memory_equal(m->data, want, m->bytes);
        assert_int_equal((uintptr_t)m->data % 16, 0);
        assert_int_equal(sample_find(&sample, "empty.bin")->bytes, 0);
        assert_null(sample_find(&sample, "video.png"));
        snprintf(want, sizeof want, "ep%06d", i);
        assert_string_equal(sample.stem, want);
        sample_fini(&sample);
    }
    struct err e = {ERR_OK};
    struct sample sample;
    assert_int_equal(dataset_read(d, 10, &sample, &e), -ERR_BUG);
    dataset_close(d);
    store_close(s);
}

static void bytes_do_not_depend_on_the_writers(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    const char *const keys[] = {"train-000000.tar", "train-000001.tar", "train-000002.tar"};
    struct store *a = make_set("mem:writers-a"), *b = open_store("mem:writers-b");
    for (int i = 2; i >= 0; i--) put_shard(b, keys[i], 4 * i, i < 2 ? 4 : 2);
    assert_int_equal(dataset_write_manifest(b, keys, 3, &e), 0);
    struct buf x, y;
    get(a, DATASET_MANIFEST, &x);
    get(b, DATASET_MANIFEST, &y);
    assert_string_equal(x.data, y.data);
    buf_fini(&x);
    buf_fini(&y);
    get(a, "train-000001.tar.index.json", &x);
    get(b, "train-000001.tar.index.json", &y);
    assert_string_equal(x.data, y.data);
    buf_fini(&x);
    buf_fini(&y);
    store_close(a);
    store_close(b);
}

static void missing_manifest_names_the_cure(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct dataset *d;
    assert_int_equal(dataset_open(&d, "mem:nothing", NULL, &e), -ERR_MISSING);
    assert_non_null(strstr(e.text, "orrery data index mem:nothing"));
    assert_null(d);
    dataset_close(NULL);
}

static int read_all(struct dataset *d, struct err *e) {
    int rc = 0;
    for (int64_t i = 0; i < dataset_samples(d) && !rc; i++) {
        struct sample sample;
        rc = dataset_read(d, i, &sample, e);
        if (!rc) sample_fini(&sample);
    }
    return rc;
}

static int64_t offset_of(struct dataset *d, int64_t i, const char *member) {
    struct err e = {ERR_OK};
    struct sample sample;
    assert_int_equal(dataset_read(d, i, &sample, &e), 0);
    int64_t offset = sample_find(&sample, member)->offset;
    sample_fini(&sample);
    return offset;
}

static void a_flipped_bit_is_found_and_named(void **state) {
    (void)state;
    struct store *s = make_set("mem:flip");
    struct dataset *d = open_set("mem:flip");
    int64_t offset = offset_of(d, 6, "touch.npy");
    flip(s, "train-000001.tar", (size_t)offset + 3);
    struct err e = {ERR_OK};
    struct sample sample;
    char want[64];
    assert_int_equal(dataset_read(d, 6, &sample, &e), -ERR_DATA);
    snprintf(want, sizeof want, "'ep000006.touch.npy' at offset %d", (int)offset);
    assert_non_null(strstr(e.text, "mem:flip/train-000001.tar"));
    assert_non_null(strstr(e.text, want));
    assert_null(sample.block);
    err_clear(&e);
    assert_int_equal(dataset_read(d, 5, &sample, &e), 0);
    sample_fini(&sample);
    dataset_close(d);
    store_close(s);
}

static void count_lines(void *arg, const char *line) {
    assert_true(*line);
    ++*(int *)arg;
}

// Every byte of every object of a small data set, damaged in turn: found, by opening, reading or checking.
static void every_flipped_bit_is_found(void **state) {
    (void)state;
    struct store *s = open_store("mem:bits");
    put_shard(s, "a.tar", 0, 2);
    struct err e = {ERR_OK};
    assert_int_equal(dataset_write_manifest(s, NULL, 0, &e), 0);
    const char *const keys[] = {"a.tar", "a.tar.index.json"};
    for (int k = 0; k < 2; k++) {
        struct buf b;
        get(s, keys[k], &b);
        for (size_t i = 0; i < b.len; i++) {
            struct dataset_check sum;
            int lines = 0;
            b.data[i] = (char)(b.data[i] ^ 1 << i % 8);
            put(s, keys[k], b.data, b.len);
            b.data[i] = (char)(b.data[i] ^ 1 << i % 8);
            struct dataset *d = open_set("mem:bits");
            err_clear(&e);
            assert_int_equal(dataset_check(d, count_lines, &lines, &sum, &e), -ERR_DATA);
            assert_int_equal(sum.problems, 1);
            assert_int_equal(lines, 1);
            assert_non_null(strstr(e.text, "a.tar"));
            dataset_close(d);
        }
        put(s, keys[k], b.data, b.len);
        buf_fini(&b);
    }
    store_close(s);
}

static void check_counts_and_goes_on(void **state) {
    (void)state;
    struct store *s = make_set("mem:check");
    struct dataset *d = open_set("mem:check");
    struct dataset_check sum;
    struct err e = {ERR_OK};
    int lines = 0;
    assert_int_equal(dataset_check(d, count_lines, &lines, &sum, &e), 0);
    assert_int_equal(sum.shards, 3);
    assert_int_equal(sum.samples, 10);
    assert_int_equal(sum.bytes, dataset_bytes(d));
    assert_int_equal(lines, 0);
    flip(s, "train-000000.tar", (size_t)offset_of(d, 1, "touch.npy"));
    flip(s, "train-000000.tar", (size_t)offset_of(d, 2, "json"));
    assert_int_equal(store_delete(s, "train-000001.tar", &e), 0);
    assert_int_equal(dataset_check(d, count_lines, &lines, &sum, &e), -ERR_DATA);
    assert_int_equal(sum.problems, 3);
    assert_int_equal(lines, 3);
    assert_non_null(strstr(e.text, "ep000001.touch.npy"));
    dataset_close(d);
    store_close(s);
}

static void a_short_shard_is_an_error(void **state) {
    (void)state;
    struct store *s = make_set("mem:short");
    struct buf b;
    struct err e = {ERR_OK};
    get(s, "train-000002.tar", &b);
    put(s, "train-000002.tar", b.data, b.len / 2);
    buf_fini(&b);
    struct dataset *d = open_set("mem:short");
    assert_true(read_all(d, &e) < 0);
    assert_non_null(strstr(e.text, "train-000002.tar"));
    dataset_close(d);
    store_close(s);
}

static void indexes_foreign_tars(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct store *s = open_store("mem:foreign");
    struct buf tar;
    buf_init(&tar, 1 << 20);
    assert_int_equal(shard_append(&tar, "a/000", "cls", "7", 1, &e), 0);
    assert_int_equal(shard_append(&tar, "a/000", "json", "{\"label\": 7}", 12, &e), 0);
    assert_int_equal(shard_append(&tar, "b/000", "cls", "8", 1, &e), 0);
    assert_int_equal(shard_finish(&tar, &e), 0);
    put(s, "x/y.tar", tar.data, tar.len);
    put(s, "README", "hello", 5);
    int lines = 0;
    assert_int_equal(dataset_index_all(s, false, NULL, count_lines, &lines, &e), 0);
    assert_int_equal(lines, 2);
    struct dataset *d = open_set("mem:foreign");
    assert_int_equal(dataset_samples(d), 2);
    assert_int_equal(dataset_frames(d), 0);
    struct sample sample;
    assert_int_equal(dataset_read(d, 1, &sample, &e), 0);
    assert_string_equal(sample.stem, "b/000");
    assert_memory_equal(sample_find(&sample, "cls")->data, "8", 1);
    sample_fini(&sample);
    dataset_close(d);
    // A second time nothing is scanned; a tar of another size is.
    struct buf before, after;
    get(s, DATASET_MANIFEST, &before);
    assert_int_equal(dataset_index_all(s, false, NULL, NULL, NULL, &e), 0);
    get(s, DATASET_MANIFEST, &after);
    assert_string_equal(before.data, after.data);
    buf_fini(&before);
    buf_fini(&after);
    tar.len -= 1024;
    assert_int_equal(shard_append(&tar, "c/000", "cls", "9", 1, &e), 0);
    assert_int_equal(shard_finish(&tar, &e), 0);
    put(s, "x/y.tar", tar.data, tar.len);
    assert_int_equal(dataset_index_all(s, false, NULL, NULL, NULL, &e), 0);
    d = open_set("mem:foreign");
    assert_int_equal(dataset_samples(d), 3);
    dataset_close(d);
    buf_fini(&tar);
    store_close(s);
}

static void index_refuses(const char *const (*members)[3], size_t n, const char *words) {
    struct err e = {ERR_OK};
    struct buf tar, out;
    buf_init(&tar, 1 << 20);
    buf_init(&out, 1 << 20);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(
            shard_append(&tar, members[i][0], members[i][1], members[i][2], strlen(members[i][2]), &e), 0);
    assert_int_equal(shard_finish(&tar, &e), 0);
    assert_int_equal(dataset_index_tar("x.tar", tar.data, tar.len, &out, &e), -ERR_DATA);
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
    assert_non_null(strstr(e.text, "x.tar"));
    buf_fini(&tar);
    buf_fini(&out);
}

#define STREAM(member, shape)                                                                                \
    "{\"modality\":\"touch\",\"name\":\"t\",\"member\":\"" member "\",\"dtype\":\"f32\",\"shape\":" shape    \
    ",\"rate_hz\":20}"
#define SAMPLE(streams) "{\"frames\":10,\"rate_hz\":10,\"streams\":[" streams "]}"

static void bad_samples_are_refused(void **state) {
    (void)state;
    const char *const twice[][3] = {{"a", "x", ""}, {"a", "x", ""}};
    const char *const split[][3] = {{"a", "x", ""}, {"b", "x", ""}, {"a", "y", ""}};
    const char *const broken[][3] = {{"a", "json", "{\"streams\":"}};
    const char *const lacking[][3] = {{"a", "json", SAMPLE(STREAM("t.npy", "[2]"))}};
    const char *const differ[][3] = {{"a", "json", SAMPLE(STREAM("t.npy", "[2]"))},
                                     {"a", "t.npy", ""},
                                     {"b", "json", SAMPLE(STREAM("t.npy", "[3]"))},
                                     {"b", "t.npy", ""}};
    const char *const zero[][3] = {{"a", "json", SAMPLE(STREAM("t.npy", "[0]"))}, {"a", "t.npy", ""}};
    const char *const same[][3] = {{"a", "json", SAMPLE(STREAM("t.npy", "[2]") "," STREAM("t.npy", "[2]"))},
                                   {"a", "t.npy", ""}};
    const char *const frames[][3] = {{"a", "json", "{\"frames\":0,\"rate_hz\":1,\"streams\":[]}"}};
    const char *const rate[][3] = {{"a", "json", "{\"frames\":1,\"rate_hz\":0,\"streams\":[]}"}};
    index_refuses(twice, 2, "two members 'x'");
    index_refuses(split, 3, "sample 'a' stands at two places");
    index_refuses(NULL, 0, "no sample");
    index_refuses(broken, 1, "sample 'a': json");
    index_refuses(lacking, 1, "member 't.npy' that the sample lacks");
    index_refuses(differ, 4, "differ in shape");
    index_refuses(zero, 2, "size 0 of stream 't'");
    index_refuses(same, 2, "share a name");
    index_refuses(frames, 1, "'frames' is 0");
    index_refuses(rate, 1, "'rate_hz' is 0");
}

static void shards_must_agree(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct store *s = open_store("mem:agree");
    put_shard(s, "a.tar", 0, 2);
    struct buf tar;
    buf_init(&tar, 1 << 20);
    add_episode(&tar, 9, 50, 3);
    assert_int_equal(shard_finish(&tar, &e), 0);
    assert_int_equal(dataset_put_shard(s, "b.tar", tar.data, tar.len, &e), 0);
    assert_int_equal(dataset_write_manifest(s, NULL, 0, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "b.tar: its streams are not those of the shards before it"));
    buf_fini(&tar);
    store_close(s);
}

// ---- hostile documents

static void parse_index(const char *text, const char *words) {
    struct err e = {ERR_OK};
    struct dataset_index x;
    dataset_index_init(&x);
    assert_int_equal(dataset_index_parse(&x, text, strlen(text), "x.tar", &e), -ERR_DATA);
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
    assert_non_null(strstr(e.text, "x.tar.index.json"));
    dataset_index_fini(&x);
}

#define INDEX(bytes, samples)                                                                                \
    "{\"format\":\"orrery-shard-index\",\"version\":1,\"bytes\":" bytes                                      \
    ",\"crc32c\":\"00000000\",\"streams\":[],\"samples\":[" samples "]}"
#define ROW(members) "{\"stem\":\"a\",\"frames\":1,\"members\":[" members "]}"

static void hostile_indices(void **state) {
    (void)state;
    parse_index("[]", "format");
    parse_index("{\"format\":\"x\"}", "its format is 'x'");
    parse_index("{\"format\":\"orrery-shard-index\",\"version\":2}", "version 2");
    parse_index(INDEX("-1", ""), "'bytes' is -1");
    parse_index(INDEX("10", ""), "no sample");
    parse_index(INDEX("10", ROW("")), "has no members");
    parse_index(INDEX("10", ROW("[\"m\",0,11,\"00000000\"]")), "lie outside");
    parse_index(INDEX("10", ROW("[\"m\",5,9223372036854775807,\"00000000\"]")), "lie outside");
    parse_index(INDEX("10", ROW("[\"m\",9223372036854775807,9223372036854775807,\"00000000\"]")),
                "lie outside");
    parse_index(INDEX("10", ROW("[\"m\",-1,2,\"00000000\"]")), "lie outside");
    parse_index(INDEX("10", ROW("[\"m\",0,5,\"00000000\"],[\"n\",4,2,\"00000000\"]")), "overlap");
    parse_index(INDEX("10", ROW("[\"m\",0,5,\"0000000\"]")), "is not [name");
    parse_index(INDEX("10", ROW("[\"m\",0,5,\"0000000g\"]")), "is not [name");
    parse_index(INDEX("10", ROW("[\"\",0,5,\"00000000\"]")), "is not [name");
    parse_index(INDEX("10", ROW("[\"m\",0,1,\"00000000\"]") "," ROW("[\"m\",1,1,\"00000000\"]")),
                "two places");
}

static void parse_manifest(const char *text, const char *words) {
    struct err e = {ERR_OK};
    struct dataset_manifest m;
    dataset_manifest_init(&m);
    assert_int_equal(dataset_manifest_parse(&m, text, strlen(text), "dataset.json", &e), -ERR_DATA);
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
    assert_non_null(strstr(e.text, "dataset.json"));
    dataset_manifest_fini(&m);
}

#define MANIFEST(samples, shards)                                                                            \
    "{\"format\":\"orrery-dataset\",\"version\":1,\"samples\":" samples                                      \
    ",\"streams\":[],\"shards\":[" shards "]}"
#define SHARD(key, samples, frames)                                                                          \
    "{\"key\":\"" key                                                                                        \
    "\",\"bytes\":10,\"crc32c\":\"00000000\",\"index_bytes\":9,\"index_crc32c\":\"00000000\","               \
    "\"samples\":" samples ",\"frames\":[" frames "]}"

static void hostile_manifests(void **state) {
    (void)state;
    parse_manifest("{}", "format");
    parse_manifest(MANIFEST("0", ""), "'samples' is 0");
    parse_manifest(MANIFEST("3", ""), "the shards have 0");
    parse_manifest(MANIFEST("1", SHARD("/etc/x.tar", "1", "[5,1]")), "is absolute");
    parse_manifest(MANIFEST("1", SHARD("../x.tar", "1", "[5,1]")), "'..'");
    parse_manifest(MANIFEST("1", SHARD("x.tar", "2", "[5,1]")), "has 2 samples");
    parse_manifest(MANIFEST("1", SHARD("x.tar", "1", "[5,9223372036854775807]")), "more than");
    parse_manifest(MANIFEST("1", SHARD("x.tar", "1", "[-5,1]")), "entry 0 is not");
    parse_manifest(MANIFEST("1", SHARD("x.tar", "1", "[5,0]")), "entry 0 is not");
    parse_manifest(MANIFEST("2", SHARD("x.tar", "1", "[5,1]") "," SHARD("x.tar", "1", "[5,1]")), "twice");
    parse_manifest(MANIFEST("268435457", SHARD("x.tar", "1", "[5,1]")), "outside");
}

// A manifest that is right in itself but tells another story than the index.
static void index_and_manifest_must_agree(void **state) {
    (void)state;
    struct store *s = make_set("mem:story");
    struct buf m;
    struct err e = {ERR_OK};
    get(s, DATASET_MANIFEST, &m);
    char *at = strstr(m.data, "[[100,1],[90,1],");
    assert_non_null(at);
    memcpy(at, "[[100,1],[91,1],", 16);
    put(s, DATASET_MANIFEST, m.data, m.len);
    buf_fini(&m);
    struct dataset *d = open_set("mem:story");
    struct sample sample;
    assert_int_equal(dataset_read(d, 0, &sample, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "sample 1 has 90 frames in its index, 91 in the manifest"));
    dataset_close(d);
    store_close(s);
}

// ---- threads

struct reader {
    struct dataset *d;
    int rc, first;
};

static void *read_in_thread(void *arg) {
    struct reader *r = arg;
    struct err e = {ERR_OK};
    for (int round = 0; round < 50 && !r->rc; round++)
        for (int i = 0; i < 10 && !r->rc; i++) {
            struct sample sample;
            int64_t number = (i * 7 + r->first) % 10;
            r->rc = dataset_read(r->d, number, &sample, &e);
            if (!r->rc) sample_fini(&sample);
        }
    return NULL;
}

static void any_thread_may_read(void **state) {
    (void)state;
    struct store *s = make_set("mem:threads");
    struct dataset *d = open_set("mem:threads");
    struct reader readers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        readers[i] = (struct reader){d, 0, i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_in_thread, &readers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].rc, 0);
    }
    dataset_close(d);
    store_close(s);
}

static void metadata_round_trip(void **state) {
    (void)state;
    struct sample_meta m = {.id = "ep \"1\"", .split = "train", .frames = 100, .rate_hz = 10, .n_streams = 1},
                       back;
    struct err e = {ERR_OK};
    struct buf out;
    bool known;
    m.streams[0] = (struct stream_schema){.modality = "video",
                                          .name = "camera",
                                          .member = "video.png",
                                          .dtype = "u8",
                                          .rank = 3,
                                          .shape = {32, 32, 2},
                                          .rate_hz = 10};
    buf_init(&out, 4096);
    assert_int_equal(sample_meta_write(&m, "{\"friction\":0.5}", &out, &e), 0);
    assert_non_null(strstr(out.data, "\"simulator\":{\"friction\":0.5}"));
    assert_int_equal(sample_meta_parse(&back, &known, out.data, out.len, "x", &e), 0);
    assert_true(known);
    assert_memory_equal(&back, &m, sizeof m);
    assert_int_equal(sample_meta_parse(&back, &known, "{\"a\":1}", 7, "x", &e), 0);
    assert_false(known);
    buf_fini(&out);
}

// ---- lists of data sets

static void open_fails(const char *list, int code, const char *words) {
    struct err e = {ERR_OK};
    struct dataset *d;
    assert_int_equal(dataset_open(&d, list, NULL, &e), -code);
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
}

static void a_list_is_one_set(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct store *a = make_set("mem:list-a"), *b = open_store("mem:list-b");
    put_shard(b, "other.tar", 20, 3);
    assert_int_equal(dataset_write_manifest(b, NULL, 0, &e), 0);
    struct dataset *d = open_set("mem:list-a,  mem:list-b ");
    struct sample s;
    assert_int_equal(dataset_sources(d), 2);
    assert_int_equal(dataset_samples(d), 13);
    assert_int_equal(dataset_read(d, 9, &s, &e), 0);
    assert_string_equal(s.stem, "ep000009");
    sample_fini(&s);
    assert_int_equal(dataset_read(d, 12, &s, &e), 0);
    assert_string_equal(s.stem, "ep000022");
    sample_fini(&s);
    struct dataset_sample where;
    dataset_sample(d, 11, &where);
    assert_int_equal(where.frames, 90);
    dataset_close(d);
    flip(b, "other.tar", 1600);
    d = open_set("mem:list-a, mem:list-b");
    struct dataset_check sum;
    assert_int_equal(dataset_check(d, NULL, NULL, &sum, &e), -ERR_DATA);
    assert_int_equal(sum.problems, 1);
    assert_int_equal(sum.shards, 4);
    assert_non_null(strstr(e.text, "other.tar"));
    dataset_close(d);
    open_fails("mem:list-a 1, mem:list-b", ERR_CONFIG, "give all of them one, or none");
    open_fails("mem:list-a, , mem:list-b", ERR_CONFIG, "empty place");
    open_fails("mem:list-a 0, mem:list-b 1", ERR_CONFIG, "must be above 0");
    assert_true(dataset_is_remote("data/a 1, s3://bucket/b 2") && dataset_is_remote("s3://bucket/a"));
    assert_false(dataset_is_remote("data/a, file:/b") || dataset_is_remote("data/a") ||
                 dataset_is_remote(""));
    store_close(a);
    store_close(b);
}

// Of each 1024 items each set has its share, and within its own sequence each window once per epoch.
static void a_mixture_keeps_its_shares(void **state) {
    (void)state;
    enum { BLOCKS = 6, ITEMS = BLOCKS * 1024 };
    struct err e = {ERR_OK};
    struct store *a = make_set("mem:mix-a"), *b = open_store("mem:mix-b");
    put_shard(b, "other.tar", 20, 3);
    assert_int_equal(dataset_write_manifest(b, NULL, 0, &e), 0);
    struct dataset *d = open_set("mem:mix-a 7, mem:mix-b 1");
    struct loader_options o = {.seed = 3, .window = 10, .shuffle_block = 4};
    struct loader_plan *p;
    assert_int_equal(loader_plan_create(&p, d, &o, &e), 0);
    int64_t seen[13] = {0}, last_epoch[13] = {0}, of_b = 0, near = 0;
    for (int64_t g = 0; g < ITEMS; g++) {
        struct loader_item x, again;
        loader_item_at(p, g, &x);
        loader_item_at(p, g, &again);
        assert_memory_equal(&x, &again, sizeof x);
        assert_in_range(x.sample, 0, 12);
        assert_in_range(x.first_frame, 0, 90);
        seen[x.sample]++;
        last_epoch[x.sample] = x.epoch > last_epoch[x.sample] ? x.epoch : last_epoch[x.sample];
        of_b += x.sample >= 10;
        if (g % 1024 == 1023) assert_int_equal(of_b, (g + 1) / 8);
        near += g % 1024 < 64 && x.sample >= 10;
    }
    assert_in_range(near, 1, 64 * BLOCKS / 2); // spread over the block, not at one end of it
    // Windows of an episode: 9 of 100 frames, 8 of 90; whole epochs of the small set give them all equally
    // often.
    int64_t epochs = ITEMS / 8 / (9 + 8 + 9);
    for (int i = 10; i < 13; i++) assert_in_range(seen[i], epochs * (i == 11 ? 8 : 9), (epochs + 1) * 9);
    assert_in_range(last_epoch[10], 28, 29); // 768 items of 26 windows
    assert_in_range(last_epoch[0], 60, 61);  // 5376 of 87
    loader_plan_destroy(p);
    dataset_close(d);
    d = open_set("mem:mix-a 5000, mem:mix-b 1");
    assert_int_equal(loader_plan_create(&p, d, &o, &e), -ERR_CONFIG);
    dataset_close(d);
    store_close(a);
    store_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_reads),
        cmocka_unit_test(bytes_do_not_depend_on_the_writers),
        cmocka_unit_test(missing_manifest_names_the_cure),
        cmocka_unit_test(a_flipped_bit_is_found_and_named),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(check_counts_and_goes_on),
        cmocka_unit_test(a_short_shard_is_an_error),
        cmocka_unit_test(indexes_foreign_tars),
        cmocka_unit_test(bad_samples_are_refused),
        cmocka_unit_test(shards_must_agree),
        cmocka_unit_test(hostile_indices),
        cmocka_unit_test(hostile_manifests),
        cmocka_unit_test(index_and_manifest_must_agree),
        cmocka_unit_test(any_thread_may_read),
        cmocka_unit_test(metadata_round_trip),
        cmocka_unit_test(a_list_is_one_set),
        cmocka_unit_test(a_mixture_keeps_its_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
