// SPDX-License-Identifier: Apache-2.0
// The sequence of samples over kills: a leader and N ranks read a data set in the loader's order, each rank
// its rows of every batch with every byte checked, and save the place and the running SHA-256 of the sequence
// in real checkpoints. Any one process gets SIGKILL at a random moment, the others go with it, and N' ranks
// go on, N in 1, 2, 3, 4, 8. Every checkpoint on the way holds the digest that one process computes without a
// kill: no sample is lost, doubled or out of order. 25 kills; ORRERY_KILLS=1000 for the campaign.
#include <sys/prctl.h>

#include "base/bytes.h"
#include "ckpt_pair.h"
#include "storage/hash.h"
#include "storage/loader.h"
#include "storage/shard.h"

#define SHARDS     4
#define PER_SHARD  6
#define BATCH      24 // a multiple of every N
#define SAVE_EVERY 3  // batches
#define RANKS_MAX  8

static const int layouts[] = {1, 2, 3, 4, 8};

struct drawn { // what a rank says of one item
    int64_t g, sample, first_frame;
    uint32_t crc;
};

// ---- the data set

static void make_set(const char *url) {
    struct err e = {ERR_OK};
    struct store *s = pair_open_store(url);
    for (int i = 0; i < SHARDS; i++) {
        struct buf tar;
        char key[32], stem[32], meta[300], data[4000];
        buf_init(&tar, 1 << 20);
        int rc = 0;
        for (int k = 0; k < PER_SHARD && !rc; k++) {
            int number = i * PER_SHARD + k;
            snprintf(stem, sizeof stem, "ep%04d", number);
            int n = snprintf(meta, sizeof meta, "{\"frames\":%d,\"rate_hz\":10,\"streams\":[]}",
                             40 + number % 3 * 15);
            memset(data, 'a' + number, sizeof data);
            rc = shard_append(&tar, stem, "json", meta, (size_t)n, &e);
            if (!rc) rc = shard_append(&tar, stem, "touch.npy", data, sizeof data, &e);
        }
        snprintf(key, sizeof key, "set-%02d.tar", i);
        if (!rc) rc = shard_finish(&tar, &e);
        if (!rc) rc = dataset_put_shard(s, key, tar.data, tar.len, &e);
        if (rc) pair_die("make the set", &e);
        buf_fini(&tar);
    }
    if (dataset_write_manifest(s, NULL, 0, &e)) pair_die("write the manifest", &e);
    store_close(s);
}

struct source {
    struct dataset *d;
    struct loader_plan *plan;
};

static struct source open_source(const char *url) {
    struct err e = {ERR_OK};
    struct loader_options order = {.seed = 7, .window = 8, .shuffle_block = 5};
    struct source s;
    if (dataset_open(&s.d, url, NULL, &e) || loader_plan_create(&s.plan, s.d, &order, &e))
        pair_die("open", &e);
    return s;
}

static void close_source(struct source *s) {
    loader_plan_destroy(s->plan);
    dataset_close(s->d);
}

static struct drawn draw(const struct source *s, int64_t g) {
    struct err e = {ERR_OK};
    struct loader_item item;
    struct sample sample;
    loader_item_at(s->plan, g, &item);
    struct drawn out = {.g = g, .sample = item.sample, .first_frame = item.first_frame};
    if (dataset_read(s->d, item.sample, &sample, &e)) pair_die("read", &e);
    for (int i = 0; i < sample.n; i++)
        out.crc = hash_crc32c(out.crc, sample.members[i].data, sample.members[i].bytes);
    sample_fini(&sample);
    return out;
}

static void fold(unsigned char digest[32], const struct drawn *x) {
    unsigned char link[52];
    memcpy(link, digest, 32);
    bytes_put_le64(link + 32, (uint64_t)x->sample);
    bytes_put_le64(link + 40, (uint64_t)x->first_frame);
    bytes_put_le32(link + 48, x->crc);
    hash_sha256_of(link, sizeof link, digest);
}

// ---- the processes

static void rank(const char *url, int number, int ranks, int64_t first, int to) {
    struct source s = open_source(url);
    for (int64_t g = first;; g++) {
        if (g % ranks != number) continue;
        struct drawn x = draw(&s, g);
        if (write(to, &x, sizeof x) != (ssize_t)sizeof x) _exit(1);
    }
}

static void save(struct store *s, int64_t step, int64_t next, const unsigned char digest[32]) {
    struct err e = {ERR_OK};
    struct buf part;
    char id[CKPT_ID_BYTES];
    float one = (float)step;
    struct ckpt_tensor t = {.name = "x", .data = &one};
    struct ckpt_state *state = calloc(1, sizeof *state);
    if (!state) pair_die("calloc", NULL);
    state->step = step;
    state->next_sample = next;
    bytes_hex(digest, 32, state->sample_sha256);
    ckpt_new_id(id, step, CKPT_TOY_OWNER);
    buf_init(&part, 1 << 16);
    if (ckpt_write_part(s, id, 0, &t, 1, &part, &e)) pair_die("write", &e);
    const char *const parts[] = {part.data};
    if (ckpt_commit(s, id, state, parts, 1, &e)) pair_die("commit", &e);
    if (ckpt_retain(s, PAIR_KEEP, CKPT_TOY_OWNER, &e)) pair_die("retain", &e);
    buf_fini(&part);
    free(state);
}

struct place {
    int64_t step, next;
    unsigned char digest[32];
};

