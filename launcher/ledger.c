// SPDX-License-Identifier: Apache-2.0
#include "launcher/ledger.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES_MAX (1 << 18)

// A full disk or a power cut may have left half a line.
static bool is_torn(int fd) {
    char last = '\n';
    off_t end = lseek(fd, 0, SEEK_END);
    return end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n';
}

void ledger_init(struct ledger *l, int fd) {
    memset(l, 0, sizeof *l);
    l->fd = fd;
    l->torn = is_torn(fd);
    l->begin_ns = l->last_ns = clock_monotonic_ns();
    buf_init(&l->line, LINE_BYTES_MAX);
}

void ledger_fini(struct ledger *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
    buf_fini(&l->line);
}

void ledger_spend(struct ledger *l, enum ledger_kind kind, double wait_share) {
    int64_t now = clock_monotonic_ns();
    int64_t spent = now - l->last_ns, waited = 0;
    if (wait_share > 0 && wait_share <= 1) waited = (int64_t)(wait_share * (double)spent);
    l->last_ns = now;
    l->spent_ns[kind] += spent - waited;
    l->spent_ns[LEDGER_DATA_WAIT] += waited;
    if (kind == LEDGER_PRODUCTIVE) l->at_risk_ns += spent - waited;
}

void ledger_saved(struct ledger *l) {
    l->at_risk_ns = 0;
}

void ledger_lose(struct ledger *l) {
    l->spent_ns[LEDGER_PRODUCTIVE] -= l->at_risk_ns;
    l->spent_ns[LEDGER_LOST] += l->at_risk_ns;
    l->at_risk_ns = 0;
}

struct json_writer *ledger_event(struct ledger *l, const char *name) {
    char now[CLOCK_ISO_BYTES];
    buf_clear(&l->line);
    json_begin(&l->json, &l->line);
    json_put_object(&l->json, NULL);
    json_put_string(&l->json, "time", clock_iso(clock_utc_ns(), now));
    json_put_double(&l->json, "seconds", 1e-9 * (double)(clock_monotonic_ns() - l->begin_ns));
    json_put_string(&l->json, "event", name);
    return &l->json;
}

void ledger_end_event(struct ledger *l) {
    struct err lost = {0};
    json_close(&l->json, '}');
    if (json_end(&l->json, &lost) || buf_append(&l->line, "\n", 1, &lost) || l->fd < 0) return;
    // Half a line spoils itself alone, not the next one too.
    if (l->torn && bytes_write_whole(l->fd, "\n", 1) < 1) return;
    l->torn = bytes_write_whole(l->fd, l->line.data, l->line.len) < l->line.len && is_torn(l->fd);
}

void ledger_note(struct ledger *l, const char *name, const char *text) {
    json_put_string(ledger_event(l, name), "text", text);
    ledger_end_event(l);
}

void ledger_account(struct ledger *l) {
    static const char *const keys[] = {
#define LEDGER_KEY(name, key) key,
        LEDGER_KINDS(LEDGER_KEY)
#undef LEDGER_KEY
    };
    int64_t total = 0;
    struct json_writer *w = ledger_event(l, "ledger");
    for (int k = 0; k < LEDGER_COUNT; k++) {
        json_put_double(w, keys[k], 1e-9 * (double)l->spent_ns[k]);
        total += l->spent_ns[k];
    }
    json_put_double(w, "total", 1e-9 * (double)total);
    ledger_end_event(l);
}
