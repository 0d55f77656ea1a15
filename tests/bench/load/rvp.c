/* RVP clients for measuring: they sign in with Digest, watch, change state, send messages and answer call-backs.
 *
 *   rvp deliver  --target HOST:PORT --count N ...   N senders, each to a recipient of its own, DeepOr; as fast as
 *                                                   they are answered, or --rate messages a second in all
 *   rvp presence --target HOST:PORT --count N ...   N owners, --watchers W each, --rate changes a second
 *   rvp storm    --target HOST:PORT --count N ...   N users come back within --window seconds: each signs in from
 *                                                   an address of its own, says that it is online and watches
 *                                                   --contacts others; until all are back, or --seconds are over
 *
 * Users are u<first>, ... of the domain (u0 unless --first says so), all with one password;
 * call-backs are at --sink HOST:FIRSTPORT and on; in a storm at the caller's own address and FIRSTPORT.
 */
#include "common.h"

/* MD5 (RFC 1321), for Digest (RFC 7616). */
static void md5_block(uint32_t state[4], const unsigned char *data)
{
    static const unsigned char turns[64] = {
        7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9, 14, 20, 5, 9, 14, 20, 5, 9, 14, 20, 5, 9, 14, 20,
        4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21};
    static uint32_t sines[64];
    if (!sines[0])
        for (int i = 0; i < 64; i++) {
            double s = __builtin_sin(i + 1.0);
            sines[i] = (uint32_t)((s < 0 ? -s : s) * 4294967296.0);
        }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], words[16];
    memcpy(words, data, 64);
    for (int i = 0; i < 64; i++) {
        uint32_t f;
        int g;
        if (i < 16)
            f = (b & c) | (~b & d), g = i;
        else if (i < 32)
            f = (d & b) | (~d & c), g = (5 * i + 1) & 15;
        else if (i < 48)
            f = b ^ c ^ d, g = (3 * i + 5) & 15;
        else
            f = c ^ (b | ~d), g = (7 * i) & 15;
        uint32_t sum = a + f + sines[i] + words[g], turn = turns[i];
        a = d, d = c, c = b;
        b += sum << turn | sum >> (32 - turn);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static void md5_hex(char out[33], const char *format, ...)
{
    unsigned char text[2048];
    va_list arguments;
    va_start(arguments, format);
    size_t size = vsnprintf((char *)text, sizeof text - 72, format, arguments);
    va_end(arguments);
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    uint64_t bits = size * 8;
    text[size] = 0x80;
    size_t padded = (size + 9 + 63) / 64 * 64;
    memset(text + size + 1, 0, padded - size - 9);
    memcpy(text + padded - 8, &bits, 8);
    for (size_t at = 0; at < padded; at += 64)
        md5_block(state, text + at);
    for (int i = 0; i < 16; i++)
        sprintf(out + 2 * i, "%02x", state[i / 4] >> (i % 4 * 8) & 255);
}

struct client {
    int number;
    struct peer *peer;
    char realm[128], nonce[256], opaque[128], ha1[33];
    unsigned used;
    char method[16], target[160];
    struct buffer fields, body;
    int tries;
    double sent;
    int busy; /* its message is under way */
    int retry_after, ends; /* what the last answer said: when to come again, and that the connection ends */
    void (*answered)(struct client *, int status);
    int step;
};

static struct {
    const char *mode, *host, *domain, *password, *sink;
    int port, sink_port, first, count, watchers, contacts, filler;
    double seconds, rate, window;
    const char *ack;
} options = {.domain = "im.bench.localhost", .password = "bench-bench-1", .sink = "127.0.0.1", .sink_port = 20000,
             .count = 64, .watchers = 200, .contacts = 30, .seconds = 10, .window = 60, .ack = "DeepOr", .filler = 420};

static struct client *clients;
static int running, failures, refusals, pending;
static uint64_t done, told, bytes_told, late;
static double begun;
static void (*on_notification)(const char *request, size_t size);
static void (*on_closed)(struct client *);

static void closed(struct peer *p)
{
    if (p->arrived && p->owner) {
        struct client *c = p->owner;
        if (on_closed)
            on_closed(c);
        else if (running) {
            failures++;
            fprintf(stderr, "u%d: the server closed the connection\n", c->number);
        } else
            die("u%d: the server closed the connection", c->number);
    }
    end_peer(p);
}

static void transmit(struct client *c)
{
    char head[4096], proof[1024] = "";
    int name = options.first + c->number;
    if (c->nonce[0]) {
        char ha2[33], response[33];
        c->used++;
        md5_hex(ha2, "%s:%s", c->method, c->target);
        md5_hex(response, "%s:%s:%08x:%s:auth:%s", c->ha1, c->nonce, c->used, "0a4f113b", ha2);
        snprintf(proof, sizeof proof,
                 "Authorization: Digest username=\"u%d\", realm=\"%s\", nonce=\"%s\", uri=\"%s\", qop=auth, "
                 "nc=%08x, cnonce=\"0a4f113b\", response=\"%s\"%s%s%s\r\n",
                 name, c->realm, c->nonce, c->target, c->used, response,
                 c->opaque[0] ? ", opaque=\"" : "", c->opaque, c->opaque[0] ? "\"" : "");
    }
    int size = snprintf(head, sizeof head,
                        "%s %s HTTP/1.1\r\nHost: %s\r\nRVP-Notifications-Version: 0.2\r\n"
                        "RVP-From-Principal: http://%s/instmsg/aliases/u%d\r\n%s%sContent-Length: %zu\r\n\r\n",
                        c->method, c->target, options.domain, options.domain, name, c->fields.at, proof,
                        c->body.length);
    append(&c->peer->out, head, size);
    if (c->body.length)
        append(&c->peer->out, c->body.at, c->body.length);
    c->sent = now();
    if (!c->peer->writing)
        flush(c->peer);
}

/* Ask for something; `answered` is told the status. */
static void ask(struct client *c, const char *method, int whose, const char *fields, const char *body,
                void (*answered)(struct client *, int))
{
    strcpy(c->method, method);
    snprintf(c->target, sizeof c->target, "/instmsg/aliases/u%d", options.first + whose);
    c->fields.length = c->body.length = 0;
    append(&c->fields, fields, strlen(fields));
    append(&c->body, body, strlen(body));
    c->answered = answered;
    c->tries = 0;
    transmit(c);
}

static void quoted(const char *line, const char *name, char *out, size_t room)
{
    char wanted[32];
    snprintf(wanted, sizeof wanted, "%s=\"", name);
    const char *at = strstr(line, wanted);
    out[0] = 0;
    if (!at)
        return;
    at += strlen(wanted);
    const char *end = strchr(at, '"');
    if (end && (size_t)(end - at) < room) {
        memcpy(out, at, end - at);
        out[end - at] = 0;
    }
}

static void take_challenge(struct client *c, char *head)
{
    char *line = head;
    while ((line = strcasestr(line, "\nWWW-Authenticate: Digest"))) {
        char *end = strchr(line + 1, '\r'), kept;
        if (!end)
            break;
        kept = *end;
        *end = 0;
        int md5 = !strstr(line, "algorithm=") || strstr(line, "algorithm=MD5") || strstr(line, "algorithm=\"MD5");
        if (md5) {
            quoted(line, "realm", c->realm, sizeof c->realm);
            quoted(line, "nonce", c->nonce, sizeof c->nonce);
            quoted(line, "opaque", c->opaque, sizeof c->opaque);
            c->used = 0;
            md5_hex(c->ha1, "u%d:%s:%s", options.first + c->number, c->realm, options.password);
            *end = kept;
            return;
        }
        *end = kept;
        line = end;
    }
    die("u%d: no Digest with MD5 is offered:\n%s", c->number, head);
}

static void answer_arrived(struct peer *p)
{
    struct client *c = p->owner;
    for (;;) {
        char *end = p->in.length ? strstr(p->in.at, "\r\n\r\n") : NULL;
        if (!end)
            return;
        size_t head = end + 4 - p->in.at, body = 0;
        char *length = strcasestr(p->in.at, "\nContent-Length:");
        if (length && length < end)
            body = strtoul(length + 16, NULL, 10);
        if (p->in.length < head + body)
            return;
        int status = atoi(p->in.at + 9);
        char *later = strcasestr(p->in.at, "\nRetry-After:"), *last = strcasestr(p->in.at, "\nConnection: close");
        c->retry_after = later && later < end ? atoi(later + 13) : 0;
        c->ends = last && last < end;
        if (status == 401 && c->tries++ < 2) {
            take_challenge(c, p->in.at);
            drop(&p->in, head + body);
            transmit(c);
            continue;
        }
        if (status / 100 != 2) {
            static int shown;
            if (shown++ < 5)
                fprintf(stderr, "u%d: %s %s: %.*s\n", c->number, c->method, c->target, (int)(head + body), p->in.at);
        }
        drop(&p->in, head + body);
        c->answered(c, status);
    }
}

/* Call-backs: every notification is answered 200 at once, and the connection stays open. */
static void notification_arrived(struct peer *p)
{
    static const char answer[] = "HTTP/1.1 200 Successful\r\nRVP-Notifications-Version: 0.2\r\nContent-Length: 0\r\n\r\n";
    for (;;) {
        char *end = p->in.length ? strstr(p->in.at, "\r\n\r\n") : NULL;
        if (!end)
            return;
        size_t head = end + 4 - p->in.at, body = 0;
        char *length = strcasestr(p->in.at, "\nContent-Length:");
        if (length && length < end)
            body = strtoul(length + 16, NULL, 10);
        if (p->in.length < head + body)
            return;
        told++;
        bytes_told += head + body;
        if (on_notification)
            on_notification(p->in.at, head + body);
        drop(&p->in, head + body);
        send_to(p, answer, sizeof answer - 1);
    }
}

static void call_back_accepted(struct peer *listener, int fd)
{
    struct peer *p = calloc(1, sizeof *p);
    (void)listener;
    p->fd = fd;
    p->arrived = notification_arrived;
    watch(p, EPOLLIN);
}

static void fail_unless(struct client *c, int status, int wanted)
{
    if (status != wanted)
        die("u%d: %s %s was answered %d", c->number, c->method, c->target, status);
}

static void signed_in(struct client *c, int status)
{
    fail_unless(c, status, 200);
    pending--;
}

static void sign_in(struct client *c, void (*then)(struct client *, int))
{
    char fields[256];
    snprintf(fields, sizeof fields,
             "Notification-Type: pragma/notify\r\nSubscription-Lifetime: 14400\r\nCall-Back: http://%s:%d/\r\n",
             options.sink, options.sink_port + c->number);
    ask(c, "SUBSCRIBE", c->number, fields, "", then);
}

static void make_clients(int count)
{
    clients = calloc(count, sizeof *clients);
    for (int i = 0; i < count; i++) {
        clients[i].number = i;
        clients[i].peer = connect_to(options.host, options.port, NULL, answer_arrived, &clients[i]);
    }
}

static void settle(void)
{
    while (pending)
        poll_once(100);
}

/* deliver */

static char filler[8192];

static void send_message(struct client *c);

static void delivered(struct client *c, int status)
{
    if (status == 200) {
        note_latency(now() - c->sent);
        done++;
    } else if (status == 503)
        refusals++;
    else
        failures++;
    c->busy = 0;
    if (running && !options.rate)
        send_message(c);
    else
        pending--;
}

static void send_message(struct client *c)
{
    char fields[256], body[16384];
    int from = options.first + c->number, to = from + options.count;
    snprintf(fields, sizeof fields, "RVP-Ack-Type: %s\r\nRVP-Hop-Count: 1\r\nContent-Type: text/xml\r\n", options.ack);
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><r:notification xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
             "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><r:message><r:notification-from><r:contact>"
             "<d:href>http://%s/instmsg/aliases/u%d</d:href><r:description>u%d</r:description></r:contact>"
             "</r:notification-from><r:notification-to><r:contact><d:href>http://%s/instmsg/aliases/u%d</d:href>"
             "<r:description>u%d</r:description></r:contact></r:notification-to><r:msgbody><r:mime-data>"
             "<![CDATA[MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n"
             "Session-Id: {3B0C7F52-91D4-4E6A-8C17-5A2E90D4B7F1}\r\n\r\n%s]]></r:mime-data></r:msgbody></r:message>"
             "</r:notification>",
             options.domain, from, from, options.domain, to, to, filler);
    c->busy = 1;
    ask(c, "NOTIFY", c->number + options.count, fields, body, delivered);
}

