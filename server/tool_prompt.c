#include "server/tool_prompt.h"

#include "server/json_fields.h"
#include "server/json_layout.h"
#include "server/json_write.h"
#include "server/limits.h"

#include <cjson/cJSON.h>
#include <string.h>

/* A message under construction: its parts, and room for more. */
struct parts {
    struct arena *arena;
    struct chat_part *items;
    int n, room;
};

static int parts_init(struct parts *p, const struct chat_message *m, int more, struct arena *a,
                      struct err *e)
{
    size_t room = (size_t)m->n_parts + (size_t)more;
    *p = (struct parts){.arena = a, .items = arena_zalloc(a, room + 1, sizeof *p->items)};
    if (!p->items) {
        return err_no_memory(e, room * sizeof *p->items);
    }
    p->room = (int)room;
    return 0;
}

static void add_parts(struct parts *p, const struct chat_message *m)
{
    for (int i = 0; i < m->n_parts; i++) {
        p->items[p->n++] = m->parts[i];
    }
}

/* static text of tamp's own */
static void add_ours(struct parts *p, const char *text)
{
    if (text[0]) {
        p->items[p->n++] = (struct chat_part){
            .type = CHAT_PART_TEXT, .text = text, .text_len = strlen(text), .ours = true};
    }
}

static int add_text(struct parts *p, const char *text, size_t n, struct err *e)
{
    char *copy = arena_strndup(p->arena, text, n);
    if (!copy) {
        return err_no_memory(e, n);
    }
    p->items[p->n++] =
        (struct chat_part){.type = CHAT_PART_TEXT, .text = copy, .text_len = n, .glued = true};
    return 0;
}

static int add_json(struct parts *p, const cJSON *v, int indent, struct err *e)
{
    struct buf text;
    buf_init(&text, LIMIT_BODY_BYTES);
    int rc = json_layout(&text, v, indent, e) || add_text(p, buf_str(&text), text.len, e);
    buf_free(&text);
    return rc ? -1 : 0;
}

static bool has_text(const struct chat_message *m)
{
    for (int i = 0; i < m->n_parts; i++) {
        if (m->parts[i].type == CHAT_PART_IMAGE || m->parts[i].text_len > 0) {
            return true;
        }
    }
    return false;
}

/* ---- calls ------------------------------------------------------------------------------------
 */

/* Arguments come as a text that should be JSON; what a model once wrote may not be. */
static int add_arguments(struct parts *p, const char *text, struct err *e)
{
    cJSON *tree = cJSON_Parse(text);
    int rc = tree ? add_json(p, tree, 0, e) : add_text(p, text, strlen(text), e);
    cJSON_Delete(tree);
    return rc;
}

int tool_prompt_calls(const struct chat_tool_format *f, const cJSON *calls, struct chat_message *m,
                      struct arena *a, struct err *e)
{
    struct parts p;
    if (parts_init(&p, m, 8 * cJSON_GetArraySize(calls), a, e)) {
        return -1;
    }
    bool text = has_text(m);
    if (text) {
        add_parts(&p, m);
    }
    for (const cJSON *call = calls->child; call; call = call->next) {
        const cJSON *function = json_member(call, "function");
        const char *name = json_member(function, "name")->valuestring;
        add_ours(&p, text || p.n > 0 ? "\n" : "");
        add_ours(&p, f->open);
        add_ours(&p, "{\"name\": \"");
        if (add_text(&p, name, strlen(name), e)) {
            return -1;
        }
        add_ours(&p, f->arguments);
        if (add_arguments(&p, json_member(function, "arguments")->valuestring, e)) {
            return -1;
        }
        add_ours(&p, "}");
        add_ours(&p, f->close);
    }
    m->parts = p.items;
    m->n_parts = p.n;
    return 0;
}

/* ---- results ----------------------------------------------------------------------------------
 */

static int quote_parts(struct parts *p, const struct chat_message *m, struct err *e)
{
    struct buf text;
    struct buf quoted;
    struct json_writer w;
    buf_init(&text, LIMIT_BODY_BYTES);
    buf_init(&quoted, LIMIT_BODY_BYTES);
    for (int i = 0; i < m->n_parts; i++) {
        buf_puts(&text, i ? "\n" : "");
        buf_append(&text, m->parts[i].text, m->parts[i].text_len);
    }
    json_writer_init(&w, &quoted);
    json_string_n(&w, buf_str(&text), text.len);
    int rc = buf_failed(&text) || buf_failed(&quoted)
                 ? err_no_memory(e, text.len)
                 : add_text(p, buf_str(&quoted), quoted.len, e);
    buf_free(&text);
    buf_free(&quoted);
    return rc;
}

