// SPDX-License-Identifier: Apache-2.0
// MD5 (RFC 1321) of several bodies of one length in step. One MD5 is a chain of dependent steps and leaves
// most of a core idle: HASH_LANES of them cost little more than one.
#include <string.h>

#include "storage/hash.h"

// Each step depends on the one before; GCC's reordering of sums would make it an addition longer.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-reassoc")
#endif

#define BLOCK_BYTES 64
#define WORDS       16
#define FEW         4 // lanes for which narrower vectors are faster
#define INLINE      static inline __attribute__((always_inline))

typedef uint32_t lanes __attribute__((vector_size(4 * HASH_LANES)));

static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

static const unsigned char shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

typedef uint32_t four __attribute__((vector_size(16)));
typedef uint32_t eight __attribute__((vector_size(32)));
_Static_assert(HASH_LANES == 16, "load_row and the transposes below are written for sixteen lanes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are loaded as they lie");

INLINE four load_four(const unsigned char *p) {
    four words;
    memcpy(&words, p, sizeof words);
    return words;
}

// Four words of each of the lanes i, i + 4, i + 8 and i + 12.
INLINE void load_row(const unsigned char *const data[], int i, size_t at, lanes *out) {
    four a = load_four(data[i] + at), b = load_four(data[i + 4] + at);
    four c = load_four(data[i + 8] + at), d = load_four(data[i + 12] + at);
    eight ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
    eight cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7);
    *out = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#define EACH_QUARTER(a, b, i, j, k, l)                                                                       \
    __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8,        \
                            i + 12, j + 12, k + 12, l + 12)

// Word w of every lane side by side, lanes in their order: transposes of 4 x 4 words.
INLINE void load_many(const unsigned char *const data[], size_t at, lanes m[WORDS]) {
#pragma GCC unroll 4
    for (int w = 0; w < WORDS; w += 4, at += 16) {
        lanes row[4];
        for (int i = 0; i < 4; i++) load_row(data, i, at, &row[i]);
        lanes low01 = EACH_QUARTER(row[0], row[1], 0, 16, 1, 17),
              high01 = EACH_QUARTER(row[0], row[1], 2, 18, 3, 19);
        lanes low23 = EACH_QUARTER(row[2], row[3], 0, 16, 1, 17),
              high23 = EACH_QUARTER(row[2], row[3], 2, 18, 3, 19);
        m[w] = EACH_QUARTER(low01, low23, 0, 1, 16, 17);
        m[w + 1] = EACH_QUARTER(low01, low23, 2, 3, 18, 19);
        m[w + 2] = EACH_QUARTER(high01, high23, 0, 1, 16, 17);
        m[w + 3] = EACH_QUARTER(high01, high23, 2, 3, 18, 19);
    }
}

