import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What the Java peer needs and that never waits: the flags, who is let in, the counters, and what an
 * echo server says. It is line_server.py in another language. One thread calls all of it.
 */
final class LineServer {
  private static final byte[] TOO_LONG = "ERR line too long\r\n".getBytes(StandardCharsets.US_ASCII);
  private static final byte[] NOTHING = {};

  InetSocketAddress listen = new InetSocketAddress("127.0.0.1", 7007);
  String listenText = "127.0.0.1:7007";
  int maxConnections = 16384, maxConnectionsPerIp, maxLine = 64 << 10, sendq = 1 << 20;
  int backlog = 4096;
  /** Nanoseconds. */
  long idleTimeout = 300_000_000_000L, drainTimeout = 10_000_000_000L, wait, work;

  long accepts, refused, lines, bytesIn, bytesOut, wakeups, timedOut, wouldBlocks, shortages;
  int inside;
  private final Map<InetAddress, Integer> from = new HashMap<>();

  /** One client without its socket. */
  final class Client {
    final InetAddress ip;
    long heard = System.nanoTime();
    private byte[] tail = NOTHING;
    private boolean skipping;

    Client(InetAddress ip) {
      this.ip = ip;
    }

    /** What comes back for these bytes: every line that they make whole. */
    byte[] feed(byte[] bytes) {
      wakeups++;
      bytesIn += bytes.length;
      byte[] replies = frame(bytes);
      int whole = 0;
      for (byte each : replies) whole += each == '\n' ? 1 : 0;
      if (whole > 0) heard = System.nanoTime();
      lines += whole;
      bytesOut += replies.length;
      long until = System.nanoTime() + whole * work;
      while (work > 0 && System.nanoTime() < until) Thread.onSpinWait();
      return replies;
    }

    /**
     * The whole lines; the rest is kept. One that is too long is told of as soon as that is known,
     * and skipped to its end without being kept.
     */
    private byte[] frame(byte[] bytes) {
      if (skipping) {
        int end = indexOf(bytes, 0) + 1;
        if (end == 0) return NOTHING;
        skipping = false;
        bytes = Arrays.copyOfRange(bytes, end, bytes.length);
      }
      if (tail.length > 0) bytes = joined(List.of(tail, bytes));
      int end = bytes.length;
      while (end > 0 && bytes[end - 1] != '\n') end--;
      tail = end == bytes.length ? NOTHING : Arrays.copyOfRange(bytes, end, bytes.length);
      if (bytes.length <= maxLine) return end == bytes.length ? bytes : Arrays.copyOf(bytes, end);
      List<byte[]> judged = new ArrayList<>();
      for (int start = 0, next; start < end; start = next) {
        next = indexOf(bytes, start) + 1;
        judged.add(next - start > maxLine ? TOO_LONG : Arrays.copyOfRange(bytes, start, next));
      }
      if (tail.length > maxLine) {
        judged.add(TOO_LONG);
        tail = NOTHING;
        skipping = true;
      }
      return joined(judged);
    }
  }

  private static int indexOf(byte[] bytes, int start) {
    for (int at = start; at < bytes.length; at++) if (bytes[at] == '\n') return at;
    return -1;
  }

  private static byte[] joined(List<byte[]> parts) {
    byte[] all = new byte[parts.stream().mapToInt(part -> part.length).sum()];
    int at = 0;
    for (byte[] part : parts) {
      System.arraycopy(part, 0, all, at, part.length);
      at += part.length;
    }
    return all;
  }

  /** Gives a client a place, or returns the line that says why there is none. */
  String enter(InetAddress ip) {
    accepts++;
    boolean full = inside >= maxConnections;
    if (full || from.getOrDefault(ip, 0) >= maxConnectionsPerIp) {
      refused++;
      return full ? "ERR the server is full\r\n" : "ERR too many connections from your address\r\n";
    }
    inside++;
    from.merge(ip, 1, Integer::sum);
    return null;
  }

  void leave(InetAddress ip) {
    inside--;
    from.computeIfPresent(ip, (each, here) -> here > 1 ? here - 1 : null);
  }

  /** What the framework hides cannot be counted: bytes are out when the framework has them. */
  void report() {
    say(FileDescriptor.err, String.format(
        "{\"counters\": {\"accepts\": %d, \"refused\": %d, \"lines\": %d, \"bytes_in\": %d, "
            + "\"bytes_out\": %d, \"wakeups\": %d, \"timed_out\": %d, \"would_blocks\": %d, "
            + "\"overflows\": 0, \"slow_cut\": 0, \"errors\": {\"shortage\": %d}}}",
        accepts, refused, lines, bytesIn, bytesOut, wakeups, timedOut, wouldBlocks, shortages));
  }

  void announce(InetSocketAddress where) {
    say(FileDescriptor.out, "listening on " + shown(where));
  }

  private static String shown(InetSocketAddress where) {
    String ip = where.getAddress().getHostAddress();
    return (ip.contains(":") ? "[" + ip + "]" : ip) + ":" + where.getPort();
  }

