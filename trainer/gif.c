// SPDX-License-Identifier: Apache-2.0
#include "trainer/gif.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COLOURS 256
#define BITS    5 // per channel of the colours that the palette tells apart
#define BINS    (1 << (3 * BITS))

static int bin_of(const unsigned char *rgb) {
    return (rgb[0] >> (8 - BITS)) << (2 * BITS) | (rgb[1] >> (8 - BITS)) << BITS | rgb[2] >> (8 - BITS);
}

// ---- the palette. A bin holds how often its colours occur and their sums.
struct bin {
    int64_t count, sum[3];
};

struct box {
    int first, last; // [first, last) of the list of used bins
};

struct palette {
    unsigned char rgb[COLOURS][3];
    unsigned char index[BINS];
};

struct cutter {
    struct bin *bins;
    int *list; // used bins
    struct box box[COLOURS];
    int boxes;
};

static int level(int bin, int channel) {
    return bin >> ((2 - channel) * BITS) & ((1 << BITS) - 1);
}

static int widest(const struct cutter *c, const struct box *b, int *channel) {
    int best = -1;
    for (int k = 0; k < 3; k++) {
        int lo = 1 << BITS, hi = -1;
        for (int i = b->first; i < b->last; i++) {
            int v = level(c->list[i], k);
            lo = v < lo ? v : lo;
            hi = v > hi ? v : hi;
        }
        if (hi - lo > best) {
            best = hi - lo;
            *channel = k;
        }
    }
    return best;
}

static int compare_ints(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

// Orders the box's bins by one channel: that channel goes in front for the comparison, and out again.
static void sort_box(struct cutter *c, const struct box *b, int channel) {
    for (int i = b->first; i < b->last; i++) c->list[i] |= level(c->list[i], channel) << (3 * BITS);
    qsort(c->list + b->first, (size_t)(b->last - b->first), sizeof(int), compare_ints);
    for (int i = b->first; i < b->last; i++) c->list[i] &= BINS - 1;
}

static int median(const struct cutter *c, const struct box *b) {
    int64_t total = 0, sum = 0;
    for (int i = b->first; i < b->last; i++) total += c->bins[c->list[i]].count;
    for (int i = b->first; i < b->last - 1; i++) {
        sum += c->bins[c->list[i]].count;
        if (2 * sum >= total) return i + 1;
    }
    return b->last - 1;
}

// Splits the box that spans most levels; false when every box is one bin.
static bool split_one(struct cutter *c) {
    int best = 0, which = -1, channel = 0;
    for (int i = 0; i < c->boxes; i++) {
        int k = 0, span = widest(c, &c->box[i], &k);
        if (span > best) {
            best = span;
            which = i;
            channel = k;
        }
    }
    if (which < 0) return false;
    struct box *b = &c->box[which];
    sort_box(c, b, channel);
    int middle = median(c, b);
    c->box[c->boxes++] = (struct box){middle, b->last};
    b->last = middle;
    return true;
}

static void count_pixels(struct cutter *c, const unsigned char *rgb, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        struct bin *b = &c->bins[bin_of(rgb + 3 * i)];
        b->count++;
        for (int k = 0; k < 3; k++) b->sum[k] += rgb[3 * i + k];
    }
}

static void fill_palette(const struct cutter *c, struct palette *p) {
    for (int i = 0; i < c->boxes; i++) {
        int64_t count = 0, sum[3] = {0}; // every box holds a used bin
        for (int j = c->box[i].first; j < c->box[i].last; j++) {
            const struct bin *b = &c->bins[c->list[j]];
            count += b->count;
            for (int k = 0; k < 3; k++) sum[k] += b->sum[k];
            p->index[c->list[j]] = (unsigned char)i;
        }
        for (int k = 0; k < 3; k++)
            p->rgb[i][k] = (unsigned char)((count ? (sum[k] + count / 2) / count : 0));
    }
}

static int make_palette(const unsigned char *rgb, int64_t n, struct palette *p, struct err *e) {
    struct cutter c = {
        .bins = calloc(BINS, sizeof(struct bin)), .list = calloc(BINS, sizeof(int)), .boxes = 1};
    memset(p, 0, sizeof *p);
    int rc = 0;
    if (!c.bins || !c.list) {
        rc = err_set(e, ERR_MEMORY, "no memory for a palette");
        goto out;
    }
    count_pixels(&c, rgb, n);
    for (int i = 0; i < BINS; i++)
        if (c.bins[i].count) c.list[c.box[0].last++] = i;
    while (c.boxes < COLOURS && split_one(&c)) {
    }
    fill_palette(&c, p);
out:
    free(c.bins);
    free(c.list);
    return rc;
}

// ---- LZW with codes of 9 to 12 bits; the table is a hash of (prefix code, next index) -> code.
#define CLEAR     256
#define END       257
#define CODES     4096
#define SLOTS     16384
#define SUB_BLOCK 255

struct lzw {
    struct buf *out;
    struct err *e;
    int rc;
    uint32_t key[SLOTS]; // (prefix << 8 | index) + 1; 0: free
    uint16_t code[SLOTS];
    int next, size;
    uint32_t bits;
    int n_bits;
    unsigned char block[SUB_BLOCK];
    int used;
};

