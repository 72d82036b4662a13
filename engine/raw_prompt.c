/* Prompts that are no chat: a text or tokens, as they stand. From here on they are a chat of
 * one text that somebody wrote, so that what never merges is found in them as in any other. */
#include "engine/engine_impl.h"

#include <string.h>

static int check_ids(const struct engine *en, const int32_t *ids, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= en->info.n_vocab) {
            err_reason(e, ERR_RANGE, "out_of_range", "'prompt': token %d is %d, not in 0..%d", i,
                       ids[i], en->info.n_vocab - 1);
            return err_param(e, "prompt");
        }
    }
    return 0;
}

/* The pieces of the tokens, end to end. */
static char *join(struct job *j, const int32_t *ids, int n, struct token *tokens, size_t *len)
{
    const struct tokenizer *t = j->engine->tokenizer;
    size_t total = 0;
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        size_t one = 0;
        (void)tokenizer_piece(t, ids[i], true, &one);
        total += one;
    }
    char *text = arena_alloc(&j->arena, total + 1, 1);
    for (int i = 0; text && i < n; i++) {
        size_t one = 0;
        const char *piece = tokenizer_piece(t, ids[i], true, &one);
        memcpy(text + at, piece, one);
        tokens[i] = (struct token){ids[i], (uint32_t)at, (uint32_t)(at + one)};
        at += one;
    }
    *len = total;
    return text;
}

int raw_prompt_chat(struct job *j, const struct engine_request *r, struct chat *chat,
                    struct token **tokens, struct err *e)
{
    size_t n = (size_t)r->n_prompt_ids;
    if (check_ids(j->engine, r->prompt_ids, r->n_prompt_ids, e)) {
        return -1;
    }
    struct chat_part *part = arena_zalloc(&j->arena, 1, sizeof *part);
    struct chat_message *message = arena_zalloc(&j->arena, 1, sizeof *message);
    *tokens = arena_alloc(&j->arena, n + 1, sizeof **tokens);
    if (!part || !message || !*tokens) {
        return err_no_memory(e, n * sizeof **tokens);
    }
    part->text = join(j, r->prompt_ids, r->n_prompt_ids, *tokens, &part->text_len);
    if (!part->text) {
        return err_no_memory(e, part->text_len);
    }
    *message = (struct chat_message){.role = CHAT_USER, .parts = part, .n_parts = 1};
    *chat = (struct chat){.messages = message, .n_messages = 1};
    return 0;
}

int raw_prompt_piece(struct job *j, const struct chat *chat, bool plain,
                     struct prompt_piece **piece, struct err *e)
{
    const struct chat_part *part = &chat->messages[0].parts[0];
    struct prompt_piece *p = arena_zalloc(&j->arena, 1, sizeof *p);
    struct text_range *special = arena_alloc(&j->arena, 1, sizeof *special);
    struct prompt_source *source = arena_zalloc(&j->arena, 1, sizeof *source);
    if (!p || !special || !source) {
        return err_no_memory(e, sizeof *p);
    }
    *special = (struct text_range){0, part->text_len};
    *source = (struct prompt_source){.end = part->text_len};
    *p = (struct prompt_piece){.text = part->text,
                               .len = part->text_len,
                               .special = special,
                               .n_special = plain ? 0 : 1,
                               .sources = source,
                               .n_sources = 1,
                               .image = -1,
                               .image_message = -1,
                               .image_part = -1};
    *piece = p;
    return 0;
}
