/* The floor to compare with: accepts N connections, then only calls send().
 *
 *   baseline --connections 1000 --rate 50 --count 250 --frame 163 --stdin
 *
 * It answers the WebSocket handshake and the first frame of each connection with fixed bytes, so that the same sink can be used,
 * and then sends --warm and --count frames with one send() to each connection, paced by a timer (--rate, 0 = as fast as they are taken).
 * A frame has --frame bytes of text and is built once for a publication; only its sequence, time and padding differ. It prints
 * {"event":"listening","port":P}, then {"event":"ready"} when all are there, begins at the first line of stdin (with
 * --stdin), and ends with its own CPU time for each delivery (getrusage, user and system, over the sending).
 */
#include "client.h"

static int64_t port, connections = 1, count = 100, warm, frame_size = 163, duration = 60, cpu = -1;
static double rate;
static bool use_stdin;
static const char *channel = "bench";
static int *fds;
static int64_t accepted, introduced;

static double cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void accept_all(int listener, int64_t deadline) {
    static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"; /* for the sink's fixed key */
    static const char replies[] = "{\"id\":1,\"connect\":{\"client\":\"c\",\"version\":\"baseline\",\"ping\":25,\"pong\":true}}\n"
                                  "{\"id\":2,\"subscribe\":{}}";
    char framed[sizeof replies + 16], data[65536];
    size_t header = frame_header(framed, OP_TEXT, sizeof replies - 1, false);
    memcpy(framed + header, replies, sizeof replies - 1);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    bool *upgraded = calloc(1 << 20, sizeof *upgraded);
    while (introduced < connections && now_ns() < deadline) {
        int n = epoll_wait(epoll_fd, events, 256, 100);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int one = 1;
                if ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
                    continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                e.data.fd = fd;
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
                if (accepted < connections)
                    fds[accepted++] = fd;
                continue;
            }
            ssize_t got = recv(fd, data, sizeof data, MSG_DONTWAIT);
            if (got <= 0) {
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
            } else if (!upgraded[fd]) {
                upgraded[fd] = true;
                if (send(fd, upgrade, sizeof upgrade - 1, MSG_NOSIGNAL) < 0)
                    die("baseline: a client left during the handshake");
            } else {
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
                if (send(fd, framed, header + sizeof replies - 1, MSG_NOSIGNAL) < 0)
                    die("baseline: a client left during the handshake");
                introduced++;
            }
        }
    }
    free(upgraded);
    close(epoll_fd);
}

int main(int argc, char **argv) {
    const struct option_spec specs[] = {
        {"port", .number = &port}, {"connections", .number = &connections}, {"count", .number = &count}, {"warm", .number = &warm}, {"rate", .real = &rate},
        {"frame", .number = &frame_size}, {"duration", .number = &duration}, {"cpu", .number = &cpu}, {"channel", .text = &channel},
        {"stdin", .flag = &use_stdin}, {0}};
    read_options(argc, argv, specs);
    raise_file_limit();
    pin_to((int)cpu);
    signal(SIGPIPE, SIG_IGN);
    fds = calloc((size_t)connections + 1, sizeof *fds);
    char *text = malloc((size_t)frame_size + 4096);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = address_of("127.0.0.1", (int)port);
    socklen_t size = sizeof at;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 1024) != 0)
        die("baseline: cannot listen on port %lld: %s", (long long)port, strerror(errno));
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("{\"event\":\"listening\",\"port\":%d}\n", ntohs(at.sin_port));
    fflush(stdout);
    int64_t deadline = now_ns() + duration * SECOND;
    accept_all(listener, deadline);
    if (introduced < connections)
        die("baseline: %lld of %lld connections came in time", (long long)introduced, (long long)connections);
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
    if (use_stdin) {
        char line[16];
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&p, 1, (int)(duration * 1000)) <= 0 || read(STDIN_FILENO, line, sizeof line) <= 0)
            return 1;
    }
    double before = cpu_us();
    int64_t start = now_ns(), measured_from = start, sends = 0, failures = 0;
    size_t fixed = strlen("{\"push\":{\"channel\":\"\",\"pub\":{\"data\":}}}") + strlen(channel);
    for (int64_t i = 0; i < warm + count && now_ns() < deadline; i++) {
        if (i == warm) {
            before = cpu_us();
            measured_from = now_ns();
            sends = 0;
        }
        if (rate > 0) {
            int64_t due = start + (int64_t)((double)i / rate * 1e9);
            struct timespec until = {.tv_sec = due / SECOND, .tv_nsec = due % SECOND};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        }
        char *body = text + 16;
        size_t length = (size_t)sprintf(body, "{\"push\":{\"channel\":\"%s\",\"pub\":{\"data\":", channel);
        length += make_data(body + length, (size_t)frame_size > fixed ? (size_t)frame_size - fixed : 0, (uint64_t)i + 1, now_ns());
        memcpy(body + length, "}}}", 3);
        length += 3;
        char header[16];
        size_t h = frame_header(header, OP_TEXT, length, false);
        memcpy(body - h, header, h);
        for (int64_t c = 0; c < accepted; c++) {
            if (send(fds[c], body - h, h + length, MSG_NOSIGNAL) == (ssize_t)(h + length))
                sends++;
            else
                failures++;
        }
    }
    double spent = cpu_us() - before;
    printf("{\"event\":\"summary\",\"sends\":%lld,\"failures\":%lld,\"seconds\":%.6f,\"cpu_us\":%.0f,\"cpu_us_per_delivery\":%.4f}\n",
           (long long)sends, (long long)failures, (double)(now_ns() - measured_from) / 1e9, spent, sends ? spent / (double)sends : 0.0);
    fflush(stdout);
    if (use_stdin) { /* stay until the sink has read everything */
        char line[16];
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&p, 1, (int)(duration * 1000)) > 0 && read(STDIN_FILENO, line, sizeof line) < 0)
            return 1;
    }
    return 0;
}
