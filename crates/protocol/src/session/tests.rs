//! One connection, driven by hand.

use core::time::Duration;

use super::*;

fn settings(mode: Mode, change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut settings = Settings { mode, ..Settings::default() };
    change(&mut settings);
    Arc::new(settings)
}

fn content(outbox: &Outbox) -> String {
    String::from_utf8(outbox.slices().flatten().copied().collect()).expect("text")
}

/// A hub that writes down what it hears, as text. It has no room after "no more".
#[derive(Default)]
struct Listener {
    heard: Vec<String>,
    full: bool,
}

impl Hears for Listener {
    fn note_queue(&mut self, _: ConnId, _: usize) {}

    fn has_room(&mut self, _: ConnId) -> bool {
        !self.full
    }

    fn line(&mut self, _: ConnId, line: Line<'_>, _: Time) -> bool {
        self.heard.push(match line {
            Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Line::TooLong => "<too long>".into(),
            Line::Refused(reason) => format!("<{reason}>"),
            Line::End => "<end>".into(),
        });
        !self.heard.ends_with(&["no more".into()])
    }
}

const ID: ConnId = ConnId::from_bits(0);

/// What the hub hears of `input`.
fn hear_input(session: &mut Session, input: Input<'_>, millis: u64) -> Vec<String> {
    let mut listener = Listener::default();
    session.chat(input, Time::from_millis(millis), &Outbox::default(), ID, &mut listener);
    listener.heard
}

/// What the hub hears of these bytes or, if there are none, of what was held back.
fn hear(session: &mut Session, bytes: &[u8], millis: u64) -> Vec<String> {
    let input = if bytes.is_empty() { Input::Resume } else { Input::Received(bytes) };
    hear_input(session, input, millis)
}

/// What the hub hears of the end of the stream.
fn hear_end(session: &mut Session, millis: u64) -> Vec<String> {
    hear_input(session, Input::Received(&[]), millis)
}

fn text(text: &str) -> Parcel {
    Parcel::Text(Arc::from(text.as_bytes()))
}

#[test]
fn echo_answers_an_overlong_line_in_its_place() {
    let settings = settings(Mode::Echo, |settings| settings.limits.max_line = 8);
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    let handled = session.echo(
        Input::Received(b"one\ntoo long by far\r\ntwo\r\nunfi"),
        Time::ZERO,
        &mut outbox,
    );
    assert_eq!(handled, 3);
    assert_eq!(content(&outbox), "one\nERR line too long\r\ntwo\r\n");
}

#[test]
fn echo_ends_when_every_reply_is_written() {
    let mut session = Session::new(&settings(Mode::Echo, |_| ()), Time::ZERO);
    let mut outbox = Outbox::default();
    session.echo(Input::Received(b"a\nb"), Time::ZERO, &mut outbox);
    session.echo(Input::Received(&[]), Time::ZERO, &mut outbox);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    outbox.advance(2);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Close(CONNECTION_CLOSED));
}

#[test]
fn reading_stops_at_the_high_water_mark_and_goes_on_at_the_low() {
    let settings = settings(Mode::Echo, |settings| settings.limits.sendq = 1600);
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    session.echo(Input::Received(&[b'\n'; 401]), Time::ZERO, &mut outbox);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    outbox.advance(300);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    outbox.advance(1);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: true });
}

#[test]
fn a_wait_holds_replies_back_even_past_the_end() {
    let settings = settings(Mode::Echo, |settings| settings.wait = Duration::from_millis(5));
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    assert_eq!(session.echo(Input::Received(b"a\nb\nc"), Time::from_millis(1), &mut outbox), 0);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(session.deadline(&outbox), Time::from_millis(6));
    session.echo(Input::Received(&[]), Time::from_millis(2), &mut outbox);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(session.expire(Time::from_millis(5), &outbox), Due::Later);
    assert_eq!(session.expire(Time::from_millis(6), &outbox), Due::Resume);
    assert_eq!(session.echo(Input::Resume, Time::from_millis(6), &mut outbox), 2);
    assert_eq!(content(&outbox), "a\nb\n");
    outbox.advance(4);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Close(CONNECTION_CLOSED));
}

