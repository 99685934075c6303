/* A WebSocket client of many connections that counts, checks and times what it gets, cheaply enough not to disturb.
 *
 *   sink --host 127.0.0.1 --port 8000 --connections 1000 --tokens FILE --channel news --messages 500 --stdin
 *
 * Every connection sends a connect command with a token and one subscribe command for each channel in one frame,
 * answers pings, and checks that the publications of each channel carry the sequence `{"seq":N,"t":NS,"pad":".."}` (and,
 * where the channel has history, the offset) without gap, repeat or disorder. One JSON object per line on stdout:
 * "ready" (all have subscribed or failed), "stalled_gone", "complete" (all have their messages), "summary" (the last).
 * It always ends: at --messages, at --duration, at "stop" or the end of stdin (with --stdin), or at SIGTERM.
 */
#include "client.h"

#define MAX_CHANNELS 64
#define READ_ROOM (256 * 1024)
#define BUFFER_ROOM (16 * 1024 * 1024)
#define PER_SOURCE 20000 /* connections from one source address */

enum state { UNBORN, CONNECTING, HANDSHAKE, REPLYING, LIVE, DEAD };

struct stream {
    int64_t next_seq, next_offset; /* 0: not known yet */
};

struct conn {
    int fd;
    enum state state;
    bool stalled, full, wants_write;
    uint32_t subscribed;
    char *rest; /* an incomplete frame, kept between reads */
    size_t rest_length;
    int64_t started, got, last_seq;
    struct stream *streams;
};

static const char *host = "127.0.0.1", *path = "/connection/websocket", *tokens_path, *progress_path, *channel_list = "bench";
static int64_t port = 8000, connections = 1, concurrency = 128, messages, duration = 60, connect_timeout = 60, stall, skip, linger = 150;
static int64_t cpu = -1, flag;
static double connect_rate;
static bool use_stdin, unordered, recoverable, hold;

static struct conn *conns;
static char *tokens[1 << 17], *channels[MAX_CHANNELS], *buffer;
static size_t token_count, channel_count;
static int epoll_fd;
static volatile sig_atomic_t stopping;

