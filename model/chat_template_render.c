/* What templates write into: text with the pictures cut out of it, and beside it which
 * bytes are the template's own (there special tokens count) and which came from whom. */
#include "base/alloc.h"
#include "model/chat_template_impl.h"

#include <string.h>

#define PROMPT_MAX_BYTES ((size_t)256 << 20) /* as much as a tokenizer takes */
#define BLANKS           " \t\n\v\f\r"

void renderer_init(struct renderer *r, const struct chat *chat, bool add_generation_prompt,
                   struct arena *a, struct err *e)
{
    *r = (struct renderer){
        .chat = chat, .add_generation_prompt = add_generation_prompt, .arena = a, .e = e};
    buf_init(&r->text, PROMPT_MAX_BYTES);
}

static void fail_memory(struct renderer *r, size_t bytes)
{
    if (!r->failed) {
        err_no_memory(r->e, bytes);
    }
    r->failed = true;
}

/* Room for one more; false = failed. */
static bool grow(struct renderer *r, void **items, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) {
        return true;
    }
    size_t want = *cap ? *cap * 2 : 16;
    void *more = mem_realloc(*items, want, size);
    if (!more) {
        fail_memory(r, want * size);
        return false;
    }
    *items = more;
    *cap = want;
    return true;
}

static void *copy(struct renderer *r, const void *items, size_t n, size_t size)
{
    void *p = arena_alloc(r->arena, n ? n : 1, size);
    if (!p) {
        fail_memory(r, n * size);
    } else if (n) {
        memcpy(p, items, n * size);
    }
    return p;
}

static void append(struct renderer *r, const char *text, size_t len)
{
    if (buf_append(&r->text, text, len)) {
        fail_memory(r, r->text.len + len);
    }
}

static void say_bytes(struct renderer *r, const char *text, size_t len)
{
    if (r->failed || len == 0) {
        return;
    }
    size_t at = r->text.len;
    if (r->n_special && r->special[r->n_special - 1].end == at) {
        r->special[r->n_special - 1].end = at + len;
    } else {
        void *items = r->special;
        if (!grow(r, &items, &r->cap_special, r->n_special, sizeof *r->special)) {
            return;
        }
        r->special = items;
        r->special[r->n_special++] = (struct text_range){at, at + len};
    }
    append(r, text, len);
}

void say(struct renderer *r, const char *text)
{
    say_bytes(r, text, strlen(text));
}

static void show_text(struct renderer *r, const struct segment *s)
{
    if (r->failed || s->len == 0) {
        return;
    }
    void *items = r->sources;
    if (!grow(r, &items, &r->cap_sources, r->n_sources, sizeof *r->sources)) {
        return;
    }
    r->sources = items;
    size_t at = r->text.len;
    r->sources[r->n_sources++] = (struct prompt_source){at, at + s->len, s->message, s->part};
    append(r, s->text, s->len);
}

/* Ends the piece in hand; image < 0: it is the last. */
static void end_piece(struct renderer *r, int image, int message, int part)
{
    void *items = r->pieces;
    if (r->failed || !grow(r, &items, &r->cap_pieces, r->n_pieces, sizeof *r->pieces)) {
        return;
    }
    r->pieces = items;
    r->pieces[r->n_pieces++] = (struct prompt_piece){
        .text = copy(r, buf_str(&r->text), r->text.len + 1, 1),
        .len = r->text.len,
        .special = copy(r, r->special, r->n_special, sizeof *r->special),
        .n_special = (int)r->n_special,
        .sources = copy(r, r->sources, r->n_sources, sizeof *r->sources),
        .n_sources = (int)r->n_sources,
        .image = image,
        .image_message = message,
        .image_part = part,
    };
    buf_clear(&r->text);
    r->n_special = 0;
    r->n_sources = 0;
}

void show(struct renderer *r, const struct content *c)
{
    for (int i = 0; i < c->n; i++) {
        const struct segment *s = &c->items[i];
        switch (s->type) {
        case SEGMENT_TEXT:
            show_text(r, s);
            break;
        case SEGMENT_JOIN:
            say_bytes(r, s->text, s->len);
            break;
        case SEGMENT_IMAGE:
            end_piece(r, s->image, s->message, s->part);
            break;
        }
    }
}

void refuse_role(struct renderer *r, int message, const char *why)
{
    if (!r->failed) {
        err_reason(r->e, ERR_INVALID, "unsupported_role", "%s", why);
        err_param(r->e, "messages[%d].role", message);
    }
    r->failed = true;
}

int renderer_finish(struct renderer *r, struct prompt_piece **pieces, int *n_pieces)
{
    end_piece(r, -1, -1, -1);
    struct prompt_piece *out = r->failed ? NULL : copy(r, r->pieces, r->n_pieces, sizeof *out);
    if (!r->failed) {
        *pieces = out;
        *n_pieces = (int)r->n_pieces;
    }
    buf_free(&r->text);
    mem_free(r->special);
    mem_free(r->sources);
    mem_free(r->pieces);
    return r->failed ? -1 : 0;
}

