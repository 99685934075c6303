/* Publishes, paced or as fast as it is taken, over a WebSocket connection or the HTTP API; or floods.
 *
 *   publisher --port 8000 --token T --channel news --count 1000 --rate 200 --data-size 120 --stdin
 *   publisher --port 8000 --mode http --api-key K --channel news --count 20000 --connections 4
 *   publisher --port 8000 --mode flood --token T --channel own --rate 2000 --duration 10
 *
 * A payload is `{"seq":N,"t":NS,"pad":".."}` of --data-size bytes; t is read just before it is sent. Full speed (--rate 0) is
 * bounded by --window commands without a reply and, with --progress FILE (shared with a sink), by as many publications
 * that the slowest reader has not seen. With --stdin it connects, prints "ready" and begins at the first line of stdin.
 * A flood goes on when it is refused or cut off (it connects again), and counts what it was told.
 */
#include "client.h"

#define MAX_HTTP 64
#define ROOM (4 * 1024 * 1024)

static const char *host = "127.0.0.1", *path = "/connection/websocket", *token = "", *channel = "bench", *mode = "ws", *api_key = "";
static const char *progress_path, *command_name = "publish";
static int64_t port = 8000, count = 100, first_seq = 1, data_size = 100, window = 256, batch = 1, connections = 4, duration = 60, cpu = -1;
static int64_t reconnect_ms = 100;
static double rate;
static bool use_stdin;

static struct sockaddr_in server;
static volatile int64_t *progress;
static volatile sig_atomic_t stopping;
static char *out, *in;
static size_t in_length;
static int64_t next_id = 2, deadline;
static uint64_t sent, acknowledged, refused, connects, failed_connects, blocked;
static uint32_t errors[MAX_CODES], closes[MAX_CODES];
static struct histogram round_trip;
static const char *why = "nobody listens there";
static int64_t first_sent_at, last_sent_at, last_reply_at;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static bool over(void) {
    return stopping || now_ns() >= deadline;
}

/* Wait at most `ns` for `events` on fd; what happened, or 0. */
static int wait_for(int fd, short events, int64_t ns) {
    struct pollfd p = {.fd = fd, .events = events};
    struct timespec t = {.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
    return ns <= 0 ? (poll(&p, 1, 0) > 0 ? p.revents : 0) : (ppoll(&p, 1, &t, NULL) > 0 ? p.revents : 0);
}

static bool put_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            wait_for(fd, POLLOUT, SECOND / 10);
            if (over())
                return false;
        } else {
            return false;
        }
    }
    return true;
}

static int open_socket(void) {
    int fd = start_connecting(&server, 0), problem = 0;
    socklen_t size = sizeof problem;
    if (fd < 0)
        return -1;
    if (!(wait_for(fd, POLLOUT, 5 * SECOND) & POLLOUT) || getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size) != 0 || problem) {
        close(fd);
        return -1;
    }
    return fd;
}

static void wait_for_go(int64_t seconds) {
    printf("{\"event\":\"ready\"}\n");
    fflush(stdout);
    if (!use_stdin)
        return;
    char line[16];
    if (!(wait_for(STDIN_FILENO, POLLIN, seconds * SECOND) & POLLIN) || read(STDIN_FILENO, line, sizeof line) <= 0)
        stopping = 1;
}

/* How many publications may go out at full speed now, with regard to what the slowest reader has seen. */
static int64_t readers_allow(void) {
    if (!progress)
        return INT64_MAX;
    int64_t seen = *progress < first_seq - 1 ? first_seq - 1 : *progress;
    return window - (int64_t)(first_seq - 1 + (int64_t)sent - seen);
}

/* ---- WebSocket ---- */

static void on_ws_line(int fd, const char *line, size_t length) {
    if (length == 2 && line[0] == '{') {
        char pong[8];
        size_t n = frame_header(pong, OP_TEXT, 2, true);
        memcpy(pong + n, "{}", 2);
        put_all(fd, pong, n + 2);
        return;
    }
    if (length > 8 && memcmp(line, "{\"push\":", 8) == 0)
        return;
    last_reply_at = now_ns();
    if (memmem(line, length, "\"error\":", 8)) {
        refused++;
        errors[number_after(line, length, "\"code\":") & (MAX_CODES - 1)]++;
    } else if (length) {
        acknowledged++;
    }
}

