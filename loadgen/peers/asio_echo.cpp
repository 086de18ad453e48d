// Echo on Boost.Asio, in C++20: a coroutine for each client, in code that looks as if it blocked.
//
// Who waits where: each coroutine in co_await; one thread below them, in the epoll_wait of Asio.
// What wakes it: a socket that is ready, a timer, or a signal; Asio then resumes the coroutine.
//
// A coroutine reads and tries to write. Only when a client does not take its replies, a second one
// writes what is queued while the first reads on, up to the high-water mark.
//
// Run: loadgen/peers/setup && target/peers/asio_echo --listen 127.0.0.1:7007
// Read next: libuv_echo.c, which is called back, and serve-tokio, tasks in Rust.

#include <utility> // Before Boost 1.74, which uses it and does not include it.

#include <array>
#include <boost/asio.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "line_server.h"

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
namespace errc = boost::system::errc;

namespace {

// Bytes for the reads of one client. With --work each byte may be a line, and others wait for it.
constexpr std::size_t full_read = 16 << 10, work_read = 1 << 10;
constexpr auto shortage_pause = std::chrono::milliseconds(100);
constexpr auto linger_time = std::chrono::seconds(5);

bool stopping = false;

// co_await with an error code as a result, and no exception.
auto into(error_code &error) { return asio::redirect_error(asio::use_awaitable, error); }

[[noreturn]] void leave() {
  line_report();
  std::exit(0);
}

// One client: its socket and what it has not been written yet.
struct Client : line_client, std::enable_shared_from_this<Client> {
  explicit Client(tcp::socket accepted)
      : line_client{}, socket(std::move(accepted)), timer(socket.get_executor()),
        written(socket.get_executor(), asio::steady_timer::time_point::max()) {}

  asio::awaitable<void> serve();
  asio::awaitable<void> flush();
  asio::awaitable<void> linger();
  void answer(const char *data, std::size_t len);
  void part();
  void close();
  // Runs a coroutine of this client, which keeps it alive.
  void spawn(asio::awaitable<void> (Client::*run)());

