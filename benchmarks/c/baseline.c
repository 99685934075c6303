/* The floor to compare with: accepts N connections, then only calls send().
 *
 *   baseline --connections 1000 --rate 50 --count 250 --frame 163 --stdin
 *
 * It answers the WebSocket handshake and the first frame of each connection with fixed bytes, so that the same sink can be used,
 * and then sends --warm and --count frames with one send() to each connection, paced by a timer (--rate, 0 = as fast as they are taken).
 * A frame has --frame bytes of text and is built once for a publication; only its sequence, time and padding differ. It prints
 * {"event":"listening","port":P}, then {"event":"ready"} when all are there, begins at the first line of stdin (with
 * --stdin), and ends with its own CPU time for each delivery (getrusage, user and system, over the sending).
 *
 * With --relay it has no timer: one more connection, which does not subscribe, sends publish commands, and each is answered and
 * its payload sent on. That is the least that any program between a publisher and its subscribers can do.
 */
#include "client.h"

#define ROOM (1 << 20)

static int64_t port, connections = 1, count = 100, warm, frame_size = 163, duration = 60, cpu = -1;
static double rate;
static bool use_stdin, relay;
static const char *channel = "bench";
static int *fds;
static int64_t accepted, introduced;
static int publisher = -1;

static double cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void accept_all(int listener, int64_t deadline) {
    static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"; /* for the sink's fixed key */
    static const char hello[] = "{\"id\":1,\"connect\":{\"client\":\"c\",\"version\":\"baseline\",\"ping\":25,\"pong\":true}}";
    static const char replies[] = "{\"id\":1,\"connect\":{\"client\":\"c\",\"version\":\"baseline\",\"ping\":25,\"pong\":true}}\n"
                                  "{\"id\":2,\"subscribe\":{}}";
    char framed[sizeof replies + 16], framed_hello[sizeof hello + 16], data[65536];
    size_t header = frame_header(framed, OP_TEXT, sizeof replies - 1, false);
    size_t hello_header = frame_header(framed_hello, OP_TEXT, sizeof hello - 1, false);
    memcpy(framed + header, replies, sizeof replies - 1);
    memcpy(framed_hello + hello_header, hello, sizeof hello - 1);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    bool *upgraded = calloc(1 << 20, sizeof *upgraded);
    while (introduced + (publisher >= 0) < connections + relay && now_ns() < deadline) {
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
                bool subscribes = memmem(data, (size_t)got, "\"subscribe\":", 12);
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
                if (!subscribes) {
                    publisher = fd;
                } else if (accepted < connections) {
                    fds[accepted++] = fd;
                    introduced++;
                }
                if (send(fd, subscribes ? framed : framed_hello, subscribes ? header + sizeof replies - 1 : hello_header + sizeof hello - 1,
                         MSG_NOSIGNAL) < 0)
                    die("baseline: a client left during the handshake");
            }
        }
    }
    free(upgraded);
    close(epoll_fd);
}

static int64_t sends, failures;

static void send_to_all(const char *frame, size_t length) {
    for (int64_t c = 0; c < accepted; c++) {
        if (send(fds[c], frame, length, MSG_NOSIGNAL) == (ssize_t)length)
            sends++;
        else
            failures++;
    }
}

/* Answer one publish command and send its payload on. */
static void pass_on(const char *command, size_t length) {
    static char pushed[ROOM], answer[128];
    const char *data = memmem(command, length, "\"data\":", 7);
    if (!data)
        return;
    data += 7;
    size_t data_length = (size_t)(command + length - 2 - data), n, h;
    n = (size_t)sprintf(answer + 16, "{\"id\":%lld,\"publish\":{}}", (long long)number_after(command, 24, "\"id\":"));
    char header[16];
    h = frame_header(header, OP_TEXT, n, false);
    memcpy(answer + 16 - h, header, h);
    if (send(publisher, answer + 16 - h, h + n, MSG_NOSIGNAL) < 0)
        failures++;
    char *body = pushed + 16;
    n = (size_t)sprintf(body, "{\"push\":{\"channel\":\"%s\",\"pub\":{\"data\":", channel);
    memcpy(body + n, data, data_length);
    n += data_length;
    memcpy(body + n, "}}}", 3);
    n += 3;
    h = frame_header(header, OP_TEXT, n, false);
    memcpy(body - h, header, h);
    send_to_all(body - h, h + n);
}

/* Pass on warm + count publications; returns when the measured part began, with the CPU time until then in `before`. */
static int64_t run_relay(int64_t deadline, double *before) {
    static char data[ROOM];
    size_t have = 0;
    int64_t done = 0, measured_from = now_ns();
    while (done < warm + count && now_ns() < deadline) {
        ssize_t got = recv(publisher, data + have, ROOM - have, 0);
        if (got <= 0)
            break;
        have += (size_t)got;
        char *at = data;
        struct frame f;
        while (read_frame(at, (size_t)(data + have - at), &f)) {
            if (f.opcode == OP_TEXT) {
                if (done++ == warm) {
                    *before = cpu_us();
                    measured_from = now_ns();
                    sends = 0;
                }
                pass_on(f.payload, f.length);
            }
            at += f.total;
        }
        have = (size_t)(data + have - at);
        memmove(data, at, have);
    }
    return measured_from;
}

int main(int argc, char **argv) {
    const struct option_spec specs[] = {
        {"port", .number = &port}, {"connections", .number = &connections}, {"count", .number = &count}, {"warm", .number = &warm}, {"rate", .real = &rate},
        {"frame", .number = &frame_size}, {"duration", .number = &duration}, {"cpu", .number = &cpu}, {"channel", .text = &channel},
        {"stdin", .flag = &use_stdin}, {"relay", .flag = &relay}, {0}};
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
    int64_t start = now_ns(), measured_from = start;
    if (relay)
        measured_from = run_relay(deadline, &before);
    size_t fixed = strlen("{\"push\":{\"channel\":\"\",\"pub\":{\"data\":}}}") + strlen(channel);
    for (int64_t i = 0; i < (relay ? 0 : warm + count) && now_ns() < deadline; i++) {
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
        send_to_all(body - h, h + length);
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
