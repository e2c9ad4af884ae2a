// SPDX-License-Identifier: Apache-2.0
#include "storage/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/shard.h"

static struct buf fresh(void) {
    struct buf b;
    buf_init(&b, 1 << 24);
    return b;
}

static void add(struct buf *tar, const char *stem, const char *name, const char *text) {
    struct err e = {ERR_OK};
    assert_int_equal(shard_append(tar, stem, name, text, strlen(text), &e), 0);
}

// Members as "name=data;"; on failure the code, with the message in e.
static int list(const struct buf *tar, struct buf *out, struct err *e) {
    struct tar_memory memory = {tar->data, tar->len};
    struct tar_source source = tar_memory_source(&memory, "x.tar");
    struct tar_scan scan;
    struct tar_member m;
    int rc;
    tar_scan_init(&scan, &source);
    while ((rc = tar_scan_next(&scan, &m, e)) > 0) {
        assert_true(m.offset >= 0 && m.bytes >= 0 && m.offset + m.bytes <= (int64_t)tar->len);
        rc = buf_appendf(out, e, "%s=%.*s;", m.name, (int)m.bytes, tar->data + m.offset);
        assert_int_equal(rc, 0);
    }
    return rc;
}

static void expect(const struct buf *tar, const char *members) {
    struct err e = {ERR_OK};
    struct buf out = fresh();
    int rc = list(tar, &out, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    assert_string_equal(out.data ? out.data : "", members);
    buf_fini(&out);
}

static void refuse(const struct buf *tar, const char *words) {
    struct err e = {ERR_OK};
    struct buf out = fresh();
    assert_int_equal(list(tar, &out, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "x.tar: offset "));
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
    buf_fini(&out);
}

// ---- headers made by hand

static void seal(char *h) {
    unsigned sum = 0;
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum & 0777777);
}

static void header(struct buf *tar, const char *name, char type, const char *size, const char *magic) {
    char h[512] = {0};
    struct err e = {ERR_OK};
    snprintf(h, 100, "%s", name);
    memcpy(h + 124, size, (unsigned char)size[0] & 0x80 ? 12 : strnlen(size, 12));
    h[156] = type;
    memcpy(h + 257, magic, strnlen(magic, 8));
    seal(h);
    assert_int_equal(buf_append(tar, h, 512, &e), 0);
}

static void blocks(struct buf *tar, const void *data, size_t n) {
    struct err e = {ERR_OK};
    assert_int_equal(buf_append(tar, data, n, &e), 0);
    assert_int_equal(tar_put_padding(tar, &e), 0);
}

static void finish(struct buf *tar) {
    struct err e = {ERR_OK};
    assert_int_equal(shard_finish(tar, &e), 0);
}

// One hand-made member of no bytes, then the end; must be refused with these words.
static void refuse_member(const char *name, char type, const char *size, const char *words) {
    struct buf tar = fresh();
    header(&tar, name, type, size, "ustar");
    finish(&tar);
    refuse(&tar, words);
    buf_fini(&tar);
}

// ---- tests

static void round_trip(void **state) {
    (void)state;
    struct buf tar = fresh();
    char deep[400], wide[1000];
    add(&tar, "ep0", "json", "{}");
    add(&tar, "ep0", "empty.bin", "");
    add(&tar, "d/ep1", "video.png", "pixels");
    memset(deep, 0, sizeof deep);
    for (int i = 0; i < 20; i++) snprintf(deep + strlen(deep), 20, "folder%02d/", i);
    snprintf(deep + strlen(deep), 20, "ep2");
    add(&tar, deep, "a", "prefix and name");
    memset(wide, 'w', 900);
    wide[900] = 0;
    add(&tar, wide, "b", "only pax holds it");
    finish(&tar);
    struct buf want = fresh();
    struct err e = {ERR_OK};
    assert_int_equal(buf_appendf(&want, &e,
                                 "ep0.json={};ep0.empty.bin=;d/ep1.video.png=pixels;%s.a=prefix and name;"
                                 "%s.b=only pax holds it;",
                                 deep, wide),
                     0);
    expect(&tar, want.data);
    assert_int_equal(tar.len % 512, 0);
    buf_fini(&want);
    buf_fini(&tar);
}