/* Take what has come; false when the connection is over. */
static bool read_ws(int fd) {
    for (;;) {
        ssize_t got = recv(fd, in + in_length, ROOM - in_length, MSG_DONTWAIT);
        if (got <= 0) {
            if (got < 0 && errno == EAGAIN)
                return true;
            closes[ABNORMAL]++;
            return false;
        }
        in_length += (size_t)got;
        char *at = in, *end = in + in_length;
        struct frame f;
        while (read_frame(at, (size_t)(end - at), &f)) {
            if (f.opcode == OP_CLOSE) {
                closes[close_code(&f)]++;
                return false;
            }
            if (f.opcode == OP_TEXT) {
                char *line = f.payload, *stop = f.payload + f.length;
                while (line < stop) {
                    char *newline = memchr(line, '\n', (size_t)(stop - line));
                    on_ws_line(fd, line, (size_t)((newline ? newline : stop) - line));
                    line = newline ? newline + 1 : stop;
                }
            }
            at += f.total;
        }
        in_length = (size_t)(end - at);
        memmove(in, at, in_length);
    }
}

static int connect_ws(void) {
    int fd = open_socket();
    char text[16384], framed[16384 + 16];
    if (fd < 0)
        return -1;
    why = "the WebSocket handshake was not answered";
    int n = upgrade_request(text, sizeof text, host, (int)port, path);
    size_t have = 0;
    char *blank = NULL;
    if (!put_all(fd, text, (size_t)n))
        goto failed;
    while (!blank) {
        if (!(wait_for(fd, POLLIN, 5 * SECOND) & POLLIN))
            goto failed;
        ssize_t got = recv(fd, in + have, ROOM - have, MSG_DONTWAIT);
        if (got <= 0)
            goto failed;
        have += (size_t)got;
        blank = memmem(in, have, "\r\n\r\n", 4);
    }
    if (memcmp(in, "HTTP/1.1 101", 12) != 0) {
        static char status[16];
        snprintf(status, sizeof status, "HTTP %.3s", in + 9);
        why = status;
        goto failed;
    }
    why = "the connect command was not answered";
    in_length = have - (size_t)(blank + 4 - in);
    memmove(in, blank + 4, in_length);
    n = *token ? snprintf(text, sizeof text, "{\"id\":1,\"connect\":{\"token\":\"%s\",\"name\":\"publisher\"}}", token)
               : snprintf(text, sizeof text, "{\"id\":1,\"connect\":{}}");
    size_t header = frame_header(framed, OP_TEXT, (size_t)n, true);
    memcpy(framed + header, text, (size_t)n);
    if (!put_all(fd, framed, header + (size_t)n))
        goto failed;
    uint64_t before = acknowledged + refused;
    while (acknowledged + refused == before)
        if (!(wait_for(fd, POLLIN, 5 * SECOND) & POLLIN) || !read_ws(fd))
            goto failed;
    if (refused) {
        why = "the connect command got an error";
        goto failed;
    }
    acknowledged--;
    connects++;
    return fd;
failed:
    failed_connects++;
    close(fd);
    return -1;
}

static size_t make_command(char *to, int64_t seq) {
    size_t n = (size_t)sprintf(to, "{\"id\":%lld,\"%s\":{\"channel\":\"%s\",\"data\":", (long long)next_id++, command_name, channel);
    n += make_data(to + n, (size_t)data_size, (uint64_t)seq, now_ns());
    memcpy(to + n, "}}", 2);
    return n + 2;
}

/* Send the next `n` commands in one frame. */
static bool send_commands(int fd, int64_t n) {
    char *at = out + 16;
    for (int64_t i = 0; i < n; i++) {
        if (i)
            *at++ = '\n';
        at += make_command(at, first_seq + (int64_t)sent + i);
    }
    size_t length = (size_t)(at - out - 16);
    char header[16];
    size_t h = frame_header(header, OP_TEXT, length, true);
    memcpy(out + 16 - h, header, h);
    last_sent_at = now_ns();
    if (!first_sent_at)
        first_sent_at = last_sent_at;
    if (!put_all(fd, out + 16 - h, h + length))
        return false;
    sent += (uint64_t)n;
    return true;
}

