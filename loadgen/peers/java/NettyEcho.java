import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoop;
import io.netty.channel.FixedRecvByteBufAllocator;
import io.netty.channel.WriteBufferWaterMark;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import sun.misc.Signal;

/**
 * Echo on Netty: one event loop, a handler for the events of each client's channel.
 *
 * <p>Who waits where: one thread, in the epoll_wait of a Selector, for all of its sockets.
 * What wakes it: a socket that is ready, a timer, or a task, by which a signal comes.
 *
 * <p>Run: loadgen/peers/setup && target/peers/netty_echo --listen 127.0.0.1:7007
 *
 * <p>Read next: node_echo.mjs, the same design in JavaScript.
 */
public final class NettyEcho {
  private static final int FULL_READ = 64 << 10, WORK_READ = 1 << 10, LINGER_SECONDS = 5;
  private static final long TALKING = 20_000_000, SHORTAGE_PAUSE = 100_000_000; // Nanoseconds.

  private final LineServer line;
  private final Set<Client> clients = new HashSet<>();
  private final EventLoop loop;
  private Channel listener;
  private boolean stopping;

  public static void main(String[] words) throws InterruptedException {
    new NettyEcho(LineServer.parse(words)).serve();
  }

  private NettyEcho(LineServer line) {
    this.line = line;
    loop = new NioEventLoopGroup(1).next();
  }

  private void serve() throws InterruptedException {
    for (String name : new String[] {"TERM", "INT", "USR1"}) {
      Signal.handle(new Signal(name), signal -> loop.execute(() -> obey(name)));
    }
    long every = line.idleTimeout / 10 + 1;
    loop.scheduleAtFixedRate(this::sweep, every, every, TimeUnit.NANOSECONDS);
    int read = line.work > 0 ? WORK_READ : FULL_READ;
    ChannelFuture bound = new ServerBootstrap()
        .group(loop)
        .channel(NioServerSocketChannel.class)
        .option(ChannelOption.SO_BACKLOG, line.backlog)
        .childOption(ChannelOption.TCP_NODELAY, true)
        .childOption(ChannelOption.ALLOW_HALF_CLOSURE, true)
        .childOption(ChannelOption.RCVBUF_ALLOCATOR,
            new FixedRecvByteBufAllocator(read).maxMessagesPerRead(1))
        .childOption(ChannelOption.WRITE_BUFFER_WATER_MARK,
            new WriteBufferWaterMark(line.sendq / 16, line.sendq / 4))
        .handler(new ChannelInboundHandlerAdapter() {
          @Override
          public void exceptionCaught(ChannelHandlerContext context, Throwable error) {
            pause(context.channel());
          }
        })
        .childHandler(new ChannelInitializer<NioSocketChannel>() {
          @Override
          protected void initChannel(NioSocketChannel channel) {
            enter(channel);
          }
        })
        .bind(line.listen)
        .await();
    if (!bound.isSuccess()) {
      LineServer.fail(1, "cannot listen on " + line.listenText + ": " + bound.cause().getMessage());
    }
    listener = bound.channel();
    line.announce((InetSocketAddress) listener.localAddress());
  }

  private void enter(NioSocketChannel channel) {
    if (channel.remoteAddress() == null) return; // It was gone before it was accepted.
    String refusal = line.enter(channel.remoteAddress().getAddress());
    if (refusal == null) {
      channel.pipeline().addLast(new Client(channel));
    } else {
      ByteBuf bytes = Unpooled.copiedBuffer(refusal, StandardCharsets.US_ASCII);
      channel.eventLoop().execute(() ->
          channel.writeAndFlush(bytes).addListener(ChannelFutureListener.CLOSE));
    }
  }

  /** No descriptors to be had, most likely: the newcomers stay in the backlog. */
  private void pause(Channel listener) {
    line.shortages++;
    listener.config().setAutoRead(false);
    Runnable goOn = () -> listener.config().setAutoRead(true);
    loop.schedule(goOn, SHORTAGE_PAUSE, TimeUnit.NANOSECONDS);
  }

  private void sweep() {
    long oldest = System.nanoTime() - line.idleTimeout;
    for (Client client : new ArrayList<>(clients)) {
      if (client.state.heard - oldest < 0) {
        line.timedOut++;
        client.channel.close();
      }
    }
  }

  private void obey(String signal) {
    if (signal.equals("USR1")) {
      line.report();
      return;
    }
    if (stopping || clients.isEmpty()) exit();
    stopping = true;
    listener.close();
    loop.schedule(this::exit, line.drainTimeout, TimeUnit.NANOSECONDS);
    for (Client client : new ArrayList<>(clients)) {
      if (!client.held) client.part();
    }
  }

  private void exit() {
    line.report();
    Runtime.getRuntime().halt(0);
  }

  /** One client. It is not read while a reply is held back or too many are queued. */
  private final class Client extends ChannelInboundHandlerAdapter {
    final NioSocketChannel channel;
    final LineServer.Client state;
    boolean held, ending;

    Client(NioSocketChannel channel) {
      this.channel = channel;
      state = line.new Client(channel.remoteAddress().getAddress());
      clients.add(this);
    }

    @Override
    public void channelRead(ChannelHandlerContext context, Object message) {
      ByteBuf read = (ByteBuf) message;
      byte[] bytes = new byte[read.readableBytes()];
      read.readBytes(bytes).release();
      if (ending) return;
      if (line.wait == 0) {
        answer(bytes);
        return;
      }
      // Until it is over the client is not read, so the end of its stream has to wait as well.
      held = true;
      channel.config().setAutoRead(false);
      loop.schedule(() -> {
        held = false;
        answer(bytes);
        if (stopping) part();
        else channel.config().setAutoRead(channel.isWritable());
      }, line.wait, TimeUnit.NANOSECONDS);
    }

    private void answer(byte[] bytes) {
      byte[] replies = state.feed(bytes);
      if (replies.length > 0) channel.writeAndFlush(Unpooled.wrappedBuffer(replies));
    }

    @Override
    public void channelWritabilityChanged(ChannelHandlerContext context) {
      if (!channel.isWritable()) line.wouldBlocks++;
      if (!held && !ending) channel.config().setAutoRead(channel.isWritable());
    }

    /** The client has ended its side: what is queued is written first. */
    @Override
    public void userEventTriggered(ChannelHandlerContext context, Object event) {
      if (event instanceof ChannelInputShutdownEvent) {
        channel.writeAndFlush(Unpooled.EMPTY_BUFFER).addListener(ChannelFutureListener.CLOSE);
      }
    }

    /**
     * The server stops. Closed with input unread, a connection is reset, and a reset throws away
     * what is on its way. So a client that is owed replies, or was talking just now, has time to end
     * its own stream: Java does not tell whether a socket has unread bytes.
     */
    void part() {
      if (ending) return;
      ending = true;
      boolean owed = !channel.unsafe().outboundBuffer().isEmpty();
      if (!owed && System.nanoTime() - state.heard > TALKING) {
        channel.close();
        return;
      }
      channel.config().setAutoRead(true);
      channel.writeAndFlush(Unpooled.EMPTY_BUFFER).addListener(written -> {
        channel.shutdownOutput();
        loop.schedule((Runnable) channel::close, LINGER_SECONDS, TimeUnit.SECONDS);
      });
    }

    @Override
    public void channelInactive(ChannelHandlerContext context) {
      clients.remove(this);
      line.leave(state.ip);
      if (stopping && clients.isEmpty()) exit();
    }

    /** A peer's error ends that peer. */
    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable error) {
      channel.close();
    }
  }
}