static void same_members_same_bytes(void **state) {
    (void)state;
    struct buf a = fresh(), b = fresh();
    add(&a, "ep0", "json", "{}");
    add(&b, "ep0", "json", "{}");
    finish(&a);
    finish(&b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    buf_fini(&a);
    buf_fini(&b);
}

static void gnu_and_old_archives(void **state) {
    (void)state;
    struct buf tar = fresh();
    char longer[300];
    memset(longer, 'n', 296);
    memcpy(longer + 290, ".json", 6);
    header(&tar, "././@LongLink", 'L', "00000000450", "ustar  ");
    blocks(&tar, longer, 296);
    header(&tar, longer, '0', "00000000002", "ustar  ");
    blocks(&tar, "{}", 2);
    header(&tar, "./plain.txt", 0, "3 ", "");
    blocks(&tar, "old", 3);
    header(&tar, "folder/", '5', "0", "ustar");
    header(&tar, "older/", 0, "0", "");
    header(&tar, "./", '5', "0", "ustar");
    header(&tar, "binary.size", '0', "\200\0\0\0\0\0\0\0\0\0\0\4", "ustar  ");
    blocks(&tar, "four", 4);
    finish(&tar);
    struct buf want = fresh();
    struct err e = {ERR_OK};
    assert_int_equal(buf_appendf(&want, &e, "%s={};plain.txt=old;", longer), 0);
    struct buf out = fresh();
    int rc = list(&tar, &out, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    assert_non_null(strstr(out.data, want.data));
    buf_fini(&want);
    buf_fini(&out);
    buf_fini(&tar);
}

static void pax_records(void **state) {
    (void)state;
    struct buf tar = fresh();
    const char global[] = "16 comment=hello", records[] = "14 path=a.txt\n10 size=5\n22 mtime=1234567890.5\n";
    char g[20];
    snprintf(g, sizeof g, "17 %s\n", global + 3);
    header(&tar, "g", 'g', "21", "ustar");
    blocks(&tar, g, strlen(g));
    header(&tar, "x", 'x', "00000000056", "ustar");
    blocks(&tar, records, strlen(records));
    header(&tar, "cut name", '0', "00000000000", "ustar");
    blocks(&tar, "12345", 5);
    finish(&tar);
    expect(&tar, "a.txt=12345;");
    buf_fini(&tar);
}

static void one_pax(const char *record, char type, const char *words) {
    struct buf tar = fresh();
    char size[13];
    snprintf(size, sizeof size, "%011o", (unsigned)strlen(record));
    header(&tar, "x", type, size, "ustar");
    blocks(&tar, record, strlen(record));
    header(&tar, "name", '0', "0", "ustar");
    finish(&tar);
    refuse(&tar, words);
    buf_fini(&tar);
}

static void hostile_pax(void **state) {
    (void)state;
    one_pax("nonsense", 'x', "malformed pax");
    one_pax("99 path=a\n", 'x', "malformed pax");
    one_pax("3 =\n", 'x', "malformed pax");
    one_pax("7 path\n", 'x', "without '='");
    one_pax("10 path=a", 'x', "malformed pax");
    one_pax("999999999999999999 path=a\n", 'x', "malformed pax");
    one_pax("12 path=/etc\n", 'x', "malformed pax");
    one_pax("13 path=/etc\n", 'x', "is absolute");
    one_pax("15 path=a/../b\n", 'x', "'..'");
    one_pax("11 size=-1\n", 'x', "no number");
    one_pax("29 size=99999999999999999999\n", 'x', "no number");
    one_pax("18 size=999999999\n", 'x', "the tar only");
    one_pax("10 path=a\n", 'g', "for all members");
    one_pax("22 GNU.sparse.major=1\n", 'x', "sparse");
}

static void hostile_members(void **state) {
    (void)state;
    refuse_member("a", '1', "0", "a hard link");
    refuse_member("a", '2', "0", "a symbolic link");
    refuse_member("a", 'K', "0", "a symbolic link");
    refuse_member("a", '3', "0", "a device");
    refuse_member("a", '4', "0", "a device");
    refuse_member("a", '6', "0", "a named pipe");
    refuse_member("a", 'S', "0", "a sparse file");
    refuse_member("a", 'Z', "0", "unknown type");
    refuse_member("/etc/passwd", '0', "0", "is absolute");
    refuse_member("../x", '0', "0", "'..'");
    refuse_member("a/../x", '0', "0", "'..'");
    refuse_member("a/..", '0', "0", "'..'");
    refuse_member("./../x", '0', "0", "'..'");
    refuse_member("..", '5', "0", "'..'");
    refuse_member("", '0', "0", "is empty");
    refuse_member("a\nb", '0', "0", "control character");
    refuse_member("a\xff", '0', "0", "not UTF-8");
    refuse_member("a/", '0', "0", "like a folder");
    refuse_member("a", '0', "77777777777", "the tar only");
    refuse_member("a", '0', "\200\377\377\377\377\377\377\377\377\377\377\377", "no number");
    refuse_member("a", '0', "\377\377\377\377\377\377\377\377\377\377\377\377", "no number");
    refuse_member("a", '0', "", "no number");
    refuse_member("a", '0', "8", "no number");
    refuse_member("a", '0', "1 2", "no number");
    refuse_member("a", 'x', "77777777777", "beyond the end");
    refuse_member("a", 'L', "7777777", "beyond the end");
}

static void names_with_dots_are_fine(void **state) {
    (void)state;
    struct buf tar = fresh();
    add(&tar, "a", "..b", "1");
    header(&tar, "..d/...e", '0', "0", "ustar");
    header(&tar, "..f", '0', "0", "ustar");
    finish(&tar);
    expect(&tar, "a...b=1;..d/...e=;..f=;");
    buf_fini(&tar);
}

static void large_records_are_refused(void **state) {
    (void)state;
    struct buf tar = fresh();
    char *zeros = calloc(1, 1 << 20);
    assert_non_null(zeros);
    header(&tar, "x", 'x', "00004000000", "ustar");
    blocks(&tar, zeros, 1 << 20);
    refuse(&tar, "a name record of 1048576 bytes");
    free(zeros);
    buf_fini(&tar);
}

static void truncation_is_found_anywhere(void **state) {
    (void)state;
    struct buf tar = fresh();
    add(&tar, "ep0", "json", "{}");
    add(&tar, "ep0", "video.png", "pixels");
    finish(&tar);
    size_t whole = tar.len, needed = whole - 1024 + 512;
    for (tar.len = 0; tar.len < needed; tar.len++) {
        struct err e = {ERR_OK};
        struct buf out = fresh();
        assert_int_equal(list(&tar, &out, &e), -ERR_DATA);
        buf_fini(&out);
    }
    tar.len = whole;
    expect(&tar, "ep0.json={};ep0.video.png=pixels;");
    buf_fini(&tar);
}

static void flipped_header_bits_are_found(void **state) {
    (void)state;
    struct buf tar = fresh();
    add(&tar, "ep0", "json", "{}");
    finish(&tar);
    for (int byte = 0; byte < 512; byte++)
        for (int bit = 0; bit < 8; bit++) {
            struct err e = {ERR_OK};
            struct buf out = fresh();
            tar.data[byte] = (char)(tar.data[byte] ^ 1 << bit);
            int rc = list(&tar, &out, &e);
            // A flip in the blanks around the sum's own digits leaves its value.
            if (byte < 148 || byte > 155) assert_int_equal(rc, -ERR_DATA);
            tar.data[byte] = (char)(tar.data[byte] ^ 1 << bit);
            buf_fini(&out);
        }
    buf_fini(&tar);
}

static void nothing_hides_behind_the_end(void **state) {
    (void)state;
    struct buf tar = fresh();
    add(&tar, "ep0", "json", "{}");
    finish(&tar);
    add(&tar, "ep1", "json", "{}");
    finish(&tar);
    refuse(&tar, "behind the end mark");
    buf_fini(&tar);
}

static void bad_names_are_not_written(void **state) {
    (void)state;
    const char *const pairs[][2] = {{"/ep", "json"}, {"../ep", "json"}, {"a.b", "json"}, {"", "json"},
                                    {"ep", ""},      {"ep", "a/b"},     {"ep\n", "json"}};
    struct buf tar = fresh();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct err e = {ERR_OK};
        assert_int_equal(shard_append(&tar, pairs[i][0], pairs[i][1], "", 0, &e), -ERR_BUG);
        assert_int_equal(tar.len, 0);
    }
    tar.max = 600; // room for the header only: nothing of the member may stay
    struct err e = {ERR_OK};
    assert_int_equal(shard_append(&tar, "ep", "json", "{}", 2, &e), -ERR_DATA);
    assert_int_equal(tar.len, 0);
    buf_fini(&tar);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(same_members_same_bytes),
        cmocka_unit_test(gnu_and_old_archives),
        cmocka_unit_test(pax_records),
        cmocka_unit_test(hostile_pax),
        cmocka_unit_test(hostile_members),
        cmocka_unit_test(names_with_dots_are_fine),
        cmocka_unit_test(large_records_are_refused),
        cmocka_unit_test(truncation_is_found_anywhere),
        cmocka_unit_test(flipped_header_bits_are_found),
        cmocka_unit_test(nothing_hides_behind_the_end),
        cmocka_unit_test(bad_names_are_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