#[test]
fn echo_without_a_whole_line_is_closed() {
    let settings =
        settings(Mode::Echo, |settings| settings.limits.idle_timeout = Duration::from_secs(1));
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    session.echo(Input::Received(b"one\n"), Time::from_millis(500), &mut outbox);
    outbox.advance(4);
    session.echo(Input::Received(b"byte by byte"), Time::from_millis(1400), &mut outbox);
    assert_eq!(session.expire(Time::from_millis(1499), &outbox), Due::Later);
    assert_eq!(session.expire(Time::from_millis(1500), &outbox), Due::Close);
}

#[test]
fn chat_gives_lines_without_their_ends_and_then_the_end() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    assert_eq!(hear(&mut session, b"NICK a\r\nUSER", 0), ["NICK a"]);
    assert_eq!(hear(&mut session, b" a 0 * a\n\r\nx", 0), ["USER a 0 * a", ""]);
    assert_eq!(hear_end(&mut session, 0), ["<end>"]);
    assert_eq!(hear(&mut session, b"", 0), [""; 0]);
}

#[test]
fn a_browser_and_a_tls_client_are_refused_at_the_first_line_only() {
    let settings = settings(Mode::Chat, |_| ());
    let first = |input: &[u8]| hear(&mut Session::new(&settings, Time::ZERO), input, 0);
    for method in ["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"] {
        let request = format!("{method} / HTTP/1.1\r\nNICK a\r\n");
        assert_eq!(first(request.as_bytes()), ["<This is not a web server>"]);
    }
    assert_eq!(first(b"\x16\x03\x01\x02\x00"), ["<This is not a TLS port>"]);
    assert_eq!(first(b"NICK a\r\nGET / HTTP/1.1\r\n"), ["NICK a", "GET / HTTP/1.1"]);
}

#[test]
fn a_line_without_end_is_told_then_refused() {
    let settings = settings(Mode::Chat, |settings| settings.limits.max_recvq = 2000);
    let mut session = Session::new(&settings, Time::ZERO);
    assert_eq!(hear(&mut session, &[b'x'; 513], 0), ["<too long>"]);
    assert_eq!(hear(&mut session, &[b'x'; 1000], 0), [""; 0]);
    assert_eq!(hear(&mut session, &[b'x'; 1000], 0), ["<RecvQ exceeded>"]);
    assert_eq!(hear(&mut session, b"\nNICK a\n", 0), [""; 0]);
}

#[test]
fn a_flood_is_slowed_and_one_that_goes_on_is_cut() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.flood_burst = 3;
        settings.limits.flood_interval = Duration::from_millis(100);
        settings.limits.flood_grace = Duration::from_millis(250);
    });
    let mut session = Session::new(&settings, Time::ZERO);
    let outbox = Outbox::default();
    assert_eq!(hear(&mut session, b"1\n2\n3\n4\n5\n6\n7\n8\n", 0), ["1", "2", "3"]);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    for (at, heard) in [(100, "4"), (200, "5")] {
        assert_eq!(session.deadline(&outbox), Time::from_millis(at));
        assert_eq!(session.expire(Time::from_millis(at), &outbox), Due::Resume);
        assert_eq!(hear(&mut session, b"", at), [heard]);
    }
    assert_eq!(hear(&mut session, b"", 300), ["6", "<Excess Flood>"]);
}

#[test]
fn a_burst_within_the_ration_is_never_slowed() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    for second in 0..100 {
        assert_eq!(hear(&mut session, b"a\nb\n", second * 1000).len(), 2);
        assert_eq!(session.next(Time::ZERO, &Outbox::default()), Next::Serve { read: true });
    }
}

#[test]
fn a_bucket_that_is_empty_does_not_count_bytes_as_lines() {
    let settings = settings(Mode::Chat, |settings| settings.limits.flood_burst = 1);
    let mut session = Session::new(&settings, Time::ZERO);
    for byte in b"PRIVMSG #c :slowly typed" {
        assert_eq!(hear(&mut session, &[*byte], 0), [""; 0]);
        assert_eq!(session.next(Time::ZERO, &Outbox::default()), Next::Serve { read: true });
    }
    assert_eq!(hear(&mut session, b"\n", 0), ["PRIVMSG #c :slowly typed"]);
}

