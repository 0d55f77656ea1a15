/* XMPP clients for measuring ejabberd and Prosody at the work that rvp.c gives a home server.
 *
 *   xmpp deliver  --target HOST:PORT --count N ...   N senders, each to a recipient of its own; --ack receipt
 *                                                    (XEP-0184) or none
 *   xmpp presence --target HOST:PORT --count N ...   N owners, --watchers W each, --rate changes a second
 *
 * Users are u0, u1, ...; those that are missing are registered in-band (XEP-0077).  Servers keep rosters: a watcher
 * asks to watch only whom it does not watch already.
 */
#include "common.h"

enum stage { OPENED, REGISTERING, AUTHENTICATING, REOPENED, BINDING, STARTING, READY };

struct client {
    int number;
    struct peer *peer;
    enum stage stage;
    double sent;
    int left;       /* an owner: watchers who have not heard of the last change */
    double changed; /* and when that was */
    char *watches;  /* a watcher: which owners it may watch already */
};

static struct {
    const char *mode, *host, *domain, *password, *ack;
    int port, count, watchers, filler;
    double seconds, rate;
} options = {.domain = "bench.localhost", .password = "bench-bench-1", .ack = "receipt", .count = 64, .watchers = 200,
             .seconds = 10, .rate = 20, .filler = 420};

static struct client *clients;
static int running, failures, ready, flips;
static uint64_t done, told, late, grants, rosters;
static char filler[8192];

static void closed(struct peer *p)
{
    struct client *c = p->owner;
    die("u%d: the server closed the stream: %s", c->number, p->in.at ? p->in.at : "");
}

static void say(struct client *c, const char *format, ...)
{
    static char text[16384];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    send_to(c->peer, text, size);
}

static void open_stream(struct client *c)
{
    say(c, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='%s' "
           "version='1.0'>", options.domain);
}

static void base64(const unsigned char *data, size_t size, char *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        uint32_t group = data[i] << 16 | (i + 1 < size ? data[i + 1] << 8 : 0) | (i + 2 < size ? data[i + 2] : 0);
        for (int k = 0; k < 4; k++)
            *out++ = i + k > size ? '=' : letters[group >> (18 - 6 * k) & 63];
    }
    *out = 0;
}

