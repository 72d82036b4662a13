#include "server/compress_response.h"

#include "server/chat_response.h"

#include <string.h>

static void member_number(struct json_writer *w, const char *key, double v, int decimals)
{
    json_key(w, key);
    json_number(w, v, decimals);
}

static void render_images(struct json_writer *w, const struct job_result *r)
{
    const struct job_preview *p = r->preview;
    json_key(w, "images");
    json_begin_array(w);
    for (int i = 0; i < p->n_pictures; i++) {
        json_begin_object(w);
        json_put_int(w, "index", i);
        json_put_int(w, "width", p->pictures[i].width);
        json_put_int(w, "height", p->pictures[i].height);
        json_put_int(w, "rows_in", p->pictures[i].n_whole);
        json_put_int(w, "rows_out", p->pictures[i].n_rows);
        if (i < r->n_overlays) {
            json_key(w, "overlay");
            render_overlay(w, r, i);
        }
        json_end_object(w);
    }
    json_end_array(w);
}

static void render_piece(struct json_writer *w, const struct preview_piece *p)
{
    json_begin_object(w);
    json_key(w, "text");
    json_string_n(w, p->text, p->len);
    json_key(w, "group");
    if (p->row >= 0) {
        json_int(w, p->row);
    } else {
        json_null(w);
    }
    json_put_int(w, "tokens", p->n_tokens);
    json_key(w, "protected");
    json_bool(w, p->fixed);
    json_end_object(w);
}

/* Pieces of one part of a message follow each other. */
static void render_segments(struct json_writer *w, const struct job_preview *p)
{
    json_key(w, "segments");
    json_begin_array(w);
    for (int i = 0; i < p->n_pieces;) {
        const struct preview_piece *first = &p->pieces[i];
        json_begin_object(w);
        json_put_int(w, "message", first->message);
        json_put_int(w, "part", first->part);
        json_key(w, "pieces");
        json_begin_array(w);
        for (; i < p->n_pieces && p->pieces[i].message == first->message &&
               p->pieces[i].part == first->part;
             i++) {
            render_piece(w, &p->pieces[i]);
        }
        json_end_array(w);
        json_end_object(w);
    }
    json_end_array(w);
}

static void render_estimate(struct json_writer *w, const struct job_preview *p)
{
    json_key(w, "estimated");
    json_begin_object(w);
    member_number(w, "first_token_ms", p->first_token_ms, 3);
    member_number(w, "cpu_ms", p->cpu_ms, 3);
    member_number(w, "cost_ratio", p->cost_ratio, 4);
    json_put_int(w, "kv_bytes", (int64_t)p->kv_bytes);
    json_end_object(w);
}

/* The part of the answer that a chat has in usage.compression, too. */
static void render_counts(struct json_writer *w, const struct report *r)
{
    json_key(w, "profile");
    json_string(w, r->profile);
    json_put_int(w, "original_tokens", r->original_rows);
    json_put_int(w, "compressed_tokens", r->compressed_rows);
    member_number(w, "ratio", report_ratio(r), 4);
    member_number(w, "mean_rows_per_layer", r->mean_rows_per_layer, 2);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        render_modality(w, r, (enum modality)m);
    }
}

void render_preview(struct buf *out, const char *asked, const struct job_result *r)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "plan");
    json_raw(&w, asked, strlen(asked));
    render_counts(&w, &r->report);
    render_images(&w, r);
    render_segments(&w, r->preview);
    render_estimate(&w, r->preview);
    render_skipped(&w, &r->report);
    json_end_object(&w);
}