// The same of four lanes.
INLINE void load_few(const unsigned char *const data[], size_t at, four m[WORDS]) {
#pragma GCC unroll 4
    for (int w = 0; w < WORDS; w += 4, at += 16) {
        four a = load_four(data[0] + at), b = load_four(data[1] + at);
        four c = load_four(data[2] + at), d = load_four(data[3] + at);
        four low01 = __builtin_shufflevector(a, b, 0, 4, 1, 5),
             high01 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        four low23 = __builtin_shufflevector(c, d, 0, 4, 1, 5),
             high23 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        m[w] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
        m[w + 1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
        m[w + 2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
        m[w + 3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
    }
}

INLINE int word_of(int i) {
    const int round = i / 16;
    return (round == 0 ? i : round == 1 ? 5 * i + 1 : round == 2 ? 3 * i + 5 : 7 * i) & 15;
}

// One block of every lane: the rounds of RFC 1321 on vectors.
#define DEFINE_ADD(NAME, VECTOR, LOAD)                                                                       \
    INLINE void NAME(struct hash_md5s *h, const unsigned char *const data[], size_t at) {                    \
        VECTOR m[WORDS], s[4], f;                                                                            \
        LOAD(data, at, m);                                                                                   \
        for (int i = 0; i < 4; i++) memcpy(&s[i], h->state[i], sizeof s[i]);                                 \
        VECTOR a = s[0], b = s[1], c = s[2], d = s[3];                                                       \
        _Pragma("GCC unroll 64") for (int i = 0; i < 64; i++) {                                              \
            const int round = i / 16, shift = shifts[round][i & 3];                                          \
            f = round == 0   ? (d ^ (b & (c ^ d)))                                                           \
                : round == 1 ? (c ^ (d & (b ^ c)))                                                           \
                : round == 2 ? (b ^ c ^ d)                                                                   \
                             : (c ^ (b | ~d));                                                               \
            f += a + (m[word_of(i)] + sines[i]);                                                             \
            a = d;                                                                                           \
            d = c;                                                                                           \
            c = b;                                                                                           \
            b += f << shift | f >> (32 - shift);                                                             \
        }                                                                                                    \
        s[0] += a;                                                                                           \
        s[1] += b;                                                                                           \
        s[2] += c;                                                                                           \
        s[3] += d;                                                                                           \
        for (int i = 0; i < 4; i++) memcpy(h->state[i], &s[i], sizeof s[i]);                                 \
    }

DEFINE_ADD(add_few, four, load_few)
DEFINE_ADD(add_many, lanes, load_many)

INLINE void add_blocks(struct hash_md5s *h, const unsigned char *const data[], size_t n) {
    const unsigned char *all[HASH_LANES];
    if (h->n <= FEW) {
        for (int l = 0; l < FEW; l++) all[l] = data[l < h->n ? l : 0];
        for (size_t at = 0; at + BLOCK_BYTES <= n; at += BLOCK_BYTES) add_few(h, all, at);
    } else {
        for (int l = 0; l < HASH_LANES; l++) all[l] = data[l < h->n ? l : 0];
        for (size_t at = 0; at + BLOCK_BYTES <= n; at += BLOCK_BYTES) add_many(h, all, at);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vl"))) static void
add_avx512(struct hash_md5s *h, const unsigned char *const data[], size_t n) {
    add_blocks(h, data, n);
}

__attribute__((target("avx2"))) static void add_avx2(struct hash_md5s *h, const unsigned char *const data[],
                                                     size_t n) {
    add_blocks(h, data, n);
}
#endif

static void add(struct hash_md5s *h, const unsigned char *const data[], size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        add_avx512(h, data, n);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        add_avx2(h, data, n);
        return;
    }
#endif
    add_blocks(h, data, n);
}

void hash_md5s_begin(struct hash_md5s *h, int n) {
    static const uint32_t first[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    h->n = n;
    h->bytes = 0;
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < HASH_LANES; l++) h->state[i][l] = first[i];
}

void hash_md5s_update(struct hash_md5s *h, const unsigned char *const data[], size_t n) {
    add(h, data, n);
    h->bytes += n;
}

void hash_md5s_end(struct hash_md5s *h, const unsigned char *const data[], size_t n,
                   unsigned char out[][16]) {
    unsigned char last[HASH_LANES][2 * BLOCK_BYTES] = {{0}};
    const unsigned char *at[HASH_LANES];
    size_t whole = n / BLOCK_BYTES * BLOCK_BYTES, rest = n - whole;
    size_t padded = rest + 9 <= BLOCK_BYTES ? BLOCK_BYTES : 2 * BLOCK_BYTES;
    uint64_t bits = 8 * (h->bytes + n);
    add(h, data, whole);
    for (int l = 0; l < h->n; l++) {
        if (rest) memcpy(last[l], data[l] + whole, rest);
        last[l][rest] = 0x80;
        for (int i = 0; i < 8; i++) last[l][padded - 8 + (size_t)i] = (unsigned char)(bits >> (8 * i));
        at[l] = last[l];
    }
    add(h, at, padded);
    for (int l = 0; l < h->n; l++)
        for (int i = 0; i < 16; i++) out[l][i] = (unsigned char)(h->state[i / 4][l] >> (8 * (i % 4)));
}
