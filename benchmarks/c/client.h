/* What the load programs share: clocks, sockets, WebSocket frames, a latency histogram and option parsing.
 *
 * Header only, on purpose: each program is one translation unit and one line of `cc`.
 * The programs talk to a server on the same machine, so CLOCK_MONOTONIC is comparable between processes.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define OP_CONT 0
#define OP_TEXT 1
#define OP_CLOSE 8
#define OP_PING 9
#define OP_PONG 10
#define ABNORMAL 1006 /* the connection ended without a close frame */

static inline int64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * SECOND + ts.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

static inline void pin_to(int cpu) {
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set); /* a hint: a machine that forbids it is only noisier */
}

/* ---- options: --name value, in any order; unknown names end the program ---- */

struct option_spec {
    const char *name;
    const char **text;
    int64_t *number;
    double *real;
    bool *flag;
};

static inline void read_options(int argc, char **argv, const struct option_spec *specs) {
    for (int i = 1; i < argc; i++) {
        const struct option_spec *s = specs;
        if (strncmp(argv[i], "--", 2) != 0)
            die("%s: not an option: %s", argv[0], argv[i]);
        while (s->name && strcmp(s->name, argv[i] + 2) != 0)
            s++;
        if (!s->name)
            die("%s: unknown option %s", argv[0], argv[i]);
        if (s->flag) {
            *s->flag = true;
            continue;
        }
        if (++i >= argc)
            die("%s: --%s needs a value", argv[0], s->name);
        char *end = argv[i];
        if (s->text)
            *s->text = argv[i];
        else if (s->number)
            *s->number = strtoll(argv[i], &end, 10);
        else
            *s->real = strtod(argv[i], &end);
        if (!s->text && (end == argv[i] || *end))
            die("%s: --%s takes a number, not %s", argv[0], s->name, argv[i]);
    }
}

/* ---- sockets ---- */

static inline void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("--host takes an IPv4 address, not %s", host);
    return address;
}

