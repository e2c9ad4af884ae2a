// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "storage/hash.h"

// RFC 3720, appendix B.4.
static void crc_vectors(void **state) {
    unsigned char b[32];
    memset(b, 0, sizeof b);
    assert_int_equal(hash_crc32c(0, b, 32), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    assert_int_equal(hash_crc32c(0, b, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)i;
    assert_int_equal(hash_crc32c(0, b, 32), 0x46dd794e);
    assert_int_equal(hash_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(hash_crc32c(0, NULL, 0), 0);
}

// Bit by bit from the polynomial: shares nothing with the tables.
static uint32_t crc_slow(uint32_t crc, const unsigned char *p, size_t n) {
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

static void crc_lengths_and_splits(void **state) {
    enum { N = 20000 };
    unsigned char *p = malloc(N);
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < N; i++) p[i] = (unsigned char)rng_next_u32(&r);
    for (int i = 0; i < 400; i++) {
        size_t from = rng_next_below(&r, 64), n = rng_next_below(&r, i < 200 ? 200 : N - 64);
        size_t cut = rng_next_below(&r, (uint32_t)n + 1);
        uint32_t want = crc_slow(0, p + from, n);
        assert_int_equal(hash_crc32c(0, p + from, n), want);
        assert_int_equal(hash_crc32c_portable(0, p + from, n), want);
        assert_int_equal(hash_crc32c(hash_crc32c(0, p + from, cut), p + from + cut, n - cut), want);
        uint32_t second = hash_crc32c(0, p + from + cut, n - cut);
        assert_int_equal(hash_crc32c_join(hash_crc32c(0, p + from, cut), second, n - cut), want);
    }
    free(p);
}

static void expect_md5s(struct hash_md5 *md5, const unsigned char *p, size_t stride, size_t lanes, size_t n) {
    unsigned char got[HASH_LANES][16], want[16];
    const unsigned char *begin[HASH_LANES], *rest[HASH_LANES];
    size_t early = n / 2 / 64 * 64;
    struct hash_md5s h;
    for (size_t l = 0; l < lanes; l++) rest[l] = (begin[l] = p + l * stride) + early;
    hash_md5s_begin(&h, (int)lanes);
    hash_md5s_update(&h, begin, early);
    hash_md5s_end(&h, rest, n - early, got);
    for (size_t l = 0; l < lanes; l++) {
        hash_md5_update(md5, begin[l], n);
        hash_md5_end(md5, want);
        assert_memory_equal(got[l], want, 16);
    }
}

// Against libcrypto's.
static void md5_lanes(void **state) {
    enum { N = 4096 };
    unsigned char *p = malloc(HASH_LANES * N);
    struct hash_md5 *md5 = hash_md5_create();
    struct rng_stream r;
    if (!md5) skip();
    rng_stream_init(&r, rng_key(1, RNG_TEST, 1), 0, 0);
    for (int i = 0; i < HASH_LANES * N; i++) p[i] = (unsigned char)rng_next_u32(&r);
    for (size_t n = 0; n < N; n += n < 200 ? 1 : 97)
        for (size_t lanes = 1; lanes <= HASH_LANES; lanes++) expect_md5s(md5, p, N, lanes, n);
    hash_md5_destroy(md5);
    free(p);
}

static void expect_hex(const unsigned char digest[32], const char *hex) {
    char text[65];
    bytes_hex(digest, 32, text);
    assert_string_equal(text, hex);
}

// FIPS 180-2, appendix B.1 and B.2.
static void sha_vectors(void **state) {
    unsigned char d[32];
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    hash_sha256_of("abc", 3, d);
    expect_hex(d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_sha256_of(NULL, 0, d);
    expect_hex(d, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct hash_sha256 *h = hash_sha256_create();
    assert_non_null(h);
    hash_sha256_update(h, "abc", 3);
    hash_sha256_peek(h, d); // does not end it
    expect_hex(d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_sha256_update(h, two + 3, strlen(two) - 3);
    hash_sha256_peek(h, d);
    expect_hex(d, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    hash_sha256_destroy(h);
    hash_sha256_destroy(NULL);
}

// RFC 4231, test cases 1, 2 and 6 (a key longer than a block).
static void hmac_vectors(void **state) {
    unsigned char d[32], key[131];
    memset(key, 0x0b, 20);
    hash_hmac_sha256(key, 20, "Hi There", 8, d);
    expect_hex(d, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hash_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, d);
    expect_hex(d, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    hash_hmac_sha256(key, sizeof key, "Test Using Larger Than Block-Size Key - Hash Key First", 54, d);
    expect_hex(d, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_vectors), cmocka_unit_test(crc_lengths_and_splits), cmocka_unit_test(md5_lanes),
        cmocka_unit_test(sha_vectors), cmocka_unit_test(hmac_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
