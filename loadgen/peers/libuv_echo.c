// Echo on libuv, the loop of Node, in C: callbacks for each client's stream.
//
// Who waits where: one thread, in the epoll_wait of libuv, for all of its sockets.
// What wakes it: a socket that is ready, a timer, or a signal; then libuv calls back.
//
// Run: loadgen/peers/setup && target/peers/libuv_echo --listen 127.0.0.1:7007
// Read next: asio_echo.cpp, where each client is a coroutine, and serve-mio, the loop in full view.

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "line_server.h"

enum { FULL_READ = 64 << 10, WORK_READ = 1 << 10, LINGER_MS = 5000 };

typedef struct client {
  struct line_client line; // First, so that a pointer to it is one to the client.
  uv_tcp_t stream;
  uv_timer_t timer; // Holds a reply back (--wait), or ends a client that lingers.
  uv_shutdown_t shutdown;
  struct client *next_turn; // The client that reads on after this one.
  char *held;               // What has been read and is not answered yet.
  size_t held_len;
  bool full, rests;
  bool has_ended;              // The client's side of the stream.
  bool ending, has_finished;   // Ours.
  int handles; // Those that libuv has not closed.
} client_t;

typedef struct {
  uv_write_t write;
  char data[];
} queued_t;

static uv_loop_t loop;
static uv_tcp_t listener;
static uv_idle_t turn;
static client_t *turns; // Those that let the others go first.
static uv_timer_t draining;
static bool stopping;
static char buffer[FULL_READ];

static void on_newcomer(uv_stream_t *server, int status);
static void on_signal(uv_signal_t *handle, int number);
static void on_sweep(uv_timer_t *timer);
static void on_turn(uv_idle_t *handle);
static void on_buffer(uv_handle_t *handle, size_t size, uv_buf_t *into);
static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *bytes);
static void on_waited(uv_timer_t *timer);
static void on_written(uv_write_t *write, int status);
static void answer(client_t *client, const char *data, size_t len);
static void go_on(client_t *client);
static void part(client_t *client);
static void finish(client_t *client);
static void end(client_t *client);
static void leave(void);

int main(int argc, char **argv) {
  static uv_signal_t signals[3];
  static uv_timer_t sweep;
  const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
  struct sockaddr_storage where;
  int len = sizeof where;
  line_begin(argc, argv);
  int result = uv_loop_init(&loop);
  for (int at = 0; at < 3 && result == 0; at++) {
    result = uv_signal_init(&loop, &signals[at]);
    if (result == 0) result = uv_signal_start(&signals[at], on_signal, numbers[at]);
  }
  if (result < 0) line_fail(1, "cannot make a loop: %s", uv_strerror(result));
  uv_idle_init(&loop, &turn);
  uv_timer_init(&loop, &draining);
  uv_timer_init(&loop, &sweep);
  uint64_t every = line_flags.idle_timeout / 10000000 + 1;
  uv_timer_start(&sweep, on_sweep, every, every);
  uv_tcp_init(&loop, &listener);
  result = uv_tcp_bind(&listener, (struct sockaddr *)&line_flags.listen, 0);
  if (result == 0)
    result = uv_listen((uv_stream_t *)&listener, (int)line_flags.backlog, on_newcomer);
  if (result < 0) line_fail(1, "cannot listen on %s: %s", line_flags.listen_text, uv_strerror(result));
  uv_tcp_getsockname(&listener, (struct sockaddr *)&where, &len);
  line_announce((struct sockaddr *)&where);
  return uv_run(&loop, UV_RUN_DEFAULT);
}

static void on_sweep(uv_timer_t *timer) {
  (void)timer;
  line_sweep((void (*)(struct line_client *))end);
}

static void on_signal(uv_signal_t *handle, int number) {
  (void)handle;
  if (number == SIGUSR1) {
    line_report();
    return;
  }
  if (stopping) leave(); // Told twice: ends at once.
  stopping = true;
  uv_close((uv_handle_t *)&listener, NULL);
  uv_timer_start(&draining, (uv_timer_cb)leave, line_flags.drain_timeout / 1000000, 0);
  for (struct line_client *line = line_clients, *next; line; line = next) {
    next = line->next;
    if (!((client_t *)line)->held) part((client_t *)line);
  }
  if (!line_clients) leave();
}

static void leave(void) {
  line_report();
  exit(0);
}

static void on_newcomer(uv_stream_t *server, int status) {
  if (status < 0) {
    line_counters.shortages++;
    return;
  }
  struct sockaddr_storage from = {0};
  int len = sizeof from;
  client_t *client = calloc(1, sizeof *client);
  if (!client) abort();
  uv_tcp_init(&loop, &client->stream);
  uv_timer_init(&loop, &client->timer);
  client->stream.data = client->timer.data = client;
  client->handles = 2;
  const char *refusal = "";
  if (uv_accept(server, (uv_stream_t *)&client->stream) == 0 &&
      uv_tcp_getpeername(&client->stream, (struct sockaddr *)&from, &len) == 0)
    refusal = line_enter(&client->line, (struct sockaddr *)&from);
  if (!refusal) {
    uv_tcp_nodelay(&client->stream, 1);
    uv_read_start((uv_stream_t *)&client->stream, on_buffer, on_read);
    return;
  }
  uv_buf_t bytes = uv_buf_init((char *)refusal, strlen(refusal));
  if (bytes.len > 0) uv_try_write((uv_stream_t *)&client->stream, &bytes, 1);
  end(client);
}