static int64_t begun, now, all_ready_at, complete_at, first_delivery_at, last_delivery_at;
static int64_t started_count, in_flight, connected, subscribed, settled, failed, full_count, healthy, healthy_dead;
static uint64_t deliveries, stalled_deliveries, gaps, missing, duplicates, disorder, offset_gaps, extra, pings, frames, bytes_in;
static uint64_t pushes_other, text_bytes, protocol_errors, unsubscribe_pushes;
static uint32_t closes[MAX_CODES], errors[MAX_CODES];
static struct histogram latency, handshake;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void event(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static void settle_ready(void) {
    if (settled == connections && !all_ready_at) {
        all_ready_at = now_ns();
        event("{\"event\":\"ready\",\"connected\":%lld,\"subscribed\":%lld,\"failed\":%lld,\"seconds\":%.6f}", (long long)connected,
              (long long)subscribed, (long long)failed, (double)(all_ready_at - begun) / 1e9);
    }
}

static void finish(struct conn *c, int code) {
    if (c->state == DEAD)
        return;
    if (c->stalled && c->state == LIVE)
        event("{\"event\":\"stalled_gone\",\"connection\":%ld,\"at_ns\":%lld,\"code\":%d}", (long)(c - conns), (long long)now_ns(), code);
    if (c->state == LIVE && !c->stalled)
        healthy_dead++, healthy--;
    if (c->state != LIVE) {
        failed++;
        settled++;
        in_flight--;
    }
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = DEAD;
    free(c->rest);
    c->rest = NULL;
    c->rest_length = 0;
    closes[code & (MAX_CODES - 1)]++;
    settle_ready();
}

static bool put(struct conn *c, const char *data, size_t length) {
    if (send(c->fd, data, length, MSG_NOSIGNAL) == (ssize_t)length)
        return true;
    finish(c, ABNORMAL); /* commands are small: a full send buffer means that nobody reads them */
    return false;
}

static void interest(struct conn *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void introduce(struct conn *c) {
    static char text[65536], framed[65536 + 16];
    size_t index = (size_t)(c - conns);
    int n;
    if (token_count)
        n = snprintf(text, sizeof text, "{\"id\":1,\"connect\":{\"token\":\"%s\",\"name\":\"sink\"}}", tokens[index % token_count]);
    else
        n = snprintf(text, sizeof text, "{\"id\":1,\"connect\":{}}");
    for (size_t i = 0; i < channel_count; i++) {
        const char *percent = strchr(channels[i], '%'); /* % stands for the number of the connection */
        n += snprintf(text + n, sizeof text - (size_t)n, "\n{\"id\":%zu,\"subscribe\":{\"channel\":\"", i + 2);
        if (percent)
            n += snprintf(text + n, sizeof text - (size_t)n, "%.*s%zu%s", (int)(percent - channels[i]), channels[i], index, percent + 1);
        else
            n += snprintf(text + n, sizeof text - (size_t)n, "%s", channels[i]);
        n += snprintf(text + n, sizeof text - (size_t)n, "\"%s", recoverable ? ",\"recoverable\":true" : "");
        if (flag)
            n += snprintf(text + n, sizeof text - (size_t)n, ",\"flag\":%lld", (long long)flag);
        n += snprintf(text + n, sizeof text - (size_t)n, "}}");
    }
    size_t header = frame_header(framed, OP_TEXT, (size_t)n, true);
    memcpy(framed + header, text, (size_t)n);
    c->state = REPLYING;
    put(c, framed, header + (size_t)n);
}

static void on_live(struct conn *c) {
    c->state = LIVE;
    in_flight--;
    settled++;
    subscribed++;
    histogram_add(&handshake, now_ns() - c->started);
    if (c->stalled)
        interest(c, EPOLLRDHUP); /* it reads nothing any more; the end of the connection is still seen */
    else
        healthy++;
    settle_ready();
}

static struct stream *stream_of(struct conn *c, const char *line, size_t length) {
    if (channel_count == 1)
        return c->streams;
    const char *at = memmem(line, length, "\"channel\":\"", 11);
    if (at)
        for (size_t i = 0; i < channel_count; i++)
            if (strncmp(at + 11, channels[i], strlen(channels[i])) == 0 && at[11 + strlen(channels[i])] == '"')
                return c->streams + i;
    return c->streams;
}

static void on_publication(struct conn *c, const char *line, size_t length) {
    struct stream *s = stream_of(c, line, length);
    int64_t seq = number_after(line, length, "\"seq\":"), sent = number_after(line, length, "\"t\":");
    int64_t offset = length > 60 ? number_after(line + length - 60, 60, "\"offset\":") : -1;
    if (offset < 0)
        offset = number_after(line, length, "\"offset\":");
    if (!first_delivery_at)
        first_delivery_at = now;
    last_delivery_at = now;
    c->got++;
    if (c->stalled) {
        stalled_deliveries++;
        return;
    }
    deliveries++;
    text_bytes += length;
    if (seq >= 0 && !unordered) {
        if (s->next_seq && seq != s->next_seq) {
            if (seq > s->next_seq)
                gaps++, missing += (uint64_t)(seq - s->next_seq);
            else if (seq == s->next_seq - 1)
                duplicates++;
            else
                disorder++;
        }
        if (seq >= s->next_seq)
            s->next_seq = seq + 1;
    }
    if (offset > 0) {
        if (s->next_offset && offset != s->next_offset)
            offset_gaps++;
        s->next_offset = offset + 1;
    }
    if (seq > c->last_seq)
        c->last_seq = seq;
    if (sent > 0 && c->got > skip)
        histogram_add(&latency, now - sent);
    if (messages) {
        if (c->got == messages && !c->full) {
            c->full = true;
            full_count++;
        } else if (c->got > messages) {
            extra++;
        }
    }
}

static void on_reply(struct conn *c, const char *line, size_t length) {
    int64_t id = number_after(line, length < 40 ? length : 40, "\"id\":");
    if (memmem(line, length, "\"error\":", 8)) {
        int64_t code = number_after(line, length, "\"code\":");
        errors[code & (MAX_CODES - 1)]++;
        finish(c, 0); /* 0: ended by us, on an error reply */
        return;
    }
    if (id == 1)
        connected++;
    else if (id >= 2 && c->state == REPLYING)
        c->subscribed++;
    if (c->state == REPLYING && c->subscribed == channel_count && id >= 1)
        on_live(c);
}

static void on_line(struct conn *c, const char *line, size_t length) {
    if (length == 2 && line[0] == '{') {
        char pong[8];
        size_t n = frame_header(pong, OP_TEXT, 2, true);
        pings++;
        memcpy(pong + n, "{}", 2);
        put(c, pong, n + 2);
    } else if (length > 8 && memcmp(line, "{\"push\":", 8) == 0) {
        if (memmem(line, length, "\"pub\":", 6))
            on_publication(c, line, length);
        else {
            pushes_other++;
            if (memmem(line, length, "\"unsubscribe\":", 14))
                unsubscribe_pushes++;
        }
    } else if (length) {
        on_reply(c, line, length);
    }
}

static void on_text(struct conn *c, const char *text, size_t length) {
    while (length && c->state != DEAD) {
        const char *end = memchr(text, '\n', length);
        size_t line = end ? (size_t)(end - text) : length;
        on_line(c, text, line);
        if (!end)
            break;
        text = end + 1;
        length -= line + 1;
    }
}

static void on_readable(struct conn *c) {
    size_t have = c->rest_length;
    if (have) {
        memcpy(buffer, c->rest, have);
        c->rest_length = 0;
    }
    ssize_t got = recv(c->fd, buffer + have, READ_ROOM, 0);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            c->rest_length = have;
            return;
        }
        finish(c, ABNORMAL);
        return;
    }
    bytes_in += (uint64_t)got;
    have += (size_t)got;
    now = now_ns();
    char *at = buffer, *end = buffer + have;
    if (c->state == HANDSHAKE) {
        char *blank = memmem(at, have, "\r\n\r\n", 4);
        if (blank) {
            if (memcmp(at, "HTTP/1.1 101", 12) != 0) {
                int status = have > 12 ? atoi(at + 9) : 0;
                finish(c, status ? status : ABNORMAL); /* counted by its HTTP status */
                return;
            }
            at = blank + 4;
            introduce(c);
        }
    }
    while (c->state > HANDSHAKE && c->state != DEAD && at < end) {
        struct frame f;
        if (!read_frame(at, (size_t)(end - at), &f)) {
            if (f.total > BUFFER_ROOM - READ_ROOM) {
                protocol_errors++;
                finish(c, ABNORMAL);
            }
            break;
        }
        frames++;
        if (f.opcode == OP_TEXT && f.fin) {
            on_text(c, f.payload, f.length);
        } else if (f.opcode == OP_CLOSE) {
            finish(c, close_code(&f));
        } else if (f.opcode == OP_PING) {
            char pong[160];
            size_t n = frame_header(pong, OP_PONG, f.length, true);
            memcpy(pong + n, f.payload, f.length);
            put(c, pong, n + f.length);
        } else if (f.opcode != OP_PONG) {
            protocol_errors++;
        }
        at += f.total;
    }
    if (c->state == DEAD || at == end) {
        if (c->rest && have > 4096) { /* idle connections keep no buffer */
            free(c->rest);
            c->rest = NULL;
        }
        return;
    }
    c->rest_length = (size_t)(end - at);
    c->rest = realloc(c->rest, c->rest_length);
    if (!c->rest)
        die("sink: out of memory");
    memcpy(c->rest, at, c->rest_length);
}

