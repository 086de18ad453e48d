%% What the Erlang peer needs and that never waits: the flags, who is let in, the counters, and what
%% an echo server says. It is line_server.py in another language.
-module(line_server).

-export([parse/1, shown/1]).
-export([places/1, enter/2, leave/2, is_empty/1]).
-export([counters/0, count/3, counted/1]).
-export([input/1, feed/2, burn/1]).

-define(TOO_LONG, <<"ERR line too long\r\n">>).

%% Who is inside, of how many.
-record(places, {most, most_per_ip, inside = 0, by_ip = #{}}).

%% What one client sends: `tail` is a line without an end. While `skipping`, a line that was told to
%% be too long has not ended.
-record(input, {limit, newline, tail = <<>>, skipping = false}).

%% Gives a client a place, or says why there is none.
places(#{max_connections := Most, max_connections_per_ip := MostPerIp}) ->
    #places{most = Most, most_per_ip = MostPerIp}.

enter(_, #places{inside = Most, most = Most}) ->
    {refused, <<"ERR the server is full\r\n">>};
enter(Ip, #places{inside = Inside, most_per_ip = Most, by_ip = ByIp} = Places) ->
    case maps:get(Ip, ByIp, 0) of
        Most -> {refused, <<"ERR too many connections from your address\r\n">>};
        Here -> {welcome, Places#places{inside = Inside + 1, by_ip = ByIp#{Ip => Here + 1}}}
    end.

leave(Ip, #places{inside = Inside, by_ip = ByIp} = Places) ->
    Left =
        case ByIp of
            #{Ip := 1} -> maps:remove(Ip, ByIp);
            #{Ip := Here} -> ByIp#{Ip := Here - 1}
        end,
    Places#places{inside = Inside - 1, by_ip = Left}.

is_empty(#places{inside = Inside}) ->
    Inside =:= 0.

%% All processes count in one array of atomics. A wakeup is one message with bytes. Bytes count as
%% out when the runtime has taken them. How often it made a sender wait is hidden, and stays 0.
counters() ->
    counters:new(length(names()), [atomics]).

names() ->
    [accepts, refused, lines, bytes_in, bytes_out, wakeups, timed_out, shortage].

count(Name, Number, Counters) ->
    counters:add(Counters, index(Name), Number).

index(accepts) -> 1;
index(refused) -> 2;
index(lines) -> 3;
index(bytes_in) -> 4;
index(bytes_out) -> 5;
index(wakeups) -> 6;
index(timed_out) -> 7;
index(shortage) -> 8.

%% The counters as one line of JSON.
counted(Counters) ->
    Line =
        "{\"counters\": {\"accepts\": ~b, \"refused\": ~b, \"lines\": ~b, \"bytes_in\": ~b, "
        "\"bytes_out\": ~b, \"wakeups\": ~b, \"timed_out\": ~b, \"would_blocks\": 0, "
        "\"overflows\": 0, \"slow_cut\": 0, \"errors\": {\"shortage\": ~b}}}",
    io_lib:format(Line, [counters:get(Counters, index(Name)) || Name <- names()]).

input(#{max_line := Limit}) ->
    #input{limit = Limit, newline = binary:compile_pattern(<<"\n">>)}.

%% What comes back for these bytes, how many lines that are, and the input with the rest. A line
%% that is too long is told of as soon as that is known, and skipped to its end without being kept.
feed(Data, #input{skipping = true, newline = Newline} = Input) ->
    case binary:match(Data, Newline) of
        nomatch ->
            {[], 0, Input};
        {At, 1} ->
            <<_:At/binary, $\n, Rest/binary>> = Data,
            feed(Rest, Input#input{skipping = false})
    end;
feed(Data, #input{tail = <<>>, newline = Newline} = Input) ->
    cut(Data, binary:matches(Data, Newline), Input);
feed(Data, #input{tail = Tail, newline = Newline} = Input) ->
    All = <<Tail/binary, Data/binary>>,
    New = {byte_size(Tail), byte_size(Data)},
    cut(All, binary:matches(All, Newline, [{scope, New}]), Input).

cut(Data, [], Input) ->
    {Replies, Kept} = keep(Data, Input),
    {Replies, length(Replies), Kept};
cut(Data, Ends, #input{limit = Limit} = Input) ->
    {LastEnd, 1} = lists:last(Ends),
    Size = LastEnd + 1,
    <<Whole:Size/binary, Tail/binary>> = Data,
    case byte_size(Data) =< Limit of
        true ->
            {Whole, length(Ends), Input#input{tail = binary:copy(Tail)}};
        false ->
            {Last, Kept} = keep(binary:copy(Tail), Input),
            Replies = judge(Whole, 0, Ends, Limit) ++ Last,
            {Replies, length(Replies), Kept}
    end.

%% A line without an end is kept while it is short enough.
keep(Tail, #input{limit = Limit} = Input) when byte_size(Tail) > Limit ->
    {[?TOO_LONG], Input#input{tail = <<>>, skipping = true}};
keep(Tail, Input) ->
    {[], Input#input{tail = Tail}}.

judge(_, _, [], _) ->
    [];
judge(Whole, From, [{At, 1} | Ends], Limit) when At + 1 - From > Limit ->
    [?TOO_LONG | judge(Whole, At + 1, Ends, Limit)];
judge(Whole, From, [{At, 1} | Ends], Limit) ->
    [binary:part(Whole, From, At + 1 - From) | judge(Whole, At + 1, Ends, Limit)].

%% Keeps the processor busy for so many microseconds, as a computation would.
burn(0) ->
    ok;
burn(Microseconds) ->
    Length = erlang:convert_time_unit(Microseconds, microsecond, native),
    burn_until(erlang:monotonic_time() + Length).

burn_until(Until) ->
    case erlang:monotonic_time() < Until of
        true -> burn_until(Until);
        false -> ok
    end.

%% The flags of the workspace's servers, as far as they concern echo. Times are microseconds.
parse(Words) ->
    Defaults = #{
        listen => {{127, 0, 0, 1}, 7007}, public => false, mode => "echo", workers => 1,
        max_connections => 16384, max_connections_per_ip => default, max_line => 65536,
        sendq => 1048576, idle_timeout => 300_000_000, drain_timeout => 10_000_000, wait => 0,
        work => 0, backlog => 4096, log => "text"
    },
    parse(Words, Defaults, []).

parse(["--help" | _], _, _) ->
    {help, lists:join(" ", ["--public" | [Name || {Name, _, _} <- flags()]])};
parse(["--public" | Words], Flags, Wrong) ->
    parse(Words, Flags#{public := true}, Wrong);
parse([Word | Words], Flags, Wrong) ->
    case lists:keyfind(Word, 1, flags()) of
        false -> parse(Words, Flags, ["there is no " ++ Word ++ " here" | Wrong]);
        {_, Key, Read} -> take(Word, Key, Read, Words, Flags, Wrong)
    end;
parse([], #{listen := {Ip, _}, public := Public} = Flags, Wrong) ->
    Reachable = not (Public orelse is_loopback(Ip)),
    Advice = "other machines could reach --listen: add --public if that is meant",
    case [Advice || Reachable] ++ Wrong of
        [] -> {ok, limit_per_ip(Flags)};
        All -> {wrong, lists:join("; ", lists:reverse(All))}
    end.

take(Word, _, _, [], Flags, Wrong) ->
    parse([], Flags, [Word ++ " needs a value" | Wrong]);
take(Word, Key, Read, [Text | Words], Flags, Wrong) ->
    try Read(Text) of
        Value -> parse(Words, Flags#{Key := Value}, Wrong)
    catch
        error:_ -> parse(Words, Flags, [Word ++ " cannot be " ++ Text ++ " here" | Wrong])
    end.

flags() ->
    [
        {"--listen", listen, fun address/1},
        {"--mode", mode, fun("echo" = Mode) -> Mode end},
        {"--workers", workers, number(1)},
        {"--max-connections", max_connections, number(1)},
        {"--max-connections-per-ip", max_connections_per_ip, number(1)},
        {"--max-line", max_line, bytes(16)},
        {"--sendq", sendq, bytes(4096)},
        {"--idle-timeout", idle_timeout, fun(Text) -> at_least(1, duration(Text)) end},
        {"--drain-timeout", drain_timeout, fun duration/1},
        {"--wait", wait, fun duration/1},
        {"--work", work, fun duration/1},
        {"--backlog", backlog, number(1)},
        {"--log", log, fun(Log) when Log =:= "text"; Log =:= "json" -> Log end}
    ].

limit_per_ip(#{max_connections_per_ip := default, public := true} = Flags) ->
    Flags#{max_connections_per_ip := 64};
limit_per_ip(#{max_connections_per_ip := default, max_connections := Most} = Flags) ->
    Flags#{max_connections_per_ip := Most};
limit_per_ip(Flags) ->
    Flags.

%% `127.0.0.1:7007` or `[::1]:7007`.
address(Text) ->
    [Ip, Port] = string:split(Text, ":", trailing),
    {ok, Address} = inet:parse_strict_address(string:trim(Ip, both, "[]")),
    Number = list_to_integer(Port),
    true = Number >= 0 andalso Number =< 65535,
    {Address, Number}.

is_loopback({127, _, _, _}) -> true;
is_loopback({0, 0, 0, 0, 0, 0, 0, 1}) -> true;
is_loopback({0, 0, 0, 0, 0, 16#ffff, High, _}) -> High bsr 8 =:= 127;
is_loopback(_) -> false.

%% An address as it is written.
shown({Ip, Port}) when tuple_size(Ip) =:= 4 ->
    [inet:ntoa(Ip), $:, integer_to_list(Port)];
shown({Ip, Port}) ->
    [$[, inet:ntoa(Ip), $], $:, integer_to_list(Port)].

number(Least) ->
    fun(Text) -> at_least(Least, list_to_integer(Text)) end.

%% Bytes, such as 65536, 64KiB or 1MB.
bytes(Least) ->
    fun(Text) ->
        {Number, Unit} = string:to_integer(Text),
        Scales = #{
            "" => 1, "B" => 1, "kB" => 1000, "KB" => 1000, "MB" => 1000_000, "GB" => 1000_000_000,
            "KiB" => 1 bsl 10, "MiB" => 1 bsl 20, "GiB" => 1 bsl 30
        },
        at_least(Least, Number * maps:get(string:trim(Unit), Scales))
    end.

%% Microseconds, from such as 50us, 300ms, 5s or 1m 30s.
duration("0") ->
    0;
duration(Text) ->
    {Number, Rest} = string:to_integer(string:trim(Text)),
    {Unit, More} =
        case Rest of
            "us" ++ After -> {1, After};
            "ms" ++ After -> {1000, After};
            "s" ++ After -> {1000_000, After};
            "m" ++ After -> {60_000_000, After};
            "h" ++ After -> {3600_000_000, After}
        end,
    Time = at_least(0, Number) * Unit,
    case More of
        "" -> Time;
        _ -> Time + duration(More)
    end.

at_least(Least, Value) when is_integer(Value), Value >= Least ->
    Value.
