// What the peers in C and C++ need and that never waits: the flags, who is let in, the counters, and
// what an echo server says. It is line_server.py in another language.
//
// One thread calls all of this. Times are nanoseconds.

#ifndef LINE_SERVER_H
#define LINE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

struct line_flags {
  const char *listen_text;
  struct sockaddr_storage listen;
  int64_t workers, max_connections, max_connections_per_ip, max_line, sendq, backlog;
  int64_t idle_timeout, drain_timeout, wait, work;
};

// A wakeup is one call with bytes; what would have blocked is a write that did not fit.
struct line_counters {
  uint64_t accepts, refused, lines, bytes_in, bytes_out, wakeups, timed_out, would_blocks, shortages;
};

struct line_bytes {
  const char *data;
  size_t len;
};

// One connection without its socket.
struct line_client {
  struct line_client *next, *previous;
  struct line_address *address;
  int64_t heard;   // When the last whole line came.
  char *tail;      // A line without an end.
  size_t tail_len;
  bool skipping;   // A line that has been told to be too long has not ended.
};

extern struct line_flags line_flags;
extern struct line_counters line_counters;
extern struct line_client *line_clients; // Those inside.

// Reads the flags, or ends with one line that says what is wrong. Then it raises the limit of
// descriptors, fills the places of standard ones that are closed, and lets no signal be blocked.
void line_begin(int argc, char **argv);

// Gives a client a place, or returns the line that says why there is none.
const char *line_enter(struct line_client *client, const struct sockaddr *from);
void line_leave(struct line_client *client);

// What comes back for these bytes, every line that they make whole; valid until the next call.
struct line_bytes line_feed(struct line_client *client, const char *data, size_t len);

// Calls `cut` for each client that has not sent a whole line for too long. One timer that looks at
// all of them ten times within the time-out costs less than a timer that moves with each line.
void line_sweep(void (*cut)(struct line_client *));

// Whether bytes have come that were not read: a close would reset the connection.
bool line_has_unread(int socket);

void line_announce(const struct sockaddr *where);
void line_report(void);
__attribute__((noreturn)) void line_fail(int code, const char *format, ...);

#ifdef __cplusplus
}
#endif
#endif
