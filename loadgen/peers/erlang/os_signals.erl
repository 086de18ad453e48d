%% The signals of the operating system as messages to a process.
%%
%% The runtime turns a signal into an event of `erl_signal_server`, whose own handler would stop the
%% runtime at SIGTERM. SIGINT is not among them: it belongs to the runtime's break handler.
-module(os_signals).
-behaviour(gen_event).

-export([send_to/1]).
-export([init/1, handle_event/2, handle_call/2]).

%% From now on the process gets `{signal, sigterm}` and `{signal, sigusr1}`.
send_to(Process) ->
    Ours = {?MODULE, Process},
    ok = gen_event:swap_handler(erl_signal_server, {erl_signal_handler, []}, Ours),
    [ok = os:set_signal(Signal, handle) || Signal <- [sigterm, sigusr1]],
    ok.

init({Process, _Swapped}) ->
    {ok, Process}.

handle_event(Signal, Process) ->
    Process ! {signal, Signal},
    {ok, Process}.

handle_call(_Request, Process) ->
    {ok, ok, Process}.
