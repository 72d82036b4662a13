#include "cmd/sd_notify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SEND_TIMEOUT_S 5

/* Length of the address in *n. */
static int parse_address(const char *address, struct sockaddr_un *a, socklen_t *n, struct err *e)
{
    size_t length = strlen(address);
    if ((*address != '/' && *address != '@') || address[1] == '\0') {
        return err_set(e, ERR_INVALID,
                       "NOTIFY_SOCKET is '%.64s'; it must be an absolute path, or @ and a name",
                       address);
    }
    if (length >= sizeof a->sun_path) {
        return err_set(e, ERR_RANGE,
                       "NOTIFY_SOCKET has %zu bytes; a unix socket's path has at "
                       "most %zu",
                       length, sizeof a->sun_path - 1);
    }
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(a->sun_path, address, length);
    if (*address == '@') {
        a->sun_path[0] = '\0';
    }
    /* An abstract name ends where the address ends, a path with its zero byte. */
    *n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*address == '/'));
    return 0;
}

int sd_notify_send(const char *address, const char *state, struct err *e)
{
    struct sockaddr_un a;
    socklen_t n = 0;
    if (!address || !*address) {
        return 0;
    }
    if (parse_address(address, &a, &n, e)) {
        return -1;
    }
    const struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
    size_t length = strlen(state);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t sent = -1;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0) {
        do {
            sent = sendto(fd, state, length, MSG_NOSIGNAL, (const struct sockaddr *)&a, n);
        } while (sent < 0 && errno == EINTR);
    }
    int problem = errno;
    if (fd >= 0) {
        close(fd);
    }
    if (sent != (ssize_t)length) {
        return err_set(e, ERR_IO, "cannot tell the service manager at %.128s %s: %s", address,
                       state, strerror(problem));
    }
    return 0;
}