static void run_ws(void) {
    int fd = connect_ws();
    if (fd < 0)
        die("publisher: cannot connect: %s", why);
    wait_for_go(duration);
    int64_t start = now_ns();
    while ((int64_t)sent < count && !over()) {
        if (rate > 0) {
            int64_t due = start + (int64_t)((double)sent / rate * 1e9), left;
            while ((left = due - now_ns()) > 0 && !over())
                if (wait_for(fd, POLLIN, left) && !read_ws(fd))
                    return;
            if (!send_commands(fd, 1))
                return;
        } else {
            int64_t room = window - (int64_t)(sent - acknowledged - refused), allowed = readers_allow();
            room = room < allowed ? room : allowed;
            room = room < batch ? room : batch;
            if (room > count - (int64_t)sent)
                room = count - (int64_t)sent;
            if (room >= 1 && !send_commands(fd, room))
                return;
            if (wait_for(fd, POLLIN, room >= 1 ? 0 : 50000) && !read_ws(fd))
                return;
        }
    }
    int64_t patience = now_ns() + 10 * SECOND;
    while (acknowledged + refused < sent && !over() && now_ns() < patience)
        if (wait_for(fd, POLLIN, SECOND / 10) && !read_ws(fd))
            return;
    closes[0]++;
    close(fd);
}

static void run_flood(void) {
    wait_for_go(duration);
    int64_t start = now_ns();
    deadline = start + duration * SECOND;
    double owed = 0;
    int64_t last = start;
    while (!over()) {
        int fd = connect_ws();
        refused = 0;
        if (fd < 0) {
            usleep((useconds_t)reconnect_ms * 1000);
            last = now_ns();
            continue;
        }
        last = now_ns();
        bool alive = true;
        while (alive && !over()) {
            int64_t now = now_ns();
            owed += (double)(now - last) / 1e9 * rate;
            last = now;
            size_t used = 0;
            while (owed >= 1 && used < ROOM / 2) {
                char *at = out + used;
                size_t n = make_command(at + 14, (int64_t)(first_seq + (int64_t)sent++)), h;
                char header[16];
                h = frame_header(header, OP_TEXT, n, true);
                memmove(at + h, at + 14, n);
                memcpy(at, header, h);
                used += h + n;
                owed -= 1;
            }
            if (used) {
                if (wait_for(fd, POLLOUT, 0) & POLLOUT)
                    alive = put_all(fd, out, used);
                else
                    blocked++;
            }
            if (wait_for(fd, POLLIN, SECOND / 1000))
                alive = alive && read_ws(fd);
        }
        if (!alive && !over())
            read_ws(fd); /* the code may have come behind the failed write */
        close(fd);
        refused = 0;
        if (!over())
            usleep((useconds_t)reconnect_ms * 1000);
    }
}

/* ---- HTTP ---- */

struct http {
    int fd;
    bool busy;
    int64_t since;
    char data[65536];
    size_t length;
};

static bool http_send(struct http *h) {
    static char body[1 << 20];
    size_t n = (size_t)sprintf(body, "{\"channel\":\"%s\",\"data\":", channel);
    n += make_data(body + n, (size_t)data_size, (uint64_t)(first_seq + (int64_t)sent), now_ns());
    body[n++] = '}';
    int head = sprintf(out,
                       "POST /api/publish HTTP/1.1\r\nHost: %s:%lld\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n",
                       host, (long long)port, api_key, n);
    memcpy(out + head, body, n);
    h->since = last_sent_at = now_ns();
    if (!first_sent_at)
        first_sent_at = h->since;
    h->busy = true;
    sent++;
    return put_all(h->fd, out, (size_t)head + n);
}

static bool http_receive(struct http *h) {
    ssize_t got = recv(h->fd, h->data + h->length, sizeof h->data - h->length - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got <= 0)
        return false;
    h->length += (size_t)got;
    h->data[h->length] = 0;
    char *blank = strstr(h->data, "\r\n\r\n");
    if (!blank)
        return true;
    char *size = strcasestr(h->data, "content-length:");
    if (!size || size > blank)
        die("publisher: the answer has no content-length: %.200s", h->data);
    size_t whole = (size_t)(blank + 4 - h->data) + (size_t)atol(size + 15);
    if (h->length < whole)
        return true;
    last_reply_at = now_ns();
    histogram_add(&round_trip, last_reply_at - h->since);
    if (strncmp(h->data + 9, "200", 3) != 0) {
        refused++;
        errors[atoi(h->data + 9) & (MAX_CODES - 1)]++;
    } else if (strstr(blank, "\"error\"")) {
        refused++;
        errors[number_after(blank, strlen(blank), "\"code\":") & (MAX_CODES - 1)]++;
    } else {
        acknowledged++;
    }
    h->length = 0;
    h->busy = false;
    return true;
}

