// SPDX-License-Identifier: Apache-2.0
// The table of frames of an MP4 film: how many pictures its first video track shows, when, how large they
// are, and which of them are key frames, read from its header (moov) without decoding anything. The boxes are
// those of ISO/IEC 14496-12: mdhd, hdlr, elst, stsd, stts, ctts, stss, stsz, stsc, stco and co64. An edit
// list may have an empty edit, and one that cuts a piece out; what it leaves out is not shown. The input is
// hostile: nothing is allocated that the bytes at hand do not bear out. A film whose table cannot be told (in
// fragments, no video, odd edits, damaged) is no error: it has no table, and `why` says so. A table may also
// hold what is needed to read a part of the film by itself. Thread rule: a scan belongs to one thread.
#ifndef ORRERY_STORAGE_FILM_H
#define ORRERY_STORAGE_FILM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define FILM_HEADER_MAX ((size_t)16 << 20) // bytes of a moov
#define FILM_FRAMES_MAX ((int64_t)1 << 20)
#define FILM_WHY_BYTES  160
#define FILM_BLOCK      65536 // bytes, each so many with a CRC32C of their own

struct film_table {
    char codec[5]; // the sample entry's name, such as "avc1"; '?' for a byte that is not printable
    int32_t width, height;
    int64_t frames;         // 0: there is no table
    int64_t timescale;      // ticks per second
    int64_t last, duration; // ticks from the first picture to the last one, and to its end
    uint32_t step;          // ticks from a picture to the next one, where all are equal; else 0
    uint32_t *steps;        // [frames - 1], where they are not; owned. NULL, too, when they were not kept
    int64_t key_step;       // every so manieth picture from the first one is a key frame; 0: `keys`
    int64_t n_keys;
    uint32_t *keys;           // [n_keys] numbers of pictures in the order in which they are shown; owned
    char why[FILM_WHY_BYTES]; // there is no table; empty: it is no MP4 either
    // What a part is read with; n_crcs 0: it cannot be.
    int64_t bytes;               // of the film
    int64_t lead;                // bytes up to the pictures: all boxes before them, and the head of theirs
    int64_t moov_at, moov_bytes; // the header with its own head; within `lead`, or right behind the pictures
    int64_t n_crcs;
    uint32_t *crcs; // [n_crcs] of blocks of FILM_BLOCK bytes, the last one being shorter; owned
};

void film_fini(struct film_table *t); // also of a zeroed one
int film_copy(struct film_table *out, const struct film_table *from, struct err *e) ERR_CHECK;
bool film_same(const struct film_table *a, const struct film_table *b);
bool film_has_times(const struct film_table *t);
int64_t film_step(const struct film_table *t, int64_t i); // ticks from picture i to the next; it has times
void film_forget(struct film_table *t);                   // the lists of steps and keys
void film_forget_crcs(struct film_table *t);
int64_t film_blocks(int64_t bytes);
int64_t film_key_before(const struct film_table *t,
                        int64_t i);              // the nearest one that is not behind i; -1: none
double film_rate_hz(const struct film_table *t); // the mean; 0: one picture without a duration

// A whole film in memory. MEMORY is the only error.
int film_read(const void *bytes, size_t n, struct film_table *out, struct err *e) ERR_CHECK;

// What must be decoded to see some of the pictures: packets from a key frame's on, in the order of decoding.
struct film_part {
    int64_t key, key_ticks;      // the key frame's number, and its ticks from the first picture
    int64_t start;               // ticks from the film's beginning to the first picture
    int64_t lo, hi;              // bytes of the film in which all the packets lie
    int64_t key_byte, last_byte; // where the first and the last packet begin
};
// For pictures first .. last of a film whose table has times and crcs, out of its header: the `moov_bytes` at
// `moov_at`. DATA where the header does not bear it out.
int film_part_of(const struct film_table *t, const void *moov, int64_t first, int64_t last,
                 struct film_part *out, struct err *e) ERR_CHECK;

// The same as film_read for a film that goes by in pieces, front to back: only its header is kept.
struct film_scan {
    bool parts;    // the table is to hold what parts are read with
    int64_t bytes; // that went by
    unsigned char head[16];
    unsigned n_head;
    char box[5];
    uint64_t left; // bytes of this box to come
    bool keep, open_end, film, header, ended;
    struct buf moov;
    struct err flaw;
    int64_t lead, moov_at, moov_bytes, pictures_end;
    uint32_t *crcs;
    size_t n_crcs, room;
    int64_t summed; // bytes
};
void film_scan_init(struct film_scan *s, bool parts);
int film_scan_feed(struct film_scan *s, const void *bytes, size_t n, struct err *e) ERR_CHECK;
// Ends the scan, in any case.
int film_scan_end(struct film_scan *s, struct film_table *out, struct err *e) ERR_CHECK;

#endif