static int nibble(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

// The leader may save, and its retention remove what was listed here, before it is opened.
static struct place newest(struct store *s) {
    struct place p = {.step = 0};
    struct ckpt_entry *list = NULL;
    struct ckpt *c = NULL;
    size_t n;
    do {
        struct err e = {ERR_OK};
        free(list);
        if (ckpt_list(s, &list, &n, &e)) pair_die("list", &e);
        if (n && ckpt_open(&c, s, list[0].id, &e) && e.code != ERR_MISSING) pair_die("open", &e);
    } while (n && !c);
    if (c) {
        const struct ckpt_state *state = ckpt_state_of(c);
        p.step = state->step;
        p.next = state->next_sample;
        for (int i = 0; i < 32; i++)
            p.digest[i] = (unsigned char)(nibble(state->sample_sha256[2 * i]) << 4 |
                                          nibble(state->sample_sha256[2 * i + 1]));
        ckpt_close(c);
    }
    free(list);
    return p;
}

// Folds what the ranks say in the order of the samples, and saves as it goes.
static void leader(const char *ckpt_url, const int *from, int ranks) {
    struct store *s = pair_open_store(ckpt_url);
    struct place p = newest(s);
    for (;;) {
        struct drawn x;
        if (read(from[p.next % ranks], &x, sizeof x) != (ssize_t)sizeof x || x.g != p.next) _exit(1);
        fold(p.digest, &x);
        p.next++;
        if (p.next % (BATCH * SAVE_EVERY)) continue;
        save(s, ++p.step, p.next, p.digest);
    }
}

struct crew {
    int ranks;
    pid_t pids[RANKS_MAX + 1]; // the leader first
};

static struct crew start(const char *data_url, const char *ckpt_url, int ranks, int64_t first) {
    struct crew c = {.ranks = ranks};
    int link[RANKS_MAX][2], ends[RANKS_MAX];
    for (int i = 0; i < ranks; i++) {
        if (pipe(link[i])) pair_die("pipe", NULL);
        ends[i] = link[i][0];
    }
    for (int who = 0; who <= ranks; who++) {
        c.pids[who] = fork();
        if (c.pids[who] < 0) pair_die("fork", NULL);
        if (c.pids[who]) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL); // nobody else ends it
        for (int i = 0; i < ranks; i++) {
            close(link[i][who ? 0 : 1]);
            if (who && i != who - 1) close(link[i][1]);
        }
        if (who) rank(data_url, who - 1, ranks, first, link[who - 1][1]);
        leader(ckpt_url, ends, ranks);
    }
    for (int i = 0; i < ranks; i++) {
        close(link[i][0]);
        close(link[i][1]);
    }
    return c;
}

// One of them first, then the rest, as the launcher does.
static void end(struct crew *c, uint32_t first) {
    int status;
    kill(c->pids[first], SIGKILL);
    for (int i = 0; i <= c->ranks; i++) kill(c->pids[i], SIGKILL);
    for (int i = 0; i <= c->ranks; i++) {
        if (waitpid(c->pids[i], &status, 0) < 0) pair_die("waitpid", NULL);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 9) pair_die("a process failed", NULL);
    }
}

// ---- what must hold

struct truth {
    struct source source;
    struct place at;
};

static int check(struct truth *t, struct store *s, struct place *now) {
    *now = newest(s);
    if (now->next < t->at.next) return pair_fail("a checkpoint was lost", now->next, t->at.next);
    for (; t->at.next < now->next; t->at.next++) {
        struct drawn x = draw(&t->source, t->at.next);
        fold(t->at.digest, &x);
    }
    if (memcmp(t->at.digest, now->digest, 32))
        return pair_fail("another sequence of samples", now->step, now->next);
    return 0;
}

int main(void) {
    char folder[] = "/tmp/orrery-resume-XXXXXX", data_url[64], ckpt_url[64];
    int64_t kills = 25, went_on = 0;
    int rc = 0;
    const char *wanted = getenv("ORRERY_KILLS");
    if (wanted && !bytes_parse_i64(wanted, &kills)) return 64;
    if (!mkdtemp(folder)) pair_die("mkdtemp", NULL);
    snprintf(data_url, sizeof data_url, "%s/data", folder);
    snprintf(ckpt_url, sizeof ckpt_url, "%s/ckpt", folder);
    make_set(data_url);
    struct store *s = pair_open_store(ckpt_url);
    struct truth t = {.source = open_source(data_url)};
    struct place now = {.step = 0};
    struct rng_stream r;
    rng_stream_init(&r, rng_key((uint64_t)clock_utc_ns(), RNG_FAULT, 0), 0, 0);
    for (int64_t i = 0; i < kills && !rc; i++) {
        int64_t before = now.step, patience = 0;
        struct crew c = start(data_url, ckpt_url, layouts[i % 5], now.next);
        // Somewhere in the next two saves, however fast this machine is: after a save, or a part of one
        // later.
        if (rng_next_below(&r, 2))
            while (newest(s).step == before && patience++ < 20000) clock_sleep_ms(1);
        clock_sleep_ms(rng_next_below(&r, 12));
        end(&c, rng_next_below(&r, (uint32_t)c.ranks + 1));
        rc = check(&t, s, &now);
        went_on += now.step > before;
    }
    char hex[65];
    bytes_hex(now.digest, 32, hex);
    printf("%lld kills, %lld of them after progress, %lld samples (%.1f epochs), one sequence: %s\n",
           (long long)kills, (long long)went_on, (long long)now.next,
           (double)now.next / (double)loader_items_in_epoch(t.source.plan), hex);
    if (!rc && went_on < kills / 5) rc = pair_fail("too few attempts made progress", went_on, kills);
    close_source(&t.source);
    store_close(s);
    pid_t pid = rc ? 0 : fork();
    if (!rc && !pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
    if (pid > 0) waitpid(pid, NULL, 0);
    return rc;
}