static void set_up_delivery(void)
{
    memset(filler, 'x', options.filler);
    for (int i = 0; i < 2 * options.count; i++)
        listen_on(options.sink, options.sink_port + i, call_back_accepted, NULL);
    make_clients(2 * options.count);
    for (int i = 0; i < 2 * options.count; i++, pending++)
        sign_in(&clients[i], signed_in);
    settle();
}

static void start_delivery(void)
{
    for (int i = 0; i < options.count; i++, pending++)
        send_message(&clients[i]);
}

/* Messages at a rate of their own: what a slow server is late with is part of its latency. */
static void run_delivery(void)
{
    double next = begun;
    int turn = 0;
    while (now() < begun + options.seconds) {
        for (; next <= now(); next += 1 / options.rate) {
            struct client *c = &clients[turn];
            turn = (turn + 1) % options.count;
            if (c->busy) {
                late++;
                continue;
            }
            pending++;
            send_message(c);
            c->sent = next;
        }
        double rest = next - now();
        poll_for(rest > 0 ? rest : 0);
    }
}

/* presence */

struct owner {
    int left; /* watchers who have not heard of the last change */
    double changed;
};
static struct owner *owners;
static uint64_t changes;
static int flips;

static void watched(struct client *c, int status)
{
    char fields[256];
    if (c->step) /* the answer to the sign-in does not count */
        fail_unless(c, status, 207);
    else
        fail_unless(c, status, 200);
    if (c->step == options.count) {
        pending--;
        return;
    }
    snprintf(fields, sizeof fields,
             "Notification-Type: update/propchange\r\nSubscription-Lifetime: 14400\r\n"
             "Call-Back: http://%s/instmsg/aliases/u%d\r\n",
             options.domain, options.first + c->number);
    ask(c, "SUBSCRIBE", c->step++, fields, "", watched);
}

