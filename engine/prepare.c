/* job_prepare: the cheap half of a request, on the caller's thread. Chat -> spans ->
 * prompt text -> tokens with protection; picture bytes -> pixels. Nothing here touches
 * the decoder or the tower, so any number of callers may prepare at the same time. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "compress/router.h"

#include <stdio.h>
#include <string.h>

/* The first tokens of a sequence draw attention whatever they say ("attention sink",
 * compression.md section 6): they never merge. */
#define SINK_TOKENS 4
/* Between the last user message and the answer. */
#define MOST_TEMPLATE_TOKENS 16
/* The vocabularies in use end at runs of 128 spaces. */
#define LONGEST_TOKEN_BYTES ((size_t)128)

struct preparation {
    struct job *job;
    struct token *tokens; /* of PROMPT_TOKENS: the whole prompt is one piece */
    const struct engine_request *request;
    const struct span *spans;
    int n_spans;
    struct prompt_run *runs; /* [capacity] */
    int capacity;
    int last_user_message;
    int n_static_messages; /* at the front: what all prompts of this kind share */
};

/* Spans stand in the order of messages and parts. A chat may have a hundred thousand of
 * them, so nothing here may look at all of them for each. */
static const struct span *find_span(const struct preparation *p, int message, int part)
{
    int low = 0;
    int high = p->n_spans;
    while (low < high) {
        int mid = low + (high - low) / 2;
        const struct span *s = &p->spans[mid];
        if (s->message == message && s->part == part) {
            return s;
        }
        if (s->message < message || (s->message == message && s->part < part)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* The first token that begins at this byte or behind it. */
static int first_token(const struct token *tokens, int n, size_t begin)
{
    int low = 0;
    while (low < n) {
        int mid = low + (n - low) / 2;
        if (tokens[mid].begin < begin) {
            low = mid + 1;
        } else {
            n = mid;
        }
    }
    return low;
}

/* The template may trim white space: where in the part does this source begin? */
static size_t offset_in_part(const struct chat_part *part, const char *text, size_t len)
{
    for (size_t k = 0; k + len <= part->text_len; k++) {
        if (memcmp(part->text + k, text, len) == 0) {
            return k;
        }
        if (!strchr(" \t\r\n", part->text[k])) {
            break;
        }
    }
    return 0;
}

static bool overlaps(const struct text_range *ranges, int n, size_t begin, size_t end)
{
    for (int i = 0; i < n && ranges[i].begin < end; i++) {
        if (ranges[i].end > begin) {
            return true;
        }
    }
    return false;
}

/* Behind a full stop, question or exclamation mark and a space, behind one of Chinese or
 * Japanese, and on a new line. */
static bool begins_sentence(const char *text, size_t begin, size_t end)
{
    static const char *const wide[] = {"\u3002", "\uff01", "\uff1f"};
    if (begin == 0 || text[begin - 1] == '\n') {
        return true;
    }
    for (size_t i = 0; begin >= 3 && i < sizeof wide / sizeof *wide; i++) {
        if (memcmp(text + begin - 3, wide[i], 3) == 0) {
            return true;
        }
    }
    return strchr(".!?", text[begin - 1]) && end > begin && strchr(" \t", text[begin]);
}

/* Everything is the template's until a source says that a user wrote it. */
static void protect_source(const struct preparation *p, const struct prompt_piece *piece,
                           const struct prompt_source *src, const struct token *tokens, int n,
                           uint8_t *flags)
{
    const struct span *span = find_span(p, src->message, src->part);
    const struct chat_part *part = &p->request->chat.messages[src->message].parts[src->part];
    bool is_static = src->message < p->n_static_messages;
    size_t shift = offset_in_part(part, piece->text + src->begin, src->end - src->begin);
    bool first = true;
    int range = 0;
    for (int i = first_token(tokens, n, src->begin); i < n && tokens[i].begin < src->end; i++) {
        size_t begin = tokens[i].begin;
        size_t end = tokens[i].end;
        if (end > src->end || begin == end) {
            continue;
        }
        uint8_t f = (uint8_t)((first ? ROW_BREAK : 0) | (is_static ? ROW_STATIC : 0));
        first = false;
        begin = begin - src->begin + shift;
        end = end - src->begin + shift;
        while (span && range < span->n_protect && span->protect[range].end <= begin) {
            range++;
        }
        if (!span || span->protect_all) {
            f |= ROW_PROTECTED;
        } else if (overlaps(span->protect + range, span->n_protect - range, begin, end)) {
            f |= ROW_PROTECTED | ROW_EXACT;
        }
        if (begins_sentence(part->text, begin, end)) {
            f |= ROW_SENTENCE;
        }
        if (tokenizer_is_special(p->job->engine->tokenizer, tokens[i].id)) {
            f |= ROW_PROTECTED;
        }
        flags[i] = f;
    }
}

/* The end of the last user message is the question: its last rows stay as they are. */
static void protect_tail(const struct preparation *p, const struct prompt_piece *piece,
                         const struct token *tokens, int n, uint8_t *flags)
{
    for (int s = piece->n_sources - 1; s >= 0; s--) {
        const struct prompt_source *src = &piece->sources[s];
        if (src->message != p->last_user_message) {
            continue;
        }
        int left = p->job->plan.protect_tail;
        for (int i = n - 1; i >= 0 && left > 0; i--) {
            if (tokens[i].begin >= src->begin && tokens[i].end <= src->end) {
                flags[i] |= ROW_PROTECTED | ROW_QUESTION;
                flags[i] &= (uint8_t)~ROW_EXACT;
                left--;
            }
        }
        return;
    }
}

static struct prompt_run *add_run(struct preparation *p, enum row_kind kind)
{
    struct prompt *prompt = &p->job->prompt;
    struct prompt_run *run = &p->runs[prompt->n_runs++];
    *run = (struct prompt_run){.kind = kind, .image = -1};
    return run;
}

/* Text as a run; every token protected unless `piece` says which bytes are a user's. */
static int add_text(struct preparation *p, const char *text, size_t len,
                    const struct prompt_piece *piece, bool bos, struct err *e)
{
    struct job *j = p->job;
    /* Text after a picture starts afresh, as in llama.cpp: it matters to SentencePiece. */
    const struct tokenizer *t = j->engine->tokenizer;
    struct token *tokens = p->tokens;
    int n = tokens ? p->request->n_prompt_ids : 0;
    if (!tokens &&
        tokenizer_encode(t, text, len, piece ? piece->special : NULL, piece ? piece->n_special : 0,
                         true, &j->arena, &tokens, &n, e)) {
        return -1;
    }
    bool add = bos && !p->tokens && tokenizer_add_bos(t) && tokenizer_bos(t) >= 0 &&
               !(n > 0 && tokens[0].id == tokenizer_bos(t));
    struct prompt_run *run = add_run(p, ROW_TEXT);
    run->ids = arena_alloc(&j->arena, (size_t)n + 1, sizeof *run->ids);
    run->flags = arena_alloc(&j->arena, (size_t)n + 1, sizeof *run->flags);
    if (!run->ids || !run->flags) {
        return err_no_memory(e, (size_t)n * sizeof *run->ids);
    }
    if (add) {
        run->ids[run->n] = tokenizer_bos(t);
        run->flags[run->n++] = ROW_PROTECTED;
    }
    uint8_t *flags = run->flags + run->n;
    memset(flags, ROW_PROTECTED, (size_t)n);
    for (int s = 0; piece && s < piece->n_sources; s++) {
        protect_source(p, piece, &piece->sources[s], tokens, n, flags);
    }
    if (piece) {
        protect_tail(p, piece, tokens, n, flags);
    }
    for (int i = 0; i < n; i++) {
        run->ids[run->n + i] = tokens[i].id;
    }
    run->n += n;
    if (run->n > 0) {
        run->flags[0] |= ROW_BREAK;
    }
    if (j->purpose == JOB_PREVIEW && preview_words(j, piece, tokens, n, run, e)) {
        return -1;
    }
    j->prompt.text_rows += run->n;
    return 0;
}

static int add_piece(struct preparation *p, const struct prompt_piece *piece, bool bos,
                     struct err *e)
{
    if (piece->len > 0 || bos) {
        if (add_text(p, piece->text, piece->len, piece, bos, e)) {
            return -1;
        }
    }
    if (piece->image < 0) {
        return 0;
    }
    const struct vision_info *v = vision_info(p->job->engine->vision);
    if (v->text_before[0] && add_text(p, v->text_before, strlen(v->text_before), NULL, false, e)) {
        return -1;
    }
    add_run(p, ROW_IMAGE)->image = piece->image;
    p->job->prompt.image_rows += v->n_rows;
    if (v->text_after[0] && add_text(p, v->text_after, strlen(v->text_after), NULL, false, e)) {
        return -1;
    }
    return 0;
}

/* Megabytes of text cost seconds of tokenising; where even the longest tokens could not
 * bring it into the context, it is refused before that. */
static int check_text_bytes(const struct preparation *p, struct err *e)
{
    const struct chat *chat = &p->request->chat;
    const struct engine_info *info = &p->job->engine->info;
    size_t bytes = 0;
    for (int m = 0; m < chat->n_messages; m++) {
        for (int i = 0; i < chat->messages[m].n_parts; i++) {
            bytes += chat->messages[m].parts[i].text_len;
        }
    }
    size_t most = (size_t)info->n_ctx_train * LONGEST_TOKEN_BYTES;
    if (bytes <= most) {
        return 0;
    }
    err_reason(e, ERR_CONTEXT_LENGTH, "context_length_exceeded",
               "the messages have %zu bytes of text, more than %zu tokens, and the context holds "
               "%d: shorten the messages",
               bytes, bytes / LONGEST_TOKEN_BYTES, info->n_ctx);
    return err_param(e, "messages");
}

static int render(struct preparation *p, struct prompt_piece **pieces, int *n_pieces, struct err *e)
{
    struct job *j = p->job;
    if (p->request->form != PROMPT_CHAT) {
        *n_pieces = 1;
        return raw_prompt_piece(j, &p->request->chat, p->request->form == PROMPT_PLAIN, pieces, e);
    }
    return chat_template_render(j->engine->chat_template, &p->request->chat,
                                p->request->add_generation_prompt, &j->arena, pieces, n_pieces, e);
}

static int build_text(struct preparation *p, struct err *e)
{
    struct job *j = p->job;
    if (check_text_bytes(p, e)) {
        return -1;
    }
    struct span *spans = NULL;
    if (router_split(&p->request->chat, &j->plan, &j->arena, &spans, &p->n_spans, e)) {
        return -1;
    }
    p->spans = spans;
    struct prompt_piece *pieces = NULL;
    int n_pieces = 0;
    if (render(p, &pieces, &n_pieces, e)) {
        return -1;
    }
    p->capacity = n_pieces * 4;
    p->runs = arena_alloc(&j->arena, (size_t)p->capacity, sizeof *p->runs);
    if (!p->runs) {
        return err_no_memory(e, (size_t)p->capacity * sizeof *p->runs);
    }
    j->prompt.runs = p->runs;
    for (int i = 0; i < n_pieces; i++) {
        if (add_piece(p, &pieces[i], i == 0, e)) {
            return -1;
        }
    }
    return 0;
}

/* The static prefix begins with the prompt and ends with the last token of its messages'
 * text: what the template writes behind that may depend on the next message. */
static void mark_static(struct prompt *prompt)
{
    struct prompt_run *run = prompt->n_runs > 0 ? &prompt->runs[0] : NULL;
    int end = 0;
    for (int i = 0; run && run->kind == ROW_TEXT && i < run->n; i++) {
        end = run->flags[i] & ROW_STATIC ? i + 1 : end;
    }
    for (int i = 0; i < end; i++) {
        run->flags[i] |= ROW_STATIC;
    }
    if (end > 0 && end < run->n) {
        run->flags[end] |= ROW_CUT | ROW_BREAK;
    }
}

/* What the template puts behind the question asks too: the answer begins there. Without a
 * question the last row does. */
static void mark_question(struct prompt *prompt)
{
    struct prompt_run *last = prompt->n_runs > 0 ? &prompt->runs[prompt->n_runs - 1] : NULL;
    int n = last && last->kind == ROW_TEXT ? last->n : 0;
    int begin = n;
    while (begin > 0 && !(last->flags[begin - 1] & ROW_QUESTION)) {
        begin--;
    }
    for (int i = begin > 0 && n - begin <= MOST_TEMPLATE_TOKENS ? begin : n - 1; i >= 0 && i < n;
         i++) {
        last->flags[i] |= ROW_QUESTION;
    }
}

/* Sinks at the front, and the row whose logits choose the first token. */
static void protect_ends(struct prompt *prompt)
{
    int sinks = SINK_TOKENS;
    for (int r = 0; r < prompt->n_runs && sinks > 0; r++) {
        for (int i = 0; i < prompt->runs[r].n && sinks > 0; i++, sinks--) {
            prompt->runs[r].flags[i] |= ROW_PROTECTED;
        }
    }
    for (int r = prompt->n_runs - 1; r >= 0; r--) {
        if (prompt->runs[r].kind == ROW_TEXT && prompt->runs[r].n > 0) {
            prompt->runs[r].flags[prompt->runs[r].n - 1] |= ROW_PROTECTED;
            return;
        }
    }
}

static const struct chat_part *part_of(const struct chat *chat, int image)
{
    for (int m = 0; m < chat->n_messages; m++) {
        for (int i = 0; i < chat->messages[m].n_parts; i++) {
            const struct chat_part *part = &chat->messages[m].parts[i];
            if (part->type == CHAT_PART_IMAGE && part->image == image) {
                return part;
            }
        }
    }
    static const struct chat_part none = {.type = CHAT_PART_IMAGE};
    return &none;
}

static int image_error(const struct engine_request *r, int image, struct err *e)
{
    int before = r->plan.static_prefix ? 1 : 0; /* the client's messages come behind it */
    for (int m = 0; m < r->chat.n_messages; m++) {
        for (int i = 0; i < r->chat.messages[m].n_parts; i++) {
            const struct chat_part *part = &r->chat.messages[m].parts[i];
            if (part->type == CHAT_PART_IMAGE && part->image == image) {
                return err_param(e, "messages[%d].content[%d].image_url", m - before, i);
            }
        }
    }
    return -1;
}

static void bound_rows(struct job *j)
{
    struct prompt *p = &j->prompt;
    p->rows_bound = 0;
    for (int i = 0; i < p->n_images; i++) {
        const struct prompt_image *im = &p->images[i];
        p->rows_bound += picture_bound(im, &im->step, vision_info(j->engine->vision)->n_rows);
    }
}

/* The plan of each picture follows from its header alone, so the context check can run
 * before anything is decoded. */
static int scan_images(struct preparation *p, struct err *e)
{
    struct job *j = p->job;
    const struct engine_request *r = p->request;
    int n = r->chat.n_images;
    const struct vision_info *v = n ? vision_info(j->engine->vision) : NULL;
    struct prompt *prompt = &j->prompt;
    prompt->images = arena_zalloc(&j->arena, (size_t)n, sizeof *prompt->images);
    if (!prompt->images) {
        return err_no_memory(e, (size_t)n * sizeof *prompt->images);
    }
    prompt->n_images = n;
    for (int i = 0; i < n; i++) {
        struct image_header header;
        if (image_scan(r->images[i].data, r->images[i].n, &image_limits_default, &header, e)) {
            return image_error(r, i, e);
        }
        const char *skipped = NULL;
        struct plan_step *step = &prompt->images[i].step;
        prompt->images[i].width = header.width;
        prompt->images[i].height = header.height;
        plan_image_step(&j->plan, part_of(&r->chat, i)->detail, header.width, header.height,
                        v->n_rows, step, &skipped);
        if (!skipped && step->method != compressors[0] && step_in_tower(step) &&
            !v->merge_in_tower) {
            step->method = compressors[0];
            skipped = "projector_needs_grid";
        }
        if (skipped) {
            report_skip(&j->result.report, step->stage, skipped);
        }
    }
    bound_rows(j);
    return 0;
}

static int check_context(const struct preparation *p, struct err *e)
{
    const struct job *j = p->job;
    const struct engine_info *info = &j->engine->info;
    int rows = j->prompt.rows_bound + j->prompt.text_rows;
    int original = j->prompt.text_rows + j->prompt.image_rows;
    if (original == 0) {
        err_reason(e, ERR_INVALID, "empty_prompt",
                   "the prompt has no tokens: there is nothing to "
                   "go on from");
        return err_param(e, "prompt");
    }
    if (rows >= info->n_ctx) {
        err_reason(e, ERR_CONTEXT_LENGTH, "context_length_exceeded",
                   "the prompt takes %d rows (%d before compression) and the context holds %d, "
                   "the answer included: shorten the messages, send fewer pictures or compress "
                   "more",
                   rows, original, info->n_ctx);
        return err_param(e, "messages");
    }
    if (original >= info->n_ctx_train) {
        err_reason(e, ERR_CONTEXT_LENGTH, "context_length_exceeded",
                   "the prompt has %d tokens and the model knows %d positions, the answer "
                   "included: shorten the messages or send fewer pictures",
                   original, info->n_ctx_train);
        return err_param(e, "messages");
    }
    return 0;
}

static int decode_images(struct preparation *p, struct err *e)
{
    struct job *j = p->job;
    const struct engine_request *r = p->request;
    double begin = clock_ms();
    for (int i = 0; i < r->chat.n_images; i++) {
        struct image im = {0};
        if (image_decode(r->images[i].data, r->images[i].n, &image_limits_default, &im, e)) {
            return image_error(r, i, e);
        }
        int rc = picture_prepare(j, i, &im, part_of(&r->chat, i), e);
        image_free(&im);
        if (rc) {
            return image_error(r, i, e);
        }
    }
    j->result.image_decode_ms = r->chat.n_images ? clock_ms() - begin : 0;
    bound_rows(j); /* now with what must not merge */
    return check_context(p, e);
}

/* The request may go after job_prepare: what generation needs is copied. */
static int copy_generation(struct job *j, const struct generation_params *g, struct err *e)
{
    j->gen = *g;
    grammar_ref(j->gen.grammar);
    const char **stop = arena_alloc(&j->arena, (size_t)g->n_stop, sizeof *stop);
    struct logit_bias_entry *bias = arena_alloc(&j->arena, (size_t)g->n_logit_bias, sizeof *bias);
    if (!stop || !bias) {
        return err_no_memory(e, (size_t)g->n_stop * sizeof *stop);
    }
    for (int i = 0; i < g->n_stop; i++) {
        stop[i] = arena_strndup(&j->arena, g->stop[i], strlen(g->stop[i]));
        if (!stop[i]) {
            return err_no_memory(e, strlen(g->stop[i]));
        }
    }
    for (int i = 0; i < g->n_logit_bias; i++) {
        if (g->logit_bias[i].token < 0 || g->logit_bias[i].token >= j->engine->info.n_vocab) {
            err_reason(e, ERR_RANGE, "out_of_range", "logit_bias: token %d is not in 0..%d",
                       g->logit_bias[i].token, j->engine->info.n_vocab - 1);
            return err_param(e, "logit_bias");
        }
        bias[i] = g->logit_bias[i];
    }
    j->gen.stop = stop;
    j->gen.logit_bias = bias;
    return 0;
}

static int check_images(const struct engine *en, const struct chat *chat, struct err *e)
{
    if (chat->n_images == 0) {
        return 0;
    }
    if (!en->vision) {
        err_reason(e, ERR_UNSUPPORTED, "image_input_unsupported",
                   "this server runs a model without pictures: start it with --mmproj");
        return err_param(e, "messages");
    }
    if (chat->n_images > en->params.max_images) {
        err_reason(e, ERR_TOO_LARGE, "too_many_images", "%d pictures, at most %d in one request",
                   chat->n_images, en->params.max_images);
        return err_param(e, "messages");
    }
    return 0;
}

/* The request with the operator's text as a system message before its own. */
static int add_static_prefix(struct engine_request *r, struct arena *a, struct err *e)
{
    size_t n = (size_t)r->chat.n_messages + 1;
    struct chat_message *messages = arena_alloc(a, n, sizeof *messages);
    struct chat_part *part = arena_alloc(a, 1, sizeof *part);
    if (!messages || !part) {
        return err_no_memory(e, n * sizeof *messages);
    }
    *part = (struct chat_part){.type = CHAT_PART_TEXT,
                               .text = r->plan.static_prefix,
                               .text_len = strlen(r->plan.static_prefix)};
    messages[0] = (struct chat_message){.role = CHAT_SYSTEM, .parts = part, .n_parts = 1};
    memcpy(messages + 1, r->chat.messages, (n - 1) * sizeof *messages);
    r->chat.messages = messages;
    r->chat.n_messages = (int)n;
    return 0;
}

/* The operator's text, or else, if the plan has a method for them, the system messages that a
 * chat begins with. */
static int n_static_messages(const struct engine_request *r)
{
    int n = r->plan.static_prefix ? 1 : 0;
    while (!r->plan.static_prefix && r->plan.step[MODALITY_LM].method->info.static_part &&
           n < r->chat.n_messages && r->chat.messages[n].role == CHAT_SYSTEM) {
        n++;
    }
    return n;
}

struct job *job_prepare(struct engine *en, const struct engine_request *request, struct err *e)
{
    if (check_images(en, &request->chat, e)) {
        return NULL;
    }
    struct job *j = job_new(en, e);
    if (!j) {
        return NULL;
    }
    struct engine_request own = *request;
    const struct engine_request *r = &own;
    struct token *tokens = NULL;
    if (own.form != PROMPT_CHAT) {
        own.plan.static_prefix = NULL; /* a prompt that stands as it is */
    }
    if ((own.form == PROMPT_TOKENS && raw_prompt_chat(j, request, &own.chat, &tokens, e)) ||
        (own.plan.static_prefix && add_static_prefix(&own, &j->arena, e))) {
        job_free(j);
        return NULL;
    }
    snprintf(j->id, sizeof j->id, "%s", r->id ? r->id : "");
    j->plan = j->asked = r->plan;
    j->purpose = r->purpose;
    adapters_mix(en, r, &j->lora);
    j->overlay = r->overlay;
    memcpy(j->scope, r->scope, sizeof j->scope);
    j->cache_prompt = r->cache_prompt;
    report_init(&j->result.report, &j->plan);
    shadow_prepare(en, j);
    struct preparation p = {.job = j,
                            .request = r,
                            .tokens = tokens,
                            .last_user_message = -1,
                            .n_static_messages = n_static_messages(r)};
    for (int m = 0; m < r->chat.n_messages; m++) {
        if (r->chat.messages[m].role == CHAT_USER) {
            p.last_user_message = m;
        }
    }
    if (copy_generation(j, &r->gen, e) || build_text(&p, e) || scan_images(&p, e) ||
        check_context(&p, e) || decode_images(&p, e)) {
        job_free(j);
        return NULL;
    }
    protect_ends(&j->prompt);
    mark_question(&j->prompt);
    mark_static(&j->prompt);
    j->result.text_rows = j->prompt.text_rows;
    j->result.image_rows = j->prompt.image_rows;
    j->result.report.original_rows = j->prompt.text_rows + j->prompt.image_rows;
    attempt_prepare(j);
    return j;
}
