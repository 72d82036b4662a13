/* A chat as plain data: what the server parsed, what the router splits, what the
 * template renders. Views into memory of the request's arena; nothing is owned. */
#ifndef TAMP_COMPRESS_CHAT_H
#define TAMP_COMPRESS_CHAT_H

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
};

#endif