static void changed(struct client *c, int status)
{
    if (status != 207)
        failures++;
    c->step = 0;
}

static void change_state(struct client *c)
{
    char body[1024];
    static const char *states[] = {"online", "busy"};
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
             "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><d:set><d:prop><r:state><r:leased-value><r:value><r:%s/>"
             "</r:value><r:default-value><r:offline/></r:default-value><d:timeout>1200</d:timeout></r:leased-value>"
             "</r:state></d:prop></d:set></d:propertyupdate>",
             states[flips & 1]);
    owners[c->number].left = options.watchers;
    owners[c->number].changed = now();
    c->step = 1;
    ask(c, "PROPPATCH", c->number, "Content-Type: text/xml\r\n", body, changed);
    changes++;
}

static void heard(const char *request, size_t size)
{
    static const char from[] = "notification-from>", who[] = "/instmsg/aliases/u";
    const char *at = memmem(request, size, from, sizeof from - 1);
    at = at ? memmem(at, size - (at - request), who, sizeof who - 1) : NULL;
    if (!at)
        die("a notification that says not from whom: %.*s", (int)size, request);
    int number = atoi(at + sizeof who - 1) - options.first;
    if (number >= 0 && number < options.count && owners[number].left && !--owners[number].left) {
        note_latency(now() - owners[number].changed);
        done++;
    }
}

