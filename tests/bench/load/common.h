/* What both load programs share: sockets on epoll, buffers, latencies, and how they talk to the driver.
 *
 * A program sets everything up, prints "READY", waits for a line on standard input, works for the given
 * time, and prints one JSON object.  The driver looks at the servers' CPU before the line and after the
 * object, so that setting up costs nobody anything.
 */
#ifndef COMMON_H
#define COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Latencies in microseconds, exact to 1.6 %: 64 steps for each power of two. */
#define STEPS 64
static uint64_t histogram[40 * STEPS];
static uint64_t samples;

static void note_latency(double seconds)
{
    uint64_t us = seconds > 0 ? (uint64_t)(seconds * 1e6) : 0;
    int slot;
    if (us < STEPS)
        slot = (int)us;
    else {
        int power = 63 - __builtin_clzll(us);
        slot = (power - 5) * STEPS + (int)((us >> (power - 6)) - STEPS);
    }
    if (slot >= 40 * STEPS)
        slot = 40 * STEPS - 1;
    histogram[slot]++;
    samples++;
}

static inline void forget_latencies(void)
{
    memset(histogram, 0, sizeof histogram);
    samples = 0;
}

/* The latency that the share `part` of all samples does not exceed, in microseconds. */
static double percentile(double part)
{
    uint64_t wanted = (uint64_t)(samples * part), seen = 0;
    for (int slot = 0; slot < 40 * STEPS; slot++) {
        seen += histogram[slot];
        if (seen > wanted || (seen == samples && samples)) {
            if (slot < STEPS)
                return slot;
            return (double)((uint64_t)(slot % STEPS + STEPS) << (slot / STEPS - 1));
        }
    }
    return 0;
}

struct buffer {
    char *at;
    size_t length, room;
};

static void append(struct buffer *b, const char *data, size_t size)
{
    if (b->length + size + 1 > b->room) {
        b->room = (b->length + size + 1) * 2;
        b->at = realloc(b->at, b->room);
        if (!b->at)
            die("no memory");
    }
    memcpy(b->at + b->length, data, size);
    b->length += size;
    b->at[b->length] = 0;
}

static void drop(struct buffer *b, size_t size)
{
    b->length -= size;
    memmove(b->at, b->at + size, b->length);
    b->at[b->length] = 0;
}

/* One socket and who is told when something arrived on it. */
struct peer {
    int fd;
    int writing;
    struct buffer in, out;
    void (*arrived)(struct peer *);
    void (*accepted)(struct peer *, int fd); /* for listening sockets instead */
    void *owner;
};

static int poller = -1;

static void watch(struct peer *p, int how)
{
    struct epoll_event event = {.events = how, .data.ptr = p};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, p->fd, &event) < 0)
        die("epoll: %s", strerror(errno));
}

static void begin_polling(void)
{
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    poller = epoll_create1(0);
}

static void tune(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static struct sockaddr_in address_of(const char *host, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
        die("%s is no IPv4 address", host);
    return a;
}

static struct peer *connect_to(const char *host, int port, const char *from, void (*arrived)(struct peer *), void *owner)
{
    struct sockaddr_in there = address_of(host, port);
    struct peer *p = calloc(1, sizeof *p);
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    p->arrived = arrived;
    p->owner = owner;
    if (from) {
        struct sockaddr_in here = address_of(from, 0);
        int one = 1;
        setsockopt(p->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(p->fd, (struct sockaddr *)&here, sizeof here) < 0)
            die("bind %s: %s", from, strerror(errno));
    }
    if (connect(p->fd, (struct sockaddr *)&there, sizeof there) < 0)
        die("connect %s:%d: %s", host, port, strerror(errno));
    tune(p->fd);
    watch(p, EPOLLIN);
    return p;
}

static inline void listen_on(const char *host, int port, void (*accepted)(struct peer *, int), void *owner)
{
    struct sockaddr_in here = address_of(host, port);
    struct peer *p = calloc(1, sizeof *p);
    int one = 1;
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    p->accepted = accepted;
    p->owner = owner;
    setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(p->fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(p->fd, 1024) < 0)
        die("listen on %s:%d: %s", host, port, strerror(errno));
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    watch(p, EPOLLIN);
}

static void flush(struct peer *p)
{
    while (p->out.length) {
        ssize_t sent = send(p->fd, p->out.at, p->out.length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                die("send: %s", strerror(errno));
            break;
        }
        drop(&p->out, sent);
    }
    int wanted = p->out.length > 0;
    if (wanted != p->writing) {
        struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = p};
        epoll_ctl(poller, EPOLL_CTL_MOD, p->fd, &event);
        p->writing = wanted;
    }
}

static void send_to(struct peer *p, const char *data, size_t size)
{
    append(&p->out, data, size);
    if (!p->writing)
        flush(p);
}

static inline void send_text(struct peer *p, const char *text)
{
    send_to(p, text, strlen(text));
}

static inline void end_peer(struct peer *p)
{
    close(p->fd);
    free(p->in.at);
    free(p->out.at);
    free(p);
}

/* Told of a connection that the server closed; what the program does about it is its own business. */
static void closed(struct peer *p);

/* Serve whatever arrives within so many seconds, to the microsecond. */
static void poll_for(double seconds)
{
    struct epoll_event events[512];
    struct timespec most = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (time_t)seconds) * 1e9)};
    int count = epoll_pwait2(poller, events, 512, seconds > 0 ? &most : &(struct timespec){0}, NULL);
    static char chunk[65536];
    for (int i = 0; i < count; i++) {
        struct peer *p = events[i].data.ptr;
        if (p->accepted) {
            int fd;
            while ((fd = accept(p->fd, NULL, NULL)) >= 0) {
                tune(fd);
                p->accepted(p, fd);
            }
            continue;
        }
        if (events[i].events & EPOLLOUT)
            flush(p);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            ssize_t got = recv(p->fd, chunk, sizeof chunk, 0);
            if (got > 0) {
                append(&p->in, chunk, got);
                p->arrived(p);
            } else if (got == 0 || errno != EAGAIN)
                closed(p);
        }
    }
}

static inline void poll_once(int milliseconds)
{
    poll_for(milliseconds / 1e3);
}

static void wait_for_go(void)
{
    char line[64];
    printf("READY\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
}

#endif