#[test]
fn registration_then_silence_then_ping_then_cut() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.registration_timeout = Duration::from_secs(1);
        settings.limits.idle_timeout = Duration::from_secs(10);
        settings.limits.ping_timeout = Duration::from_secs(5);
    });
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    let due = |session: &mut Session, outbox: &Outbox, seconds: u64| {
        session.expire(Time::from_millis(seconds * 1000), outbox)
    };
    let late = Due::Cut("Registration timed out");
    assert_eq!(due(&mut Session::new(&settings, Time::ZERO), &outbox, 1), late);
    assert_eq!(session.post(Parcel::Welcome, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(due(&mut session, &outbox, 9), Due::Later);
    assert_eq!(due(&mut session, &outbox, 10), Due::Ping);
    assert_eq!(due(&mut session, &outbox, 14), Due::Later);
    assert_eq!(hear(&mut session, b"PONG\n", 14_000), ["PONG"]);
    assert_eq!(due(&mut session, &outbox, 15), Due::Later);
    assert_eq!(due(&mut session, &outbox, 24), Due::Ping);
    assert_eq!(due(&mut session, &outbox, 29), Due::Cut("Ping timeout"));
}

#[test]
fn what_finds_no_room_waits_until_there_is() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    let mut outbox = Outbox::default();
    assert_eq!(hear(&mut session, b"a\nno more\nb\nc", 0), ["a", "no more"]);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(hear_end(&mut session, 1), [""; 0]);
    assert_eq!(session.expire(Time::from_millis(1), &outbox), Due::Later);
    let now = Time::from_millis(2);
    assert_eq!(session.post(Parcel::Resume, now, &mut outbox), Ok(()));
    assert_eq!(session.expire(now, &outbox), Due::Resume);
    assert_eq!(hear(&mut session, b"", 2), ["b", "<end>"]);
}

#[test]
fn nothing_is_said_where_there_is_no_room() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    let mut listener = Listener { full: true, ..Listener::default() };
    let input = Input::Received(b"a\n");
    assert_eq!(session.chat(input, Time::ZERO, &Outbox::default(), ID, &mut listener), 0);
    assert_eq!(listener.heard, [""; 0]);
    assert_eq!(session.next(Time::ZERO, &Outbox::default()), Next::Serve { read: false });
}