static void authenticate(struct client *c)
{
    char plain[256], coded[512];
    int size = snprintf(plain, sizeof plain, "%cu%d%c%s", 0, c->number, 0, options.password);
    base64((unsigned char *)plain, size, coded);
    say(c, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>", coded);
    c->stage = AUTHENTICATING;
}

static void send_message(struct client *c)
{
    c->sent = now();
    say(c, "<message to='u%d@%s/r' type='chat' id='m'><body>%s</body>%s</message>", c->number + options.count,
        options.domain, filler, options.ack[0] == 'r' ? "<request xmlns='urn:xmpp:receipts'/>" : "");
}

static int attribute_number(const char *stanza, const char *before)
{
    const char *at = strstr(stanza, before);
    return at ? atoi(at + strlen(before)) : -1;
}

static void presence_arrived(struct client *c, const char *stanza)
{
    int from = attribute_number(stanza, "from='u");
    if (from < 0)
        from = attribute_number(stanza, "from=\"u");
    if (strstr(stanza, "type='subscribe'") || strstr(stanza, "type=\"subscribe\"")) {
        say(c, "<presence to='u%d@%s' type='subscribed'/>", from, options.domain);
        return;
    }
    if (strstr(stanza, "type='subscribed'") || strstr(stanza, "type=\"subscribed\"")) {
        grants++;
        return;
    }
    if (!running || from < 0 || from >= options.count || c->number < options.count)
        return;
    told++;
    struct client *owner = &clients[from];
    if (owner->left && !--owner->left) {
        note_latency(now() - owner->changed);
        done++;
    }
}

/* The answer to what `befriend` asks first. */
static void roster_arrived(struct client *c, const char *stanza)
{
    static const char *const may[] = {"subscription='to'", "subscription=\"to\"", "subscription='both'",
                                      "subscription=\"both\""};
    for (const char *item = stanza; (item = strstr(item, "<item")); item++) {
        size_t size = strcspn(item, ">");
        for (int i = 0; i < 4; i++) {
            const char *at = memmem(item, size, may[i], strlen(may[i])), *who = memmem(item, size, "jid=", 4);
            int owner = at && who ? atoi(who + 6) : -1;
            if (owner >= 0 && owner < options.count && !c->watches[owner]) {
                c->watches[owner] = 1;
                grants++;
            }
        }
    }
    rosters++;
}

static void message_arrived(struct client *c, const char *stanza)
{
    told++;
    if (c->number >= options.count) { /* a recipient */
        if (options.ack[0] == 'r')
            say(c, "<message to='u%d@%s/r' type='chat'><received xmlns='urn:xmpp:receipts' id='m'/></message>",
                c->number - options.count, options.domain);
        else {
            struct client *sender = &clients[c->number - options.count];
            note_latency(now() - sender->sent);
            done++;
            if (running)
                send_message(sender);
        }
        return;
    }
    if (strstr(stanza, "type='error'") || strstr(stanza, "type=\"error\"")) {
        failures++;
        return;
    }
    note_latency(now() - c->sent);
    done++;
    if (running)
        send_message(c);
}

/* Take one step of the sign-in for which all that is needed has arrived. */
static int step(struct client *c)
{
    struct buffer *in = &c->peer->in;
    const char *text = in->at;
    switch (c->stage) {
    case OPENED:
        if (!strstr(text, "</stream:features>"))
            return 0;
        say(c, "<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>u%d</username>"
               "<password>%s</password></query></iq>", c->number, options.password);
        c->stage = REGISTERING;
        break;
    case REGISTERING: /* somebody who is registered already is told of a conflict */
        if (!strstr(text, "</iq>") && !strstr(text, "type='result'") && !strstr(text, "type=\"result\""))
            return 0;
        authenticate(c);
        break;
    case AUTHENTICATING:
        if (strstr(text, "<failure"))
            die("u%d: %s", c->number, text);
        if (!strstr(text, "<success"))
            return 0;
        open_stream(c);
        c->stage = REOPENED;
        break;
    case REOPENED:
        if (!strstr(text, "</stream:features>"))
            return 0;
        say(c, "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>");
        c->stage = BINDING;
        break;
    case BINDING:
        if (!strstr(text, "</iq>"))
            return 0;
        say(c, "<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq><presence/>");
        c->stage = STARTING;
        break;
    case STARTING:
        if (!strstr(text, "session"))
            return 0;
        c->stage = READY;
        ready++;
        return 0;
    case READY:
        return 0;
    }
    drop(in, in->length);
    return 1;
}

/* Take whole stanzas off the stream: what servers send is regular enough to be cut at the ends of its elements. */
static void arrived(struct peer *p)
{
    struct client *c = p->owner;
    while (c->stage != READY)
        if (!step(c))
            break;
    if (c->stage != READY)
        return;
    char *at = p->in.at, *limit = p->in.at + p->in.length;
    while (at < limit) {
        char *start = memchr(at, '<', limit - at);
        if (!start)
            break;
        char name[32];
        size_t length = strcspn(start + 1, " />\t\r\n");
        if (start + 1 + length >= limit || length >= sizeof name) {
            at = start;
            break;
        }
        memcpy(name, start + 1, length);
        name[length] = 0;
        char *close = memchr(start, '>', limit - start), *end;
        if (!close) {
            at = start;
            break;
        }
        if (close[-1] == '/')
            end = close + 1;
        else {
            char wanted[40];
            int size = snprintf(wanted, sizeof wanted, "</%s>", name);
            end = memmem(close, limit - close, wanted, size);
            if (!end) {
                at = start;
                break;
            }
            end += size;
        }
        char kept = *end;
        *end = 0;
        if (!strcmp(name, "message"))
            message_arrived(c, start);
        else if (!strcmp(name, "presence"))
            presence_arrived(c, start);
        else if (!strcmp(name, "iq") && (strstr(start, "id='kept'") || strstr(start, "id=\"kept\"")))
            roster_arrived(c, start);
        *end = kept;
        at = end;
    }
    drop(&p->in, at - p->in.at);
}

static void change_state(struct client *c)
{
    static const char *states[] = {"", "<show>dnd</show>"};
    c->left = options.watchers;
    c->changed = now();
    say(c, "<presence>%s</presence>", states[flips & 1]);
}

static void run_presence(double begun)
{
    double next = begun;
    int turn = 0;
    while (now() < begun + options.seconds) {
        if (now() >= next) {
            struct client *c = &clients[turn];
            if (c->left)
                late++;
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
            left += clients[i].left;
    }
}

static void sign_in_all(int count)
{
    clients = calloc(count, sizeof *clients);
    for (int i = 0; i < count; i++) {
        clients[i].number = i;
        clients[i].peer = connect_to(options.host, options.port, NULL, arrived, &clients[i]);
        open_stream(&clients[i]);
        while (ready < i - 20) /* not all at once */
            poll_once(100);
    }
    while (ready < count)
        poll_once(100);
}

static void befriend(void)
{
    uint64_t wanted = (uint64_t)options.count * options.watchers, asked = 0;
    double end = now() + 300;
    for (int w = 0; w < options.watchers; w++) {
        clients[options.count + w].watches = calloc(options.count, 1);
        say(&clients[options.count + w], "<iq type='get' id='kept'><query xmlns='jabber:iq:roster'/></iq>");
    }
    while (rosters < (uint64_t)options.watchers && now() < end)
        poll_once(100);
    asked = grants;
    for (int w = 0; w < options.watchers; w++)
        for (int o = 0; o < options.count; o++) {
            if (clients[options.count + w].watches[o])
                continue;
            say(&clients[options.count + w], "<presence to='u%d@%s' type='subscribe'/>", o, options.domain);
            asked++;
            while (asked - grants > 200 && now() < end)
                poll_once(100);
        }
    while (grants < wanted && now() < end)
        poll_once(100);
    if (grants < wanted)
        die("only %llu of %llu watchers may watch", (unsigned long long)grants, (unsigned long long)wanted);
    end = now() + 1;
    while (now() < end) /* let what still trickles in pass */
        poll_once(50);
}

static void read_options(int argc, char **argv)
{
    if (argc < 2)
        die("say what to do: deliver or presence");
    options.mode = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--target")) {
            char *colon = strrchr(value, ':');
            if (!colon)
                die("%s is not HOST:PORT", value);
            *colon = 0;
            options.host = value;
            options.port = atoi(colon + 1);
        } else if (!strcmp(name, "--domain"))
            options.domain = value;
        else if (!strcmp(name, "--password"))
            options.password = value;
        else if (!strcmp(name, "--count"))
            options.count = atoi(value);
        else if (!strcmp(name, "--watchers"))
            options.watchers = atoi(value);
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
    int presence = !strcmp(options.mode, "presence");
    if (!presence && strcmp(options.mode, "deliver"))
        die("%s is neither deliver nor presence", options.mode);
    memset(filler, 'x', options.filler);
    sign_in_all(presence ? options.count + options.watchers : 2 * options.count);
    if (presence)
        befriend();
    wait_for_go();
    told = 0;
    running = 1;
    double begun = now();
    if (presence)
        run_presence(begun);
    else {
        for (int i = 0; i < options.count; i++)
            send_message(&clients[i]);
        while (now() < begun + options.seconds)
            poll_once(10);
    }
    double spent = now() - begun;
    uint64_t finished = done;
    running = 0;
    double end = now() + 0.5;
    while (now() < end)
        poll_once(10);
    printf("{\"ops\": %llu, \"seconds\": %.3f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"failures\": %d, \"refusals\": 0, "
           "\"told\": %llu, \"late\": %llu}\n",
           (unsigned long long)finished, spent, percentile(0.5), percentile(0.99), failures, (unsigned long long)told,
           (unsigned long long)late);
    return 0;
}