static void on_event(struct conn *c, uint32_t events) {
    if (c->state == DEAD)
        return;
    if (c->state == CONNECTING) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            finish(c, ABNORMAL);
            return;
        }
        char request[1024];
        int n = upgrade_request(request, sizeof request, host, (int)port, path);
        c->state = HANDSHAKE;
        interest(c, EPOLLIN);
        put(c, request, (size_t)n);
        return;
    }
    if (c->stalled && c->state == LIVE) {
        finish(c, ABNORMAL);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        on_readable(c);
}

static void start_some(void) {
    static struct sockaddr_in to;
    if (!to.sin_port)
        to = address_of(host, (int)port);
    while (started_count < connections && in_flight < concurrency) {
        if (connect_rate > 0 && (double)started_count > (double)(now_ns() - begun) / 1e9 * connect_rate)
            return;
        struct conn *c = conns + started_count;
        c->stalled = started_count < stall;
        c->started = now_ns();
        c->fd = start_connecting(&to, (int)(started_count / PER_SOURCE));
        started_count++;
        in_flight++;
        if (c->fd < 0) {
            c->state = CONNECTING;
            finish(c, ABNORMAL);
            continue;
        }
        c->state = CONNECTING;
        struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    }
}

static void load_tokens(void) {
    if (!tokens_path)
        return;
    FILE *file = fopen(tokens_path, "r");
    if (!file)
        die("sink: cannot read the tokens in %s: %s", tokens_path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, file)) > 0 && token_count < sizeof tokens / sizeof *tokens) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line)
            tokens[token_count++] = strdup(line);
    }
    free(line);
    fclose(file);
}

