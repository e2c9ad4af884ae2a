// SPDX-License-Identifier: Apache-2.0
// An MP4 in memory through FFmpeg: the mov/mp4 demuxer alone, no protocol, decoders of MEDIA_MP4_CODECS
// alone. libavformat is not asked to probe streams (avformat_find_stream_info): what an MP4's header says is
// enough, and a decoder of an unknown stream is never opened.
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/log.h>
#include <libavutil/mathematics.h>
#include <libavutil/mem.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <string.h>

#include "trainer/media_mp4.h"

#define IO_BYTES    32768
#define BLOCK_BYTES ((size_t)512 << 20) // the most that one piece of FFmpeg's memory may have

static const struct {
    enum AVCodecID id;
    const char *decoder;
} codecs[] = {{AV_CODEC_ID_H264, "h264"},    {AV_CODEC_ID_HEVC, "hevc"}, {AV_CODEC_ID_MPEG4, "mpeg4"},
              {AV_CODEC_ID_AV1, "libdav1d"}, {AV_CODEC_ID_VP9, "vp9"},   {AV_CODEC_ID_MJPEG, "mjpeg"}};

struct film {
    const struct media_mp4_want *want;
    media_picture_fn *each;
    void *arg;
    const uint8_t *data;
    int64_t bytes, at;
    AVIOContext *io;
    AVFormatContext *format;
    AVStream *stream;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame, *scaled;
    struct SwsContext *scaler;
    unsigned char *pixels[2]; // handed over in turn
    int64_t packets, pictures, first, last;
    int64_t key; // of a part: the time of the key frame
    bool enough;
};

static int no_memory(struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory for an MP4 reader");
}

// ---- the bytes

// From f->at on; how many there are.
static int64_t bytes_here(const struct film *f, const uint8_t **data) {
    const struct media_mp4_part *part = f->want->part;
    *data = part ? NULL : f->data + f->at;
    if (!part) return f->bytes - f->at;
    for (int i = 0; i < part->n; i++) {
        const struct media_mp4_piece *p = &part->pieces[i];
        if (f->at < p->at || f->at - p->at >= (int64_t)p->n) continue;
        *data = (const uint8_t *)p->data + (f->at - p->at);
        return (int64_t)p->n - (f->at - p->at);
    }
    return 0;
}

static int take_bytes(void *arg, uint8_t *into, int n) {
    struct film *f = arg;
    const uint8_t *data;
    int64_t left = bytes_here(f, &data);
    if (left <= 0) return AVERROR_EOF;
    if (n > left) n = (int)left;
    memcpy(into, data, (size_t)n);
    f->at += n;
    return n;
}

static int64_t seek_bytes(void *arg, int64_t to, int whence) {
    struct film *f = arg;
    if (whence == AVSEEK_SIZE) return f->bytes;
    if ((whence & ~AVSEEK_FORCE) == SEEK_CUR) to += f->at;
    if ((whence & ~AVSEEK_FORCE) == SEEK_END) to += f->bytes;
    if (to < 0 || to > f->bytes) return AVERROR(EINVAL);
    return f->at = to;
}

// An MP4 may name other files to read from.
static int open_nothing(AVFormatContext *format, AVIOContext **out, const char *url, int flags,
                        AVDictionary **options) {
    *out = NULL;
    return AVERROR(EPERM);
}

// ---- opening

static int open_container(struct film *f, struct err *e) {
    const AVInputFormat *mp4 = av_find_input_format("mp4");
    unsigned char *buffer = av_malloc(IO_BYTES);
    if (!mp4) return err_set(e, ERR_ABSENT, "FFmpeg was built without its mp4 demuxer");
    f->io = buffer ? avio_alloc_context(buffer, IO_BYTES, 0, f, take_bytes, NULL, seek_bytes) : NULL;
    f->format = avformat_alloc_context();
    if (!f->io || !f->format) {
        if (!f->io) av_free(buffer);
        return no_memory(e);
    }
    f->format->pb = f->io;
    f->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    f->format->io_open = open_nothing;
    f->format->max_streams = 64;
    int failed = avformat_open_input(&f->format, NULL, mp4, NULL);
    return failed < 0 ? err_set(e, ERR_DATA, "broken MP4: %s", av_err2str(failed)) : 0;
}