static void set_up_presence(void)
{
    int count = options.count + options.watchers;
    owners = calloc(options.count, sizeof *owners);
    for (int i = 0; i < count; i++)
        listen_on(options.sink, options.sink_port + i, call_back_accepted, NULL);
    make_clients(count);
    for (int i = 0; i < options.count; i++, pending++)
        sign_in(&clients[i], signed_in);
    settle();
    for (int i = options.count; i < count; i++, pending++)
        sign_in(&clients[i], watched);
    settle();
    /* A first change, uncounted, that differs from the first that counts: the home connects to all call-backs. */
    on_notification = heard;
    flips = 1;
    change_state(&clients[0]);
    for (double end = now() + 10; owners[0].left && now() < end;)
        poll_once(50);
    if (owners[0].left)
        die("%d of %d watchers have not heard of a change", owners[0].left, options.watchers);
    for (double end = now() + 1; now() < end;) /* the home paces changes, and what trickles in may pass */
        poll_once(50);
    flips = 0;
    forget_latencies();
}

static void run_presence(void)
{
    double next = begun;
    int turn = 0;
    while (now() < begun + options.seconds) {
        if (now() >= next) {
            struct client *c = &clients[turn];
            if (c->step || owners[turn].left)
                late++; /* it has not come round: the server is slower than the rate */
            else
                change_state(c);
            if (++turn == options.count)
                turn = 0, flips++;
            next += 1 / options.rate;
        }
        double rest = next - now();
        poll_for(rest > 0 ? rest : 0);
    }
    double end = now() + 5;
    for (int left = 1; left && now() < end;) {
        poll_once(10);
        left = 0;
        for (int i = 0; i < options.count; i++)
            left += owners[i].left;
    }
}

