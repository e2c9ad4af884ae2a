// SPDX-License-Identifier: Apache-2.0
// MD5 (RFC 1321) of several bodies of one length in step. One MD5 is a chain of dependent steps and leaves
// most of a core idle: HASH_LANES of them cost little more than one.
#include <string.h>

#include "storage/hash.h"

#define BLOCK_BYTES 64
#define WORDS       16

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

// Word w of every lane side by side.
static inline __attribute__((always_inline)) void load_block(const unsigned char *const data[HASH_LANES],
                                                             size_t at, lanes m[WORDS]) {
    uint32_t words[WORDS][HASH_LANES];
    for (int l = 0; l < HASH_LANES; l++) {
        const unsigned char *p = data[l] + at;
        for (int w = 0; w < WORDS; w++, p += 4)
            words[w][l] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    for (int w = 0; w < WORDS; w++) memcpy(&m[w], words[w], sizeof m[w]);
}

static inline __attribute__((always_inline)) void
add_block(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t at) {
    lanes m[WORDS], s[4], f;
    load_block(data, at, m);
    memcpy(s, h->state, sizeof s);
    lanes a = s[0], b = s[1], c = s[2], d = s[3];
#pragma GCC unroll 64
    for (int i = 0; i < 64; i++) {
        const int round = i / 16, word = (round == 0   ? i
                                          : round == 1 ? 5 * i + 1
                                          : round == 2 ? 3 * i + 5
                                                       : 7 * i) &
                                         15;
        const int shift = shifts[round][i & 3];
        f = round == 0   ? (d ^ (b & (c ^ d)))
            : round == 1 ? (c ^ (d & (b ^ c)))
            : round == 2 ? (b ^ c ^ d)
                         : (c ^ (b | ~d));
        f += a + m[word] + sines[i];
        a = d;
        d = c;
        c = b;
        b += f << shift | f >> (32 - shift);
    }
    s[0] += a;
    s[1] += b;
    s[2] += c;
    s[3] += d;
    memcpy(h->state, s, sizeof s);
}

static inline __attribute__((always_inline)) void
add_blocks(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t n) {
    for (size_t at = 0; at + BLOCK_BYTES <= n; at += BLOCK_BYTES) add_block(h, data, at);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void
add_avx512(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t n) {
    add_blocks(h, data, n);
}

__attribute__((target("avx2"))) static void add_avx2(struct hash_md5s *h,
                                                     const unsigned char *const data[HASH_LANES], size_t n) {
    add_blocks(h, data, n);
}
#endif

static void add(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
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

void hash_md5s_begin(struct hash_md5s *h) {
    static const uint32_t first[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    h->bytes = 0;
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < HASH_LANES; l++) h->state[i][l] = first[i];
}

void hash_md5s_update(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t n) {
    add(h, data, n);
    h->bytes += n;
}

void hash_md5s_end(struct hash_md5s *h, const unsigned char *const data[HASH_LANES], size_t n,
                   unsigned char out[HASH_LANES][16]) {
    unsigned char last[HASH_LANES][2 * BLOCK_BYTES] = {{0}};
    const unsigned char *at[HASH_LANES];
    size_t whole = n / BLOCK_BYTES * BLOCK_BYTES, rest = n - whole;
    size_t padded = rest + 9 <= BLOCK_BYTES ? BLOCK_BYTES : 2 * BLOCK_BYTES;
    uint64_t bits = 8 * (h->bytes + n);
    add(h, data, whole);
    for (int l = 0; l < HASH_LANES; l++) {
        if (rest) memcpy(last[l], data[l] + whole, rest);
        last[l][rest] = 0x80;
        for (int i = 0; i < 8; i++) last[l][padded - 8 + (size_t)i] = (unsigned char)(bits >> (8 * i));
        at[l] = last[l];
    }
    add(h, at, padded);
    for (int l = 0; l < HASH_LANES; l++)
        for (int i = 0; i < 16; i++) out[l][i] = (unsigned char)(h->state[i / 4][l] >> (8 * (i % 4)));
}