static void flush_block(struct lzw *z) {
    unsigned char n = (unsigned char)z->used;
    if (z->rc || !z->used) return;
    z->rc = buf_append(z->out, &n, 1, z->e);
    if (!z->rc) z->rc = buf_append(z->out, z->block, n, z->e);
    z->used = 0;
}

static void put_byte(struct lzw *z, unsigned char b) {
    z->block[z->used++] = b;
    if (z->used == SUB_BLOCK) flush_block(z);
}

static void emit(struct lzw *z, int code) {
    z->bits |= (uint32_t)code << z->n_bits;
    z->n_bits += z->size;
    while (z->n_bits >= 8) {
        put_byte(z, (unsigned char)z->bits);
        z->bits >>= 8;
        z->n_bits -= 8;
    }
}

static void clear_table(struct lzw *z) {
    memset(z->key, 0, sizeof z->key);
    z->next = END + 1;
    z->size = 9;
}

// The slot of a key, or the free one where it belongs.
static uint32_t slot_of(const struct lzw *z, uint32_t key) {
    uint32_t at = key * 2654435761u >> 18;
    while (z->key[at] && z->key[at] != key) at = (at + 1) % SLOTS;
    return at;
}

// A reader learns a code one code later than the writer, so the width grows when the new code needs it.
static void learn(struct lzw *z, uint32_t slot, uint32_t key) {
    z->key[slot] = key;
    z->code[slot] = (uint16_t)z->next;
    if (z->next == 1 << z->size && z->size < 12) z->size++;
    z->next++;
}

static void compress(struct lzw *z, const unsigned char *index, int64_t n) {
    clear_table(z);
    emit(z, CLEAR);
    int prefix = index[0];
    for (int64_t i = 1; i < n; i++) {
        uint32_t key = ((uint32_t)prefix << 8 | index[i]) + 1, slot = slot_of(z, key);
        if (z->key[slot]) {
            prefix = z->code[slot];
            continue;
        }
        emit(z, prefix);
        if (z->next < CODES)
            learn(z, slot, key);
        else {
            emit(z, CLEAR);
            clear_table(z);
        }
        prefix = index[i];
    }
    emit(z, prefix);
    // The reader learns a code from this prefix too, and may widen for END.
    if (z->next == 1 << z->size && z->size < 12) z->size++;
    emit(z, END);
    if (z->n_bits) put_byte(z, (unsigned char)z->bits);
    flush_block(z);
}

// ---- the file.
static int write_header(const struct palette *p, int64_t width, int64_t height, struct buf *out,
                        struct err *e) {
    unsigned char screen[7] = {0, 0, 0, 0, 0xf7, 0, 0}; // 256 colours of 8 bits
    static const unsigned char loop[] = {0x21, 0xff, 11,  'N', 'E', 'T', 'S', 'C', 'A', 'P',
                                         'E',  '2',  '.', '0', 3,   1,   0,   0,   0};
    bytes_put_le16(screen, (uint16_t)width);
    bytes_put_le16(screen + 2, (uint16_t)height);
    int rc = buf_append(out, "GIF89a", 6, e);
    if (!rc) rc = buf_append(out, screen, sizeof screen, e);
    if (!rc) rc = buf_append(out, p->rgb, sizeof p->rgb, e);
    return rc ? rc : buf_append(out, loop, sizeof loop, e);
}

static int write_frame(struct lzw *z, const unsigned char *index, int64_t width, int64_t height, int delay_cs,
                       struct err *e) {
    unsigned char control[8] = {0x21, 0xf9, 4, 4, 0, 0, 0, 0},
                  place[11] = {0x2c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8};
    bytes_put_le16(control + 4, (uint16_t)delay_cs);
    bytes_put_le16(place + 5, (uint16_t)width);
    bytes_put_le16(place + 7, (uint16_t)height);
    struct buf *out = z->out;
    memset(z, 0, sizeof *z);
    z->out = out;
    z->e = e;
    int rc = buf_append(out, control, sizeof control, e);
    if (!rc) rc = buf_append(out, place, sizeof place, e);
    if (rc) return rc;
    compress(z, index, width * height);
    return z->rc ? z->rc : buf_append(out, "", 1, e);
}

int gif_write(const unsigned char *rgb, int64_t frames, int64_t width, int64_t height, int delay_cs,
              struct buf *out, struct err *e) {
    if (frames < 1 || width < 1 || height < 1 || width > 65535 || height > 65535)
        return err_set(e, ERR_BUG, "gif: %lld frames of %lld x %lld", (long long)frames, (long long)width,
                       (long long)height);
    int64_t n = width * height;
    struct palette *p = malloc(sizeof *p);
    struct lzw *z = malloc(sizeof *z);
    unsigned char *index = calloc((size_t)n, 1);
    int rc = p && z && index ? 0 : err_set(e, ERR_MEMORY, "no memory for a GIF");
    if (!rc) rc = make_palette(rgb, frames * n, p, e);
    if (!rc) rc = write_header(p, width, height, out, e);
    for (int64_t f = 0; f < frames && !rc; f++) {
        for (int64_t i = 0; i < n; i++) index[i] = p->index[bin_of(rgb + 3 * (f * n + i))];
        z->out = out;
        rc = write_frame(z, index, width, height, delay_cs, e);
    }
    if (!rc) rc = buf_append(out, ";", 1, e);
    free(p);
    free(z);
    free(index);
    return rc;
}
