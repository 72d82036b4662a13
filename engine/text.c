/* Text and tokens for those who only look: what a chat reads like behind the template, and
 * how a text is cut into tokens. Any thread. */
#include "engine/engine_impl.h"

#include <string.h>

/* As llama-server marks the place of a picture. */
#define PICTURE_MARK "<__media__>"

int engine_tokenize(const struct engine *en, const char *text, size_t len, bool add_special,
                    bool parse_special, struct arena *a, int32_t **ids, int *n_ids, struct err *e)
{
    const struct tokenizer *t = en->tokenizer;
    const struct text_range whole = {0, len};
    struct token *tokens = NULL;
    int n = 0;
    if (tokenizer_encode(t, text, len, &whole, parse_special ? 1 : 0, true, a, &tokens, &n, e)) {
        return -1;
    }
    int32_t *out = arena_alloc(a, (size_t)n + 1, sizeof *out);
    if (!out) {
        return err_no_memory(e, (size_t)n * sizeof *out);
    }
    int at = 0;
    if (add_special && tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) {
        out[at++] = tokenizer_bos(t);
    }
    for (int i = 0; i < n; i++) {
        out[at++] = tokens[i].id;
    }
    *ids = out;
    *n_ids = at;
    return 0;
}

int engine_render_chat(const struct engine *en, const struct chat *chat, bool add_generation_prompt,
                       struct arena *a, struct buf *out, struct err *e)
{
    struct prompt_piece *pieces = NULL;
    int n = 0;
    const struct vision_info *v = en->vision ? vision_info(en->vision) : NULL;
    if (chat_template_render(en->chat_template, chat, add_generation_prompt, a, &pieces, &n, e)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        buf_append(out, pieces[i].text, pieces[i].len);
        if (pieces[i].image >= 0 && v) {
            buf_puts(out, v->text_before);
            buf_puts(out, PICTURE_MARK);
            buf_puts(out, v->text_after);
        }
    }
    return buf_failed(out) ? err_no_memory(e, out->len) : 0;
}

int job_prompt_tokens(const struct job *j, struct arena *a, int32_t **ids, int *n_ids,
                      struct err *e)
{
    const struct prompt *p = &j->prompt;
    int32_t *out = arena_alloc(a, (size_t)p->text_rows + 1, sizeof *out);
    if (!out) {
        return err_no_memory(e, (size_t)p->text_rows * sizeof *out);
    }
    int n = 0;
    for (int r = 0; r < p->n_runs; r++) {
        if (p->runs[r].kind == ROW_TEXT && p->runs[r].n > 0) {
            memcpy(out + n, p->runs[r].ids, (size_t)p->runs[r].n * sizeof *out);
            n += p->runs[r].n;
        }
    }
    *ids = out;
    *n_ids = n;
    return 0;
}