static void run_http(void) {
    static struct http http[MAX_HTTP];
    struct pollfd polls[MAX_HTTP];
    if (connections < 1 || connections > MAX_HTTP)
        die("publisher: --connections takes 1 to %d", MAX_HTTP);
    for (int64_t i = 0; i < connections; i++)
        if ((http[i].fd = open_socket()) < 0)
            die("publisher: cannot connect to %s:%lld", host, (long long)port);
    wait_for_go(duration);
    int64_t start = now_ns();
    while (acknowledged + refused < (uint64_t)count && !over()) {
        int64_t wait = SECOND / 20;
        for (int64_t i = 0; i < connections; i++) {
            if (!http[i].busy && (int64_t)sent < count) {
                int64_t due = rate > 0 ? start + (int64_t)((double)sent / rate * 1e9) - now_ns() : 0;
                if (due <= 0 && readers_allow() < 1)
                    due = 50000;
                if (due > 0)
                    wait = due < wait ? due : wait;
                else if (!http_send(http + i))
                    return;
            }
            polls[i] = (struct pollfd){.fd = http[i].fd, .events = POLLIN};
        }
        struct timespec t = {.tv_nsec = wait};
        if (ppoll(polls, (nfds_t)connections, &t, NULL) > 0)
            for (int64_t i = 0; i < connections; i++)
                if (polls[i].revents && !http_receive(http + i)) {
                    closes[ABNORMAL]++;
                    return;
                }
    }
}

int main(int argc, char **argv) {
    const struct option_spec specs[] = {
        {"host", .text = &host}, {"port", .number = &port}, {"path", .text = &path}, {"token", .text = &token},
        {"channel", .text = &channel}, {"mode", .text = &mode}, {"api-key", .text = &api_key}, {"count", .number = &count},
        {"first-seq", .number = &first_seq}, {"data-size", .number = &data_size}, {"window", .number = &window},
        {"batch", .number = &batch}, {"connections", .number = &connections}, {"duration", .number = &duration},
        {"cpu", .number = &cpu}, {"reconnect-ms", .number = &reconnect_ms}, {"rate", .real = &rate},
        {"progress", .text = &progress_path}, {"command", .text = &command_name}, {"stdin", .flag = &use_stdin}, {0}};
    read_options(argc, argv, specs);
    pin_to((int)cpu);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGPIPE, SIG_IGN);
    server = address_of(host, (int)port);
    progress = map_progress(progress_path);
    if (data_size > 1000000 || batch < 1 || batch * (data_size + 400) > ROOM / 2)
        die("publisher: --data-size times --batch is too much");
    if (batch > window)
        batch = window;
    out = malloc(ROOM);
    in = malloc(ROOM);
    deadline = now_ns() + duration * SECOND;
    if (!out || !in)
        die("publisher: out of memory");
    if (strcmp(mode, "ws") == 0)
        run_ws();
    else if (strcmp(mode, "http") == 0)
        run_http();
    else if (strcmp(mode, "flood") == 0)
        run_flood();
    else
        die("publisher: --mode takes ws, http or flood, not %s", mode);
    printf("{\"event\":\"summary\",\"sent\":%llu,\"acknowledged\":%llu,\"connects\":%llu,\"failed_connects\":%llu,\"blocked\":%llu,"
           "\"send_seconds\":%.6f,\"reply_seconds\":%.6f,",
           (unsigned long long)sent, (unsigned long long)acknowledged, (unsigned long long)connects, (unsigned long long)failed_connects,
           (unsigned long long)blocked, (double)(last_sent_at - first_sent_at) / 1e9,
           last_reply_at > first_sent_at ? (double)(last_reply_at - first_sent_at) / 1e9 : 0.0);
    histogram_json("round_trip_ms", &round_trip);
    putchar(',');
    codes_json("errors", errors);
    putchar(',');
    codes_json("closes", closes);
    puts("}");
    return 0;
}
