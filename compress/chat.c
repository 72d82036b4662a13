#include "compress/chat.h"

const char *chat_role_name(enum chat_role r)
{
    static const char *const names[] = {
        [CHAT_SYSTEM] = "system",
        [CHAT_USER] = "user",
        [CHAT_ASSISTANT] = "assistant",
        [CHAT_TOOL] = "tool",
    };
    return (unsigned)r < sizeof names / sizeof *names ? names[r] : "?";
}
