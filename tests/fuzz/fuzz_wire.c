// SPDX-License-Identifier: Apache-2.0
// What guard and supervisor say to each other, on any bytes. A frame that is accepted is written again to the
// same message; a refusal takes nothing.
#include <stdlib.h>
#include <string.h>

#include "launcher/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(const struct wire_message *m) {
    struct wire_message back;
    struct err e = {0};
    struct buf out, again;
    size_t used;
    buf_init(&out, (size_t)1 << 17);
    buf_init(&again, (size_t)1 << 17);
    if (m->type <= 0 || m->type >= WIRE_TYPE_END || wire_encode(m, &out, &e)) abort();
    if (wire_decode(out.data, out.len, &back, &used, &e) || used != out.len) abort();
    if (wire_encode(&back, &again, &e)) abort();
    if (out.len != again.len || memcmp(out.data, again.data, out.len)) abort();
    buf_fini(&out);
    buf_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct wire_message m;
    struct err e = {0};
    for (size_t at = 0, used = 0; at < n; at += used) {
        if (wire_decode((const char *)data + at, n - at, &m, &used, &e)) {
            if (e.code != ERR_DATA || used) abort();
            return 0;
        }
        if (!used) return 0;
        if (used > n - at) abort();
        round_trip(&m);
    }
    return 0;
}