  tcp::socket socket;
  asio::steady_timer timer;   // Holds a reply back (--wait), or ends a client that lingers.
  asio::steady_timer written; // Is cancelled when some of the queue has been written.
  std::string queue;
  std::array<char, full_read> buffer;
  bool held = false, flushing = false;
};

void Client::spawn(asio::awaitable<void> (Client::*run)()) {
  auto whole = [](std::shared_ptr<Client> self, auto run) -> asio::awaitable<void> {
    co_await ((*self).*run)();
  };
  asio::co_spawn(socket.get_executor(), whole(shared_from_this(), run), asio::detached);
}

asio::awaitable<void> Client::serve() {
  std::size_t most = line_flags.work > 0 ? work_read : full_read;
  error_code error, ignored;
  while (true) {
    std::size_t len = co_await socket.async_read_some(asio::buffer(buffer.data(), most), into(error));
    if (error) break;
    if (stopping) continue; // It lingers: what it says is read and dropped.
    if (line_flags.wait > 0) {
      held = true;
      timer.expires_after(std::chrono::nanoseconds(line_flags.wait));
      co_await timer.async_wait(into(ignored));
      held = false;
    }
    answer(buffer.data(), len);
    if (stopping) part();
    // Above the high-water mark the client is not read.
    if (queue.size() > std::size_t(line_flags.sendq) / 4) {
      while (flushing && !stopping && queue.size() > std::size_t(line_flags.sendq) / 16) {
        co_await written.async_wait(into(ignored));
      }
    }
  }
  // What is queued is written first.
  while (flushing && socket.is_open()) co_await written.async_wait(into(ignored));
  close();
}

// Writes what the socket takes at once, and leaves the rest to a second coroutine.
void Client::answer(const char *data, std::size_t len) {
  if (!socket.is_open()) return; // It was closed meanwhile.
  line_bytes replies = line_feed(this, data, len);
  if (replies.len == 0) return;
  std::size_t done = 0;
  error_code error; // It shows again in the next read.
  if (!flushing) done = socket.write_some(asio::buffer(replies.data, replies.len), error);
  line_counters.bytes_out += done;
  if (done == replies.len) return;
  line_counters.would_blocks++;
  queue.append(replies.data + done, replies.len - done);
  if (!flushing) spawn(&Client::flush);
  flushing = true;
}

asio::awaitable<void> Client::flush() {
  error_code error;
  std::string batch;
  while (!queue.empty() && !error) {
    batch.clear();
    batch.swap(queue);
    for (std::size_t done = 0; done < batch.size() && !error;) {
      std::size_t len = co_await socket.async_write_some(asio::buffer(batch) + done, into(error));
      done += len;
      line_counters.bytes_out += len;
    }
    written.cancel();
  }
  flushing = false;
  if (error) close();
  written.cancel();
}

// The server stops. Closed with input unread, a connection is reset, and a reset throws away what is
// on its way. So a client that is owed replies, or is talking, has time to end its own stream.
void Client::part() {
  if (!flushing && !line_has_unread(socket.native_handle())) {
    close();
    return;
  }
  written.cancel(); // It is read again.
  spawn(&Client::linger);
}

asio::awaitable<void> Client::linger() {
  error_code ignored;
  while (flushing) co_await written.async_wait(into(ignored));
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  timer.expires_after(linger_time);
  co_await timer.async_wait(into(ignored));
  close();
}

void Client::close() {
  error_code ignored;
  if (!socket.is_open()) return;
  line_leave(this); // Its place is free before it sees the end.
  socket.close(ignored);
  timer.cancel();
  written.cancel();
  if (stopping && !line_clients) leave();
}

Client &client_of(line_client *line) { return *static_cast<Client *>(line); }

asio::awaitable<void> accept(tcp::acceptor &acceptor) {
  asio::steady_timer pause(acceptor.get_executor());
  error_code error, ignored;
  while (!stopping) {
    tcp::socket socket = co_await acceptor.async_accept(into(error));
    tcp::endpoint from = error ? tcp::endpoint() : socket.remote_endpoint(error);
    if (error == asio::error::no_descriptors || error == errc::too_many_files_open_in_system) {
      line_counters.shortages++;
      pause.expires_after(shortage_pause); // The newcomers stay in the backlog.
      co_await pause.async_wait(into(ignored));
    }
    if (error) continue; // It was gone before it was accepted.
    socket.non_blocking(true, ignored);
    socket.set_option(tcp::no_delay(true), ignored);
    auto client = std::make_shared<Client>(std::move(socket));
    const char *refusal = line_enter(client.get(), from.data());
    if (refusal) client->socket.write_some(asio::buffer(refusal, std::strlen(refusal)), ignored);
    else client->spawn(&Client::serve);
  }
}

asio::awaitable<void> sweep() {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  while (true) {
    timer.expires_after(std::chrono::nanoseconds(line_flags.idle_timeout / 10 + 1));
    co_await timer.async_wait(asio::use_awaitable);
    line_sweep([](line_client *line) { client_of(line).close(); });
  }
}

asio::awaitable<void> obey(asio::signal_set &signals, tcp::acceptor &acceptor) {
  while (true) {
    int number = co_await signals.async_wait(asio::use_awaitable);
    if (number == SIGUSR1) {
      line_report();
      continue;
    }
    if (stopping || !line_clients) leave(); // Told twice, or nothing to wait for.
    stopping = true;
    acceptor.close();
    for (line_client *line = line_clients, *next; line; line = next) {
      next = line->next;
      if (!client_of(line).held) client_of(line).part();
    }
    auto drain = std::make_shared<asio::steady_timer>(acceptor.get_executor());
    drain->expires_after(std::chrono::nanoseconds(line_flags.drain_timeout));
    drain->async_wait([drain](error_code) { leave(); });
  }
}

tcp::endpoint address() {
  tcp::endpoint address;
  std::memcpy(address.data(), &line_flags.listen, address.capacity());
  return address;
}

} // namespace

int main(int argc, char **argv) {
  line_begin(argc, argv);
  try {
    asio::io_context context(1);
    asio::signal_set signals(context, SIGTERM, SIGINT, SIGUSR1);
    tcp::acceptor acceptor(context);
    acceptor.open(address().protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(address());
    acceptor.listen(int(line_flags.backlog));
    asio::co_spawn(context, obey(signals, acceptor), asio::detached);
    asio::co_spawn(context, accept(acceptor), asio::detached);
    asio::co_spawn(context, sweep(), asio::detached);
    line_announce(acceptor.local_endpoint().data());
    context.run();
  } catch (const std::exception &error) {
    line_fail(1, "cannot serve %s: %s", line_flags.listen_text, error.what());
  }
}
