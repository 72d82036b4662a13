/* What the tests of engine/ share: a small model with random weights, one question, and
 * the reading of answers. */
#ifndef TAMP_TESTS_UNIT_ENGINE_FIXTURE_H
#define TAMP_TESTS_UNIT_ENGINE_FIXTURE_H

#include "base/buf.h"
#include "engine/engine.h"

#define TINY "tests/golden/tiny/llama-bpe.gguf"

struct engine *open_engine(const struct engine_params *p);
struct engine *open_tiny_engine(int n_parallel, int max_queue, int n_threads);

/* One user message, a plan by profile name; everything else may be changed afterwards. */
struct question {
    struct chat_part part;
    struct chat_message message;
    struct engine_request request;
};

/* Greedy, end-of-text ignored; points into q. */
void ask(struct question *q, const char *text, const char *profile, int max_tokens);
struct job *submit(struct engine *en, const struct question *q);
/* Reads all events; text of every choice is joined with '|'. Returns the last type. */
enum job_event_type read_all(struct job *j, struct buf *text);
char *answer_of(struct engine *en, const struct question *q); /* mem_free */
/* After everything ended, the engine's books must balance and nothing may be held. */
void check_idle(struct engine *en, uint64_t submitted);

#endif
