//! The page of two servers in a real browser: Chromium without a screen, driven by ChromeDriver.
//!
//! Where one of the two is missing, the test says so and passes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use book::side;
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

/// What happens in the page happens at once; a browser on a busy machine may still be slow.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn two_servers_and_a_moment_are_picked_and_their_lines_found() {
    let Some(driver) = Driver::start() else {
        eprintln!("skipped: there is no chromium and chromedriver");
        return;
    };
    let page = write_page();
    let browser = driver.browser().await;

    // Two servers and a moment, picked with the mouse.
    browser.goto(&format!("file://{}", page.display())).await.expect("the page");
    select(&browser, "left", "threads").await;
    select(&browser, "right", "tokio").await;
    click(&browser, "[data-moment=read]").await;
    let (left, right) = lines_found(&browser).await;
    assert_eq!(left, "let len = socket.read(&mut buffer)?;");
    assert_eq!(right, "let len = socket.read(&mut buffer).await?;");
    let marked = texts(&browser, ".row.here .right mark").await;
    assert_eq!(marked, [".await"], "the words that differ");

    // The same by the keyboard: the other form, another moment, swapped.
    press(&browser, "f").await;
    press(&browser, "1").await;
    let (left, right) = lines_found(&browser).await;
    assert!(left.contains("self.listener.accept()"), "{left}");
    assert!(right.starts_with("async fn accept("), "{right}");
    press(&browser, "s").await;
    let (left, _) = lines_found(&browser).await;
    assert!(left.starts_with("async fn accept("), "{left}");
    press(&browser, "n").await;
    let count = texts(&browser, "#count").await.concat();
    assert!(count.starts_with("difference 1 of "), "{count}");
    press(&browser, "p").await;
    let count = texts(&browser, "#count").await.concat();
    let words: Vec<&str> = count.split(' ').collect();
    assert_eq!(words[1], words[3], "before the first difference comes the last: {count}");

    browser.close().await.expect("the browser ends");
}

#[tokio::test]
async fn an_address_leads_to_the_moment_or_says_why_there_is_none() {
    let Some(driver) = Driver::start() else {
        eprintln!("skipped: there is no chromium and chromedriver");
        return;
    };
    let page = write_page();
    let browser = driver.browser().await;
    let address = side::address("epoll-level", "uring", "would-block").expect("an address");
    let part = address.strip_prefix(side::PAGE).expect("the page's name");
    browser.goto(&format!("file://{}{part}", page.display())).await.expect("the page");
    let here = texts(&browser, ".left.moment code").await;
    assert_eq!(here.len(), 1, "{here:?}");
    assert!(here[0].contains("WouldBlock"), "{here:?}");
    let notes = texts(&browser, "#notes").await.concat();
    assert!(notes.contains("would-block: There is no such answer."), "{notes}");
    // Nothing stands out of a narrow screen.
    browser.set_window_size(500, 800).await.expect("a narrow window");
    let wide = browser
        .execute("return document.documentElement.scrollWidth - innerWidth", Vec::new())
        .await
        .expect("a number");
    assert!(
        wide.as_i64().is_some_and(|wide| wide <= 0),
        "the page is {wide} wider than its window"
    );
    browser.close().await.expect("the browser ends");
}

fn write_page() -> PathBuf {
    let page = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(side::PAGE);
    fs::write(&page, side::page().expect("the page")).expect("the page is written");
    page
}

/// The lines of the moment, on the left and on the right.
async fn lines_found(browser: &Client) -> (String, String) {
    let line = async |side: &str| {
        let found = texts(browser, &format!(".{side}.moment code")).await;
        found.into_iter().next().unwrap_or_default()
    };
    (line("left").await, line("right").await)
}

async fn texts(browser: &Client, css: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for element in browser.find_all(Locator::Css(css)).await.expect("elements") {
        texts.push(element.text().await.expect("a text").trim().to_owned());
    }
    texts
}

async fn find(browser: &Client, css: &str) -> Element {
    browser.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await.expect("an element")
}

async fn click(browser: &Client, css: &str) {
    find(browser, css).await.click().await.expect("it can be clicked");
}

async fn select(browser: &Client, id: &str, value: &str) {
    let list = find(browser, &format!("#{id}")).await;
    list.select_by_value(value).await.expect("it has this value");
}

/// Presses a key on whatever has the focus, which a moment gives to its row.
async fn press(browser: &Client, key: &str) {
    let focused = browser.active_element().await.expect("something has the focus");
    focused.send_keys(key).await.expect("a key");
}

/// A ChromeDriver, which is ended when this goes.
struct Driver {
    child: Child,
    port: String,
}

impl Driver {
    fn start() -> Option<Driver> {
        let browser = Command::new("chromium").arg("--version").output();
        browser.ok().filter(|output| output.status.success())?;
        let mut child = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let output = BufReader::new(child.stdout.take()?);
        let said = output.lines().map_while(Result::ok);
        let port = said.filter_map(|line| {
            let (_, port) = line.rsplit_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let port = port.into_iter().next()?;
        Some(Driver { child, port })
    }

    async fn browser(&self) -> Client {
        let flags = [
            "--headless",
            // A container has no sandbox of its own for the browser to use.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1400,900",
        ];
        let mut wanted = serde_json::Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), json!({ "args": flags }));
        ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .expect("a browser")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
