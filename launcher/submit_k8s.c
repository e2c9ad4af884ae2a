// SPDX-License-Identifier: Apache-2.0
// An MPIJob. The launcher pod runs `orrery run`, which finds the operator's host file; the workers run sshd.
// Every value that comes from outside is a JSON string, which YAML reads as it stands.
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "launcher/submit.h"

// What a pod does before its processes are ended: its ranks are asked to stop, which makes all ranks of the
// run save, and it waits until they are gone. sshd alone would take them along unsaved.
static const char farewell[] = "for p in /proc/[0-9]*; do read -r n <$p/comm && [ \"$n\" = orrery-rank ] && "
                               "kill -TERM ${p#/proc/}; done 2>/dev/null; "
                               "while grep -qsx orrery-rank /proc/[0-9]*/comm; do sleep 1; done";

static int add_string(struct buf *out, const char *before, const char *what, const char *text,
                      struct err *e) {
    struct json_writer w;
    int rc = buf_appends(out, before, e);
    for (const char *at = text; *at && !rc; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            rc = err_set(e, ERR_CONFIG, "%s: '%.80s' holds a control character", what, text);
    if (rc) return rc;
    json_begin(&w, out);
    json_put_string(&w, NULL, text);
    rc = json_end(&w, e);
    return rc ? rc : buf_appends(out, "\n", e);
}

// "4", "0.5", "500m", "16Gi"
static int check_quantity(const char *what, const char *text, struct err *e) {
    static const char *const units[] = {"", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"};
    static const char digits[] = "0123456789";
    size_t whole = strspn(text, digits), n = whole;
    if (text[n] == '.') n += 1 + strspn(text + n + 1, digits);
    for (size_t i = 0; whole && text[n - 1] != '.' && i < sizeof units / sizeof *units; i++)
        if (!strcmp(text + n, units[i])) return 0;
    return err_set(e, ERR_CONFIG, "%s: '%.80s' is no quantity of Kubernetes; such as 4, 500m or 16Gi", what,
                   text);
}

// RFC 1123: lower-case letters, digits and '-' within; of a subdomain '.' too.
static int check_label(const char *what, const char *text, const char *more, size_t most, struct err *e) {
    static const char ends[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = strlen(text);
    bool fits = n && n <= most && strchr(ends, text[0]) && strchr(ends, text[n - 1]);
    for (const char *at = text; *at && fits; at++) fits = strchr(ends, *at) || strchr(more, *at);
    if (fits) return 0;
    return err_set(e, ERR_CONFIG, "%s: '%.80s' is no name in Kubernetes; lower-case letters, digits and %s",
                   what, text, more);
}

static int add_resources(const struct config *c, struct buf *out, struct err *e) {
    int rc = 0;
    if (!*c->k8s_cpu && !*c->k8s_memory && !c->k8s_gpus_per_worker) return 0;
    if (*c->k8s_cpu) rc = check_quantity("k8s.cpu", c->k8s_cpu, e);
    if (!rc && *c->k8s_memory) rc = check_quantity("k8s.memory", c->k8s_memory, e);
    if (!rc) rc = buf_appends(out, "            resources:\n              limits:\n", e);
    if (!rc && *c->k8s_cpu) rc = add_string(out, "                cpu: ", "k8s.cpu", c->k8s_cpu, e);
    if (!rc && *c->k8s_memory)
        rc = add_string(out, "                memory: ", "k8s.memory", c->k8s_memory, e);
    if (!rc && c->k8s_gpus_per_worker)
        rc = buf_appendf(out, e, "                nvidia.com/gpu: %" PRId64 "\n", c->k8s_gpus_per_worker);
    return rc;
}

// The claim, and memory for /dev/shm: the runtime's 64 MB are too little for ranks that share a pod.
static int add_volumes(const struct config *c, struct buf *out, struct err *e) {
    int rc = buf_appends(out,
                         "            volumeMounts:\n"
                         "            - name: shm\n"
                         "              mountPath: /dev/shm\n",
                         e);
    if (!rc && *c->k8s_claim)
        rc = add_string(out, "            - name: work\n              mountPath: ", "k8s.mount", c->k8s_mount,
                        e);
    if (!rc)
        rc = buf_appends(out,
                         "          volumes:\n"
                         "          - name: shm\n"
                         "            emptyDir: {medium: Memory}\n",
                         e);
    if (!rc && *c->k8s_claim)
        rc = add_string(
            out, "          - name: work\n            persistentVolumeClaim:\n              claimName: ",
            "k8s.claim", c->k8s_claim, e);
    return rc;
}

// A word of a command: Kubernetes puts variables in place of $(NAME), and takes $$ for $.
static int add_word(struct buf *out, const char *what, const char *text, struct err *e) {
    struct buf word;
    buf_init(&word, 2 * CONFIG_TEXT_BYTES + 8192);
    int rc = buf_appends(&word, "", e);
    for (const char *at = text; *at && !rc; at++) {
        rc = buf_append(&word, at, 1, e);
        if (!rc && *at == '$') rc = buf_append(&word, "$", 1, e);
    }
    if (!rc) rc = add_string(out, "            - ", what, word.data, e);
    buf_fini(&word);
    return rc;
}

static int begin_replica(const struct config *c, const char *kind, int64_t replicas, const char *restart,
                         struct buf *out, struct err *e) {
    int rc = buf_appendf(out, e,
                         "    %s:\n      replicas: %" PRId64 "\n      restartPolicy: %s\n      template:\n"
                         "        spec:\n          terminationGracePeriodSeconds: %" PRId64 "\n"
                         "          containers:\n          - name: orrery\n",
                         kind, replicas, restart, c->k8s_grace_s);
    return rc ? rc : add_string(out, "            image: ", "k8s.image", c->k8s_image, e);
}

static int add_launcher(const struct submit_request *r, struct buf *out, struct err *e) {
    const struct config *c = r->config;
    int rc = begin_replica(c, "Launcher", 1, "OnFailure", out, e); // 75, saved: again
    if (!rc) rc = add_string(out, "            workingDir: ", "k8s.mount", c->k8s_mount, e);
    if (!rc) rc = buf_appends(out, "            command:\n            - orrery\n            - run\n", e);
    if (!rc) rc = add_word(out, "the config's path", r->config_path, e);
    for (size_t i = 0; i < r->n_overrides && !rc; i++) rc = add_word(out, "an override", r->overrides[i], e);
    if (!rc && r->ranks > 0) rc = buf_appendf(out, e, "            - --ranks=%" PRId64 "\n", r->ranks);
    return rc ? rc : add_volumes(c, out, e);
}

static int add_worker(const struct submit_request *r, struct buf *out, struct err *e) {
    const struct config *c = r->config;
    int rc = begin_replica(c, "Worker", c->k8s_workers, "OnFailure", out, e);
    if (!rc)
        rc = buf_appends(out,
                         "            command: [/usr/sbin/sshd, -De]\n"
                         "            readinessProbe:\n              tcpSocket: {port: 22}\n"
                         "              periodSeconds: 2\n"
                         "            lifecycle:\n              preStop:\n                exec:\n"
                         "                  command:\n                  - sh\n                  - -c\n",
                         e);
    if (!rc) rc = add_string(out, "                  - ", "the farewell", farewell, e);
    if (!rc) rc = add_resources(c, out, e);
    return rc ? rc : add_volumes(c, out, e);
}

static int check(const struct submit_request *r, struct err *e) {
    const struct config *c = r->config;
    int64_t ranks = r->ranks > 0 ? r->ranks : c->launch_ranks;
    if (!*c->k8s_image)
        return err_set(e, ERR_CONFIG, "k8s.image is empty; name an image that holds orrery and sshd");
    if (ranks && ranks > c->k8s_workers * c->k8s_ranks_per_worker)
        return err_set(e, ERR_CONFIG, "%" PRId64 " ranks, but k8s.workers x k8s.ranks_per_worker is %" PRId64,
                       ranks, c->k8s_workers * c->k8s_ranks_per_worker);
    if (*r->config_path == '-')
        return err_set(e, ERR_CONFIG, "the config's path begins with '-'; write ./%.80s", r->config_path);
    int rc = submit_check("k8s.image", c->k8s_image, "/._-:@", e);
    if (!rc && *c->k8s_namespace) rc = check_label("k8s.namespace", c->k8s_namespace, "-", 63, e);
    if (!rc && *c->k8s_claim) rc = check_label("k8s.claim", c->k8s_claim, "-.", 253, e);
    if (!rc && *c->k8s_mount != '/')
        rc = err_set(e, ERR_CONFIG, "k8s.mount: '%.80s' is no absolute path", c->k8s_mount);
    return rc;
}

int submit_k8s(const struct submit_request *r, struct buf *out, struct err *e) {
    const struct config *c = r->config;
    char name[64];
    submit_name(r->run_dir, name, sizeof name);
    int rc = check(r, e);
    if (!rc)
        rc = buf_appends(
            out,
            "# Written by orrery submit --k8s, for Kubeflow's MPI operator. Submit it: kubectl create "
            "-f FILE\napiVersion: kubeflow.org/v2beta1\nkind: MPIJob\nmetadata:\n",
            e);
    if (!rc) rc = add_string(out, "  name: ", "run.dir", name, e);
    if (!rc && *c->k8s_namespace) rc = add_string(out, "  namespace: ", "k8s.namespace", c->k8s_namespace, e);
    if (!rc)
        rc = buf_appendf(
            out, e,
            "spec:\n  slotsPerWorker: %" PRId64 "\n  mpiImplementation: OpenMPI\n"
            "  launcherCreationPolicy: WaitForWorkersReady\n  sshAuthMountPath: /root/.ssh\n"
            "  runPolicy:\n    cleanPodPolicy: Running\n    backoffLimit: 20\n  mpiReplicaSpecs:\n",
            c->k8s_ranks_per_worker);
    if (!rc) rc = add_launcher(r, out, e);
    return rc ? rc : add_worker(r, out, e);
}