int tool_prompt_result(const struct chat_tool_format *f, struct chat_message *m, struct arena *a,
                       struct err *e)
{
    struct parts p;
    if (!f->result_open && !f->result_json) {
        return 0;
    }
    if (parts_init(&p, m, 2, a, e)) {
        return -1;
    }
    if (f->result_json) {
        if (quote_parts(&p, m, e)) {
            return -1;
        }
    } else {
        add_ours(&p, f->result_open);
        add_parts(&p, m);
        p.items[1].glued |= m->n_parts > 0;
        add_ours(&p, f->result_close);
        m->role = CHAT_USER;
    }
    m->parts = p.items;
    m->n_parts = p.n;
    return 0;
}

/* ---- the list ---------------------------------------------------------------------------------
 */

static int add_list(const struct chat_tool_format *f, const cJSON *tools, struct parts *p,
                    struct err *e)
{
    add_ours(p, f->list);
    for (const cJSON *t = tools->child; t; t = t->next) {
        add_ours(p, f->each);
        if (add_json(p, t, f->indent, e)) {
            return -1;
        }
        if (f->in_user_message) {
            add_ours(p, "\n\n");
        }
    }
    add_ours(p, f->list_end);
    return 0;
}

/* The message that tells: the system message, made if there is none, or the first of the
 * user. */
static int place(const struct chat_tool_format *f, const char *default_system,
                 const struct chat *chat, struct chat_message *out, struct parts *p,
                 const cJSON *tools, struct err *e)
{
    struct chat_message none = {.role = CHAT_SYSTEM};
    bool first = chat->n_messages > 0 && chat->messages[0].role == CHAT_SYSTEM;
    const struct chat_message *m = first ? &chat->messages[0] : &none;
    if (f->in_user_message) {
        for (int i = 0; i < chat->n_messages; i++) {
            if (chat->messages[i].role == CHAT_USER) {
                m = &chat->messages[i];
                break;
            }
        }
    }
    if (parts_init(p, m, 4 + 3 * cJSON_GetArraySize(tools), p->arena, e)) {
        return -1;
    }
    if (f->in_user_message && m->role == CHAT_USER) {
        if (add_list(f, tools, p, e)) {
            return -1;
        }
        add_parts(p, m);
        if (m->n_parts > 0) { /* the question follows without a line break of its own */
            p->items[p->n - m->n_parts].glued = m->parts[0].type == CHAT_PART_TEXT;
        }
    } else {
        bool text = has_text(m) || (m == &none && default_system);
        if (m == &none && default_system) {
            add_ours(p, default_system);
        } else {
            add_parts(p, m);
        }
        add_ours(p, text ? "\n\n" : "");
        if (add_list(f, tools, p, e)) {
            return -1;
        }
    }
    *out = (struct chat_message){.role = m->role, .parts = p->items, .n_parts = p->n};
    return 0;
}

int tool_prompt_list(const struct chat_tool_format *f, const char *default_system,
                     const cJSON *tools, struct chat *chat, struct arena *a, struct err *e)
{
    struct parts p = {.arena = a};
    struct chat_message told;
    size_t n = (size_t)chat->n_messages + 1;
    struct chat_message *messages = arena_zalloc(a, n, sizeof *messages);
    if (!messages) {
        return err_no_memory(e, n * sizeof *messages);
    }
    if (place(f, default_system, chat, &told, &p, tools, e)) {
        return -1;
    }
    int at = 0;
    bool placed = false;
    bool system = chat->n_messages > 0 && chat->messages[0].role == CHAT_SYSTEM;
    if (told.role == CHAT_SYSTEM) {
        messages[at++] = told;
        placed = true;
    }
    for (int i = told.role == CHAT_SYSTEM && system ? 1 : 0; i < chat->n_messages; i++) {
        bool here = !placed && chat->messages[i].role == CHAT_USER;
        messages[at++] = here ? told : chat->messages[i];
        placed |= here;
    }
    chat->messages = messages;
    chat->n_messages = at;
    chat->tools = true;
    return 0;
}
