%% Echo on Erlang: a process for each client, in code that looks as if it blocked.
%%
%% Who waits where: each process in `receive`; the threads below them, which are one scheduler for
%% each processor, in the epoll_wait of the runtime.
%% What wakes it: a message. The runtime reads a socket that is ready and sends what it has read to
%% the process that owns the socket.
%%
%% A process asks for one message with bytes at a time (`{active, once}`), so a client is read no
%% faster than it is answered. `gen_tcp:send` leaves to the runtime what the socket does not take,
%% and makes the process wait while too much is left there: then the client is not read.
%%
%% Run: loadgen/peers/setup && target/peers/erlang/erlang_echo --listen 127.0.0.1:7007
%% Read next: go_echo/main.go, the same design with a stack for each client in place of a mailbox.
-module(erlang_echo).
-behaviour(gen_server).

-export([main/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

%% Bytes for one read; and where each line is work.
-define(READ, 64 * 1024).
-define(WORK_READ, 1024).
%% Milliseconds: between two looks when there are no descriptors to be had; what a client has to end
%% its own stream when the server stops; and what the reader of our last words has to take them.
-define(SHORTAGE_PAUSE, 100).
-define(LINGER, 5000).
-define(LAST_WORDS, 1000).

%% The server, one process: who is inside, and whether it stops.
-record(server, {flags, counters, listener, errors, places, clients = #{}, stopping = false}).

%% One client. `until` is when it must have sent the next whole line.
-record(client, {server, flags, counters, socket, input, until}).

%% SIGINT, which is handed to no Erlang code, ends the runtime at once (`+Bd`, in the setup).
main(Words) ->
    case line_server:parse(Words) of
        {ok, Flags} ->
            run(Flags);
        {help, Text} ->
            last_words(output(1), Text),
            halt(0);
        {wrong, Reason} ->
            fail(2, Reason)
    end.

run(#{workers := Workers, listen := {_, Port} = Where} = Flags) ->
    erlang:system_flag(schedulers_online, min(Workers, erlang:system_info(schedulers))),
    load_all(),
    ok = logger:remove_handler(default),
    ok = logger:add_handler(default, logger_std_h, #{config => #{type => standard_error}}),
    case gen_tcp:listen(Port, options(Flags)) of
        {ok, Listener} ->
            {ok, Server} = gen_server:start(?MODULE, {Flags, Listener}, []),
            Monitor = monitor(process, Server),
            receive
                {'DOWN', Monitor, process, Server, _} -> halt(1)
            end;
        {error, Reason} ->
            Why = inet:format_error(Reason),
            fail(1, ["cannot listen on ", line_server:shown(Where), ": ", Why])
    end.

%% Once the descriptors are used up no module could be loaded any more. So all are loaded now, as
%% they are where a release is started.
load_all() ->
    Loaded = fun(Application) ->
        {ok, Modules} = application:get_key(Application, modules),
        ok = code:ensure_modules_loaded(Modules)
    end,
    lists:foreach(Loaded, [kernel, stdlib]),
    ok = code:ensure_modules_loaded([line_server, os_signals]).

%% What is accepted inherits all of this.
options(#{listen := {Ip, _}, sendq := SendQ, idle_timeout := Idle, work := Work} = Flags) ->
    Family = case tuple_size(Ip) of 4 -> inet; 8 -> inet6 end,
    Read = case Work of 0 -> ?READ; _ -> ?WORK_READ end,
    [
        Family, binary, {ip, Ip}, {backlog, maps:get(backlog, Flags)}, {reuseaddr, true},
        {nodelay, true}, {active, false}, {exit_on_close, false}, {buffer, Read},
        {high_watermark, SendQ div 4}, {low_watermark, SendQ div 16},
        {send_timeout, milliseconds(Idle)}, {send_timeout_close, true}
    ].

init({Flags, Listener}) ->
    process_flag(trap_exit, true),
    Counters = line_server:counters(),
    Places = line_server:places(Flags),
    Server = #server{flags = Flags, listener = Listener, counters = Counters, places = Places},
    {ok, Server#server{errors = output(2)}, {continue, start}}.

handle_continue(start, Server) ->
    #server{flags = Flags, counters = Counters, listener = Listener} = Server,
    Client = #client{server = self(), flags = Flags, counters = Counters},
    spawn_accept(Listener, Client),
    os_signals:send_to(self()),
    {ok, Where} = inet:sockname(Listener),
    say(output(1), ["listening on ", line_server:shown(Where)]),
    {noreply, Server}.

handle_call({enter, Ip}, {Pid, _}, #server{counters = Counters, places = Places} = Server) ->
    line_server:count(accepts, 1, Counters),
    case line_server:enter(Ip, Places) of
        {welcome, Taken} ->
            [Pid ! stop || Server#server.stopping],
            Clients = (Server#server.clients)#{Pid => {Ip, monitor(process, Pid)}},
            {reply, welcome, Server#server{places = Taken, clients = Clients}};
        Refused ->
            line_server:count(refused, 1, Counters),
            {reply, Refused, Server}
    end;
handle_call(leave, {Pid, _}, Server) ->
    {reply, ok, gone(Pid, Server)}.

handle_cast(_, Server) ->
    {noreply, Server}.

handle_info({signal, sigusr1}, #server{counters = Counters, errors = Errors} = Server) ->
    say(Errors, line_server:counted(Counters)),
    {noreply, Server};
handle_info({signal, sigterm}, #server{stopping = true} = Server) ->
    finish(Server);
handle_info({signal, sigterm}, #server{flags = Flags} = Server) ->
    gen_tcp:close(Server#server.listener),
    erlang:send_after(milliseconds(maps:get(drain_timeout, Flags)), self(), drained),
    [Pid ! stop || Pid <- maps:keys(Server#server.clients)],
    {noreply, finish_if_empty(Server#server{stopping = true})};
handle_info(drained, Server) ->
    finish(Server);
handle_info({'DOWN', _, process, Pid, _}, Server) ->
    {noreply, gone(Pid, Server)};
handle_info({'EXIT', Port, _}, Server) when is_port(Port) ->
    % What reads our output has gone, which is no reason not to serve.
    {noreply, Server}.

gone(Pid, #server{clients = Clients, places = Places} = Server) ->
    {{Ip, Monitor}, Left} = maps:take(Pid, Clients),
    demonitor(Monitor, [flush]),
    finish_if_empty(Server#server{clients = Left, places = line_server:leave(Ip, Places)}).

finish_if_empty(#server{stopping = true, places = Places} = Server) ->
    case line_server:is_empty(Places) of
        true -> finish(Server);
        false -> Server
    end;
finish_if_empty(Server) ->
    Server.

finish(#server{counters = Counters, errors = Errors}) ->
    last_words(Errors, line_server:counted(Counters)),
    halt(0, [{flush, false}]).

%% A process waits for a client, starts the next one that waits, and serves.
spawn_accept(Listener, Client) ->
    spawn(fun() -> accept(Listener, Client) end).

accept(Listener, #client{counters = Counters} = Client) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            spawn_accept(Listener, Client),
            enter(Client#client{socket = Socket});
        {error, closed} ->
            ok;
        {error, Shortage} when
            Shortage =:= emfile; Shortage =:= enfile; Shortage =:= system_limit;
            Shortage =:= enobufs; Shortage =:= enomem
        ->
            line_server:count(shortage, 1, Counters),
            timer:sleep(?SHORTAGE_PAUSE),
            accept(Listener, Client);
        {error, _} ->
            % It was gone before it was accepted.
            accept(Listener, Client)
    end.

enter(#client{server = Server, flags = Flags, socket = Socket} = Client) ->
    case inet:peername(Socket) of
        {ok, {Ip, _}} ->
            case gen_server:call(Server, {enter, Ip}, infinity) of
                welcome ->
                    Input = line_server:input(Flags),
                    read(Client#client{input = Input, until = next_line(Client)});
                {refused, Reason} ->
                    gen_tcp:send(Socket, Reason),
                    gen_tcp:close(Socket)
            end;
        {error, _} ->
            gen_tcp:close(Socket)
    end.

read(#client{socket = Socket, until = Until} = Client) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok ->
            receive
                {tcp, Socket, Data} -> answer(Data, Client);
                {tcp_closed, Socket} -> half_closed(Client);
                stop -> part(Client)
            after left(Until) -> cut(Client)
            end;
        {error, _} ->
            leave(Client)
    end.

answer(Data, #client{flags = Flags, counters = Counters, socket = Socket} = Client) ->
    #{wait := Wait, work := Work} = Flags,
    [timer:sleep(milliseconds(Wait)) || Wait > 0],
    line_server:count(wakeups, 1, Counters),
    line_server:count(bytes_in, byte_size(Data), Counters),
    {Replies, Lines, Input} = line_server:feed(Data, Client#client.input),
    Next = Client#client{input = Input},
    case Lines of
        0 ->
            read(Next);
        _ ->
            line_server:count(lines, Lines, Counters),
            line_server:burn(Lines * Work),
            Sent = gen_tcp:send(Socket, Replies),
            sent(Sent, iolist_size(Replies), Next#client{until = next_line(Next)})
    end.

sent(ok, Size, #client{counters = Counters} = Client) ->
    line_server:count(bytes_out, Size, Counters),
    read(Client);
sent({error, timeout}, _, Client) ->
    cut(Client);
sent({error, _}, _, Client) ->
    leave(Client).

%% The client has ended its side: what is left is written first. If there is something left, the
%% client sees the end when it has that, and its place is free a moment later.
half_closed(#client{socket = Socket, until = Until} = Client) ->
    case is_all_taken(Socket) orelse flush(Socket, Until) of
        true -> leave(Client);
        false -> cut(Client)
    end.

%% The server stops. Closed with input unread, a connection is reset, and a reset throws away what
%% is on its way. So a client that is owed replies, or is talking, has time to end its own stream.
part(#client{socket = Socket} = Client) ->
    inet:setopts(Socket, [{active, false}]),
    Talks =
        receive
            {tcp, Socket, _} -> true
        after 0 -> gen_tcp:recv(Socket, 0, 0) =/= {error, timeout}
        end,
    case Talks orelse not is_all_taken(Socket) of
        true ->
            {_, Reader} = spawn_monitor(fun() -> discard(Socket) end),
            flush(Socket, infinity),
            receive
                {'DOWN', Reader, process, _, _} -> ok
            after ?LINGER -> ok
            end;
        false ->
            ok
    end,
    leave(Client).

discard(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} -> discard(Socket);
        {error, _} -> ok
    end.

%% Ends our side, and waits until the client has taken all: `shutdown` itself waits only while the
%% client goes on to take. Says whether that was in time.
flush(Socket, Until) ->
    gen_tcp:shutdown(Socket, write),
    is_all_taken(Socket) orelse (left(Until) =/= 0 andalso flush(Socket, Until)).

%% Whether the runtime has written all. One that is gone takes no more.
is_all_taken(Socket) ->
    case inet:getstat(Socket, [send_pend]) of
        {ok, [{send_pend, Pending}]} -> Pending =:= 0;
        {error, _} -> true
    end.

%% It has not sent a whole line for too long. What is left for it is thrown away.
cut(#client{counters = Counters, socket = Socket} = Client) ->
    line_server:count(timed_out, 1, Counters),
    inet:setopts(Socket, [{linger, {true, 0}}]),
    leave(Client).

%% The place is free before the socket is closed.
leave(#client{server = Server, socket = Socket}) ->
    gen_server:call(Server, leave, infinity),
    gen_tcp:close(Socket).

next_line(#client{flags = #{idle_timeout := Idle}}) ->
    erlang:monotonic_time(millisecond) + milliseconds(Idle).

left(infinity) -> infinity;
left(Until) -> max(0, Until - erlang:monotonic_time(millisecond)).

%% The runtime's timers know milliseconds, and its sockets up to 24 days of them.
milliseconds(Microseconds) ->
    min((Microseconds + 999) div 1000, 16#7fffffff).

%% Standard output or standard error.
output(Descriptor) ->
    open_port({fd, Descriptor, Descriptor}, [out, binary]).

%% Waits for no reader: a line for one that has stopped reading is lost.
say(Output, Line) ->
    try
        port_command(Output, [Line, $\n], [nosuspend])
    catch
        error:badarg -> false
    end.

%% A reader that takes them gets them whole; another one is not waited for.
last_words(Output, Line) ->
    unlink(Output),
    say(Output, Line),
    Output ! {self(), close},
    receive
        {Output, closed} -> ok
    after ?LAST_WORDS -> ok
    end.

fail(Code, Reason) ->
    last_words(output(2), ["erlang_echo: ", Reason]),
    halt(Code, [{flush, false}]).
