#define _GNU_SOURCE
#include "line_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { ADDRESSES = 1024, SECOND = 1000000000 };

static const char TOO_LONG[] = "ERR line too long\r\n";

// How many clients are inside from one address.
struct line_address {
  struct line_address *next;
  struct in6_addr ip;
  int64_t clients;
};

struct line_flags line_flags = {
    .workers = 1,
    .max_connections = 16384,
    .max_line = 64 << 10,
    .sendq = 1 << 20,
    .backlog = 4096,
    .idle_timeout = 300LL * SECOND,
    .drain_timeout = 10LL * SECOND,
};
struct line_counters line_counters;
struct line_client *line_clients;

static struct line_address *addresses[ADDRESSES];
static int64_t inside;
static bool is_public;

static void parse(int argc, char **argv);
static void say(int descriptor, const char *line);

void line_begin(int argc, char **argv) {
  int descriptor;
  while ((descriptor = open("/dev/null", O_RDWR)) >= 0 && descriptor <= 2);
  if (descriptor > 2) close(descriptor);
  parse(argc, argv);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

// Who is let in.

static struct in6_addr ip_of(const struct sockaddr *address) {
  struct in6_addr ip = {0};
  if (address->sa_family == AF_INET6) return ((const struct sockaddr_in6 *)address)->sin6_addr;
  memcpy(&ip, &((const struct sockaddr_in *)address)->sin_addr, sizeof(struct in_addr));
  return ip;
}

static struct line_address **place_of(struct in6_addr ip) {
  uint32_t hash = 0;
  for (size_t at = 0; at < sizeof ip; at++) hash = hash * 31 + ip.s6_addr[at];
  struct line_address **place = &addresses[hash % ADDRESSES];
  while (*place && memcmp(&(*place)->ip, &ip, sizeof ip) != 0) place = &(*place)->next;
  return place;
}

const char *line_enter(struct line_client *client, const struct sockaddr *from) {
  struct in6_addr ip = ip_of(from);
  struct line_address **place = place_of(ip);
  int64_t here = *place ? (*place)->clients : 0;
  line_counters.accepts++;
  if (inside >= line_flags.max_connections || here >= line_flags.max_connections_per_ip) {
    line_counters.refused++;
    return inside >= line_flags.max_connections ? "ERR the server is full\r\n"
                                                : "ERR too many connections from your address\r\n";
  }
  if (!*place) {
    *place = calloc(1, sizeof **place);
    if (!*place) abort();
    (*place)->ip = ip;
  }
  (*place)->clients++;
  inside++;
  *client = (struct line_client){.next = line_clients, .address = *place, .heard = now()};
  if (line_clients) line_clients->previous = client;
  line_clients = client;
  return NULL;
}

void line_leave(struct line_client *client) {
  struct line_address *address = client->address;
  if (client->next) client->next->previous = client->previous;
  if (client->previous) client->previous->next = client->next;
  else line_clients = client->next;
  inside--;
  if (--address->clients == 0) {
    *place_of(address->ip) = address->next;
    free(address);
  }
  free(client->tail);
}

void line_sweep(void (*cut)(struct line_client *)) {
  int64_t oldest = now() - line_flags.idle_timeout;
  for (struct line_client *client = line_clients, *next; client; client = next) {
    next = client->next;
    if (client->heard < oldest) {
      line_counters.timed_out++;
      cut(client);
    }
  }
}

// Framing.

static void append(char **buffer, size_t *size, size_t *len, const char *data, size_t more) {
  if (*len + more > *size) {
    *size = (*len + more) * 2;
    *buffer = realloc(*buffer, *size);
    if (!*buffer) abort();
  }
  if (more > 0) memcpy(*buffer + *len, data, more);
  *len += more;
}

// The client's tail and these bytes in one piece.
static struct line_bytes joined(struct line_client *client, struct line_bytes bytes) {
  static char *buffer;
  static size_t size;
  size_t len = 0;
  append(&buffer, &size, &len, client->tail, client->tail_len);
  append(&buffer, &size, &len, bytes.data, bytes.len);
  return (struct line_bytes){buffer, len};
}

static void keep(struct line_client *client, const char *data, size_t len) {
  if (len != client->tail_len) {
    free(client->tail);
    client->tail = len > 0 ? malloc(len) : NULL;
    if (len > 0 && !client->tail) abort();
  }
  if (len > 0) memcpy(client->tail, data, len);
  client->tail_len = len;
}

static struct line_bytes line_by_line(const char *data, size_t len, bool tail_is_too_long) {
  static char *buffer;
  static size_t size;
  size_t judged = 0;
  for (const char *line = data, *end; line < data + len; line = end) {
    end = (const char *)memchr(line, '\n', data + len - line) + 1;
    if (end - line <= line_flags.max_line) append(&buffer, &size, &judged, line, end - line);
    else append(&buffer, &size, &judged, TOO_LONG, sizeof TOO_LONG - 1);
  }
  if (tail_is_too_long) append(&buffer, &size, &judged, TOO_LONG, sizeof TOO_LONG - 1);
  return (struct line_bytes){buffer, judged};
}

// The whole lines; the rest is kept. One that is too long is told of as soon as that is known, and
// skipped to its end without being kept.
static struct line_bytes frame(struct line_client *client, struct line_bytes bytes) {
  if (client->skipping) {
    const char *end = memchr(bytes.data, '\n', bytes.len);
    if (!end) return (struct line_bytes){NULL, 0};
    client->skipping = false;
    bytes.len -= end + 1 - bytes.data;
    bytes.data = end + 1;
  }
  if (client->tail_len > 0) bytes = joined(client, bytes);
  const char *end = memrchr(bytes.data, '\n', bytes.len);
  size_t whole = end ? (size_t)(end + 1 - bytes.data) : 0;
  size_t rest = bytes.len - whole;
  client->skipping = rest > (size_t)line_flags.max_line;
  keep(client, bytes.data + whole, client->skipping ? 0 : rest);
  if (bytes.len <= (size_t)line_flags.max_line) return (struct line_bytes){bytes.data, whole};
  return line_by_line(bytes.data, whole, client->skipping);
}

struct line_bytes line_feed(struct line_client *client, const char *data, size_t len) {
  struct line_bytes replies = frame(client, (struct line_bytes){data, len});
  const char *end = replies.data + replies.len;
  int64_t lines = 0;
  for (const char *at = replies.data; at < end && (at = memchr(at, '\n', end - at)); at++) lines++;
  line_counters.wakeups++;
  line_counters.bytes_in += len;
  line_counters.lines += lines;
  if (lines > 0) client->heard = now();
  // What a computation would do to the processor.
  int64_t until = line_flags.work > 0 ? now() + lines * line_flags.work : 0;
  while (until > 0 && now() < until);
  return replies;
}

bool line_has_unread(int socket) {
  int unread = 0;
  return ioctl(socket, FIONREAD, &unread) == 0 && unread > 0;
}

// The flags of the workspace's servers, as far as they concern echo.

static bool positive(const char *text, int64_t *into) {
  char *end;
  errno = 0;
  *into = strtoll(text, &end, 10);
  return *text >= '0' && *text <= '9' && !*end && !errno && *into >= 1 && *into <= 1000000000;
}

// Bytes, such as 65536, 64KiB or 1MB.
static bool size(const char *text, int64_t *into) {
  static const struct { const char *name; int64_t bytes; } UNITS[] = {
      {"", 1},        {"B", 1},         {"kB", 1000},    {"KB", 1000},   {"MB", 1000000},
      {"GB", SECOND}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
  };
  char *unit;
  errno = 0;
  int64_t number = strtoll(text, &unit, 10);
  if (*text < '0' || *text > '9' || errno || number > 1 << 30) return false;
  while (*unit == ' ') unit++;
  for (size_t at = 0; at < sizeof UNITS / sizeof *UNITS; at++) {
    *into = number * UNITS[at].bytes;
    if (strcmp(unit, UNITS[at].name) == 0) return *into <= 1 << 30;
  }
  return false;
}

// From such as 50us, 300ms, 5s or 1m 30s.
static bool duration(const char *text, int64_t *into) {
  static const struct { const char *name; int64_t time; } UNITS[] = {
      {"us", 1000}, {"ms", 1000000}, {"s", SECOND}, {"m", 60LL * SECOND}, {"h", 3600LL * SECOND},
  };
  *into = 0;
  if (strcmp(text, "0") == 0) return true;
  do {
    char *unit;
    errno = 0;
    int64_t number = strtoll(text, &unit, 10), time = 0;
    size_t len = strspn(unit, "umsh");
    for (size_t at = 0; at < sizeof UNITS / sizeof *UNITS; at++)
      if (strlen(UNITS[at].name) == len && strncmp(unit, UNITS[at].name, len) == 0)
        time = UNITS[at].time;
    if (*text < '0' || *text > '9' || errno || !time || number > 366 * 86400) return false;
    *into += number * time;
    text = unit + len + strspn(unit + len, " ");
  } while (*text);
  return true;
}

// 127.0.0.1:7007 or [::1]:7007.
static bool address(const char *text, int64_t *unused) {
  (void)unused;
  char ip[INET6_ADDRSTRLEN + 1] = "";
  const char *colon = strrchr(text, ':');
  int64_t port;
  bool six = *text == '[' && colon && colon[-1] == ']';
  if (!colon || (strcmp(colon, ":0") != 0 && !positive(colon + 1, &port))) return false;
  port = atoi(colon + 1);
  size_t len = colon - text - (six ? 2 : 0);
  if (port > 65535 || len >= sizeof ip) return false;
  memcpy(ip, text + six, len);
  line_flags.listen_text = text;
  line_flags.listen = (struct sockaddr_storage){.ss_family = six ? AF_INET6 : AF_INET};
  struct sockaddr_in *in = (struct sockaddr_in *)&line_flags.listen;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&line_flags.listen;
  in->sin_port = htons((uint16_t)port); // In both it is at the same place.
  return inet_pton(six ? AF_INET6 : AF_INET, ip, six ? (void *)&in6->sin6_addr : &in->sin_addr) == 1;
}

static bool echo(const char *text, int64_t *unused) {
  (void)unused;
  return strcmp(text, "echo") == 0;
}

static bool one(const char *text, int64_t *unused) {
  (void)unused;
  return strcmp(text, "1") == 0;
}

static bool text_or_json(const char *text, int64_t *unused) {
  (void)unused;
  return strcmp(text, "text") == 0 || strcmp(text, "json") == 0;
}

static bool reaches_others(void) {
  const struct sockaddr_in *in = (const struct sockaddr_in *)&line_flags.listen;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&line_flags.listen;
  if (in->sin_family == AF_INET) return ntohl(in->sin_addr.s_addr) >> 24 != 127;
  return !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static const struct {
  const char *name, *about;
  bool (*read)(const char *, int64_t *);
  int64_t *into;
} FLAGS[] = {
    {"--listen", "ADDRESS:PORT (127.0.0.1:7007)", address, NULL},
    {"--mode", "echo is all there is", echo, NULL},
    {"--workers", "1: one process with one loop is all there is", one, NULL},
    {"--max-connections", "N (16384)", positive, &line_flags.max_connections},
    {"--max-connections-per-ip", "N (64 with --public, else all)", positive,
     &line_flags.max_connections_per_ip},
    {"--max-line", "BYTES, its end included (64KiB)", size, &line_flags.max_line},
    {"--sendq", "BYTES; a quarter of it stops reading (1MiB)", size, &line_flags.sendq},
    {"--idle-timeout", "DURATION between lines (5m)", duration, &line_flags.idle_timeout},
    {"--drain-timeout", "DURATION of a stop (10s)", duration, &line_flags.drain_timeout},
    {"--wait", "DURATION to hold every reply back (0)", duration, &line_flags.wait},
    {"--work", "DURATION to burn for every line (0)", duration, &line_flags.work},
    {"--backlog", "N (4096)", positive, &line_flags.backlog},
    {"--log", "text or json; it logs its counters alone", text_or_json, NULL},
};
enum { FLAGS_LEN = sizeof FLAGS / sizeof *FLAGS };

static void help(void) {
  printf("--public: allow an address that other machines can reach\n");
  for (size_t at = 0; at < FLAGS_LEN; at++) printf("%s %s\n", FLAGS[at].name, FLAGS[at].about);
  exit(fflush(stdout) != 0);
}

static char wrong[512];

static void complain(const char *format, ...) {
  size_t len = strlen(wrong);
  va_list values;
  va_start(values, format);
  vsnprintf(wrong + len, sizeof wrong - len, format, values);
  va_end(values);
}

static void parse(int argc, char **argv) {
  address("127.0.0.1:7007", NULL);
  for (int word = 1; word < argc; word++) {
    size_t at = 0;
    while (at < FLAGS_LEN && strcmp(argv[word], FLAGS[at].name) != 0) at++;
    if (strcmp(argv[word], "--help") == 0) help();
    else if (strcmp(argv[word], "--public") == 0) is_public = true;
    else if (at == FLAGS_LEN) complain("there is no %s here; ", argv[word]);
    else if (++word == argc) complain("%s needs a value; ", FLAGS[at].name);
    else if (!FLAGS[at].read(argv[word], FLAGS[at].into))
      complain("%s cannot be %s here; ", FLAGS[at].name, argv[word]);
  }
  if (!is_public && reaches_others()) complain("other machines could reach it without --public; ");
  if (line_flags.max_line < 16) complain("--max-line must be at least 16 bytes; ");
  if (line_flags.sendq < 4096) complain("--sendq must be at least 4096 bytes; ");
  if (line_flags.idle_timeout == 0) complain("--idle-timeout must be more than 0; ");
  if (*wrong) line_fail(2, "%ssee --help", wrong);
  if (line_flags.max_connections_per_ip == 0)
    line_flags.max_connections_per_ip = is_public ? 64 : line_flags.max_connections;
}

// What it says.

void line_announce(const struct sockaddr *where) {
  char ip[INET6_ADDRSTRLEN], line[INET6_ADDRSTRLEN + 32];
  bool six = where->sa_family == AF_INET6;
  struct in6_addr bytes = ip_of(where);
  inet_ntop(where->sa_family, &bytes, ip, sizeof ip);
  uint16_t port = ntohs(((const struct sockaddr_in *)where)->sin_port);
  snprintf(line, sizeof line, six ? "listening on [%s]:%u\n" : "listening on %s:%u\n", ip, port);
  say(STDOUT_FILENO, line);
}

void line_report(void) {
  const struct line_counters *n = &line_counters;
  char line[1024];
  snprintf(line, sizeof line,
           "{\"counters\": {\"accepts\": %lu, \"refused\": %lu, \"lines\": %lu, \"bytes_in\": %lu, "
           "\"bytes_out\": %lu, \"wakeups\": %lu, \"timed_out\": %lu, \"would_blocks\": %lu, "
           "\"overflows\": 0, \"slow_cut\": 0, \"errors\": {\"shortage\": %lu}}}\n",
           n->accepts, n->refused, n->lines, n->bytes_in, n->bytes_out, n->wakeups, n->timed_out,
           n->would_blocks, n->shortages);
  say(STDERR_FILENO, line);
}

// A reader that has gone, or that does not read, is no reason not to serve: the line is lost.
static void say(int descriptor, const char *line) {
  struct pollfd room = {.fd = descriptor, .events = POLLOUT};
  if (poll(&room, 1, 0) == 1 && write(descriptor, line, strlen(line)) < 0) return;
}

void line_fail(int code, const char *format, ...) {
  char line[512];
  int len = snprintf(line, sizeof line, "%s: ", program_invocation_short_name);
  va_list values;
  va_start(values, format);
  vsnprintf(line + len, sizeof line - len - 1, format, values);
  va_end(values);
  strcat(line, "\n");
  say(STDERR_FILENO, line);
  exit(code);
}