#[test]
fn mail_that_ran_over_is_told_once() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    let mut outbox = Outbox::default();
    assert_eq!(session.post(Parcel::Overrun, Time::ZERO, &mut outbox), Err(Full));
    assert_eq!(session.post(Parcel::Overrun, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(session.post(text("lost\r\n"), Time::ZERO, &mut outbox), Ok(()));
    assert!(outbox.is_empty());
}

#[test]
fn a_full_queue_keeps_only_the_message_begun_and_the_last_words() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 20);
    let mut session = Session::new(&settings, Time::ZERO);
    let mut outbox = Outbox::default();
    assert_eq!(session.post(text("12345678\r\n"), Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(session.post(text("abcdefgh\r\n"), Time::ZERO, &mut outbox), Ok(()));
    outbox.advance(4);
    assert_eq!(session.post(text("too much\r\n"), Time::ZERO, &mut outbox), Err(Full));
    assert_eq!(session.post(text("x\r\n"), Time::ZERO, &mut outbox), Ok(()));
    let last = Parcel::Close(Arc::from(&b"ERROR :SendQ exceeded\r\n"[..]));
    assert_eq!(session.post(last, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(content(&outbox), "5678\r\nERROR :SendQ exceeded\r\n");
}

#[test]
fn a_peer_that_takes_its_replies_is_not_silent() {
    let idle = Duration::from_millis(100);
    let settings = settings(Mode::Echo, |settings| settings.limits.idle_timeout = idle);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    session.echo(Input::Received(b"0123456789\n"), Time::ZERO, &mut outbox);
    session.next(Time::ZERO, &outbox);
    outbox.advance(1);
    assert_eq!(session.expire(Time::from_millis(100), &outbox), Due::Later);
    session.next(Time::ZERO, &outbox);
    assert_eq!(session.deadline(&outbox), Time::from_millis(200));
    assert_eq!(session.expire(Time::from_millis(200), &outbox), Due::Resume);
    assert!(session.is_doubted());
    outbox.advance(1);
    assert_eq!(session.expire(Time::from_millis(200), &outbox), Due::Later);
    assert!(!session.is_doubted());
    session.next(Time::ZERO, &outbox);
    assert_eq!(session.expire(Time::from_millis(300), &outbox), Due::Resume);
    outbox.advance(9);
    assert_eq!(session.expire(Time::from_millis(300), &outbox), Due::Later);
    session.next(Time::ZERO, &outbox);
    assert_eq!(session.expire(Time::from_millis(400), &outbox), Due::Close);
}

#[test]
fn a_peer_that_takes_nothing_is_closed_after_one_try() {
    let idle = Duration::from_millis(100);
    let settings = settings(Mode::Echo, |settings| settings.limits.idle_timeout = idle);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    session.echo(Input::Received(b"0123456789\n"), Time::ZERO, &mut outbox);
    session.next(Time::ZERO, &outbox);
    let now = Time::from_millis(100);
    assert!(!session.is_doubted());
    assert_eq!(session.expire(now, &outbox), Due::Resume);
    assert!(session.is_doubted(), "until it is seen to take something");
    assert_eq!(session.expire(now, &outbox), Due::Close);
    assert!(!session.is_doubted(), "it is given up");
    assert_eq!(session.next(now, &outbox), Next::Close(TIMED_OUT));
}

#[test]
fn a_stop_closes_the_idle_and_lingers_with_who_talks() {
    let settings = settings(Mode::Echo, |_| ());
    let mut outbox = Outbox::default();
    let mut idle = Session::new(&settings, Time::ZERO);
    idle.stop(false, &outbox);
    assert_eq!(idle.next(Time::ZERO, &outbox), Next::Close(SHUTTING_DOWN));

    let mut talking = Session::new(&settings, Time::ZERO);
    talking.stop(true, &outbox);
    assert_eq!(talking.next(Time::ZERO, &outbox), Next::Shut);

    let mut owed = Session::new(&settings, Time::ZERO);
    owed.echo(Input::Received(b"one\n"), Time::ZERO, &mut outbox);
    owed.stop(false, &outbox);
    assert_eq!(owed.next(Time::ZERO, &outbox), Next::Serve { read: false });
    outbox.advance(4);
    assert_eq!(owed.next(Time::ZERO, &outbox), Next::Shut);
    assert_eq!(owed.next(Time::ZERO, &outbox), Next::Serve { read: true });
    owed.stop(false, &outbox);
    assert_eq!(
        owed.next(Time::ZERO, &outbox),
        Next::Serve { read: true },
        "told twice, it lingers still"
    );
    // Its time began when the last byte had been written.
    assert_eq!(owed.echo(Input::Received(b"two\n"), Time::ZERO, &mut outbox), 0);
    assert_eq!(owed.deadline(&outbox), Time::ZERO + settings.limits.linger);
    owed.echo(Input::Received(&[]), Time::ZERO, &mut outbox);
    assert_eq!(owed.next(Time::ZERO, &outbox), Next::Close(SHUTTING_DOWN));
}

#[test]
fn a_peer_that_does_not_end_its_stream_is_closed_at_the_deadline() {
    let settings = settings(Mode::Echo, |_| ());
    let (mut session, outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    session.stop(true, &outbox);
    let end = Time::from_millis(60_000);
    assert_eq!(session.next(end, &outbox), Next::Shut);
    assert_eq!(session.expire(end, &outbox), Due::Later);
    assert_eq!(session.expire(end + settings.limits.linger, &outbox), Due::Close);
    assert_eq!(session.next(end, &outbox), Next::Close(TIMED_OUT));
}

#[test]
fn a_stop_answers_what_a_handler_waits_for() {
    let settings = settings(Mode::Echo, |settings| settings.wait = Duration::from_millis(5));
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    session.echo(Input::Received(b"one\n"), Time::ZERO, &mut outbox);
    session.stop(false, &outbox);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    session.echo(Input::Resume, Time::from_millis(5), &mut outbox);
    assert_eq!(content(&outbox), "one\n");
    outbox.advance(4);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Shut);
}

#[test]
fn a_closing_lets_the_peer_read_its_last_words() {
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    let mut outbox = Outbox::default();
    let last = Parcel::Close(Arc::from(&b"ERROR :bye\r\n"[..]));
    assert_eq!(session.post(last, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    outbox.advance(12);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Shut);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: true });
    assert_eq!(hear(&mut session, b"more\n", 0), [""; 0]);
    assert_eq!(session.expire(Time::from_millis(4999), &outbox), Due::Later);
    assert_eq!(hear_end(&mut session, 0), [""; 0]);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Close(CONNECTION_CLOSED));
}

#[test]
fn a_member_is_not_asked_for_lines_while_its_answers_wait() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 1600);
    let mut session = Session::new(&settings, Time::ZERO);
    let (mut outbox, mut listener) = (Outbox::default(), Listener::default());
    let answer = Parcel::Text(Arc::from(&[b'x'; 401][..]));
    assert_eq!(session.post(answer, Time::ZERO, &mut outbox), Ok(()));
    let input = Input::Received(b"LIST\nLIST\n");
    assert_eq!(session.chat(input, Time::ZERO, &outbox, ID, &mut listener), 0);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(
        session.deadline(&outbox),
        Time::ZERO + settings.limits.sendq_grace.min(settings.limits.registration_timeout)
    );

    // Below the low-water mark it is heard again.
    outbox.advance(301);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(session.expire(Time::ZERO, &outbox), Due::Resume);
    assert_eq!(session.chat(Input::Resume, Time::ZERO, &outbox, ID, &mut listener), 2);
    assert_eq!(listener.heard, ["LIST", "LIST"]);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: true });
}

