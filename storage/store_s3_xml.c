// SPDX-License-Identifier: Apache-2.0
#include <expat.h>
#include <stdio.h>
#include <string.h>

#include "storage/store_s3.h"

#define DEPTH_MAX  16
#define TEXT_MAX   8192
#define PATH_BYTES 512

struct reading {
    XML_Parser parser;
    store_s3_xml_fn *each;
    void *arg;
    struct err *e;
    int rc;
    int depth;
    size_t path_bytes, text_bytes;
    char path[PATH_BYTES], text[TEXT_MAX + 1];
};

static void stop(struct reading *r, int rc) {
    r->rc = rc;
    XML_StopParser(r->parser, XML_FALSE);
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public, int internal) {
    struct reading *r = arg;
    stop(r, err_set(r->e, ERR_DATA, "the XML of the reply has a DOCTYPE; refused"));
}

static void on_start(void *arg, const char *name, const char **attributes) {
    struct reading *r = arg;
    size_t n = strlen(name);
    if (++r->depth > DEPTH_MAX || r->path_bytes + n + 2 > sizeof r->path) {
        stop(r, err_set(r->e, ERR_DATA, "the XML of the reply is nested too deep"));
        return;
    }
    if (r->path_bytes) r->path[r->path_bytes++] = '/';
    memcpy(r->path + r->path_bytes, name, n + 1);
    r->path_bytes += n;
    r->text_bytes = 0;
}

static void on_text(void *arg, const char *text, int n) {
    struct reading *r = arg;
    if ((size_t)n > TEXT_MAX - r->text_bytes) {
        stop(r, err_set(r->e, ERR_DATA, "more than %d bytes of text in <%s>", TEXT_MAX, r->path));
        return;
    }
    memcpy(r->text + r->text_bytes, text, (size_t)n);
    r->text_bytes += (size_t)n;
}

static void on_end(void *arg, const char *name) {
    struct reading *r = arg;
    r->text[r->text_bytes] = 0;
    int rc = r->each(r->arg, r->path, r->text, r->e);
    if (rc) {
        stop(r, rc);
        return;
    }
    char *slash = strrchr(r->path, '/');
    r->path_bytes = slash ? (size_t)(slash - r->path) : 0;
    r->path[r->path_bytes] = 0;
    r->text_bytes = 0;
    r->depth--;
}

int store_s3_xml(const struct buf *text, store_s3_xml_fn *each, void *arg, struct err *e) {
    struct reading r = {.each = each, .arg = arg, .e = e};
    r.parser = XML_ParserCreate(NULL);
    if (!r.parser) return err_set(e, ERR_MEMORY, "no memory to read XML");
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_start, on_end);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
    // S3 sends blanks while it works on a CompleteMultipartUpload; expat wants none before the declaration.
    const char *begin = text->data ? text->data : "";
    size_t blanks = strspn(begin, " \t\r\n");
    enum XML_Status status = XML_Parse(r.parser, begin + blanks, (int)(text->len - blanks), 1);
    if (status != XML_STATUS_OK && !r.rc)
        r.rc = err_set(e, ERR_DATA, "the reply is no XML: line %lu: %s", XML_GetCurrentLineNumber(r.parser),
                       XML_ErrorString(XML_GetErrorCode(r.parser)));
    XML_ParserFree(r.parser);
    explicit_bzero(r.text, sizeof r.text); // STS answers with secrets
    return r.rc;
}