/* storm */

static double *again; /* when whoever was told to come later does so; 0 for everybody else */
static int back;
static double last_back;

static void call_back_here(struct client *c, char out[32])
{
    int n = c->number;
    snprintf(out, 32, "127.%d.%d.%d", 1 + (n >> 16), n >> 8 & 255, n & 255);
}

static void come_back(struct client *c);

static void came_back(struct client *c, int status)
{
    c->busy = 0;
    if (status == 503 && c->retry_after) {
        refusals++;
        again[c->number] = now() + c->retry_after * (1 + drand48());
        return;
    }
    if (status / 100 == 2)
        note_latency(now() - c->sent), done++;
    else
        failures++;
    c->step++;
    come_back(c);
}

/* The next step of somebody who comes back: the sign-in, its state, and then each contact. */
static void come_back(struct client *c)
{
    char fields[256], from[32];
    call_back_here(c, from);
    if (c->step == options.contacts + 2) {
        back++;
        last_back = now() - begun;
        shutdown(c->peer->fd, SHUT_WR); /* the server closes it then */
        return;
    }
    if (!c->peer)
        c->peer = connect_to(options.host, options.port, from, answer_arrived, c);
    c->busy = 1;
    if (c->step == 0) {
        snprintf(fields, sizeof fields,
                 "Notification-Type: pragma/notify\r\nSubscription-Lifetime: 14400\r\nCall-Back: http://%s:%d/\r\n",
                 from, options.sink_port);
        ask(c, "SUBSCRIBE", c->number, fields, "", came_back);
    } else if (c->step == 1) {
        ask(c, "PROPPATCH", c->number, "Content-Type: text/xml\r\n",
            "<?xml version=\"1.0\"?><d:propertyupdate xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' "
            "xmlns:a='http://schemas.microsoft.com/rvp/acl/'><d:set><d:prop><r:state><r:leased-value><r:value>"
            "<r:online/></r:value><r:default-value><r:offline/></r:default-value><d:timeout>1200</d:timeout>"
            "</r:leased-value></r:state></d:prop></d:set></d:propertyupdate>",
            came_back);
    } else {
        snprintf(fields, sizeof fields,
                 "Notification-Type: update/propchange\r\nSubscription-Lifetime: 14400\r\n"
                 "Call-Back: http://%s/instmsg/aliases/u%d\r\n",
                 options.domain, options.first + c->number);
        ask(c, "SUBSCRIBE", (c->number + 37 * (c->step - 1)) % options.count, fields, "", came_back);
    }
}