static void on_buffer(uv_handle_t *handle, size_t size, uv_buf_t *into) {
  (void)handle, (void)size;
  // With --work each byte may be a line, and others wait for it.
  *into = uv_buf_init(buffer, line_flags.work > 0 ? WORK_READ : FULL_READ);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *bytes) {
  client_t *client = stream->data;
  if (len == UV_EOF) {
    client->has_ended = true;
    if (client->has_finished) end(client);
    else finish(client); // What is queued is written first.
  } else if (len < 0) {
    end(client);
  } else if (len == 0 || client->ending) {
    return;
  } else if (line_flags.wait > 0) {
    // Until it is over the client is not read, so the end of its stream has to wait as well.
    client->held = malloc(len);
    if (!client->held) abort();
    memcpy(client->held, bytes->base, len);
    client->held_len = len;
    uv_read_stop(stream);
    uv_timer_start(&client->timer, on_waited, (line_flags.wait + 999999) / 1000000, 0);
  } else {
    answer(client, bytes->base, len);
    if ((size_t)len == bytes->len && !client->full && !uv_is_closing((uv_handle_t *)stream)) {
      // libuv reads up to 32 times from one socket in a turn: this client lets the others go first.
      uv_read_stop(stream);
      client->rests = true;
      client->next_turn = turns;
      turns = client;
      uv_idle_start(&turn, on_turn);
    }
  }
}

static void on_turn(uv_idle_t *handle) {
  uv_idle_stop(handle);
  while (turns) {
    client_t *client = turns;
    turns = client->next_turn;
    client->rests = false;
    if (!uv_is_closing((uv_handle_t *)&client->stream)) go_on(client);
    else if (client->handles == 0) free(client);
  }
}

static void on_waited(uv_timer_t *timer) {
  client_t *client = timer->data;
  char *held = client->held;
  client->held = NULL;
  answer(client, held, client->held_len);
  free(held);
  if (uv_is_closing((uv_handle_t *)timer)) return;
  if (stopping) part(client);
  else go_on(client);
}

static void go_on(client_t *client) {
  if (client->full || client->held || client->rests) return;
  uv_read_start((uv_stream_t *)&client->stream, on_buffer, on_read);
}

// Writes what the socket takes at once and queues the rest. Above the high-water mark the client is
// not read.
static void answer(client_t *client, const char *data, size_t len) {
  uv_stream_t *stream = (uv_stream_t *)&client->stream;
  struct line_bytes replies = line_feed(&client->line, data, len);
  if (replies.len == 0) return;
  uv_buf_t bytes = uv_buf_init((char *)replies.data, replies.len);
  int written = uv_try_write(stream, &bytes, 1);
  if (written < 0 && written != UV_EAGAIN) {
    end(client);
    return;
  }
  size_t done = written < 0 ? 0 : written;
  line_counters.bytes_out += done;
  if (done == replies.len) return;
  line_counters.would_blocks++;
  queued_t *queued = malloc(sizeof *queued + replies.len - done);
  if (!queued) abort();
  bytes = uv_buf_init(queued->data, replies.len - done);
  memcpy(queued->data, replies.data + done, bytes.len);
  queued->write.data = (void *)bytes.len;
  uv_write(&queued->write, stream, &bytes, 1, on_written);
  if (uv_stream_get_write_queue_size(stream) > (size_t)line_flags.sendq / 4) {
    client->full = true;
    uv_read_stop(stream);
  }
}

static void on_written(uv_write_t *write, int status) {
  client_t *client = write->handle->data;
  if (status == 0) line_counters.bytes_out += (size_t)write->data;
  free(write);
  if (uv_is_closing((uv_handle_t *)&client->stream)) return;
  if (status < 0) {
    end(client);
  } else if (client->full && !client->ending &&
             uv_stream_get_write_queue_size((uv_stream_t *)&client->stream) <=
                 (size_t)line_flags.sendq / 16) {
    client->full = false;
    go_on(client);
  }
}

// The server stops. Closed with input unread, a connection is reset, and a reset throws away what is
// on its way. So a client that is owed replies, or is talking, has time to end its own stream.
static void part(client_t *client) {
  uv_os_fd_t socket;
  bool idle = uv_stream_get_write_queue_size((uv_stream_t *)&client->stream) == 0;
  if (idle && uv_fileno((uv_handle_t *)&client->stream, &socket) == 0 && !line_has_unread(socket)) {
    end(client);
    return;
  }
  finish(client);
  uv_read_start((uv_stream_t *)&client->stream, on_buffer, on_read);
}

static void on_lingered(uv_timer_t *timer) { end(timer->data); }

static void on_finished(uv_shutdown_t *shutdown, int status) {
  client_t *client = shutdown->handle->data;
  if (uv_is_closing((uv_handle_t *)&client->stream)) return;
  client->has_finished = true;
  if (status < 0 || client->has_ended) end(client);
  else uv_timer_start(&client->timer, on_lingered, LINGER_MS, 0);
}

// Our side of the stream ends when all that is queued is written.
static void finish(client_t *client) {
  if (client->ending) return;
  client->ending = true;
  if (uv_shutdown(&client->shutdown, (uv_stream_t *)&client->stream, on_finished) < 0) end(client);
}

static void on_closed(uv_handle_t *handle) {
  client_t *client = handle->data;
  if (--client->handles > 0) return;
  free(client->held);
  if (!client->rests) free(client);
}

static void end(client_t *client) {
  if (uv_is_closing((uv_handle_t *)&client->stream)) return;
  uv_close((uv_handle_t *)&client->stream, on_closed);
  uv_close((uv_handle_t *)&client->timer, on_closed);
  if (!client->line.address) return; // It never had a place.
  line_leave(&client->line);
  if (stopping && !line_clients) leave();
}