static void load_channels(void) {
    char *copy = strdup(channel_list);
    for (char *name = strtok(copy, " "); name && channel_count < MAX_CHANNELS; name = strtok(NULL, " "))
        channels[channel_count++] = name; /* names are separated by blanks: a comma may be part of one */
}

static void summary(bool timed_out) {
    int64_t slowest = INT64_MAX, fastest = 0;
    for (int64_t i = 0; i < connections; i++)
        if (!conns[i].stalled) {
            slowest = conns[i].got < slowest ? conns[i].got : slowest;
            fastest = conns[i].got > fastest ? conns[i].got : fastest;
        }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double ready_s = all_ready_at ? (double)(all_ready_at - begun) / 1e9 : 0;
    printf("{\"event\":\"summary\",\"connections\":%lld,\"connected\":%lld,\"subscribed\":%lld,\"failed\":%lld,\"connect_seconds\":%.6f,"
           "\"connects_per_s\":%.1f,",
           (long long)connections, (long long)connected, (long long)subscribed, (long long)failed, ready_s,
           ready_s > 0 ? (double)subscribed / ready_s : 0.0);
    printf("\"deliveries\":%llu,\"least\":%lld,\"most\":%lld,\"stalled_deliveries\":%llu,\"gaps\":%llu,\"missing\":%llu,\"duplicates\":%llu,"
           "\"out_of_order\":%llu,\"offset_gaps\":%llu,\"extra\":%llu,\"complete\":%s,\"timed_out\":%s,",
           (unsigned long long)deliveries, (long long)(slowest == INT64_MAX ? 0 : slowest), (long long)fastest,
           (unsigned long long)stalled_deliveries, (unsigned long long)gaps, (unsigned long long)missing, (unsigned long long)duplicates,
           (unsigned long long)disorder, (unsigned long long)offset_gaps, (unsigned long long)extra, complete_at ? "true" : "false",
           timed_out ? "true" : "false");
    printf("\"seconds\":%.6f,\"frames\":%llu,\"bytes\":%llu,\"text_bytes\":%llu,\"pings\":%llu,\"other_pushes\":%llu,\"unsubscribed\":%llu,"
           "\"protocol_errors\":%llu,\"lost_connections\":%lld,\"sink_cpu_seconds\":%.6f,",
           first_delivery_at ? (double)(last_delivery_at - first_delivery_at) / 1e9 : 0.0, (unsigned long long)frames,
           (unsigned long long)bytes_in, (unsigned long long)text_bytes, (unsigned long long)pings, (unsigned long long)pushes_other,
           (unsigned long long)unsubscribe_pushes, (unsigned long long)protocol_errors, (long long)healthy_dead,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    histogram_json("latency_ms", &latency);
    putchar(',');
    histogram_json("handshake_ms", &handshake);
    putchar(',');
    codes_json("closes", closes);
    putchar(',');
    codes_json("errors", errors);
    puts("}");
    fflush(stdout);
}

int main(int argc, char **argv) {
    const struct option_spec specs[] = {
        {"host", .text = &host}, {"port", .number = &port}, {"path", .text = &path}, {"tokens", .text = &tokens_path},
        {"channel", .text = &channel_list}, {"connections", .number = &connections}, {"concurrency", .number = &concurrency},
        {"connect-rate", .real = &connect_rate}, {"messages", .number = &messages}, {"duration", .number = &duration},
        {"connect-timeout", .number = &connect_timeout}, {"stall", .number = &stall}, {"skip", .number = &skip},
        {"linger", .number = &linger}, {"progress", .text = &progress_path}, {"cpu", .number = &cpu}, {"flag", .number = &flag},
        {"stdin", .flag = &use_stdin}, {"unordered", .flag = &unordered}, {"recoverable", .flag = &recoverable},
        {"hold", .flag = &hold}, {0}};
    read_options(argc, argv, specs);
    raise_file_limit();
    pin_to((int)cpu);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGPIPE, SIG_IGN);
    load_tokens();
    load_channels();
    if (connections < 1 || channel_count < 1)
        die("sink: --connections and --channel must name at least one");
    conns = calloc((size_t)connections, sizeof *conns);
    buffer = malloc(BUFFER_ROOM);
    struct stream *streams = calloc((size_t)connections * channel_count, sizeof *streams);
    if (!conns || !buffer || !streams)
        die("sink: out of memory");
    for (int64_t i = 0; i < connections; i++) {
        conns[i].streams = streams + (size_t)i * channel_count;
        conns[i].fd = -1;
        conns[i].last_seq = -1;
    }
    volatile int64_t *progress = map_progress(progress_path);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (use_stdin) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &e);
    }
    begun = now = now_ns();
    int64_t deadline = begun + duration * SECOND, connect_deadline = begun + connect_timeout * SECOND;
    bool timed_out = false;
    static struct epoll_event events[1024];
    while (!stopping) {
        start_some();
        int n = epoll_wait(epoll_fd, events, 1024, started_count < connections && connect_rate > 0 ? 1 : 20);
        now = now_ns();
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                on_event(events[i].data.ptr, events[i].events);
            } else {
                char line[64];
                ssize_t got = read(STDIN_FILENO, line, sizeof line);
                if (got <= 0 || memchr(line, 's', (size_t)got))
                    stopping = 1;
            }
        }
        if (progress) {
            int64_t lowest = INT64_MAX;
            for (int64_t i = 0; i < connections; i++)
                if (conns[i].state == LIVE && !conns[i].stalled && conns[i].last_seq < lowest)
                    lowest = conns[i].last_seq;
            *progress = lowest == INT64_MAX ? -1 : lowest;
        }
        now = now_ns();
        if (now >= connect_deadline && !all_ready_at)
            for (int64_t i = 0; i < connections; i++)
                if (conns[i].state != LIVE && conns[i].state != DEAD) {
                    if (conns[i].state == UNBORN)
                        in_flight++, started_count++;
                    finish(conns + i, ABNORMAL);
                }
        if (messages && all_ready_at && !complete_at && full_count >= connections - stall - failed - healthy_dead && full_count > 0) {
            complete_at = now;
            event("{\"event\":\"complete\",\"at_ns\":%lld,\"deliveries\":%llu}", (long long)now, (unsigned long long)deliveries);
            if (!hold)
                deadline = now + linger * 1000000;
        }
        if (now >= deadline) {
            timed_out = !complete_at && messages;
            break;
        }
        if (all_ready_at && healthy == 0 && stall == 0)
            break; /* nobody is left */
    }
    summary(timed_out);
    return 0;
}