/* A connection that ends after an answer that said so is in order; one that ends instead of an answer is not. */
static void left_alone(struct client *c)
{
    c->peer = NULL;
    if (!c->busy)
        return;
    failures++;
    c->busy = 0;
    again[c->number] = now() + 1 + drand48();
}

static void set_up_storm(void)
{
    clients = calloc(options.count, sizeof *clients);
    again = calloc(options.count, sizeof *again);
    for (int i = 0; i < options.count; i++)
        clients[i].number = i;
    listen_on("0.0.0.0", options.sink_port, call_back_accepted, NULL);
    on_closed = left_alone;
}

static void run_storm(void)
{
    int gone = 0;
    double looked = 0;
    while (back < options.count && now() < begun + options.seconds) {
        for (; gone < options.count && now() >= begun + gone * options.window / options.count; gone++)
            come_back(&clients[gone]);
        if (now() > looked + 0.01) {
            looked = now();
            for (int i = 0; i < gone; i++)
                if (again[i] && looked >= again[i]) {
                    again[i] = 0;
                    come_back(&clients[i]);
                }
        }
        poll_for(0.002);
    }
}

static void read_place(char *text, const char **host, int *port)
{
    char *colon = strrchr(text, ':');
    if (!colon)
        die("%s is not HOST:PORT", text);
    *colon = 0;
    *host = text;
    *port = atoi(colon + 1);
}

static void read_options(int argc, char **argv)
{
    if (argc < 2)
        die("say what to do: deliver, presence or storm");
    options.mode = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--target"))
            read_place(value, &options.host, &options.port);
        else if (!strcmp(name, "--sink"))
            read_place(value, &options.sink, &options.sink_port);
        else if (!strcmp(name, "--domain"))
            options.domain = value;
        else if (!strcmp(name, "--password"))
            options.password = value;
        else if (!strcmp(name, "--first"))
            options.first = atoi(value);
        else if (!strcmp(name, "--count"))
            options.count = atoi(value);
        else if (!strcmp(name, "--watchers"))
            options.watchers = atoi(value);
        else if (!strcmp(name, "--contacts"))
            options.contacts = atoi(value);
        else if (!strcmp(name, "--window"))
            options.window = atof(value);
        else if (!strcmp(name, "--seconds"))
            options.seconds = atof(value);
        else if (!strcmp(name, "--rate"))
            options.rate = atof(value);
        else if (!strcmp(name, "--ack"))
            options.ack = value;
        else if (!strcmp(name, "--filler"))
            options.filler = atoi(value);
        else
            die("%s is no option", name);
    }
    if (!options.host)
        die("--target HOST:PORT is needed");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    begin_polling();
    int presence = !strcmp(options.mode, "presence"), storm = !strcmp(options.mode, "storm");
    if (presence && !options.rate)
        options.rate = 20;
    if (presence)
        set_up_presence();
    else if (storm)
        set_up_storm();
    else if (!strcmp(options.mode, "deliver"))
        set_up_delivery();
    else
        die("%s is none of deliver, presence and storm", options.mode);
    wait_for_go();
    told = bytes_told = done = 0;
    running = 1;
    begun = now();
    if (presence)
        run_presence();
    else if (storm)
        run_storm();
    else if (options.rate)
        run_delivery();
    else {
        start_delivery();
        while (now() < begun + options.seconds)
            poll_once(10);
    }
    double spent = now() - begun;
    uint64_t finished = done;
    running = 0;
    double end = now() + 5;
    while (!presence && pending && now() < end)
        poll_once(10);
    printf("{\"ops\": %llu, \"seconds\": %.3f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"failures\": %d, \"refusals\": %d, "
           "\"told\": %llu, \"late\": %llu, \"back\": %d, \"last_back\": %.3f}\n",
           (unsigned long long)finished, spent, percentile(0.5), percentile(0.99), failures, refusals,
           (unsigned long long)told, (unsigned long long)late, back, last_back);
    return 0;
}