static int find_track(struct film *f, struct err *e) {
    for (unsigned i = 0; i < f->format->nb_streams; i++) {
        AVStream *s = f->format->streams[i];
        s->discard = AVDISCARD_ALL;
        if (f->stream || s->codecpar->codec_type != AVMEDIA_TYPE_VIDEO ||
            (s->disposition & AV_DISPOSITION_ATTACHED_PIC))
            continue;
        s->discard = AVDISCARD_DEFAULT;
        f->stream = s;
    }
    return f->stream ? 0 : err_set(e, ERR_DATA, "an MP4 without a video track");
}

static const char *decoder_of(enum AVCodecID id) {
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
        if (codecs[i].id == id) return codecs[i].decoder;
    return NULL;
}

// One thread and no shortcuts: the same bits on every machine.
static int open_decoder(struct film *f, struct err *e) {
    const AVCodecParameters *p = f->stream->codecpar;
    const char *name = decoder_of(p->codec_id);
    if (!name)
        return err_set(e, ERR_DATA, "the MP4's video is coded as %s; what is read: " MEDIA_MP4_CODECS,
                       avcodec_get_name(p->codec_id));
    const AVCodec *codec = avcodec_find_decoder_by_name(name);
    if (!codec)
        return err_set(e, ERR_ABSENT, "FFmpeg on this machine has no decoder %s for the MP4's video", name);
    if (p->width < 0 || p->height < 0 || (int64_t)p->width * p->height > f->want->max_pixels)
        return err_set(e, ERR_DATA, "the MP4's pictures are %d x %d, more than %lld pixels", p->height,
                       p->width, (long long)f->want->max_pixels);
    f->codec = avcodec_alloc_context3(codec);
    if (!f->codec || avcodec_parameters_to_context(f->codec, p) < 0) return no_memory(e);
    f->codec->thread_count = 1;
    f->codec->max_pixels = f->want->max_pixels;
    f->codec->pkt_timebase = f->stream->time_base;
    f->codec->flags |= AV_CODEC_FLAG_BITEXACT;
    f->codec->idct_algo = FF_IDCT_SIMPLE;
    f->codec->err_recognition = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER | AV_EF_EXPLODE;
    int failed = avcodec_open2(f->codec, codec, NULL);
    return failed < 0 ? err_set(e, ERR_DATA, "the MP4's %s video: %s", name, av_err2str(failed)) : 0;
}

static int make_room(struct film *f, struct err *e) {
    const struct media_mp4_want *w = f->want;
    size_t bytes = (size_t)(w->height * w->width * w->channels);
    f->packet = av_packet_alloc();
    f->frame = av_frame_alloc();
    f->scaled = av_frame_alloc();
    f->pixels[0] = av_mallocz(bytes);
    f->pixels[1] = av_mallocz(bytes);
    if (!f->packet || !f->frame || !f->scaled || !f->pixels[0] || !f->pixels[1]) return no_memory(e);
    f->scaled->width = (int)w->width;
    f->scaled->height = (int)w->height;
    f->scaled->format = w->channels == 1 ? AV_PIX_FMT_GRAY8 : AV_PIX_FMT_RGB24;
    return av_frame_get_buffer(f->scaled, 0) < 0 ? no_memory(e) : 0;
}

// ---- one picture

static bool same_source(const struct AVFrame *a, const struct AVFrame *b) {
    return a->colorspace == b->colorspace && a->color_range == b->color_range;
}