static struct content new_content(struct renderer *r, size_t room)
{
    struct content c = {arena_alloc(r->arena, room ? room : 1, sizeof *c.items), 0};
    if (!c.items) {
        fail_memory(r, room * sizeof *c.items);
    }
    return c;
}

struct content content_of(struct renderer *r, int i)
{
    const struct chat_message *m = &r->chat->messages[i];
    struct content c = new_content(r, 2 * (size_t)m->n_parts);
    bool after_image = false;
    bool empty = true;
    for (int k = 0; c.items && k < m->n_parts; k++) {
        const struct chat_part *p = &m->parts[k];
        struct segment s = {.message = i, .part = k};
        if (p->type == CHAT_PART_IMAGE) {
            s.type = SEGMENT_IMAGE;
            s.image = p->image;
        } else {
            s.type = SEGMENT_TEXT;
            s.text = p->text;
            s.len = p->text_len;
            if (p->ours) {
                s.type = SEGMENT_JOIN;
            }
            if (!empty && !after_image && !p->ours && !p->glued) {
                c.items[c.n++] = (struct segment){.type = SEGMENT_JOIN, .text = "\n", .len = 1};
            }
        }
        c.items[c.n++] = s;
        after_image = p->type == CHAT_PART_IMAGE;
        empty = empty && !after_image && s.len == 0;
    }
    return c;
}

static void add_segments(struct content *c, const struct content *more)
{
    for (int i = 0; i < more->n; i++) {
        c->items[c->n++] = more->items[i];
    }
}

struct content content_join(struct renderer *r, const struct content *a, const char *between,
                            const struct content *b)
{
    struct content c = new_content(r, (size_t)a->n + (size_t)b->n + 1);
    if (c.items) {
        add_segments(&c, a);
        c.items[c.n++] =
            (struct segment){.type = SEGMENT_JOIN, .text = between, .len = strlen(between)};
        add_segments(&c, b);
    }
    return c;
}

static bool in_set(char c, const char *set)
{
    return c != '\0' && strchr(set, c);
}

void content_trim_left(struct content *c, const char *set)
{
    while (c->n && c->items[0].type != SEGMENT_IMAGE) {
        struct segment *s = &c->items[0];
        while (s->len && in_set(s->text[0], set)) {
            s->text++;
            s->len--;
        }
        if (s->len) {
            return;
        }
        c->items++;
        c->n--;
    }
}

void content_trim_right(struct content *c, const char *set)
{
    while (c->n && c->items[c->n - 1].type != SEGMENT_IMAGE) {
        struct segment *s = &c->items[c->n - 1];
        while (s->len && in_set(s->text[s->len - 1], set)) {
            s->len--;
        }
        if (s->len) {
            return;
        }
        c->n--;
    }
}

void content_trim(struct content *c)
{
    content_trim_left(c, BLANKS);
    content_trim_right(c, BLANKS);
}

static const char *find_in(const struct segment *s, const char *mark, bool last)
{
    if (s->type != SEGMENT_TEXT) {
        return NULL;
    }
    const char *found = NULL;
    const char *from = s->text;
    const char *end = s->text + s->len;
    size_t n = strlen(mark);
    while ((from = memmem(from, (size_t)(end - from), mark, n))) {
        found = from;
        if (!last) {
            break;
        }
        from += n;
    }
    return found;
}

bool content_cut(struct renderer *r, const struct content *c, const char *mark, bool last,
                 struct content *before, struct content *after)
{
    const char *at = NULL;
    int k = -1;
    for (int i = 0; i < c->n && (last || !at); i++) {
        const char *found = find_in(&c->items[i], mark, last);
        at = found ? found : at;
        k = found ? i : k;
    }
    if (!at) {
        return false;
    }
    *before = new_content(r, (size_t)k + 1);
    *after = new_content(r, (size_t)(c->n - k));
    if (!before->items || !after->items) {
        return false;
    }
    memcpy(before->items, c->items, ((size_t)k + 1) * sizeof *c->items);
    memcpy(after->items, c->items + k, (size_t)(c->n - k) * sizeof *c->items);
    before->n = k + 1;
    before->items[k].len = (size_t)(at - c->items[k].text);
    after->n = c->n - k;
    after->items[0].text = at + strlen(mark);
    after->items[0].len = c->items[k].len - before->items[k].len - strlen(mark);
    return true;
}

bool content_is_empty(const struct content *c)
{
    for (int i = 0; i < c->n; i++) {
        if (c->items[i].type == SEGMENT_IMAGE || c->items[i].len) {
            return false;
        }
    }
    return true;
}
