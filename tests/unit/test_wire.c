// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "launcher/wire.h"

static const struct wire_message sample = {.type = WIRE_ENDED,
                                           .rank = 3,
                                           .world = 4,
                                           .pid = 4711,
                                           .signal = 9,
                                           .code = -1,
                                           .token = "0123456789abcdef0123456789abcdef",
                                           .host = "n3",
                                           .text = "line one\nline two\n"};

static void a_message_survives_the_wire(void **state) {
    struct buf bytes;
    struct wire_message m;
    struct err e = {0};
    size_t used;
    buf_init(&bytes, 1 << 16);
    assert_int_equal(wire_encode(&sample, &bytes, &e), 0);
    for (size_t n = 0; n < bytes.len; n++) {
        assert_int_equal(wire_decode(bytes.data, n, &m, &used, &e), 0);
        assert_int_equal(used, 0);
    }
    assert_int_equal(wire_decode(bytes.data, bytes.len, &m, &used, &e), 0);
    assert_int_equal(used, bytes.len);
    assert_int_equal(m.type, WIRE_ENDED);
    assert_int_equal(m.rank, 3);
    assert_int_equal(m.pid, 4711);
    assert_int_equal(m.signal, 9);
    assert_int_equal(m.code, -1);
    assert_string_equal(m.token, sample.token);
    assert_string_equal(m.host, "n3");
    assert_string_equal(m.text, sample.text);
    buf_fini(&bytes);
}

static void refuses(const char *data, size_t n) {
    struct wire_message m;
    struct err e = {0};
    size_t used;
    assert_int_not_equal(wire_decode(data, n, &m, &used, &e), 0);
    assert_int_equal(e.code, ERR_DATA);
    assert_int_equal(used, 0);
}

static void wrong_frames_are_refused_at_their_head(void **state) {
    char head[8] = {0};
    bytes_put_le32(head, 4096);
    bytes_put_le16(head + 4, WIRE_VERSION + 1);
    bytes_put_le16(head + 6, WIRE_HELLO);
    refuses(head, sizeof head);
    bytes_put_le16(head + 4, WIRE_VERSION);
    bytes_put_le16(head + 6, WIRE_TYPE_END);
    refuses(head, sizeof head);
    bytes_put_le16(head + 6, WIRE_HELLO);
    bytes_put_le32(head, UINT32_MAX);
    refuses(head, sizeof head);
    bytes_put_le32(head, 3);
    refuses(head, sizeof head);
    refuses("GET / HTTP/1.1\r\n\r\n", 18);
}

static void a_lying_text_length_is_refused(void **state) {
    struct buf bytes;
    struct err e = {0};
    buf_init(&bytes, 1 << 16);
    assert_int_equal(wire_encode(&sample, &bytes, &e), 0);
    size_t at = bytes.len - strlen(sample.text) - 4;
    bytes_put_le32(bytes.data + at, 60000);
    refuses(bytes.data, bytes.len);
    buf_fini(&bytes);
}

static void any_flipped_byte_is_read_or_refused_within_bounds(void **state) {
    struct buf bytes;
    struct wire_message m;
    struct err e = {0};
    buf_init(&bytes, 1 << 16);
    assert_int_equal(wire_encode(&sample, &bytes, &e), 0);
    for (size_t i = 0; i < bytes.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            size_t used;
            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
            err_clear(&e);
            int rc = wire_decode(bytes.data, bytes.len, &m, &used, &e);
            assert_true(rc ? used == 0 : used <= bytes.len);
            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
        }
    }
    buf_fini(&bytes);
}

static void tokens_differ(void **state) {
    char a[WIRE_TOKEN_BYTES + 1], b[WIRE_TOKEN_BYTES + 1];
    struct err e = {0};
    assert_int_equal(wire_new_token(a, &e), 0);
    assert_int_equal(wire_new_token(b, &e), 0);
    assert_int_equal(strlen(a), WIRE_TOKEN_BYTES);
    assert_string_not_equal(a, b);
}

static void bad_addresses_are_refused(void **state) {
    static const char *const bad[] = {"",    "127.0.0.1",   "127.0.0.1:0", "127.0.0.1:70000",
                                      "x:1", "127.0.0.1:1x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        int fd;
        assert_int_not_equal(wire_connect(bad[i], &fd, &e), 0);
        assert_int_equal(e.code, ERR_USAGE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_survives_the_wire),
        cmocka_unit_test(wrong_frames_are_refused_at_their_head),
        cmocka_unit_test(a_lying_text_length_is_refused),
        cmocka_unit_test(any_flipped_byte_is_read_or_refused_within_bounds),
        cmocka_unit_test(tokens_differ),
        cmocka_unit_test(bad_addresses_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