  /** The flags of the workspace's servers, as far as they concern echo. */
  static LineServer parse(String[] words) {
    LineServer found = new LineServer();
    Map<String, Consumer<String>> flags = found.flags();
    List<String> wrong = new ArrayList<>();
    boolean isPublic = false;
    for (int at = 0; at < words.length; at++) {
      if (words[at].equals("--public")) {
        isPublic = true;
      } else if (words[at].equals("--help")) {
        System.out.println("--public " + String.join(" ", flags.keySet()));
        System.exit(0);
      } else if (!flags.containsKey(words[at])) {
        wrong.add("there is no " + words[at] + " here");
      } else {
        String value = at + 1 < words.length ? words[at + 1] : "";
        try {
          flags.get(words[at]).accept(value);
        } catch (RuntimeException error) {
          wrong.add(words[at] + " cannot be " + (value.isEmpty() ? "left open" : value) + " here");
        }
        at++;
      }
    }
    if (!isPublic && !found.listen.getAddress().isLoopbackAddress()) {
      wrong.add("other machines could reach --listen: add --public if that is meant");
    }
    if (!wrong.isEmpty()) fail(2, String.join("; ", wrong));
    int perIp = isPublic ? 64 : found.maxConnections;
    if (found.maxConnectionsPerIp == 0) found.maxConnectionsPerIp = perIp;
    return found;
  }

  private Map<String, Consumer<String>> flags() {
    Map<String, Consumer<String>> flags = new LinkedHashMap<>();
    flags.put("--listen", text -> listen = address(listenText = text));
    flags.put("--mode", text -> oneOf(text, "echo"));
    flags.put("--workers", text -> oneOf(text, "1"));
    flags.put("--max-connections", text -> maxConnections = atLeast(1, text, false));
    flags.put("--max-connections-per-ip", text -> maxConnectionsPerIp = atLeast(1, text, false));
    flags.put("--max-line", text -> maxLine = atLeast(16, text, true));
    flags.put("--sendq", text -> sendq = atLeast(4096, text, true));
    flags.put("--idle-timeout", text -> idleTimeout = positive(duration(text)));
    flags.put("--drain-timeout", text -> drainTimeout = duration(text));
    flags.put("--wait", text -> wait = duration(text));
    flags.put("--work", text -> work = duration(text));
    flags.put("--backlog", text -> backlog = atLeast(1, text, false));
    flags.put("--log", text -> oneOf(text, "text", "json"));
    return flags;
  }

  private static InetSocketAddress address(String text) {
    Matcher parts = match("\\[?([0-9a-fA-F:.]+)\\]?:(\\d{1,5})", text);
    try {
      // No name is looked up: it has no letters but those of an IPv6 address.
      InetAddress ip = InetAddress.getByName(parts.group(1));
      return new InetSocketAddress(ip, Integer.parseInt(parts.group(2)));
    } catch (IOException error) {
      throw new IllegalArgumentException(error);
    }
  }

  private static void oneOf(String text, String... words) {
    if (!List.of(words).contains(text)) throw new IllegalArgumentException(text);
  }

  /** A number, or bytes such as 65536, 64KiB or 1MB. */
  private static int atLeast(int least, String text, boolean bytes) {
    Matcher parts = match(bytes ? "(\\d+) *(?:([kKMG])(i?)B|B|)" : "(\\d+)()()", text);
    String unit = parts.group(2) == null ? "" : parts.group(2).toUpperCase();
    int base = "i".equals(parts.group(3)) ? 1024 : 1000;
    long value = Long.parseLong(parts.group(1));
    for (int power = unit.isEmpty() ? 0 : " KMG".indexOf(unit); power > 0; power--) value *= base;
    if (value < least) throw new IllegalArgumentException(text);
    return Math.toIntExact(value);
  }

  /** Nanoseconds, from such as 50us, 300ms, 5s or 1m 30s. */
  private static long duration(String text) {
    Map<String, Long> units = Map.of("us", 1000L, "ms", 1_000_000L, "s", 1_000_000_000L,
        "m", 60_000_000_000L, "h", 3_600_000_000_000L);
    if (text.equals("0")) return 0;
    match("((\\d+)(us|ms|s|m|h) *)+", text);
    long sum = 0;
    Matcher part = Pattern.compile("(\\d+)(us|ms|s|m|h)").matcher(text);
    while (part.find()) {
      sum += Math.multiplyExact(Long.parseLong(part.group(1)), units.get(part.group(2)));
    }
    return sum;
  }

  private static long positive(long time) {
    if (time == 0) throw new IllegalArgumentException();
    return time;
  }

  private static Matcher match(String pattern, String text) {
    Matcher parts = Pattern.compile(pattern).matcher(text);
    if (!parts.matches()) throw new IllegalArgumentException(text);
    return parts;
  }

  /** A reader that has gone is no reason not to serve: the stream keeps its error to itself. */
  private static void say(FileDescriptor where, String line) {
    new PrintStream(new FileOutputStream(where), true).println(line);
  }

  static void fail(int code, String reason) {
    say(FileDescriptor.err, "netty_echo: " + reason);
    Runtime.getRuntime().halt(code);
  }
}
