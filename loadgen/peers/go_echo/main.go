// Echo on Go: a goroutine for each client, in code that looks as if it blocked.
//
// Who waits where: each goroutine in Read; the threads below them in the epoll_wait of the runtime.
// What wakes it: the runtime's poller makes the goroutine of a socket that is ready runnable.
//
// A goroutine reads and writes. Only when a client does not take its replies, a second one is
// started for it, that waits to write while the first reads on, up to the high-water mark.
//
// Run: loadgen/peers/setup && target/peers/go_echo --listen 127.0.0.1:7007
// Read next: gevent_echo.py, the same design with one thread, and serve-may, coroutines in Rust.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Bytes for the reads of one client.
const readBuffer = 16 << 10

// How long a client has to end its stream when the server stops and has ended its own.
const linger = 5 * time.Second

type server struct {
	flags    flags
	counters counters
	stopping atomic.Bool
	served   sync.WaitGroup

	mu      sync.Mutex // Guards the two below.
	clients map[*client]struct{}
	from    map[netip.Addr]int
}

func main() {
	s := &server{flags: parse(), clients: map[*client]struct{}{}, from: map[netip.Addr]int{}}
	runtime.GOMAXPROCS(s.flags.workers)
	raiseDescriptorLimit()
	listener := s.listen()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	signal.Ignore(syscall.SIGPIPE)
	go s.sweep()
	go s.accept(listener)
	fmt.Printf("listening on %v\n", listener.Addr())
	for number := range signals {
		if number == syscall.SIGUSR1 {
			s.counters.report()
			continue
		}
		if s.stopping.Swap(true) {
			break // Told twice: ends at once.
		}
		listener.Close()
		go s.drain(signals)
	}
	s.counters.report()
}

func (s *server) listen() net.Listener {
	// Go takes the length of the backlog from the kernel; SO_REUSEADDR is its default.
	listener, err := net.Listen("tcp", s.flags.listen.String())
	if err != nil {
		fail(1, "cannot listen on %v: %v", s.flags.listen, errors.Unwrap(err))
	}
	return listener
}

func (s *server) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			s.enter(conn.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default: // No descriptors to be had, most likely: leave the newcomers in the backlog.
			s.counters.shortages.Add(1)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *server) enter(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return
	}
	c := &client{server: s, conn: conn, raw: raw}
	c.flags, c.counters = &s.flags, &s.counters
	c.heard.Store(time.Now().UnixNano())
	c.room.L, c.empty.L = &c.mu, &c.mu
	ip := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	s.counters.accepts.Add(1)
	s.mu.Lock()
	refusal := ""
	if len(s.clients) >= s.flags.maxConnections {
		refusal = "ERR the server is full\r\n"
	} else if s.from[ip] >= s.flags.maxConnectionsPerIP {
		refusal = "ERR too many connections from your address\r\n"
	} else {
		s.clients[c] = struct{}{}
		s.from[ip]++
		s.served.Add(1)
	}
	s.mu.Unlock()
	if refusal != "" {
		s.counters.refused.Add(1)
		c.tryWrite([]byte(refusal))
		conn.Close()
		return
	}
	go c.serve(ip)
}

func (s *server) leave(c *client, ip netip.Addr) {
	s.mu.Lock()
	delete(s.clients, c)
	if s.from[ip]--; s.from[ip] == 0 {
		delete(s.from, ip)
	}
	s.mu.Unlock()
	s.served.Done()
}

// One timer that looks at everybody costs less than a deadline for each read.
func (s *server) sweep() {
	for now := range time.Tick(s.flags.idleTimeout/10 + 1) {
		s.each(func(c *client) {
			if now.UnixNano()-c.heard.Load() > int64(s.flags.idleTimeout) {
				s.counters.timedOut.Add(1)
				c.abort()
			}
		})
	}
}

