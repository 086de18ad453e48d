// What the Go peer needs and that never waits: the flags, the counters, and what an echo server
// says. It is line_server.py in another language.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var tooLong = []byte("ERR line too long\r\n")

// What is counted. A wakeup is one read; what would have blocked is one write that did not fit.
type counters struct {
	accepts, refused, lines, bytesIn, bytesOut, wakeups, wouldBlocks, timedOut, shortages atomic.Int64
}

// What one client sends.
type input struct {
	flags    *flags
	counters *counters
	heard    atomic.Int64 // When the last whole line came, in nanoseconds since 1970.
	tail     []byte       // A line without an end.
	skipping bool         // A line that has been told to be too long has not ended.
}

// The replies to these bytes, valid until the next call.
func (in *input) feed(data []byte) []byte {
	in.counters.wakeups.Add(1)
	in.counters.bytesIn.Add(int64(len(data)))
	replies := in.frame(data)
	if lines := bytes.Count(replies, []byte("\n")); lines > 0 {
		in.heard.Store(time.Now().UnixNano())
		in.counters.lines.Add(int64(lines))
		burn(time.Duration(lines) * in.flags.work)
	}
	return replies
}

// The whole lines; the rest is kept. One that is too long is told of as soon as that is known, and
// skipped to its end without being kept.
func (in *input) frame(data []byte) []byte {
	limit := in.flags.maxLine
	if in.skipping {
		end := bytes.IndexByte(data, '\n') + 1
		if end == 0 {
			return nil
		}
		in.skipping, data = false, data[end:]
	}
	if len(in.tail) > 0 {
		data = append(in.tail, data...)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	whole, tail := data[:end], data[end:]
	// A copy: the replies may still be in the old one, and a long one must not be kept for ever.
	in.tail = append([]byte(nil), tail...)
	if len(data) > limit {
		var judged []byte
		for _, line := range bytes.SplitAfter(whole, []byte("\n")) {
			if len(line) > limit {
				line = tooLong
			}
			judged = append(judged, line...)
		}
		if whole = judged; len(tail) > limit {
			whole, in.tail, in.skipping = append(whole, tooLong...), nil, true
		}
	}
	return whole
}

func (n *counters) report() {
	line, _ := json.Marshal(map[string]any{"counters": map[string]any{
		"accepts": n.accepts.Load(), "refused": n.refused.Load(), "lines": n.lines.Load(),
		"bytes_in": n.bytesIn.Load(), "bytes_out": n.bytesOut.Load(),
		"wakeups": n.wakeups.Load(), "would_blocks": n.wouldBlocks.Load(),
		"timed_out": n.timedOut.Load(), "overflows": 0, "slow_cut": 0,
		"errors": map[string]any{"shortage": n.shortages.Load()},
	}})
	fmt.Fprintf(os.Stderr, "%s\n", line)
}

// The flags of the workspace's servers, as far as they concern echo.
type flags struct {
	listen                                       netip.AddrPort
	workers, maxConnections, maxConnectionsPerIP int
	maxLine, sendq                               int
	idleTimeout, drainTimeout, wait, work        time.Duration
}

func parse() flags {
	f := flags{
		listen: netip.MustParseAddrPort("127.0.0.1:7007"), workers: 1, maxConnections: 16384,
		maxLine: 64 << 10, sendq: 1 << 20, idleTimeout: 5 * time.Minute, drainTimeout: 10 * time.Second,
	}
	set := flag.NewFlagSet("go_echo", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	var backlog int
	public := set.Bool("public", false, "allow an address that other machines can reach")
	set.Func("listen", "where to listen, ADDRESS:PORT", func(text string) (err error) {
		f.listen, err = netip.ParseAddrPort(text)
		return
	})
	mode := set.String("mode", "echo", "echo is all there is")
	set.Func("workers", "processors to use at once", positive(&f.workers))
	set.Func("max-connections", "connections at once", positive(&f.maxConnections))
	set.Func("max-connections-per-ip", "from one address", positive(&f.maxConnectionsPerIP))
	set.Func("max-line", "longest line, its end included", size(&f.maxLine, 16))
	set.Func("sendq", "a quarter of it stops reading", size(&f.sendq, 4096))
	set.Func("idle-timeout", "longest time without a whole line", duration(&f.idleTimeout))
	set.Func("drain-timeout", "how long a stop may take", duration(&f.drainTimeout))
	set.Func("wait", "hold every reply back", duration(&f.wait))
	set.Func("work", "burn processor time for every line", duration(&f.work))
	set.Func("backlog", "Go takes it from the kernel", positive(&backlog))
	set.Func("log", "text or json; it logs its counters alone", func(text string) error {
		if text != "text" && text != "json" {
			return errors.New("neither text nor json")
		}
		return nil
	})
	err := set.Parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(os.Stdout)
		set.PrintDefaults()
		os.Exit(0)
	}
	if err != nil {
		// It writes flags with one dash; people write two. What is left may belong to it.
		said := strings.ReplaceAll(err.Error(), " -", " --")
		fail(2, "%s; see --help", strings.Join(append([]string{said}, set.Args()...), " "))
	}
	check(set.NArg() == 0, "%s is not a flag", strings.Join(set.Args(), " "))
	check(*mode == "echo", "--mode %s: this server speaks echo alone", *mode)
	check(f.idleTimeout > 0, "--idle-timeout must be more than 0")
	check(f.listen.Addr().IsLoopback() || *public,
		"other machines could reach --listen %v: add --public if that is meant", f.listen)
	if f.maxConnectionsPerIP == 0 {
		if f.maxConnectionsPerIP = f.maxConnections; *public {
			f.maxConnectionsPerIP = 64
		}
	}
	return f
}

func positive(into *int) func(string) error {
	return func(text string) (err error) {
		if *into, err = strconv.Atoi(text); err != nil || *into < 1 {
			err = errors.New("expected a whole number from 1")
		}
		return
	}
}

// Bytes, such as 65536, 64KiB or 1MB.
func size(into *int, least int) func(string) error {
	return func(text string) error {
		number := strings.TrimRight(text, "BKMGik ")
		unit := strings.TrimSpace(text[len(number):])
		scales := map[string]int{"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
			"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
		n, err := strconv.Atoi(number)
		if *into = n * scales[unit]; err != nil || *into < least {
			return fmt.Errorf("expected a size of at least %d, such as 65536, 64KiB or 1MiB", least)
		}
		return nil
	}
}

func duration(into *time.Duration) func(string) error {
	return func(text string) (err error) {
		if *into, err = time.ParseDuration(strings.ReplaceAll(text, " ", "")); *into < 0 {
			err = errors.New("expected a duration, such as 300ms or 5s")
		}
		return
	}
}

func burn(d time.Duration) {
	for until := time.Now().Add(d); d > 0 && time.Now().Before(until); {
	}
}

func raiseDescriptorLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func check(right bool, format string, args ...any) {
	if !right {
		fail(2, format+"; see --help", args...)
	}
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "go_echo: "+format+"\n", args...)
	os.Exit(code)
}
