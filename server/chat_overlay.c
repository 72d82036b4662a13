/* "overlay" of an answer: what became of each picture, as numbers and as something to look
 * at. */
#include "server/chat_response.h"

#include "base/alloc.h"

#include <nettle/base64.h>
#include <string.h>

static void cells_of(struct json_writer *w, const struct picture_overlay *o, int owner)
{
    json_begin_array(w);
    for (int i = 0; i < o->side * o->side; i++) {
        if (owner < 0 ? o->owner[i] < 0 : o->owner[i] == owner) {
            json_int(w, i);
        }
    }
    json_end_array(w);
}

static void render_group(struct json_writer *w, const struct picture_overlay *o, int row)
{
    int size = 0;
    bool fixed = false;
    for (int i = 0; i < o->side * o->side; i++) {
        size += o->owner[i] == row;
        fixed |= o->owner[i] == row && o->protect && o->protect[i];
    }
    json_begin_object(w);
    json_key(w, "row");
    json_int(w, row);
    json_key(w, "size");
    json_int(w, size);
    json_key(w, "state");
    json_string(w, fixed ? "protected" : size > 1 ? "merged" : "kept");
    json_key(w, "patches");
    cells_of(w, o, row);
    json_end_object(w);
}

static void render_png(struct json_writer *w, const struct picture_overlay *o)
{
    static const char head[] = "data:image/png;base64,";
    size_t n = sizeof head - 1 + BASE64_ENCODE_RAW_LENGTH(o->png_bytes);
    char *url = mem_alloc(n, 1);
    if (!url) {
        json_null(w);
        return;
    }
    memcpy(url, head, sizeof head - 1);
    base64_encode_raw(url + sizeof head - 1, o->png_bytes, o->png);
    json_string_n(w, url, n);
    mem_free(url);
}

void render_overlay(struct json_writer *w, const struct job_result *r, int i)
{
    const struct picture_overlay *o = &r->overlays[i];
    json_begin_object(w);
    json_key(w, "image");
    json_int(w, i);
    json_key(w, "method");
    json_string(w, o->method);
    json_key(w, "grid");
    json_begin_array(w);
    json_int(w, o->side);
    json_int(w, o->side);
    json_end_array(w);
    json_key(w, "groups");
    json_begin_array(w);
    for (int row = 0; row < o->n_rows; row++) {
        render_group(w, o, row);
    }
    json_end_array(w);
    json_key(w, "dropped");
    cells_of(w, o, -1);
    json_key(w, "png");
    render_png(w, o);
    json_end_object(w);
}

void render_overlays(struct json_writer *w, const struct job_result *r)
{
    json_key(w, "overlay");
    json_begin_array(w);
    for (int i = 0; i < r->n_overlays; i++) {
        render_overlay(w, r, i);
    }
    json_end_array(w);
}
