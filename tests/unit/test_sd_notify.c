/* The datagrams are received by a plain socket, as sd_notify(3) describes the manager's. */
#include "base/err.h"
#include "cmd/sd_notify.h"
#include "tests/test.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_at(const struct sockaddr_un *a, size_t name_bytes)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_bytes);
    CHECK(fd >= 0 && bind(fd, (const struct sockaddr *)a, n) == 0);
    return fd;
}

static void check_received(int fd, const char *want)
{
    char got[64] = "";
    CHECK_INT(recv(fd, got, sizeof got - 1, 0), ==, strlen(want));
    CHECK_STR(got, want);
}

TEST(sd_notify_path, "a state arrives as one datagram at a socket's path")
{
    struct err e = ERR_INIT;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char folder[] = "/tmp/tamp-notify-XXXXXX";
    CHECK(mkdtemp(folder) != NULL);
    snprintf(a.sun_path, sizeof a.sun_path, "%s/socket", folder);
    int fd = listen_at(&a, strlen(a.sun_path) + 1);
    CHECK_OK(sd_notify_send(a.sun_path, SD_NOTIFY_READY, &e), e);
    CHECK_OK(sd_notify_send(a.sun_path, SD_NOTIFY_STOPPING, &e), e);
    check_received(fd, "READY=1");
    check_received(fd, "STOPPING=1");
    close(fd);
    CHECK_INT(sd_notify_send(a.sun_path, SD_NOTIFY_READY, &e), ==, -1); /* nobody reads */
    CHECK_INT(e.code, ==, ERR_IO);
    unlink(a.sun_path);
    rmdir(folder);
}

TEST(sd_notify_abstract, "@ is an abstract socket whose name has no zero byte at its end")
{
    struct err e = ERR_INIT;
    char address[64];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(address, sizeof address, "@tamp-notify-%ld", (long)getpid());
    memcpy(a.sun_path + 1, address + 1, (size_t)n - 1);
    int fd = listen_at(&a, (size_t)n);
    CHECK_OK(sd_notify_send(address, SD_NOTIFY_READY, &e), e);
    check_received(fd, "READY=1");
    close(fd);
}

TEST(sd_notify_addresses, "no address is no manager; what is no socket's address is refused")
{
    struct err e = ERR_INIT;
    CHECK_OK(sd_notify_send(NULL, SD_NOTIFY_READY, &e), e);
    CHECK_OK(sd_notify_send("", SD_NOTIFY_READY, &e), e);
    CHECK_INT(sd_notify_send("relative", SD_NOTIFY_READY, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_INVALID);
    CHECK_INT(sd_notify_send("@", SD_NOTIFY_READY, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_INVALID);
    char longest[sizeof(struct sockaddr_un)]; /* longer than its sun_path */
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    CHECK_INT(sd_notify_send(longest, SD_NOTIFY_READY, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_RANGE);
}