#[test]
fn lines_that_are_work_are_handled_a_few_at_a_time() {
    let settings = settings(Mode::Echo, |settings| settings.step_lines = 2);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    assert_eq!(session.echo(Input::Received(b"1\n2\n3\n4"), Time::ZERO, &mut outbox), 2);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(session.expire(Time::ZERO, &outbox), Due::Resume);
    assert_eq!(session.echo(Input::Resume, Time::ZERO, &mut outbox), 1);
    assert_eq!(content(&outbox), "1\n2\n3\n");
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: true });
}

#[test]
fn a_wait_without_end_holds_lines_and_does_not_let_go() {
    let settings = settings(Mode::Echo, |settings| settings.wait = Duration::MAX);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    assert_eq!(session.echo(Input::Received(b"a\n"), Time::ZERO, &mut outbox), 0);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
    assert_eq!(session.echo(Input::Received(b"b\n"), Time::ZERO, &mut outbox), 0);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Serve { read: false });
}

#[test]
fn a_ration_without_end_does_not_overflow() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.flood_interval = Duration::MAX;
        settings.limits.flood_burst = u32::MAX;
    });
    let mut session = Session::new(&settings, Time::ZERO);
    assert_eq!(hear(&mut session, b"a\nb\n", 0), ["a", "b"]);
}

#[test]
fn echo_counts_lines_and_not_bytes() {
    let mut session = Session::new(&settings(Mode::Echo, |_| ()), Time::ZERO);
    let mut outbox = Outbox::default();
    assert_eq!(session.echo(Input::Received(b"one\ntwo\nthr"), Time::ZERO, &mut outbox), 2);
    assert_eq!(session.echo(Input::Received(b"ee\n"), Time::ZERO, &mut outbox), 1);
}

#[test]
fn a_stop_lingers_with_a_peer_in_the_midst_of_a_line() {
    let settings = settings(Mode::Echo, |_| ());
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    assert_eq!(session.echo(Input::Received(b"unfinished"), Time::ZERO, &mut outbox), 0);
    session.stop(false, &outbox);
    assert_eq!(session.next(Time::ZERO, &outbox), Next::Shut);
}

#[test]
fn a_member_is_heard_while_no_more_than_the_high_water_mark_waits() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 1600);
    let mut session = Session::new(&settings, Time::ZERO);
    let (mut outbox, mut listener) = (Outbox::default(), Listener::default());
    let answer = Parcel::Text(Arc::from(&[b'x'; 400][..]));
    assert_eq!(session.post(answer, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(outbox.len(), settings.limits.high_water());
    let input = Input::Received(b"LIST\n");
    assert_eq!(session.chat(input, Time::ZERO, &outbox, ID, &mut listener), 1);
}

#[test]
fn the_hub_hears_how_much_waits_for_the_member() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 4000);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    hub.open(ID, "host", Time::ZERO);
    let input = Input::Received(b"PING x\nPING y\n");
    assert_eq!(session.chat(input, Time::ZERO, &outbox, ID, &mut hub), 2);
    hub.take(0, &mut Vec::new());
    let answer = Parcel::Text(Arc::from(&[b'x'; 1000][..]));
    assert_eq!(session.post(answer, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(outbox.len(), settings.limits.high_water());
    assert_eq!(session.chat(input, Time::ZERO, &outbox, ID, &mut hub), 1, "with the answer to it");
}

#[test]
fn tags_have_a_limit_of_their_own() {
    let line = |len: usize| {
        let mut line = b"@a=".to_vec();
        line.resize(len - 1, b'x');
        line.push(b'\n');
        line
    };
    let most = Limits::CHAT_TAGS + Limits::CHAT_LINE;
    let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
    assert_eq!(hear(&mut session, &line(most), 0)[0].len(), most - 1);
    assert_eq!(hear(&mut session, &line(most + 1), 0), ["<too long>"]);
}

#[test]
fn room_does_not_let_go_of_what_the_ration_holds() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.flood_burst = 1;
        settings.limits.flood_interval = Duration::from_millis(100);
    });
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    assert_eq!(hear(&mut session, b"1\n2\n", 0), ["1"]);
    assert_eq!(session.post(Parcel::Resume, Time::ZERO, &mut outbox), Ok(()));
    assert_eq!(session.deadline(&outbox), Time::from_millis(100));
}

