// SPDX-License-Identifier: Apache-2.0
// CRC32C (RFC 3720, Castagnoli; SSE4.2 where the CPU has it) and SHA-256 / HMAC (libcrypto).
#ifndef ORRERY_STORAGE_HASH_H
#define ORRERY_STORAGE_HASH_H

#include <stddef.h>
#include <stdint.h>

// Of `crc` (0 at first) followed by n more bytes.
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t n);
// The same by table, on any CPU: what hash_crc32c falls back on, and what it is tested against.
uint32_t hash_crc32c_portable(uint32_t crc, const void *data, size_t n);

// Of two runs of bytes one after the other, from the sum of each and the length of the second.
uint32_t hash_crc32c_join(uint32_t first, uint32_t second, uint64_t second_bytes);

struct hash_sha256;                           // a running digest
struct hash_sha256 *hash_sha256_create(void); // NULL when out of memory
void hash_sha256_update(struct hash_sha256 *h, const void *data, size_t n);
void hash_sha256_peek(const struct hash_sha256 *h, unsigned char out[32]); // does not end it
void hash_sha256_destroy(struct hash_sha256 *h);                           // NULL-safe
void hash_sha256_of(const void *data, size_t n, unsigned char out[32]);
void hash_hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t n, unsigned char out[32]);

struct hash_md5;                        // a running digest; of ETags, not for security
struct hash_md5 *hash_md5_create(void); // NULL when out of memory, or where the machine forbids MD5
void hash_md5_update(struct hash_md5 *h, const void *data, size_t n);
void hash_md5_end(struct hash_md5 *h, unsigned char out[16]); // and begins anew
void hash_md5_destroy(struct hash_md5 *h);                    // NULL-safe

// MD5 of up to HASH_LANES bodies of one length at once, for the price of one or two (hash_md5.c).
#define HASH_LANES 16
struct hash_md5s {
    uint32_t state[4][HASH_LANES];
    uint64_t bytes;
    int n;
};
void hash_md5s_begin(struct hash_md5s *h, int n);
// n more bytes of each; n is a multiple of 64.
void hash_md5s_update(struct hash_md5s *h, const unsigned char *const data[], size_t n);
// The last n bytes of each, any number.
void hash_md5s_end(struct hash_md5s *h, const unsigned char *const data[], size_t n, unsigned char out[][16]);

#endif
