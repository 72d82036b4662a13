/* A chat as plain data: what the server parsed, what the router splits, what the
 * template renders. Views into memory of the request's arena; nothing is owned. */
#ifndef TAMP_COMPRESS_CHAT_H
#define TAMP_COMPRESS_CHAT_H

#include <stdbool.h>
#include <stddef.h>

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL }; /* developer = system */
const char *chat_role_name(enum chat_role r);

enum image_detail { DETAIL_AUTO, DETAIL_LOW, DETAIL_HIGH };

enum chat_part_type { CHAT_PART_TEXT, CHAT_PART_IMAGE };

/* A box in fractions of the picture's sides, as a person sees it. */
struct chat_region {
    float left, top, right, bottom;
};

struct chat_part {
    enum chat_part_type type;
    const char *text; /* UTF-8, text parts */
    size_t text_len;
    int image; /* index of the picture within the request, image parts */
    enum image_detail detail;
    const struct chat_region *regions; /* [n_regions] what must not merge, image parts */
    int n_regions;
    /* text parts: no line break before it, and it never merges */
    bool glued;
    bool ours; /* the same, written by tamp: special tokens in it count */
};

/* How a model writes calls of functions:
 *   open {"name": "NAME arguments JSON} close, again behind `between`
 * and how its prompts tell it of functions and of their results. */
struct chat_tool_format {
    const char *open;      /* "" = the call is the whole answer */
    const char *trigger;   /* beginning of open {"name": " that cannot be anything else */
    const char *arguments; /* behind the name */
    const char *close;
    const char *between;                    /* NULL = one call an answer */
    const char *list, *each, *list_end;     /* around the functions, before each of them */
    int indent;                             /* of their JSON; 0 = one line */
    bool in_user_message;                   /* the list opens the first user message, else it */
                                            /* closes the system message */
    const char *result_open, *result_close; /* NULL = the template has a role for results */
    bool result_json;                       /* results stand as JSON strings */
};

struct chat_message {
    enum chat_role role;
    const struct chat_part *parts;
    int n_parts;
};

struct chat {
    const struct chat_message *messages;
    int n_messages;
    int n_images;
    bool tools; /* functions are told of */
};

#endif