#[test]
fn no_deadline_counts_for_a_member_that_is_cut() {
    let settings = settings(Mode::Chat, |settings| settings.limits.flood_burst = 1);
    let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
    assert_eq!(hear(&mut session, b"1\n2\n", 0), ["1"], "the second waits for the ration");
    assert_ne!(session.deadline(&outbox), Time::NEVER);
    assert_eq!(session.post(Parcel::Overrun, Time::ZERO, &mut outbox), Err(Full));
    assert_eq!(session.deadline(&outbox), Time::NEVER);
}

#[test]
fn a_flood_that_has_ended_is_forgotten() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.flood_burst = 4;
        settings.limits.flood_interval = Duration::from_millis(100);
        settings.limits.flood_grace = Duration::from_millis(250);
    });
    let mut session = Session::new(&settings, Time::ZERO);
    assert_eq!(hear(&mut session, b"1\n2\n3\n4\n5\n", 0), ["1", "2", "3", "4"]);
    assert_eq!(hear(&mut session, b"", 100), ["5"]);
    // With this one, half of the burst is there.
    assert_eq!(hear(&mut session, b"6\n", 400), ["6"]);
    assert_eq!(hear(&mut session, b"7\n", 401), ["7"], "it is not cut for what was before");
}

#[test]
fn a_flood_is_not_cut_before_the_grace_time_is_over() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.flood_burst = 1;
        settings.limits.flood_interval = Duration::from_millis(100);
        settings.limits.flood_grace = Duration::from_millis(200);
    });
    let mut session = Session::new(&settings, Time::ZERO);
    assert_eq!(hear(&mut session, b"1\n2\n3\n4\n5\n", 0), ["1"]);
    for (at, heard) in [(100, "2"), (200, "3")] {
        assert_eq!(hear(&mut session, b"", at), [heard]);
    }
    assert_eq!(hear(&mut session, b"", 300), ["4", "<Excess Flood>"]);
}

#[test]
fn what_follows_an_oper_waits_as_long_as_any_answer_to_it() {
    for oper in ["OPER a b", "oper a b", "@label=1 OPER a b", ":x OPER", "O\0PER a b"] {
        let settings = settings(Mode::Chat, |_| {});
        let (mut session, outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
        let lines = format!("NICK a\r\n{oper}\r\nPING x\r\n");
        assert_eq!(hear(&mut session, lines.as_bytes(), 100), ["NICK a", oper]);
        let until = Time::from_millis(100) + Limits::OPER_DELAY;
        assert_eq!(session.deadline(&outbox), until, "after {oper:?}");
        assert_eq!(session.next(until, &outbox), Next::Serve { read: false });
        assert!(hear(&mut session, b"PING y\r\n", 1099).is_empty());
        assert_eq!(session.expire(until, &outbox), Due::Resume);
        // The first is none: it fetches the answer.
        assert_eq!(hear(&mut session, b"", 1100), ["", "PING x", "PING y"]);
    }
    let mut session = Session::new(&settings(Mode::Chat, |_| {}), Time::ZERO);
    for other in ["OPERA a b", "OPE R", "", " ", "NICK OPER", ":OPER", "PRIVMSG a :OPER"] {
        assert_eq!(hear(&mut session, format!("{other}\nPING x\n").as_bytes(), 0).len(), 2);
    }
}
