/* Answers that call functions, as a grammar: every call has the name of a function and
 * arguments that satisfy its schema. */
#ifndef TAMP_GRAMMAR_TOOL_CALLS_H
#define TAMP_GRAMMAR_TOOL_CALLS_H

#include "grammar/grammar.h"

struct grammar_tool {
    const char *name;               /* letters, digits, '_' and '-' */
    const struct cJSON *parameters; /* the schema of an object; NULL = there are none */
    const char *path;               /* of the schema, for messages */
};

/* prefix NAME arguments JSON } close; see struct chat_tool_format. */
struct tool_call_form {
    const char *prefix;    /* all up to the name */
    size_t trigger;        /* so many of its bytes are nothing else than a call */
    bool only_first;       /* calls stand at the beginning of an answer only */
    const char *arguments; /* between name and arguments */
    const char *close;     /* behind the '}' that closes the call */
    const char *between;   /* before the next call; NULL: there is no next */
};

/* required: the answer is calls, and nothing else; otherwise any text, in which what begins
 * like a call is one. parallel: there may be several. */
struct grammar *grammar_from_tools(const struct grammar_tool *tools, int n,
                                   const struct tool_call_form *form, bool required, bool parallel,
                                   struct err *e);

#endif
