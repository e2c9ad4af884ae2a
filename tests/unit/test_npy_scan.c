// SPDX-License-Identifier: Apache-2.0
#include "storage/npy_scan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

static const struct stream_schema touch = {.rank = 2, .shape = {3, 2}};

// A version 1 file of `n` floats of 4 or 8 bytes. Returns its bytes.
static size_t make(char *out, const char *descr, const char *shape, const double *v, size_t n, size_t width) {
    char *at = out + 10;
    int length = snprintf(at, 200, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape);
    size_t header = (size_t)length + 3;
    memcpy(out, "\x93NUMPY\x01\0", 8);
    bytes_put_le16(out + 8, (uint16_t)header);
    memcpy(at + length, "  \n", 3);
    for (size_t i = 0; i < n; i++) {
        float f = (float)v[i];
        memcpy(at + header + i * width, width == 4 ? (const void *)&f : (const void *)&v[i], width);
    }
    return 10 + header + n * width;
}

static void scan(struct npy_scan *s, const char *bytes, size_t n, size_t piece) {
    npy_scan_init(s);
    for (size_t at = 0; at < n; at += piece) npy_scan_feed(s, bytes + at, n - at < piece ? n - at : piece);
}

static void what_is_not_finite_is_found_in_pieces_of_any_size(void **state) {
    (void)state;
    const double wild[] = {NAN, INFINITY, -INFINITY};
    char file[1024], why[200];
    static struct npy_scan s;
    for (size_t width = 4; width <= 8; width += 4)
        for (size_t at = 0; at <= 24; at++) {
            double v[24] = {0.5, -1e30, 1e30};
            if (at < 24) v[at] = wild[at % 3];
            size_t n = make(file, width == 4 ? "<f4" : "<f8", "4, 3, 2", v, 24, width);
            for (size_t piece = 1; piece <= n; piece++) {
                scan(&s, file, n, piece);
                assert_int_equal(s.shape.rank, 3);
                assert_false(npy_shape_differs(&s.shape, &touch, why));
                assert_int_equal(npy_scan_is_bad(&s, why), at < 24);
                if (at == 24) continue;
                char want[64];
                snprintf(want, sizeof want, "row %zu holds a number that is not finite", at / 6);
                assert_string_equal(why, want);
            }
        }
}

static void shapes_are_compared(void **state) {
    (void)state;
    const double v[6] = {0};
    char file[1024], why[200];
    static struct npy_scan s;
    const struct stream_schema sound = {.rank = 0};
    scan(&s, file, make(file, "<f4", "6,", v, 6, 4), 64);
    assert_false(npy_shape_differs(&s.shape, &sound, why));
    assert_true(npy_shape_differs(&s.shape, &touch, why));
    assert_string_equal(why, "is [6], its stream says [steps, 3, 2]");
    scan(&s, file, make(file, "|u1", "1, 2, 3", v, 0, 4), 7);
    assert_true(npy_shape_differs(&s.shape, &touch, why));
    assert_string_equal(why, "is [1, 2, 3], its stream says [steps, 3, 2]");
    assert_false(npy_scan_is_bad(&s, why));
}

static void what_is_no_npy_has_no_shape(void **state) {
    (void)state;
    char file[1024], why[200];
    static struct npy_scan s;
    const double v[2] = {NAN, NAN};
    const char *const shapes[] = {"2, -1", "99999999999999999999,", "1,1,1,1,1,1,1", "x"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        scan(&s, file, make(file, "<f4", shapes[i], v, 2, 4), 5);
        assert_false(npy_shape_differs(&s.shape, &touch, why));
        assert_true(npy_scan_is_bad(&s, why)); // whatever its rows are
    }
    memset(file, 0xff, sizeof file);
    scan(&s, file, sizeof file, 3);
    assert_false(npy_shape_differs(&s.shape, &touch, why) || npy_scan_is_bad(&s, why));
    memcpy(file, "\x93NUMPY\x02", 7); // a header of 4 GB
    scan(&s, file, sizeof file, 100);
    assert_false(npy_shape_differs(&s.shape, &touch, why) || npy_scan_is_bad(&s, why));
    scan(&s, "\x93NUMPY", 6, 6);
    assert_false(npy_shape_differs(&s.shape, &touch, why));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_finite_is_found_in_pieces_of_any_size),
        cmocka_unit_test(shapes_are_compared),
        cmocka_unit_test(what_is_no_npy_has_no_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