static int set_scaler(struct film *f, struct err *e) {
    const AVFrame *from = f->frame;
    struct SwsContext *before = f->scaler;
    f->scaler = sws_getCachedContext(
        f->scaler, from->width, from->height, from->format, f->scaled->width, f->scaled->height,
        f->scaled->format, SWS_AREA | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    if (!f->scaler)
        return err_set(e, ERR_DATA, "the MP4's pictures of %d x %d pixels cannot be scaled to %d x %d",
                       from->height, from->width, f->scaled->height, f->scaled->width);
    if (f->scaler == before && same_source(from, f->scaled)) return 0;
    bool wide = from->color_range == AVCOL_RANGE_JPEG || from->format == AV_PIX_FMT_YUVJ420P ||
                from->format == AV_PIX_FMT_YUVJ422P || from->format == AV_PIX_FMT_YUVJ444P;
    (void)sws_setColorspaceDetails(f->scaler, sws_getCoefficients(from->colorspace), wide,
                                   sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    f->scaled->colorspace = from->colorspace;
    f->scaled->color_range = from->color_range;
    return 0;
}

// In steps of rate_hz after the first picture.
static double time_of(const struct film *f, int64_t pts) {
    AVRational tick = f->stream->time_base;
    return (double)(pts - f->first) * tick.num * f->want->rate_hz / tick.den;
}

static bool is_shown(const struct film *f) {
    const struct media_mp4_want *w = f->want;
    return !w->shown || (f->pictures < w->n_shown && w->shown[f->pictures]);
}

static int scale(struct film *f, unsigned char *to, struct err *e) {
    size_t row = (size_t)(f->want->width * f->want->channels);
    int rc = set_scaler(f, e);
    if (rc) return rc;
    if (sws_scale(f->scaler, (const uint8_t *const *)f->frame->data, f->frame->linesize, 0, f->frame->height,
                  f->scaled->data, f->scaled->linesize) != f->scaled->height)
        return err_set(e, ERR_DATA, "picture %lld of the MP4 cannot be scaled", (long long)f->pictures);
    for (int64_t y = 0; y < f->want->height; y++)
        memcpy(to + (size_t)y * row, f->scaled->data[0] + y * f->scaled->linesize[0], row);
    return 0;
}

static int hand_over(struct film *f, struct err *e) {
    unsigned char *to = f->pixels[f->pictures % 2];
    int rc = is_shown(f) ? scale(f, to, e) : 0;
    if (rc) return rc;
    rc = f->each(f->arg, time_of(f, f->frame->pts), to, e);
    f->enough = rc > 0;
    return rc < 0 ? rc : 0;
}

static int take_picture(struct film *f, struct err *e) {
    const AVFrame *p = f->frame;
    long long number = (long long)f->pictures;
    if (f->want->part && p->pts != AV_NOPTS_VALUE && p->pts < f->key)
        return 0; // it builds on what was left out
    if (f->pictures == f->want->max_pictures)
        return err_set(e, ERR_DATA, "the MP4 has more than %lld pictures", (long long)f->want->max_pictures);
    if (p->decode_error_flags || (p->flags & AV_FRAME_FLAG_CORRUPT))
        return err_set(e, ERR_DATA, "picture %lld of the MP4 is damaged", number);
    if (p->pts == AV_NOPTS_VALUE || (f->pictures && p->pts <= f->last))
        return err_set(e, ERR_DATA, "picture %lld of the MP4 has no time, or one before its predecessor's",
                       number);
    if (!f->pictures && !f->want->part) f->first = p->pts;
    f->last = p->pts;
    int rc = hand_over(f, e);
    f->pictures++;
    return rc;
}

// ---- all of them

// What the decoder has ready. `packet` NULL: there are no more.
static int decode(struct film *f, const AVPacket *packet, struct err *e) {
    int rc = 0, got = avcodec_send_packet(f->codec, packet);
    if (got == AVERROR(EINVAL)) // what a picture beyond max_pixels gives, too
        return err_set(
            e, ERR_DATA,
            "packet %lld of the MP4's video is damaged, or its pictures have more than %lld pixels",
            (long long)f->packets, (long long)f->want->max_pixels);
    if (got < 0)
        return err_set(e, ERR_DATA, "packet %lld of the MP4's video is damaged: %s", (long long)f->packets,
                       av_err2str(got));
    while (!rc && !f->enough && (got = avcodec_receive_frame(f->codec, f->frame)) >= 0) {
        rc = take_picture(f, e);
        av_frame_unref(f->frame);
    }
    if (!rc && !f->enough && got != AVERROR(EAGAIN) && got != AVERROR_EOF)
        rc = err_set(e, ERR_DATA, "picture %lld of the MP4 is damaged: %s", (long long)f->pictures,
                     av_err2str(got));
    return rc;
}

static int take_packet(struct film *f, struct err *e) {
    if (f->packet->stream_index != f->stream->index) return 0;
    if (f->packet->flags & AV_PKT_FLAG_CORRUPT)
        return err_set(e, ERR_DATA, "the MP4 is cut short in packet %lld of its video",
                       (long long)f->packets);
    int rc = decode(f, f->packet, e);
    f->packets++;
    return rc;
}

static int decode_all(struct film *f, struct err *e) {
    int got = 0, rc = 0;
    while (!rc && !f->enough && (got = av_read_frame(f->format, f->packet)) >= 0) {
        rc = take_packet(f, e);
        av_packet_unref(f->packet);
    }
    if (rc || f->enough) return rc;
    if (got != AVERROR_EOF || f->packets < avformat_index_get_entries_count(f->stream))
        return err_set(e, ERR_DATA, "the MP4 is cut short after %lld of the %d packets of its video",
                       (long long)f->packets, avformat_index_get_entries_count(f->stream));
    rc = decode(f, NULL, e);
    if (rc || f->enough) return rc;
    if (!f->pictures) return err_set(e, ERR_DATA, "an MP4 without a picture");
    rc = f->each(f->arg, time_of(f, f->last) + 1, NULL, e);
    return rc < 0 ? rc : 0;
}

// ---- a part of them

static int no_such_part(struct err *e) {
    return err_set(e, ERR_DATA, "the MP4's packets are not where its table of frames has them");
}

// So that the next packet is the key frame's: the demuxer takes times of showing.
static int seek_key(struct film *f, struct err *e) {
    const struct media_mp4_part *part = f->want->part;
    const AVStream *s = f->stream;
    if (s->time_base.num != 1 || s->time_base.den != part->timescale ||
        av_seek_frame(f->format, s->index, part->start + part->key_ticks, AVSEEK_FLAG_BACKWARD) < 0)
        return no_such_part(e);
    return 0;
}

// The key frame's time tells the first picture's.
static int check_key(struct film *f, struct err *e) {
    const struct media_mp4_part *part = f->want->part;
    if (f->packet->pos != part->key_byte || f->packet->pts == AV_NOPTS_VALUE) return no_such_part(e);
    f->key = f->packet->pts;
    f->first = f->key - part->key_ticks;
    return 0;
}

static int decode_part(struct film *f, struct err *e) {
    int rc = seek_key(f, e);
    bool last = false;
    while (!rc && !f->enough && !last) {
        if (av_read_frame(f->format, f->packet) < 0) return no_such_part(e);
        if (f->packet->stream_index == f->stream->index) {
            if (!f->packets) rc = check_key(f, e);
            last = f->packet->pos == f->want->part->last_byte;
            if (!rc) rc = take_packet(f, e);
        }
        av_packet_unref(f->packet);
    }
    if (rc || f->enough) return rc;
    rc = decode(f, NULL, e);
    if (rc || f->enough) return rc;
    rc = f->each(f->arg, f->pictures ? time_of(f, f->last) + 1 : 0, NULL, e);
    return rc < 0 ? rc : 0;
}

static void film_fini(struct film *f) {
    sws_freeContext(f->scaler);
    av_free(f->pixels[0]);
    av_free(f->pixels[1]);
    av_frame_free(&f->frame);
    av_frame_free(&f->scaled);
    av_packet_free(&f->packet);
    avcodec_free_context(&f->codec);
    avformat_close_input(&f->format);
    if (f->io) av_freep(&f->io->buffer);
    avio_context_free(&f->io);
}

int media_mp4_decode(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                     void *arg, struct err *e) {
    struct film f = {.want = want, .each = each, .arg = arg, .data = bytes, .bytes = (int64_t)n};
    if (want->channels != 1 && want->channels != 3)
        return err_set(e, ERR_DATA, "an MP4 gives pictures of 1 channel (grey) or 3 (RGB), not %lld",
                       (long long)want->channels);
    if (want->height < 1 || want->width < 1 || want->height > want->max_pixels / want->width)
        return err_set(e, ERR_DATA, "no MP4 is scaled to %lld x %lld pixels", (long long)want->height,
                       (long long)want->width);
    av_log_set_level(AV_LOG_QUIET); // what goes wrong is told by our own messages
    av_max_alloc(BLOCK_BYTES);
    int rc = open_container(&f, e);
    if (!rc) rc = find_track(&f, e);
    if (!rc) rc = open_decoder(&f, e);
    if (!rc) rc = make_room(&f, e);
    if (!rc) rc = want->part ? decode_part(&f, e) : decode_all(&f, e);
    film_fini(&f);
    return rc;
}
