// SPDX-License-Identifier: Apache-2.0
// The texts that hold credentials: profile files and small JSON objects. Read in place.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "storage/creds_source.h"

void creds_wipe(struct buf *b) {
    if (b->data) explicit_bzero(b->data, b->cap);
    buf_fini(b);
}

// ---- profiles.

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t n = strlen(text);
    while (n && strchr(" \t\r", text[n - 1])) n--;
    text[n] = 0;
    return text;
}

static bool is_section(char *header, bool named, const char *name) {
    header = trim(header);
    bool prefixed = !strncmp(header, "profile", 7) && (header[7] == ' ' || header[7] == '\t');
    if (named && prefixed) return !strcmp(trim(header + 7), name);
    return !strcmp(header, name) && (!named || !strcmp(name, "default"));
}

static void keep_value(struct creds_profile *p, const char *name, const char *value) {
    static const char *const unsupported[] = {"source_profile", "credential_source", "sso_session",
                                              "sso_start_url"};
    if (!strcmp(name, "aws_access_key_id")) p->access = value;
    if (!strcmp(name, "aws_secret_access_key")) p->secret = value;
    if (!strcmp(name, "aws_session_token")) p->token = value;
    if (!strcmp(name, "credential_process")) p->process = value;
    if (!strcmp(name, "role_arn")) p->role_arn = value;
    if (!strcmp(name, "web_identity_token_file")) p->token_file = value;
    if (!strcmp(name, "role_session_name")) p->session_name = value;
    if (!strcmp(name, "region")) p->region = value;
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (!strcmp(name, unsupported[i])) p->unsupported = unsupported[i];
}

// Indented lines belong to a nested setting ("s3 =") and are no keys of the profile.
void creds_read_profile(char *text, bool named, struct creds_profile *p) {
    bool inside = false;
    for (char *rest = text, *line; rest && (line = strsep(&rest, "\n"));) {
        bool nested = named && (*line == ' ' || *line == '\t');
        line = trim(line);
        if (*line == '[') {
            char *end = strchr(line, ']');
            if (end) *end = 0;
            inside = is_section(line + 1, named, p->name);
            p->found |= inside;
            continue;
        }
        char *equals = strchr(line, '=');
        if (!inside || nested || !equals || *line == '#' || *line == ';') continue;
        *equals = 0;
        char *name = trim(line);
        keep_value(p, name, trim(equals + 1));
    }
}

// ---- JSON: one object; strings are decoded in place, whatever is nested is passed over.

static char *skip_blanks(char *p) {
    return p + strspn(p, " \t\r\n");
}

static bool put_escape(char **to, char **from) {
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char c = *(*from)++, hex[5] = {0}, *end;
    const char *at = c ? strchr(plain, c) : NULL;
    if (at) {
        *(*to)++ = meant[at - plain];
        return true;
    }
    if (c != 'u' || strlen(*from) < 4) return false;
    memcpy(hex, *from, 4);
    long code = strtol(hex, &end, 16);
    if (end != hex + 4 || code < 1 || code > 0x7e) return false; // nothing else can stand in a header
    *(*to)++ = (char)code;
    *from += 4;
    return true;
}

// At the opening quote. NULL: broken. Sets *value and returns what follows.
static char *read_string(char *p, char **value) {
    char *to = *value = ++p;
    while (*p && *p != '"') {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        p++;
        if (!put_escape(&to, &p)) return NULL;
    }
    if (!*p) return NULL;
    *to = 0;
    return p + 1;
}

static char *skip_value(char *p) {
    int depth = 0;
    char *ignored;
    do {
        if (*p == '"') {
            p = read_string(p, &ignored);
            if (!p) return NULL;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth) return p;
            depth--;
            p++;
        } else if (!*p) {
            return NULL;
        } else {
            if (*p == ',' && !depth) return p;
            p++;
        }
    } while (depth || (*p != ',' && *p != '}'));
    return p;
}

struct keys {
    char *access, *secret, *token, *expires, *code;
};

static void keep_key(struct keys *k, const char *name, char *value) {
    if (!strcmp(name, "AccessKeyId")) k->access = value;
    if (!strcmp(name, "SecretAccessKey")) k->secret = value;
    if (!strcmp(name, "SessionToken") || !strcmp(name, "Token")) k->token = value;
    if (!strcmp(name, "Expiration")) k->expires = value;
    if (!strcmp(name, "Code") || !strcmp(name, "code")) k->code = value;
}

static bool read_object(char *p, struct keys *k) {
    p = skip_blanks(p);
    if (*p++ != '{') return false;
    for (p = skip_blanks(p); *p != '}'; p = skip_blanks(p)) {
        char *name, *value = NULL;
        if (*p != '"' || !(p = read_string(p, &name))) return false;
        p = skip_blanks(p);
        if (*p++ != ':') return false;
        p = skip_blanks(p);
        p = *p == '"' ? read_string(p, &value) : skip_value(p);
        if (!p) return false;
        if (value) keep_key(k, name, value);
        p = skip_blanks(p);
        if (*p == ',')
            p++;
        else if (*p != '}')
            return false;
    }
    return true;
}

int creds_from_json(char *text, const char *source, struct creds_set *out, struct err *e) {
    struct keys k = {0};
    if (!read_object(text, &k)) return err_set(e, ERR_DATA, "%s: what came is no JSON object", source);
    if (k.code && strcmp(k.code, "Success") != 0)
        return err_set(e, ERR_DENIED, "%s refuses: %.80s", source, k.code);
    int rc = creds_set_fill(out, k.access, k.secret, k.token, source, e);
    out->expires_s = k.expires ? creds_parse_time(k.expires) : 0;
    if (!rc && k.expires && !out->expires_s)
        rc = err_set(e, ERR_DATA, "%s: '%.40s' is no time of expiry", source, k.expires);
    if (!rc && k.expires && out->expires_s <= clock_utc_ns() / 1000000000)
        rc = err_set(e, ERR_DENIED, "%s gives credentials that expired at %.40s", source, k.expires);
    return rc;
}

int64_t creds_parse_time(const char *text) {
    struct tm parts = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    int hours, minutes, used = 0;
    char sign;
    if (!end) return 0;
    if (*end == '.') end += 1 + strspn(end + 1, "0123456789");
    int64_t utc = (int64_t)timegm(&parts);
    if (!strcmp(end, "Z")) return utc;
    if (sscanf(end, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 || end[used] ||
        (sign != '+' && sign != '-'))
        return 0;
    return utc - (sign == '+' ? 1 : -1) * (hours * 3600 + minutes * 60);
}