/* Start a non-blocking connection; `source` >= 0 binds it to 127.0.0.(1 + source), for more than one port range. */
static inline int start_connecting(const struct sockaddr_in *to, int source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source > 0) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)source);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) {
            close(fd);
            return -1;
        }
    }
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int upgrade_request(char *to, size_t room, const char *host, int port, const char *path) {
    return snprintf(to, room,
                    "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                    path, host, port);
}

/* ---- WebSocket frames ---- */

struct frame {
    int opcode;
    bool fin;
    char *payload;
    size_t length;
    size_t total; /* header and payload */
};

/* 1: a whole frame is in `f`; 0: more bytes are needed (f->total is the need once known, else 0); masked ones are unmasked. */
static inline int read_frame(char *data, size_t have, struct frame *f) {
    const unsigned char *b = (const unsigned char *)data;
    f->total = 0;
    if (have < 2)
        return 0;
    size_t header = 2;
    uint64_t length = b[1] & 0x7f;
    bool masked = b[1] & 0x80;
    if (length == 126) {
        if (have < 4)
            return 0;
        length = (uint64_t)b[2] << 8 | b[3];
        header = 4;
    } else if (length == 127) {
        if (have < 10)
            return 0;
        length = 0;
        for (int i = 2; i < 10; i++)
            length = length << 8 | b[i];
        header = 10;
    }
    if (masked)
        header += 4;
    f->total = header + (size_t)length;
    if (have < f->total)
        return 0;
    f->opcode = b[0] & 0x0f;
    f->fin = b[0] & 0x80;
    f->payload = data + header;
    f->length = (size_t)length;
    if (masked) {
        const unsigned char *key = b + header - 4;
        if (key[0] | key[1] | key[2] | key[3])
            for (size_t i = 0; i < f->length; i++)
                f->payload[i] ^= (char)key[i & 3];
    }
    return 1;
}

/* Write a frame header; clients must mask, and a key of zeroes leaves the payload as it is. */
static inline size_t frame_header(char *to, int opcode, size_t length, bool from_client) {
    unsigned char *b = (unsigned char *)to;
    unsigned char mask = from_client ? 0x80 : 0;
    size_t n = 2;
    b[0] = (unsigned char)(0x80 | opcode);
    if (length < 126) {
        b[1] = (unsigned char)(mask | length);
    } else if (length < 65536) {
        b[1] = mask | 126;
        b[2] = (unsigned char)(length >> 8);
        b[3] = (unsigned char)length;
        n = 4;
    } else {
        b[1] = mask | 127;
        for (int i = 0; i < 8; i++)
            b[2 + i] = (unsigned char)((uint64_t)length >> (8 * (7 - i)));
        n = 10;
    }
    if (from_client) {
        memset(b + n, 0, 4);
        n += 4;
    }
    return n;
}

static inline int close_code(const struct frame *f) {
    const unsigned char *b = (const unsigned char *)f->payload;
    return f->length >= 2 ? b[0] << 8 | b[1] : 1005;
}

/* ---- payloads: {"seq":N,"t":NNN,"pad":"xxx"} of an exact size whatever the numbers ---- */

static inline size_t make_data(char *to, size_t size, uint64_t seq, int64_t t) {
    int n = sprintf(to, "{\"seq\":%llu,\"t\":%lld,\"pad\":\"", (unsigned long long)seq, (long long)t);
    size_t used = (size_t)n;
    if (size < used + 2)
        size = used + 2;
    memset(to + used, 'x', size - used - 2);
    to[size - 2] = '"';
    to[size - 1] = '}';
    return size;
}

/* The number behind `key` (such as "\"seq\":"), or -1 where there is none. */
static inline int64_t number_after(const char *line, size_t length, const char *key) {
    const char *at = memmem(line, length, key, strlen(key));
    if (!at)
        return -1;
    at += strlen(key);
    const char *end = line + length;
    while (at < end && *at == ' ')
        at++;
    if (at >= end || *at < '0' || *at > '9')
        return -1;
    int64_t value = 0;
    while (at < end && *at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    return value;
}

/* ---- a histogram of nanoseconds: 64 steps for each doubling, so within 1.6 % ---- */

#define HISTOGRAM_CELLS (64 * 44)

struct histogram {
    uint64_t cell[HISTOGRAM_CELLS];
    uint64_t count;
    int64_t max;
    double sum;
};

static inline void histogram_add(struct histogram *h, int64_t ns) {
    if (ns < 0)
        ns = 0;
    uint64_t v = (uint64_t)ns;
    unsigned index;
    if (v < 64) {
        index = (unsigned)v;
    } else {
        unsigned power = 63u - (unsigned)__builtin_clzll(v); /* >= 6 */
        index = (power - 5) * 64 + (unsigned)((v >> (power - 6)) - 64);
    }
    if (index >= HISTOGRAM_CELLS)
        index = HISTOGRAM_CELLS - 1;
    h->cell[index]++;
    h->count++;
    h->sum += (double)ns;
    if (ns > h->max)
        h->max = ns;
}

static inline double histogram_ms(const struct histogram *h, double fraction) {
    uint64_t wanted = (uint64_t)(fraction * (double)h->count + 0.5), seen = 0;
    if (h->count == 0)
        return 0;
    if (wanted < 1)
        wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_CELLS; i++) {
        seen += h->cell[i];
        if (seen >= wanted) {
            double top = i < 64 ? i : (double)(65 + i % 64) * (double)(1ULL << (i / 64 - 1));
            return (top > (double)h->max ? (double)h->max : top) / 1e6;
        }
    }
    return (double)h->max / 1e6;
}

static inline void histogram_json(const char *name, const struct histogram *h) {
    printf("\"%s\":{\"count\":%llu,\"mean\":%.4f,\"p50\":%.4f,\"p95\":%.4f,\"p99\":%.4f,\"max\":%.4f}", name,
           (unsigned long long)h->count, h->count ? h->sum / (double)h->count / 1e6 : 0.0, histogram_ms(h, 0.50),
           histogram_ms(h, 0.95), histogram_ms(h, 0.99), (double)h->max / 1e6);
}

/* ---- codes counted by number (close codes, error codes) ---- */

#define MAX_CODES 65536

static inline void codes_json(const char *name, const uint32_t *count) {
    bool first = true;
    printf("\"%s\":{", name);
    for (int i = 0; i < MAX_CODES; i++)
        if (count[i]) {
            printf("%s\"%d\":%u", first ? "" : ",", i, count[i]);
            first = false;
        }
    putchar('}');
}

/* ---- progress shared between a sink and a publisher: the lowest sequence that every healthy reader has seen ---- */

static inline volatile int64_t *map_progress(const char *path) {
    if (!path)
        return NULL;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0)
        die("cannot open the progress file %s: %s", path, strerror(errno));
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        die("cannot map the progress file %s: %s", path, strerror(errno));
    return at;
}

#endif