// Wakes the readers, who see then that the server stops, and waits until the last has written.
func (s *server) drain(signals chan<- os.Signal) {
	done, cancel := context.WithTimeout(context.Background(), s.flags.drainTimeout)
	s.each(func(c *client) { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	go func() {
		s.served.Wait()
		cancel()
	}()
	<-done.Done()
	signals <- syscall.SIGTERM
}

func (s *server) each(visit func(*client)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		visit(c)
	}
}

// One client: its socket and what it has not been written yet.
type client struct {
	input
	server *server
	conn   *net.TCPConn
	raw    syscall.RawConn

	mu          sync.Mutex // Guards what follows.
	queue       []byte
	writing     bool
	room, empty sync.Cond // The queue is short enough to read on; it is empty.
}

func (c *client) serve(ip netip.Addr) {
	// Run last to first: a client that sees the connection end finds the place free.
	defer c.conn.Close()
	defer c.server.leave(c, ip)
	buffer := make([]byte, readBuffer)
	for !c.server.stopping.Load() {
		n, err := c.conn.Read(buffer)
		if n > 0 {
			time.Sleep(c.flags.wait)
			c.write(c.feed(buffer[:n]))
		}
		if err != nil {
			break
		}
	}
	c.mu.Lock()
	for c.writing {
		c.empty.Wait()
	}
	c.mu.Unlock()
	if c.server.stopping.Load() && c.isOwed() {
		c.part(buffer)
	}
}

// Whether bytes have come that were not read, or replies were written and not taken. A close would
// reset the connection, at once or when the client sends more, and a reset throws away what is on
// its way.
func (c *client) isOwed() bool {
	owed := false
	c.raw.Control(func(fd uintptr) {
		for _, queue := range []uintptr{syscall.TIOCINQ, syscall.TIOCOUTQ} {
			var n int32
			syscall.Syscall(syscall.SYS_IOCTL, fd, queue, uintptr(unsafe.Pointer(&n)))
			owed = owed || n != 0
		}
	})
	return owed
}

// Ends our stream, and reads what still comes until the client ends its own.
func (c *client) part(buffer []byte) {
	c.conn.CloseWrite()
	c.conn.SetReadDeadline(time.Now().Add(linger))
	for {
		if _, err := c.conn.Read(buffer); err != nil {
			return
		}
	}
}

// Writes what the socket takes at once, leaves the rest to a second goroutine, and waits while
// too much is queued: then the client is not read.
func (c *client) write(replies []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writing {
		replies = replies[c.tryWrite(replies):]
	}
	if len(replies) == 0 {
		return
	}
	c.counters.wouldBlocks.Add(1)
	c.queue = append(c.queue, replies...)
	if !c.writing {
		c.writing = true
		go c.flush()
	}
	for c.writing && len(c.queue) > c.flags.sendq/4 {
		c.room.Wait()
	}
}

// One system call that does not wait; an error shows again in the next read.
func (c *client) tryWrite(data []byte) int {
	sent := 0
	if len(data) > 0 {
		c.raw.Write(func(fd uintptr) bool {
			if n, err := syscall.Write(int(fd), data); err == nil {
				sent = n
			}
			return true
		})
	}
	c.counters.bytesOut.Add(int64(sent))
	return sent
}

// The second goroutine: writes until nothing is left.
func (c *client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		part := c.queue[:min(len(c.queue), 64<<10)]
		c.mu.Unlock()
		n, err := c.conn.Write(part)
		c.mu.Lock()
		c.counters.bytesOut.Add(int64(n))
		c.queue = c.queue[n:]
		if err != nil {
			c.abort()
			break
		}
		if len(c.queue) <= c.flags.sendq/16 {
			c.room.Signal()
		}
	}
	c.queue, c.writing = nil, false
	c.room.Signal()
	c.empty.Signal()
}

// A reset: what is queued is lost, and both goroutines wake with an error.
func (c *client) abort() {
	c.conn.SetLinger(0)
	c.conn.Close()
}
