//! The page of a record in a real browser: Chromium without a screen, driven by ChromeDriver.
//!
//! Where one of the two is missing, each test says so and passes. The test of accessibility wants
//! the file `axe.min.js` of the npm package `axe-core`, named by the variable `AXE_CORE`.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// A server that takes part at every point of the record.
const SERVER: &str = "tokio";
/// Of each picture what it is, and the servers that are marked in it.
const PICTURES: &str = "return [...document.querySelectorAll('.picture')].map((picture) => \
    [picture.ariaLabel || picture.className, \
     [...picture.querySelectorAll('.followed')].map((own) => own.dataset.server)])";

#[tokio::test]
async fn a_server_picked_once_is_followed_through_all_pictures() {
    let Some(driver) = Driver::start() else { return };
    let browser = driver.browser(1400).await;
    browser.goto(&page("follow")).await.unwrap();
    assert!(marked(&browser).await.iter().all(|(_, servers)| servers.is_empty()));

    // By the keyboard alone: to the list, and to the server by its name.
    press(&browser, "s").await;
    press(&browser, SERVER).await;
    let pictures = marked(&browser).await;
    assert!(pictures.len() > 30, "map, timeline, and five or more of each point: {pictures:?}");
    for (picture, servers) in &pictures {
        let only = servers.iter().all(|server| server == SERVER);
        assert!(only && !servers.is_empty(), "{picture}: {servers:?}");
    }
    let said = text(&browser, "#followed").await;
    assert!(said.starts_with("tokio, times the best: A 1.15, B 1.26="), "{said}");

    // On to the next, to none, and back from there to the last.
    press(&browser, "\u{e00c}").await;
    assert!(marked(&browser).await.iter().all(|(_, servers)| servers.is_empty()));
    let list = browser.find(Locator::Id("follow")).await.unwrap();
    browser.execute("document.activeElement.blur()", Vec::new()).await.unwrap();
    press(&browser, "p").await;
    let last = list.prop("value").await.unwrap().unwrap();
    press(&browser, "n").await;
    press(&browser, "n").await;
    let first = list.prop("value").await.unwrap().unwrap();
    assert_eq!([first.as_str(), last.as_str()], ["async-std", "uring"]);

    // By the mouse, at any name; and an address keeps who is followed.
    browser.find(Locator::Css(".strip[data-server=smol] .name")).await.unwrap();
    click(&browser, ".strip[data-server=smol] .name").await;
    browser.refresh().await.unwrap();
    let followed = marked(&browser).await;
    assert!(followed.iter().any(|(_, servers)| servers.contains(&"smol".to_owned())));
    browser.close().await.unwrap();
}

#[tokio::test]
async fn a_narrow_page_is_readable() {
    let Some(driver) = Driver::start() else { return };
    for width in [360, 800] {
        let browser = driver.browser(width).await;
        browser.goto(&page(&format!("narrow-{width}"))).await.unwrap();
        let shown = number(&browser, "return innerWidth").await;
        let wide = number(&browser, "return document.documentElement.scrollWidth").await;
        assert!(shown == width as f64 && wide <= shown, "{wide} of {shown} pixels");
        let smallest = "return Math.min(...[...document.querySelectorAll('svg text')]\
                        .map((text) => text.getBoundingClientRect().height))";
        let smallest = number(&browser, smallest).await;
        assert!(smallest >= 10.0, "text in a picture is {smallest} pixels high");
        // A table scrolls, and its first column stays.
        let column = "const box = [...document.querySelectorAll('.scroll')]\
                      .find((box) => box.scrollWidth > box.clientWidth + 50); \
                      box.scrollLeft = 50; \
                      return box.querySelector('tbody th').getBoundingClientRect().left - \
                      box.getBoundingClientRect().left";
        assert_eq!(number(&browser, column).await, 0.0);
        browser.close().await.unwrap();
    }
}

#[tokio::test]
async fn axe_has_no_serious_finding() {
    let Ok(axe) = std::env::var("AXE_CORE") else {
        eprintln!("skipped: AXE_CORE does not name the axe.min.js of axe-core");
        return;
    };
    let axe = std::fs::read_to_string(axe).unwrap();
    let Some(driver) = Driver::start() else { return };
    for width in [360, 1400] {
        let browser = driver.browser(width).await;
        browser.goto(&page(&format!("axe-{width}#server={SERVER}"))).await.unwrap();
        browser.execute(&format!("{axe}; return 0"), Vec::new()).await.unwrap();
        let run = "const done = arguments[0]; axe.run().then((found) => done(found.violations.map(\
                   (v) => [v.impact, v.id, v.nodes.slice(0, 3).map((n) => n.html)])))";
        let found = browser.execute_async(run, Vec::new()).await.unwrap();
        let serious = |found: &&Value| found[0] == "serious" || found[0] == "critical";
        let serious: Vec<&Value> = found.as_array().unwrap().iter().filter(serious).collect();
        assert!(serious.is_empty(), "{width} pixels: {serious:#?}");
        browser.close().await.unwrap();
    }
}

/// The address of a page of the newest full record, in a file of the test's own.
fn page(name: &str) -> String {
    let (file, part) = name.split_once('#').unwrap_or((name, ""));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{file}.html"));
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/record/2026-11-28-full");
    let made = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("report")
        .arg(record)
        .arg("--html")
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!("file://{}#{part}", path.display())
}

/// Each picture with the servers that are marked in it.
async fn marked(browser: &Client) -> Vec<(String, Vec<String>)> {
    serde_json::from_value(browser.execute(PICTURES, Vec::new()).await.unwrap()).unwrap()
}

async fn number(browser: &Client, script: &str) -> f64 {
    browser.execute(script, Vec::new()).await.unwrap().as_f64().unwrap()
}

async fn text(browser: &Client, css: &str) -> String {
    browser.find(Locator::Css(css)).await.unwrap().text().await.unwrap()
}

async fn click(browser: &Client, css: &str) {
    browser.find(Locator::Css(css)).await.unwrap().click().await.unwrap();
}

/// Presses keys on what has the focus.
async fn press(browser: &Client, keys: &str) {
    browser.active_element().await.unwrap().send_keys(keys).await.unwrap();
}

/// A ChromeDriver, which is ended when this goes.
struct Driver {
    child: Child,
    port: String,
}

impl Driver {
    /// `None`, with the reason printed, where there is no browser.
    fn start() -> Option<Self> {
        let started = Self::chromedriver();
        if started.is_none() {
            eprintln!("skipped: there is no chromium and chromedriver");
        }
        started
    }

    fn chromedriver() -> Option<Self> {
        let browser = Command::new("chromium").arg("--version").output();
        browser.ok().filter(|output| output.status.success())?;
        let mut child = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let output = BufReader::new(child.stdout.take()?);
        let port = output.lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.rsplit_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        Some(Self { child, port: port? })
    }

    /// A browser whose pages are so many pixels wide.
    async fn browser(&self, width: u32) -> Client {
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
        ];
        let metrics = json!({ "width": width, "height": 900, "pixelRatio": 1, "touch": false });
        let mut wanted = serde_json::Map::new();
        wanted.insert(
            "goog:chromeOptions".to_owned(),
            json!({ "args": flags, "mobileEmulation": { "deviceMetrics": metrics } }),
        );
        ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .unwrap()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
